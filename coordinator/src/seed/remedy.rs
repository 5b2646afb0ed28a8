//! Commands that mend, as they can be pasted: with the databases that were looked at, whatever the environment names there.

use super::manifest::Manifest;
use super::spec::Spec;
use crate::settings::storage::StoragePlan;

/// Commands about these databases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commands<'a>(pub &'a StoragePlan);

impl Commands<'_> {
    /// Seeds this; `more` are further flags of it, each with a space before it.
    pub fn seed(&self, spec: &Spec, more: &str) -> String {
        format!("`plimsoll seed {}{more}{}`", spec.flags(), self.0.flags(None))
    }

    /// Seeds once more what is recorded, into the keyspace that it is in.
    pub fn again(&self, seeded: &Manifest, more: &str) -> String {
        format!("`plimsoll seed {}{more}{}`", seeded.spec.flags(), self.0.flags(seeded.keyspace.as_deref()))
    }

    /// Removes what is recorded, from the keyspace that it is in.
    pub fn teardown(&self, seeded: &Manifest) -> String {
        let Spec { workload, site, .. } = &seeded.spec;
        let databases = self.0.flags(seeded.keyspace.as_deref());
        format!("`plimsoll teardown --workload {workload} --site-id {site}{databases}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::fixture::{ANCHOR_MS, dataset, storage};

    #[test]
    fn a_command_names_the_databases_it_is_about() {
        let seeded = Manifest::new(dataset("thread", "small").spec, ANCHOR_MS, 1).with_messages_in(Some("theirs"));
        let plan = storage("mongodb://db:27017/?replicaSet=rs&w=1");
        let mongo =
            "--mongo-uri 'mongodb://db:27017/?replicaSet=rs&w=1' --mongo-db loadtest --mongo-tls-ca '/etc/our ca.pem'";
        let cassandra = |keyspace: &str| {
            format!(
                "--cassandra-hosts a:9042,b:9042 --cassandra-keyspace {keyspace} --cassandra-username ann --cassandra-password \
                 env:WORD"
            )
        };
        let spec = "--workload thread --preset small";
        assert_eq!(
            Commands(&plan).seed(&seeded.spec, " --create-schema"),
            format!("`plimsoll seed {spec} --site-id site-local --create-schema {mongo} {}`", cassandra("mine"))
        );
        assert_eq!(
            Commands(&plan).teardown(&seeded),
            format!("`plimsoll teardown --workload thread --site-id site-local {mongo} {}`", cassandra("theirs"))
        );
    }

    #[test]
    fn a_command_shows_no_secret_and_reaches_nobody_without_it() {
        let plan = storage("mongodb://ann:SECRETWORD@db:27017");
        let told = Commands(&plan).seed(&dataset("messages", "small").spec, "");
        assert!(told.contains(" --mongo-uri 'mongodb://***@db:27017' ") && !told.contains("SECRET"), "{told}");
    }
}
