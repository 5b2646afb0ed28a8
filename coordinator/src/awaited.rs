//! What is being waited for, for whoever's patience ends first.

use std::sync::{Mutex, PoisonError};

/// Those that have been asked and have not answered yet, in the order in which they were asked.
#[derive(Debug, Default)]
pub struct Awaited(Mutex<Vec<String>>);

impl Awaited {
    /// Waits for somebody's answer: while it lasts, and if it never ends, they are among those awaited.
    pub async fn from<T>(&self, whom: impl Into<String>, answer: impl Future<Output = T>) -> T {
        let whom = whom.into();
        self.with(|all| all.push(whom.clone()));
        let answer = answer.await;
        self.with(|all| {
            if let Some(at) = all.iter().position(|one| *one == whom) {
                all.remove(at);
            }
        });
        answer
    }

    /// `MongoDB at 127.0.0.1:27017 and the services`
    pub fn words(&self) -> String {
        self.with(|all| all.join(" and "))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Vec<String>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn who_never_answered_is_named_and_nobody_else() {
        let awaited = Awaited::default();
        let all = async {
            awaited.from("first", ready(())).await;
            tokio::join!(
                awaited.from("second", pending::<()>()),
                awaited.from("third", ready(())),
                awaited.from("fourth", pending::<()>())
            )
        };
        assert!(timeout(Duration::ZERO, all).await.is_err());
        assert_eq!(awaited.words(), "second and fourth");
    }
}
