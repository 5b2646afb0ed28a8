//! What a person does in a working day, and when: the actions with their budgets, the chain of being active and idle, and the
//! day's envelope.

/// Something that a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Writes a message to a room.
    Send,
    /// Replies in a thread.
    ThreadReply,
    /// Marks a room as read.
    MarkRead,
    /// Looks at all rooms.
    RefreshRoomList,
    /// Reads a page of a room's history.
    ScrollHistory,
    /// Adds somebody to a channel.
    MemberAdd,
    /// Makes a room with somebody in it.
    RoomCreate,
    /// Mutes a room, or no longer.
    MuteToggle,
}

/// The chain is looked at so often in a day: every second of a day of 180 s.
pub const TICKS_PER_DAY: f64 = 180.0;
/// Who is idle becomes active with this probability at a tick.
pub const BECOMES_ACTIVE: f64 = 0.05;
/// Who is active becomes idle with this probability at a tick.
pub const BECOMES_IDLE: f64 = 0.15;
/// The part of all people who are active at any time.
pub const ACTIVE_PART: f64 = BECOMES_ACTIVE / (BECOMES_ACTIVE + BECOMES_IDLE);
/// Where in the day the envelope is highest for the first time.
pub const FIRST_PEAK: f64 = 1.0 / 3.0;
/// The day whose budget that is.
pub const WORKING_DAY_HOURS: u64 = 8;

impl Action {
    /// Every action.
    pub const ALL: [Self; 8] = [
        Self::Send,
        Self::ThreadReply,
        Self::MarkRead,
        Self::RefreshRoomList,
        Self::ScrollHistory,
        Self::MemberAdd,
        Self::RoomCreate,
        Self::MuteToggle,
    ];

    /// As series and columns call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::ThreadReply => "thread_reply",
            Self::MarkRead => "mark_read",
            Self::RefreshRoomList => "refresh_room_list",
            Self::ScrollHistory => "scroll_history",
            Self::MemberAdd => "member_add",
            Self::RoomCreate => "room_create",
            Self::MuteToggle => "mute_toggle",
        }
    }

    /// How often a person does it in a day, in tenths. Of the 60 messages that a person writes, 30 in 100 are replies in
    /// threads.
    pub const fn tenths_per_day(self) -> u32 {
        match self {
            Self::Send => 420,
            Self::ThreadReply => 180,
            Self::MarkRead => 250,
            Self::RefreshRoomList => 50,
            Self::ScrollHistory => 30,
            Self::MemberAdd => 5,
            Self::RoomCreate => 2,
            Self::MuteToggle => 2,
        }
    }

    /// The action that a number below [`tenths_per_day`] stands for, so that each gets its part.
    pub fn of_tenth(mut tenth: u32) -> Self {
        for action in Self::ALL {
            match tenth.checked_sub(action.tenths_per_day()) {
                Some(rest) => tenth = rest,
                None => return action,
            }
        }
        Self::MuteToggle
    }
}

/// All actions of a person's day, in tenths.
pub fn tenths_per_day() -> u32 {
    Action::ALL.iter().map(|action| action.tenths_per_day()).sum()
}

/// How busy people are at a point of the day, 0 being its beginning and 1 its end: 1 at the peaks.
pub fn envelope(at: f64) -> f64 {
    let peak = |middle: f64| (-0.5 * ((at - middle) / 0.12).powi(2)).exp();
    0.4 + 0.6 * peak(FIRST_PEAK).max(peak(2.0 / 3.0))
}

/// The mean of the envelope over the day.
pub fn envelope_mean() -> f64 {
    // Simpson's rule; the envelope's one kink, at a half, lies on a border of the intervals.
    const INTERVALS: u32 = 1_000;
    let step = 1.0 / f64::from(INTERVALS);
    let weight = |i: u32| if i == 0 || i == INTERVALS { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
    (0..=INTERVALS).map(|i| weight(i) * envelope(f64::from(i) * step)).sum::<f64>() * step / 3.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_those_of_the_contract() {
        assert_eq!(tenths_per_day(), 939);
        let parts = |action: Action| (0..939).filter(|&tenth| Action::of_tenth(tenth) == action).count() as u32;
        assert!(Action::ALL.iter().all(|&action| parts(action) == action.tenths_per_day()));
        assert_eq!(Action::Send.tenths_per_day() + Action::ThreadReply.tenths_per_day(), 600);
        assert!((ACTIVE_PART - 0.25).abs() < 1e-12);
    }

    #[test]
    fn the_envelope_has_the_contracts_values() {
        for (at, value) in [(0.0, 0.413), (1.0, 0.413), (0.5, 0.629), (1.0 / 3.0, 1.0), (2.0 / 3.0, 1.0)] {
            assert!((envelope(at) - value).abs() < 0.001, "{at}: {}", envelope(at));
        }
        assert!((envelope_mean() - 0.730).abs() < 0.001, "{}", envelope_mean());
    }
}
