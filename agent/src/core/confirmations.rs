//! What the server has taken of messages that nobody answers. Behind each burst of them the worker sends a message to itself;
//! when it is back, the server has handled all that came before it on that connection. The client takes messages into a
//! queue also while nobody is there to read them, so its taking them says nothing.

use std::collections::VecDeque;

/// Operations that wait for their burst's message to come back, in the order in which the client took them.
#[derive(Debug, Default)]
pub struct Confirmations {
    /// Sequences, each with the series that is owed the sample.
    operations: VecDeque<(u64, u32)>,
    bursts: VecDeque<Burst>,
    /// The burst that is being gathered.
    operations_gathered: usize,
    connection: u64,
    last_number: u64,
}

#[derive(Debug)]
struct Burst {
    number: u64,
    operations: usize,
    /// How many connections there had been when its first message was taken.
    connection: u64,
}

impl Confirmations {
    /// The client has taken an operation's message. `connection` counts the connections that there have been.
    pub fn gather(&mut self, sequence: u64, series: u32, connection: u64) {
        if self.operations_gathered == 0 {
            self.connection = connection;
        }
        self.operations.push_back((sequence, series));
        self.operations_gathered += 1;
    }

    /// Ends the burst that was being gathered. The number of the message to send behind it; `None`: there is no burst.
    pub fn close_burst(&mut self) -> Option<u64> {
        let operations = std::mem::take(&mut self.operations_gathered);
        if operations == 0 {
            return None;
        }
        self.last_number += 1;
        self.bursts.push_back(Burst { number: self.last_number, operations, connection: self.connection });
        Some(self.last_number)
    }

    /// The message with this number is back: hands out its burst's operations. Not if the connection was another when it began,
    /// since what was under way may have died with that one; nor those of earlier bursts, whose messages did not come back.
    pub fn came_back(&mut self, number: u64, connection: u64, mut confirmed: impl FnMut(u64, u32)) {
        while self.bursts.front().is_some_and(|burst| burst.number <= number) {
            let Some(burst) = self.bursts.pop_front() else { return };
            let is_confirmed = burst.number == number && burst.connection == connection;
            for (sequence, series) in self.operations.drain(..burst.operations) {
                if is_confirmed {
                    confirmed(sequence, series);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirmed(confirmations: &mut Confirmations, number: u64, connection: u64) -> Vec<u64> {
        let mut found = Vec::new();
        confirmations.came_back(number, connection, |sequence, series| {
            assert_eq!(series, 3);
            found.push(sequence);
        });
        found
    }

    /// Two bursts of two, taken on the first connection.
    fn two_bursts() -> Confirmations {
        let mut confirmations = Confirmations::default();
        assert_eq!(confirmations.close_burst(), None);
        for (number, sequences) in [(1, [10, 11]), (2, [12, 13])] {
            sequences.iter().for_each(|&sequence| confirmations.gather(sequence, 3, 1));
            assert_eq!(confirmations.close_burst(), Some(number));
        }
        confirmations
    }

    #[test]
    fn a_burst_is_confirmed_once_by_its_own_message() {
        let mut confirmations = two_bursts();
        confirmations.gather(14, 3, 1);
        assert_eq!(confirmed(&mut confirmations, 1, 1), [10, 11]);
        assert_eq!(confirmed(&mut confirmations, 1, 1), [0; 0]);
        assert_eq!(confirmed(&mut confirmations, 2, 1), [12, 13]);
        assert_eq!(confirmed(&mut confirmations, 9, 1), [0; 0], "what is not behind a message yet is not confirmed");
        assert_eq!(confirmations.close_burst(), Some(3));
        assert_eq!(confirmed(&mut confirmations, 3, 1), [14]);
    }

    #[test]
    fn a_burst_whose_own_message_is_lost_is_not_confirmed_by_a_later_one() {
        assert_eq!(confirmed(&mut two_bursts(), 2, 1), [12, 13]);
    }

    #[test]
    fn a_burst_that_outlives_its_connection_is_not_confirmed() {
        assert_eq!(confirmed(&mut two_bursts(), 1, 2), [0; 0]);
        // One that began on the old connection and ended on the new one may have lost its beginning.
        let mut confirmations = Confirmations::default();
        confirmations.gather(10, 3, 1);
        confirmations.gather(11, 3, 2);
        confirmations.close_burst();
        assert_eq!(confirmed(&mut confirmations, 1, 2), [0; 0]);
        confirmations.gather(12, 3, 2);
        confirmations.close_burst();
        assert_eq!(confirmed(&mut confirmations, 2, 2), [12]);
    }
}
