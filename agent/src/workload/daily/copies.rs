//! Copies of messages: whose each is, and what it means to whoever sent the message.

use plimsoll_common::contract::daily::behaviour::Action;
use plimsoll_common::contract::ids::Owner;
use plimsoll_common::contract::read::{broadcast_message_id, is_system_message};
use plimsoll_common::workload::daily::RECIPIENTS_REACHED;

use super::fan_out::{Came, Copied};
use super::users::Tag;
use super::{Daily, action, series};
use crate::core::exchange::CopyHeard;
use crate::core::ledger::{Ledger, Outcome};
use crate::core::nats_words::Heard;
use crate::workload::{Aside, Incoming};

/// A message that came to a room or to a user.
pub(super) enum Copy {
    /// Of a message that this worker sent.
    Mine(CopyHeard),
    /// Of another's, who has been told if it is a sibling; or an event of another kind, which answers nothing.
    Others,
    /// Of nobody's.
    Foreign,
}

impl Daily {
    /// Whose message this is a copy of. If it is a sibling's, the sibling is told.
    pub(super) fn copy_on(&mut self, line: u32, tag: Tag, heard: &Heard<'_>, heard_ns: u64) -> Copy {
        // Other events share these subjects.
        let Some(id) = broadcast_message_id(heard.payload) else { return Copy::Others };
        let owner = self.ids.owner_of_message(id);
        let (Owner::Mine(sequence) | Owner::Sibling { sequence, .. }) = owner else {
            // What services say of themselves, such as that somebody was added, is nobody's load.
            let is_ours = owner == Owner::OtherOwner || is_system_message(heard.payload);
            return if is_ours { Copy::Others } else { Copy::Foreign };
        };
        let (way, came_to) = match tag {
            Tag::User(user) => (user, 1),
            Tag::Room(room) => (line, self.users.in_room_on(line, room)),
            Tag::Responses(_) | Tag::Inbox(_) | Tag::Presence(_) => return Copy::Foreign,
        };
        let copy = CopyHeard { sequence, way, came_to, since: self.users.since(line), heard_ns };
        match owner {
            Owner::Sibling { worker, .. } if self.exchange.tell(worker, copy) => Copy::Others,
            Owner::Mine(_) => Copy::Mine(copy),
            Owner::Sibling { .. } | Owner::OtherOwner | Owner::Foreign => Copy::Foreign,
        }
    }

    /// A copy of a message of this worker, heard by one of its own users (by a subscription of this tag) or by a sibling's.
    pub(super) fn copy(&mut self, own: Option<Tag>, copy: &CopyHeard, ledger: &Ledger, aside: &mut Aside) -> Incoming {
        let sequence = copy.sequence;
        let answer = |series| Incoming::Answer { sequence, series, outcome: Outcome::Sample };
        let Some(choice) = ledger.choice_ever(sequence) else {
            // Of an earlier trial, or given up so long ago that it is forgotten: the book counts it as late.
            return answer(series::E2);
        };
        if action(choice) == Action::ThreadReply {
            // Whoever follows the thread has a copy; how many those are, only the service knows.
            let is_senders = own == Some(Tag::User(self.users.id(choice.actor)));
            return if is_senders { answer(series::THREAD_REPLY_E2) } else { Incoming::NotForUs };
        }
        let Some(Came { copied, reached }) = self.fan_outs.copy(copy) else { return Incoming::NotForUs };
        if copied == Copied::Uninvited {
            return Incoming::NotForUs;
        }
        if ledger.choice(sequence).is_none() {
            // Given up, or whole already: it is late, or comes twice, and nobody is reached by it any more.
            let first = matches!(copied, Copied::First | Copied::FirstAndLast);
            return answer(if first { series::E2 } else { series::E2_LAST });
        }
        if copied == Copied::Again {
            // Its first recipient has answered for it, so this is counted as a duplicate and changes nothing else.
            return answer(series::E2);
        }
        aside.observed.push((RECIPIENTS_REACHED, u64::from(reached)));
        match copied {
            Copied::First => answer(series::E2),
            Copied::FirstAndLast => {
                aside.also.push((sequence, series::E2_LAST, Outcome::Sample));
                answer(series::E2)
            }
            Copied::Last { at_ns } => {
                aside.now_ns = at_ns;
                answer(series::E2_LAST)
            }
            Copied::Between | Copied::Again | Copied::Uninvited => Incoming::Copy { sequence },
        }
    }
}
