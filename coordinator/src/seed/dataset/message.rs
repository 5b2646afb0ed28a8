//! A message as it is seeded, and the replies to it.

/// A top-level message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// As the room's history names it.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// A user.
    pub author: u32,
    /// Its content.
    pub text: String,
    /// Its replies, where it has some.
    pub thread: Option<Thread>,
}

/// The replies to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Of the thread.
    pub room_id: String,
    /// Oldest first, at least one.
    pub replies: Vec<Reply>,
}

/// A reply to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// As the room's history names it.
    pub id: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// A user.
    pub author: u32,
    /// Its content.
    pub text: String,
}

impl Thread {
    /// The newest reply.
    pub fn newest(&self) -> &Reply {
        self.replies.last().expect("a thread has a reply")
    }

    /// Who follows it: its message's author and all who replied, each once, in the order in which they came.
    pub fn followers(&self, author: u32) -> Vec<u32> {
        let mut followers = vec![author];
        for reply in &self.replies {
            if !followers.contains(&reply.author) {
                followers.push(reply.author);
            }
        }
        followers
    }
}
