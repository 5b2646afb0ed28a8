//! What agents do with what they hear, and the laws that are checked whenever one makes load.

use super::*;

impl World {
    pub(super) fn agent(&mut self, agent: usize) {
        let now = self.now;
        if !self.agents[agent].host.works(now) {
            return;
        }
        for coordinator in [RUN, RIVAL] {
            while let Some(message) = self.paths[coordinator][agent][0].receive(now) {
                self.hear(agent, coordinator, message);
            }
        }
        let Some(session) = &mut self.agents[agent].session else { return };
        if now >= session.next_ping {
            if !session.lease.holds(ns(now)) {
                self.seen.leases_timed_out += 1;
                return self.lose_session(agent);
            }
            session.pings.sent(ns(now));
            session.next_ping = now + session.pings.interval().as_millis() as u64;
            let (coordinator, stream) = (session.coordinator, session.stream);
            self.send(coordinator, agent, false, stream, Word::Ping { sent: now });
        }
        self.pace(agent);
    }

    pub(super) fn hear(&mut self, agent: usize, coordinator: usize, Message { stream, word }: Message) {
        let now = self.now;
        if let Word::Claim = word {
            if self.agents[agent].session.is_some() && self.flaw != Some(Flaw::TwoAtOnce) {
                return self.send(coordinator, agent, false, stream, Word::Denied);
            }
            let session = Session {
                coordinator,
                stream,
                lease: Lease::until(ns(now + LEASE)),
                pings: Pings::new(milliseconds(LEASE)),
                next_ping: now,
                step: None,
                may_send_until: now + LEASE,
            };
            self.agents[agent].leases.push((stream, session.lease.clone()));
            self.agents[agent].session = Some(session);
            return self.send(coordinator, agent, false, stream, Word::Hello);
        }
        let Some(session) = self.agents[agent].session.as_mut().filter(|session| session.stream == stream) else {
            return;
        };
        match word {
            Word::Echo { ping_sent } => {
                let end = match self.flaw {
                    Some(Flaw::LeaseFromReceipt) => Some(ns(now + LEASE)),
                    _ => session.pings.echoed(ns(ping_sent)),
                };
                let holds = session.lease.holds(ns(now)) && end.is_some_and(|end| session.lease.extend(ns(now), end));
                session.may_send_until = session.may_send_until.max(ping_sent + LEASE);
                if !holds {
                    self.lose_session(agent);
                }
            }
            // An instant that is past is refused, which spoils the trial as a loss does.
            Word::Start { start, .. } if start <= now => self.lose_session(agent),
            Word::Start { trial, start, share } => {
                let due = share.due_in(milliseconds(HOLD));
                session.step = Some(Step { trial, start, due, released: 0, next_due: 0 });
            }
            Word::Stop => {
                if let Some(Step { trial, released, due, .. }) = session.step.take() {
                    let word = Word::Totals { trial, released, due, end: StepEnd::Stopped };
                    self.send(coordinator, agent, false, stream, word);
                }
            }
            Word::Over => self.lose_session(agent),
            other => panic!("an agent is told {other:?}"),
        }
    }

    /// Releases what is due, if the lease holds: as the pacer does, which looks before every release.
    pub(super) fn pace(&mut self, agent: usize) {
        let now = self.now;
        let Some(session) = &mut self.agents[agent].session else { return };
        let Some(step) = &mut session.step else { return };
        if now < step.start {
            return;
        }
        if !session.lease.holds(ns(now)) {
            return;
        }
        let hold_start = step.start + WARMUP;
        let (trial, coordinator, stream) = (step.trial, session.coordinator, session.stream);
        // Operations of the hold are spread evenly; one that is over 100 ms late is left out.
        while step.next_due < step.due {
            let due_at = hold_start + step.next_due * HOLD / step.due;
            if due_at > now {
                break;
            }
            step.next_due += 1;
            step.released += u64::from(now - due_at <= 100);
        }
        let may_send_until = session.may_send_until;
        let over = now >= hold_start + HOLD;
        let (released, due) = (step.released, step.due);
        if over {
            session.step = None;
        }
        self.check_load(agent, coordinator, stream, trial, may_send_until);
        if over {
            self.send(coordinator, agent, false, stream, Word::Totals { trial, released, due, end: StepEnd::Finished });
        }
    }

    /// An agent makes load now.
    pub(super) fn check_load(
        &mut self,
        agent: usize,
        coordinator: usize,
        stream: u64,
        trial: TrialId,
        may_send_until: u64,
    ) {
        let now = self.now;
        self.check(now < may_send_until, || format!("agent {agent} makes load without a lease since {may_send_until}"));
        let leases = &mut self.agents[agent].leases;
        leases.retain(|(_, lease)| lease.holds(ns(now)));
        let others = leases.iter().filter(|(other, _)| *other != stream).count();
        self.check(others == 0, || format!("agent {agent} works for two coordinators"));
        if coordinator == RIVAL {
            return;
        }
        // The coordinator's own view: what it has echoed last bounds what may still be sent.
        let member = self.run.members.iter().find(|member| member.stream == stream);
        let outlives = member.is_some_and(|member| now >= member.echoed + LEASE);
        self.check(!outlives, || format!("agent {agent} outlives its echoes"));
        let order = |trial: TrialId| (trial.step, trial.trial);
        if let Some(newest) = self.newest_load.filter(|newest| order(*newest) > order(trial)) {
            self.check(false, || format!("trial {trial:?} makes load beside {newest:?}"));
        }
        self.newest_load = Some(trial);
    }

    pub(super) fn lose_session(&mut self, agent: usize) {
        let Some(session) = self.agents[agent].session.take() else { return };
        session.lease.end();
        if self.flaw == Some(Flaw::Flattery)
            && let Some(&Step { trial, due, .. }) = session.step.as_ref()
        {
            let word = Word::Totals { trial, released: due, due, end: StepEnd::Finished };
            self.send(session.coordinator, agent, false, session.stream, word);
        }
        self.send(session.coordinator, agent, false, session.stream, Word::Over);
        if session.coordinator == RUN
            && let Some(position) = self.run.members.iter().position(|member| member.stream == session.stream)
            && session.step.is_some()
        {
            self.truly_lost.push(position);
        }
    }
}
