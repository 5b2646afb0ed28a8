//! The commands that make load: what each is for, and which settings it takes.

use super::table::{SETTINGS, Setting};

/// A command whose settings come from the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadCommand {
    /// `max-rps`.
    MaxRps,
    /// `run`.
    Run,
    /// `daily`.
    Daily,
}

/// The workload whose levels are users.
pub const DAILY: &str = "daily";

/// Settings that not every command takes, with those that do.
const ONLY: &[(&str, &[LoadCommand])] = &[
    ("steps", &[LoadCommand::MaxRps, LoadCommand::Daily]),
    ("hold", &[LoadCommand::MaxRps, LoadCommand::Daily]),
    ("find", &[LoadCommand::MaxRps]),
    ("from", &[LoadCommand::MaxRps]),
    ("precision", &[LoadCommand::MaxRps]),
    ("confidence", &[LoadCommand::MaxRps]),
    ("max-time", &[LoadCommand::MaxRps]),
    ("drain-limit", &[LoadCommand::MaxRps]),
    ("frontier", &[LoadCommand::MaxRps]),
    ("explain", &[LoadCommand::MaxRps]),
    ("skip-self-check", &[LoadCommand::MaxRps]),
    ("cooldown", &[LoadCommand::MaxRps, LoadCommand::Daily]),
    ("no-stop-on-trip", &[LoadCommand::MaxRps, LoadCommand::Daily]),
    ("trials", &[LoadCommand::MaxRps, LoadCommand::Daily]),
    ("workload", &[LoadCommand::MaxRps, LoadCommand::Run]),
    ("arrivals", &[LoadCommand::MaxRps, LoadCommand::Run]),
    ("on-agent-loss", &[LoadCommand::MaxRps, LoadCommand::Daily]),
    ("min-agents", &[LoadCommand::MaxRps, LoadCommand::Daily]),
    ("rate", &[LoadCommand::Run]),
    ("duration", &[LoadCommand::Run]),
];

impl LoadCommand {
    /// All of them, in the order of the help.
    pub const ALL: [Self; 3] = [Self::MaxRps, Self::Run, Self::Daily];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxRps => "max-rps",
            Self::Run => "run",
            Self::Daily => "daily",
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
                "Ramps a request rate over a fleet of agents and prints the largest that holds every objective"
            }
            Self::Run => "Holds one constant request rate for as long as asked and judges it by the objectives",
            Self::Daily => {
                "Ramps the users of a chat through their working day and prints the most that hold every objective"
            }
        }
    }

    /// The workload of a command that drives only one.
    pub fn workload(self) -> Option<&'static str> {
        match self {
            Self::MaxRps | Self::Run => None,
            Self::Daily => Some(DAILY),
        }
    }

    /// Whether it drives this workload.
    pub fn drives(self, workload: &str) -> bool {
        self.workload().map_or(workload != DAILY, |own| own == workload)
    }

    /// Whether it takes this setting.
    pub fn takes(self, setting: &Setting) -> bool {
        let listed = ONLY.iter().find(|(name, _)| *name == setting.name);
        // What only some workloads take goes with a command that drives one of them.
        let of_workload = setting.workloads.is_empty() || setting.workloads.iter().any(|name| self.drives(name));
        of_workload && listed.is_none_or(|(_, commands)| commands.contains(&self))
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
