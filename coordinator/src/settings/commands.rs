//! The commands whose settings come from the table: what each is for, and which settings it takes.

use LoadCommand::{Daily, MaxRps, Run, Seed, Teardown, Verify};

use super::table::{SETTINGS, STORAGE, Setting};
use crate::seed::spec::SEEDED;

/// A command whose settings come from the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadCommand {
    /// `max-rps`.
    MaxRps,
    /// `run`.
    Run,
    /// `daily`.
    Daily,
    /// `verify`.
    Verify,
    /// `seed`.
    Seed,
    /// `teardown`.
    Teardown,
}

/// The workload whose levels are users.
pub const DAILY: &str = "daily";

/// Settings that not every command takes, with those that do.
const ONLY: &[(&str, &[LoadCommand])] = &[
    ("steps", &[MaxRps, Verify, Daily]),
    ("hold", &[MaxRps, Verify, Daily]),
    ("find", &[MaxRps, Verify, Daily]),
    ("from", &[MaxRps, Verify, Daily]),
    ("precision", &[MaxRps, Verify, Daily]),
    ("confidence", &[MaxRps, Verify, Daily]),
    ("max-time", &[MaxRps, Verify, Daily]),
    ("drain-limit", &[MaxRps, Verify, Daily]),
    ("frontier", &[MaxRps, Verify, Daily]),
    ("explain", &[MaxRps, Verify, Daily]),
    ("skip-self-check", &[MaxRps, Verify, Daily]),
    ("cooldown", &[MaxRps, Verify, Daily]),
    ("no-stop-on-trip", &[MaxRps, Verify, Daily]),
    ("trials", &[MaxRps, Verify, Daily]),
    ("on-agent-loss", &[MaxRps, Verify, Daily]),
    ("min-agents", &[MaxRps, Verify, Daily]),
    ("rate", &[Run]),
    ("duration", &[Run]),
    ("read-ratio", &[Seed]),
    ("shard", &[Seed]),
    ("anchor", &[Seed]),
    ("writes-in-flight", &[Seed]),
    ("create-schema", &[Seed]),
    ("drop", &[Teardown]),
    ("yes", &[Teardown]),
    ("arrivals", &[MaxRps, Run, Verify]),
];

/// All that seeding takes beside what only it takes.
const OF_SEED: &[&str] = &["workload", "preset", "users", "site-id", "parents-per-room", "seed", "plan", "dry-run"];
/// All that removing takes beside what only it takes.
const OF_TEARDOWN: &[&str] = &["workload", "site-id", "plan", "dry-run"];

impl LoadCommand {
    /// All of them, in the order of the help.
    pub const ALL: [Self; 6] = [Self::MaxRps, Self::Run, Self::Daily, Self::Seed, Self::Verify, Self::Teardown];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxRps => "max-rps",
            Self::Run => "run",
            Self::Daily => "daily",
            Self::Verify => "verify",
            Self::Seed => "seed",
            Self::Teardown => "teardown",
        }
    }

    /// The command of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// What it does, for the help.
    pub fn about(self) -> &'static str {
        match self {
            Self::MaxRps => {
                "Ramps up a request rate over a fleet of agents and prints the highest that meets every objective"
            }
            Self::Run => "Holds one request rate for a given time and judges it by the objectives",
            Self::Daily => {
                "Ramps up the number of chat users going through their working day and prints the highest that meets every objective"
            }
            Self::Verify => {
                "Checks, without load, that the target's databases and NATS have what a run with these settings needs"
            }
            Self::Seed => "Writes users, rooms, keys, memberships and messages of a preset into the chat's databases",
            Self::Teardown => "Removes from the chat's databases what was seeded for a site",
        }
    }

    /// The workload of a command that drives only one.
    pub fn workload(self) -> Option<&'static str> {
        match self {
            Self::Daily => Some(DAILY),
            Self::MaxRps | Self::Run | Self::Seed | Self::Verify | Self::Teardown => None,
        }
    }

    /// Whether it drives this workload.
    pub fn drives(self, workload: &str) -> bool {
        match self {
            Self::Daily => workload == DAILY,
            Self::MaxRps | Self::Run => workload != DAILY,
            Self::Verify => true,
            Self::Seed | Self::Teardown => SEEDED.contains(&workload),
        }
    }

    /// Whether it takes this setting.
    pub fn takes(self, setting: &Setting) -> bool {
        // What only some workloads take goes with a command that drives one of them.
        if !setting.workloads.is_empty() && !setting.workloads.iter().any(|name| self.drives(name)) {
            return false;
        }
        if self.workload().is_some() && setting.name == "workload" {
            return false;
        }
        if let Some((_, commands)) = ONLY.iter().find(|(name, _)| *name == setting.name) {
            return commands.contains(&self);
        }
        let own = match self {
            Self::MaxRps | Self::Run | Self::Verify | Self::Daily => return true,
            Self::Seed => OF_SEED,
            Self::Teardown => OF_TEARDOWN,
        };
        setting.heading == STORAGE || own.contains(&setting.name)
    }

    /// The settings that it takes, in the table's order.
    pub fn settings(self) -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(move |setting| self.takes(setting))
    }

    /// What its help ends with: each example is one that works.
    pub fn examples(self) -> &'static [&'static str] {
        match self {
            Self::MaxRps => &[
                "plimsoll max-rps --preset medium",
                "plimsoll max-rps --preset medium --agents box-1:7700,box-2:7700 --nats-url nats://chat:4222",
                "plimsoll max-rps --preset realistic --steps 200,400,800 --slo E2:p99=400ms --csv steps.csv",
                "plimsoll max-rps --preset medium --find --precision 5% --explain",
                "plimsoll max-rps --plan nightly.toml --dry-run",
            ],
            Self::Run => &[
                "plimsoll run --preset medium --rate 500 --duration 10m",
                "plimsoll run --preset medium --rate 2k --duration 24h --agents box-1:7700,box-2:7700",
            ],
            Self::Daily => &[
                "plimsoll daily --preset daily-heavy",
                "plimsoll daily --preset daily-light --users 50k --steps 10k,20k,50k --agents box-1:7700,box-2:7700",
                "plimsoll daily --preset daily-power --slo mark_read:p95=80ms --slo E2_last:p99=2s --csv steps.csv",
                "plimsoll daily --preset daily-heavy --users 20k --find --precision 5%",
            ],
            Self::Verify => &[
                "plimsoll verify --preset medium --mongo-uri mongodb://chat-db:27017 --nats-url nats://chat:4222",
                "plimsoll verify --plan nightly.toml",
            ],
            Self::Seed => &[
                "plimsoll seed --preset medium --mongo-uri mongodb://chat-db:27017",
                "plimsoll seed --workload history --preset history-medium --plan databases.toml",
                "plimsoll seed --workload history --preset history-large --shard 1/4 --plan databases.toml",
                "plimsoll seed --workload daily --preset daily-heavy --users 20k --plan databases.toml",
            ],
            Self::Teardown => &[
                "plimsoll teardown --mongo-uri mongodb://chat-db:27017",
                "plimsoll teardown --workload history --plan databases.toml --yes",
            ],
        }
    }

    /// Exit codes in the words of this command.
    pub fn exit_codes(self) -> &'static str {
        match self {
            Self::MaxRps | Self::Daily => {
                "Exit codes: 0 an answer, 1 no step passed, 2 usage or configuration, 3 the run could not be completed,\n\
                 4 measured but INCONCLUSIVE, 130 interrupted."
            }
            Self::Run => {
                "Exit codes: 0 PASS, 1 TRIP, 2 usage or configuration, 3 the run could not be completed,\n\
                 4 measured but INCONCLUSIVE, 130 interrupted: what was measured so far is shown."
            }
            Self::Verify => {
                "Exit codes: 0 everything is as it should be, 2 it is not or could not be looked at: each line says what mends it,\n\
                 3 standard output cannot be written, 130 interrupted."
            }
            Self::Seed => {
                "Exit codes: 0 everything is written, 2 nothing was written, 3 it could not go on, 130 interrupted:\n\
                 the same command goes on."
            }
            Self::Teardown => {
                "Exit codes: 0 removed, or there was nothing, 2 nothing was removed, 3 it could not go on, 130 interrupted:\n\
                 the same command goes on."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::table;

    #[test]
    fn settings_that_some_commands_take_are_in_the_table() {
        assert!(ONLY.iter().all(|(name, commands)| table::find(name).is_some() && !commands.is_empty()));
        assert!(LoadCommand::ALL.iter().all(|&command| LoadCommand::find(command.name()) == Some(command)));
    }
}
