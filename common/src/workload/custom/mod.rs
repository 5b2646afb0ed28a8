//! Any NATS service, described in a TOML file. The plan carries the file's text, so that agents read what the coordinator read.

pub mod describe;
pub mod template;
mod toml_reader;

use std::time::Duration;

pub use self::describe::{Action, Description, DescriptionError};
use super::{BadSetting, Entry, Given, SettingDefault, SettingKind, Workload, WorkloadPlan, WorkloadSetting, part_ppm};

pub(super) const ENTRY: Entry = Entry {
    name: "custom",
    summary: "any NATS service, described in the file of --scenario, a series per operation",
    settings: &[WorkloadSetting {
        name: "scenario",
        variable: "PLIMSOLL_SCENARIO",
        native: None,
        value: "FILE",
        default: SettingDefault::Required,
        kind: SettingKind::File,
        help: "A TOML file that describes the operations: requests, publishes, publishes into streams",
    }],
    defaults: &[("steps", "200,500,1k,2k,5k")],
    observations: &[],
    read,
};

/// A described workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomWorkload {
    text: String,
    /// What the text says.
    pub description: Description,
}

impl CustomWorkload {
    /// Reads a description.
    ///
    /// # Errors
    /// The first thing in it that does not fit.
    pub fn parse(text: &str) -> Result<Self, DescriptionError> {
        Ok(Self { description: Description::parse(text)?, text: text.to_owned() })
    }
}

fn read(given: &Given<'_>) -> Result<Workload, BadSetting> {
    let text = given.required("scenario", "the path of a TOML file that describes the operations")?;
    CustomWorkload::parse(&text).map(Workload::Custom).map_err(|error| BadSetting::value("scenario", error))
}

impl WorkloadPlan for CustomWorkload {
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("scenario", self.text.clone())]
    }

    fn series(&self) -> Vec<String> {
        self.description.series()
    }

    fn part_ppm(&self, series: &str) -> u32 {
        let operations = &self.description.operations;
        let all: u64 = operations.iter().map(|operation| u64::from(operation.weight)).sum();
        let own = operations.iter().find(|operation| operation.series().iter().any(|name| name == series));
        own.map_or(1_000_000, |operation| part_ppm(operation.weight.into(), all))
    }

    fn preset(&self) -> String {
        match self.description.name.as_str() {
            "" => "a description without a name".to_owned(),
            name => name.to_owned(),
        }
    }

    fn streams(&self) -> Vec<(String, u64)> {
        let mut streams: Vec<(String, u64)> = Vec::new();
        for operation in &self.description.operations {
            let Action::JetStream { stream, .. } = &operation.action else { continue };
            let headers = operation.headers.iter().map(|(name, value)| name.len() as u64 + value.most_bytes());
            let bytes = operation.payload.most_bytes() + headers.sum::<u64>();
            match streams.iter_mut().find(|(name, _)| name == stream) {
                Some((_, most)) => *most = bytes.max(*most),
                None => streams.push((stream.clone(), bytes)),
            }
        }
        streams
    }

    fn durables(&self) -> Vec<String> {
        self.description.durables.clone()
    }

    fn timeouts(&self) -> Vec<(String, Duration)> {
        let own = |operation: &describe::Operation| Some((operation.name.clone(), operation.timeout?));
        self.description.operations.iter().filter_map(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_parted_by_their_weights_and_a_delivery_as_its_operation() {
        let operation = |name: &str, weight: u32| {
            format!(
                "[[operation]]\nname = \"{name}\"\nkind = \"request\"\nweight = {weight}\nsubject = \"{name}.get\"\n"
            )
        };
        let two = CustomWorkload::parse(&format!("{}{}", operation("often", 999), operation("rarely", 1))).unwrap();
        assert_eq!(["often", "rarely"].map(|series| two.part_ppm(series)), [999_000, 1_000]);
        let one = CustomWorkload::parse(&operation("only", 7)).unwrap();
        assert_eq!(one.part_ppm("only"), 1_000_000);
        let rarest = format!("{}{}{}", operation("a", 1_000_000), operation("b", 1_000_000), operation("c", 1));
        assert_eq!(CustomWorkload::parse(&rarest).unwrap().part_ppm("c"), 1, "what is done at all is a part");
    }
}
