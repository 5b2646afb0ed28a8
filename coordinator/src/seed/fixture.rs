//! Datasets of tests.

use super::dataset::Dataset;
use super::spec::{READ_PER_MILLE, Spec};
use crate::settings::storage::{CassandraPlan, DatabaseLogin, MongoPlan, StoragePlan};

/// 2026-01-02T03:04:05.678Z.
pub const ANCHOR_MS: i64 = 1_767_323_045_678;

/// What this workload's preset asks for.
pub fn dataset(workload: &'static str, preset: &str) -> Dataset {
    let spec = Spec {
        workload,
        preset: preset.to_owned(),
        seed: 42,
        users: if workload == "daily" { 200 } else { 0 },
        site: "site-local".to_owned(),
        parents_per_room: if workload == "thread" { 8 } else { 0 },
        read_per_mille: if workload == "read-receipt" { READ_PER_MILLE } else { 0 },
        bucket_hours: 72,
    };
    Dataset::build(spec, ANCHOR_MS).unwrap()
}

/// Databases that nothing connects to.
pub fn storage(uri: &str) -> StoragePlan {
    let login = |user: &str| Some(DatabaseLogin { user: user.to_owned(), password: "env:WORD".to_owned() });
    StoragePlan {
        mongo: MongoPlan {
            uri: uri.to_owned(),
            database: "loadtest".to_owned(),
            login: None,
            tls_ca: Some("/etc/our ca.pem".into()),
            tls_identity: None,
        },
        cassandra: Some(CassandraPlan {
            hosts: vec!["a:9042".to_owned(), "b:9042".to_owned()],
            keyspace: "mine".to_owned(),
            login: login("ann"),
            tls_ca: None,
            tls_identity: None,
        }),
        bucket_hours: 72,
    }
}
