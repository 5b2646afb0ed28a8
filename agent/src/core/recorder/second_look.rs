//! The second look at operations above a limit: whether they would be there without what held up the box.

use super::Recorder;

/// An operation above a limit, kept until what held up the block in which it ended is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspect {
    /// The series, or `None` for the operation as a whole, given up.
    series: Option<u32>,
    intended_block: u32,
    intended_wall: u32,
    ended_wall: u32,
    /// Where a connection broke: in which block.
    broke_wall: Option<u32>,
    latency_ns: u64,
    /// It has no sample: it was given up.
    given_up: bool,
}

impl Recorder {
    /// An operation between these instants is looked at again.
    pub(super) fn suspect(
        &mut self,
        series: Option<u32>,
        (intended_ns, now_ns): (u64, u64),
        latency_ns: u64,
        broke_ns: Option<u64>,
        given_up: bool,
    ) {
        let Some(intended_block) = self.block_of(intended_ns) else { return };
        let (intended_wall, ended_wall) = (self.wall_of(intended_ns), self.wall_of(now_ns));
        // Of the box before the trial nothing is known.
        let broke_wall = broke_ns.filter(|&broke_ns| broke_ns >= self.window.start_ns).map(|at_ns| self.wall_of(at_ns));
        self.suspects.push(Suspect {
            series,
            intended_block,
            intended_wall,
            ended_wall,
            broke_wall,
            latency_ns,
            given_up,
        });
    }

    pub(super) fn look_again(&mut self, number: u32) {
        let suspects = std::mem::take(&mut self.suspects);
        let (now, later): (Vec<Suspect>, Vec<Suspect>) =
            suspects.into_iter().partition(|suspect| suspect.ended_wall <= number);
        self.suspects = later;
        for suspect in now {
            let latency_ns = suspect.latency_ns.saturating_sub(self.stalled_around_ns(&suspect));
            let largest = self.largest_limit_ns;
            let block = suspect.intended_block;
            match suspect.series {
                None => self.touch(block).counters.failed_anyway += u64::from(latency_ns > largest),
                Some(series) => {
                    let limits_ns = std::mem::take(&mut self.limits_ns[series as usize]);
                    let counts = &mut self.touch(block).series[series as usize];
                    counts.failed_anyway += u64::from(suspect.given_up && latency_ns > largest);
                    let anyway = &mut counts.above_anyway;
                    for (anyway, &limit) in anyway.iter_mut().zip(&limits_ns) {
                        *anyway += u64::from(latency_ns > limit);
                    }
                    self.limits_ns[series as usize] = limits_ns;
                }
            }
        }
    }

    /// The stalls that may have made an operation late, or its connection break: those of its blocks and the one before, and of
    /// the block in which the connection broke and the one before. Between the two a connection that the target has broken is
    /// gone, whatever the box does.
    fn stalled_around_ns(&self, suspect: &Suspect) -> u64 {
        let (first, ended) = (suspect.intended_wall.saturating_sub(1), suspect.ended_wall);
        let Some(broke) = suspect.broke_wall else { return self.stalled_ns(first, ended) };
        let before = broke.saturating_sub(1);
        if broke + 1 >= first {
            return self.stalled_ns(before.min(first), ended);
        }
        let forgotten = (broke as usize) < self.closed as usize - self.stalls_ns.len();
        let around = if forgotten { 0 } else { self.stalled_ns(before, broke) };
        around + self.stalled_ns(first, ended)
    }
}
