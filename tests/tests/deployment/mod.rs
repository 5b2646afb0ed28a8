//! How Plimsoll is put to work: what is installed, and that every manifest, unit and page of `deploy/` is what the programs,
//! and whoever else reads it, take it for.

mod access;
mod boxes;
mod cluster_failures;
mod cluster_guide;
mod cluster_runs;
mod compose;
mod compose_commands;
mod container;
mod ends_early;
mod fake_cluster;
mod guide;
mod image;
mod install;
mod kubernetes;
mod kustomize;
pub mod monitoring;
mod objects;
mod pods;
mod proxy;
mod unit;

use std::path::{Path, PathBuf};

use plimsoll_tests::harness::processes::Program;

/// A file or directory of this checkout.
fn in_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in a checkout").join(path)
}

/// Certificates as a user keeps them in Secrets: the first name is the agents', the second the coordinator's.
struct BroughtCertificates {
    dir: tempfile::TempDir,
    names: [String; 2],
}

impl BroughtCertificates {
    /// By the Secret's name, where its files are.
    fn dirs(&self) -> Vec<(&str, PathBuf)> {
        self.names.iter().map(|name| (name.as_str(), self.dir.path().join(name))).collect()
    }
}

/// Makes them as the guide says: `plimsoll certs`, and a Secret of three files for each side.
fn secrets_of(names: &[&str; 2], agents: &str) -> anyhow::Result<BroughtCertificates> {
    let dir = tempfile::tempdir()?;
    let made = dir.path().join("certs").display().to_string();
    let ended = Program::Cli.run(["certs", "--dir", &made, "--agent", agents])?;
    anyhow::ensure!(ended.code == Some(0), "{ended:?}");
    for (secret, name) in names.iter().zip([agents, "plimsoll-coordinator"]) {
        let to = dir.path().join(secret);
        std::fs::create_dir(&to)?;
        for (from, file) in
            [(format!("{name}.pem"), "tls.crt"), (format!("{name}.key"), "tls.key"), ("ca.pem".into(), "ca.crt")]
        {
            std::fs::copy(dir.path().join("certs").join(from), to.join(file))?;
        }
    }
    Ok(BroughtCertificates { dir, names: names.map(str::to_owned) })
}
