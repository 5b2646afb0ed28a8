//! The coordinator whose run it is, and its rival.

use super::*;

impl World {
    pub(super) fn coordinate(&mut self) {
        let now = self.now;
        if !self.run.host.works(now) || matches!(self.run.doing, Doing::Over) {
            return;
        }
        for agent in 0..self.agents.len() {
            while let Some(message) = self.paths[RUN][agent][1].receive(now) {
                self.take(agent, message);
            }
        }
        for position in 0..self.run.members.len() {
            if self.run.members[position].gone.is_none() && now > self.run.members[position].heard + LEASE {
                self.gone(position, "silent");
            }
        }
        match std::mem::replace(&mut self.run.doing, Doing::Over) {
            Doing::Joining { since, asked } => self.join(since, asked),
            Doing::Waiting => self.wait(),
            Doing::Holding(trial) => self.follow(trial),
            Doing::Over => {}
        }
    }

    pub(super) fn take(&mut self, agent: usize, Message { stream, word }: Message) {
        let now = self.now;
        if let Doing::Joining { asked, .. } = &mut self.run.doing
            && let Some(place) = asked.iter().position(|ask| *ask == (agent, stream))
        {
            asked.remove(place);
            match word {
                Word::Hello => {
                    let index = self.run.roster.next_index().expect("few agents");
                    self.seen.rejoined += u64::from(!self.run.ramp.trials().is_empty());
                    self.run.roster.joined(format!("box-{agent}"));
                    let member = Member { index, agent, stream, heard: now, echoed: now, gone: None };
                    self.run.members.push(member);
                }
                Word::Denied => self.seen.denied += 1,
                _ => {}
            }
            return;
        }
        let Some(position) = self.run.members.iter().position(|member| member.stream == stream) else {
            // One that answered too late is let go.
            if matches!(word, Word::Hello) {
                self.send(RUN, agent, true, stream, Word::Over);
            }
            return;
        };
        if self.run.members[position].gone.is_some() {
            return;
        }
        self.run.members[position].heard = now;
        match word {
            Word::Ping { sent } => {
                self.run.members[position].echoed = now;
                self.send(RUN, agent, true, stream, Word::Echo { ping_sent: sent });
            }
            Word::Totals { trial, released, due, end } => {
                if let Doing::Holding(held) = &mut self.run.doing
                    && held.next.trial == trial
                {
                    report(&mut held.merge, position, trial, released, due, end);
                    held.ended[position] = true;
                }
            }
            Word::Over => self.gone(position, "its connection broke"),
            other => panic!("a coordinator is told {other:?}"),
        }
    }

    pub(super) fn gone(&mut self, position: usize, why: &str) {
        let now = self.now;
        let member = &mut self.run.members[position];
        member.gone = Some(why.to_owned());
        // A stream that is given up is closed, and the agent hears of it if it can.
        let (agent, stream) = (member.agent, member.stream);
        self.send(RUN, agent, true, stream, Word::Over);
        if let Doing::Holding(trial) = &mut self.run.doing
            && self.flaw != Some(Flaw::LossForgotten)
        {
            trial.merge.agent_lost(position, milliseconds(now), why.to_owned());
            trial.ended[position] = true;
        }
    }

    pub(super) fn join(&mut self, since: u64, asked: Vec<(usize, u64)>) {
        if !asked.is_empty() && self.now < since + JOIN_LIMIT {
            self.run.doing = Doing::Joining { since, asked };
            return;
        }
        if self.run.members.is_empty() && self.run.ramp.trials().is_empty() {
            // Nobody came: no run.
            return;
        }
        self.run.doing = Doing::Waiting;
    }

    pub(super) fn wait(&mut self) {
        if self.run.members.iter().any(|member| member.gone.is_some()) {
            return self.go_on();
        }
        if self.now < self.run.silent_at && self.flaw != Some(Flaw::NoPatience) {
            self.run.doing = Doing::Waiting;
            return;
        }
        let Some(next) = self.run.ramp.next_trial() else { return self.release() };
        self.start(next);
    }

    pub(super) fn start(&mut self, next: NextTrial) {
        let count = self.run.members.len() as u64;
        let share = Rate::from_milli(next.level.milli() / count).expect("a share");
        let start = self.now + LEAD;
        let part = |member: &Member| AgentPart {
            agent: format!("box-{}", member.agent),
            share,
            clock: None,
            due: None,
            server: None,
        };
        let plan = TrialPlan {
            trial: next.trial,
            target: next.level,
            warmup: milliseconds(WARMUP),
            hold: milliseconds(HOLD),
            start_boottime_ns: ns(start),
            limits: slo().limits(),
            observations: Vec::new(),
            max_lateness: Duration::from_millis(100),
            minutes: None,
            agents: self.run.members.iter().map(part).collect(),
        };
        self.truly_lost.clear();
        for position in 0..self.run.members.len() {
            let Member { agent, stream, .. } = self.run.members[position];
            self.send(RUN, agent, true, stream, Word::Start { trial: next.trial, start, share });
        }
        self.run.doing = Doing::Holding(Box::new(Trial {
            next,
            merge: TrialMerge::new(plan),
            ended: vec![false; self.run.members.len()],
            deadline: start + WARMUP + HOLD + LEASE,
            stopped: false,
        }));
    }

    pub(super) fn follow(&mut self, mut trial: Box<Trial>) {
        let late: Vec<usize> =
            (0..trial.ended.len()).filter(|&position| self.now >= trial.deadline && !trial.ended[position]).collect();
        let late = if self.flaw == Some(Flaw::NoDeadline) { Vec::new() } else { late };
        self.run.doing = Doing::Holding(trial);
        late.into_iter().for_each(|position| self.gone(position, "its totals did not come in time"));
        let Doing::Holding(held) = std::mem::replace(&mut self.run.doing, Doing::Over) else { return };
        trial = held;
        let lost = self.run.members.iter().any(|member| member.gone.is_some());
        if lost && !trial.stopped {
            trial.stopped = true;
            trial.deadline = trial.deadline.min(self.now + STOP_LIMIT);
            for position in (0..trial.ended.len()).filter(|&position| !trial.ended[position]) {
                let Member { agent, stream, .. } = self.run.members[position];
                self.send(RUN, agent, true, stream, Word::Stop);
            }
        }
        if !trial.merge.is_complete() {
            self.run.doing = Doing::Holding(trial);
            return;
        }
        self.judge(*trial);
    }

    pub(super) fn judge(&mut self, trial: Trial) {
        let verdict = judge(&trial.merge.finish(&ServiceReads::default()), &slo());
        if verdict == Verdict::Pass {
            let lost = std::mem::take(&mut self.truly_lost);
            self.check(lost.is_empty(), || format!("PASS for {:?}, in which {lost:?} were lost", trial.next));
            self.seen.passed += 1;
            self.seen.passed_after_loss += u64::from(trial.next.trial.trial > 0);
        }
        self.run.ramp.record(verdict);
        self.run.roster.held();
        self.go_on();
    }

    /// Between two trials: takes out who was lost, and asks who is missing to join.
    pub(super) fn go_on(&mut self) {
        let (gone, there) = std::mem::take(&mut self.run.members).into_iter().partition(|member| member.gone.is_some());
        self.run.members = there;
        let gone: Vec<Member> = gone;
        for member in gone {
            self.seen.lost += 1;
            self.run.silent_at = self.run.silent_at.max(member.echoed + LEASE);
            self.run.roster.lose(member.index, member.gone.unwrap_or_default());
        }
        if let Next::End { .. } = self.run.roster.decide() {
            self.seen.ended_by_loss += 1;
            return self.release();
        }
        let Some(next) = self.run.ramp.next_trial() else { return self.release() };
        self.run.doing = Doing::Waiting;
        if self.run.roster.may_join(Occasion::before(next.trial)) {
            let absent: Vec<usize> =
                (0..self.agents.len()).filter(|agent| self.run.roster.wants(&format!("box-{agent}"))).collect();
            if !absent.is_empty() {
                let asked = absent.into_iter().map(|agent| (agent, self.claim(RUN, agent))).collect();
                self.run.doing = Doing::Joining { since: self.now, asked };
            }
        }
    }

    pub(super) fn release(&mut self) {
        for member in std::mem::take(&mut self.run.members) {
            self.send(RUN, member.agent, true, member.stream, Word::Over);
        }
        self.run.doing = Doing::Over;
    }

    pub(super) fn rival(&mut self) {
        let now = self.now;
        if !self.rival.host.works(now) {
            return;
        }
        for agent in 0..self.agents.len() {
            while let Some(Message { stream, word }) = self.paths[RIVAL][agent][1].receive(now) {
                let ours = self.rival.held.filter(|held| (held.0, held.1) == (agent, stream));
                match word {
                    Word::Hello if ours.is_some() => {
                        self.seen.rivals += 1;
                        let trial = TrialId { step: 99, trial: 0 };
                        let share = Rate::from_milli(100_000).expect("a rate");
                        self.send(RIVAL, agent, true, stream, Word::Start { trial, start: now + LEAD, share });
                    }
                    Word::Ping { sent } if ours.is_some() => {
                        self.send(RIVAL, agent, true, stream, Word::Echo { ping_sent: sent });
                    }
                    Word::Denied => {
                        self.seen.denied += 1;
                        self.rival.held = None;
                    }
                    Word::Over | Word::Totals { .. } if ours.is_some() => {
                        self.send(RIVAL, agent, true, stream, Word::Over);
                        self.rival.held = None;
                    }
                    // Of a stream that it has forgotten: it says nothing, and the lease has to run out.
                    _ => {}
                }
            }
        }
        match self.rival.held {
            Some((_, _, until)) if now >= until => self.rival.held = None,
            Some(_) => {}
            None if now < FAULTS_UNTIL && self.chance.random_bool(0.01) => {
                let agent = self.chance.random_range(0..self.agents.len());
                let until = now + self.chance.random_range(10..=300_u64) * TICK;
                self.rival.held = Some((agent, self.claim(RIVAL, agent), until));
            }
            None => {}
        }
    }
}

/// What an agent sends of a trial in which it released so many of what was due.
fn report(merge: &mut TrialMerge, position: usize, trial: TrialId, released: u64, due: u64, end: StepEnd) {
    let limits = slo().limits();
    let counters = Counters {
        due,
        attempted: released,
        sent: released,
        completed: released,
        underrun: due - released,
        ..Counters::default()
    };
    let mut latency = LatencyHistogram::new();
    (0..released).for_each(|_| latency.record(1_000));
    let series = |zero: usize| SeriesCounts { n: released, ..SeriesCounts::zero(zero) };
    let series: Vec<SeriesCounts> = limits.iter().map(|limits| series(limits.limits_us.len())).collect();
    let snapshot = Snapshot {
        trial,
        number: 0,
        blocks: vec![BlockDelta { block: 0, counters, series: series.clone() }],
        series: vec![SeriesHistograms { service_time: latency.clone(), latency }; limits.len()],
        overdue: limits.iter().map(|limits| vec![0; limits.limits_us.len()]).collect(),
        strays: Strays::default(),
        warmup: Counters::default(),
        health: Health::default(),
        open_time_us: 0,
        observed: Vec::new(),
    };
    let totals = StepTotals {
        trial,
        snapshots: 1,
        counters,
        samples: vec![released; limits.len()],
        series,
        strays: Strays::default(),
        warmup: Counters::default(),
        started_boottime_ns: 1,
        end,
        observed: Vec::new(),
    };
    merge.add_snapshot(position, &snapshot);
    merge.add_totals(position, totals);
}
