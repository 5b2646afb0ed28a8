//! A fleet's certificates, as `plimsoll certs` makes them, and agents that use them.

use super::processes::{Agent, AgentOptions, Program};
use anyhow::ensure;
use plimsoll_agent::shell::tls::TlsFiles;
use std::path::PathBuf;
use tempfile::TempDir;

/// A CA in a directory of its own, with what it signed.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// For a coordinator and the agent `box`, reached at this host's loopback address and at the unspecified one, which is
    /// this host too, and no loopback address.
    ///
    /// # Errors
    /// If the program does not make them.
    pub fn make() -> anyhow::Result<Self> {
        let certificates = Self { dir: tempfile::Builder::new().prefix("plimsoll-certs-").tempdir()? };
        certificates.more(&["--agent", "box=127.0.0.1,0.0.0.0"])?;
        Ok(certificates)
    }

    /// Makes more of the same CA.
    ///
    /// # Errors
    /// If the program does not.
    pub fn more(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let dir = self.dir.path().display().to_string();
        let ended = Program::Cli.run([&["certs", "--dir", &dir], arguments].concat())?;
        ensure!(ended.code == Some(0) && ended.stderr.is_empty(), "{ended:?}");
        Ok(())
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The files of who has this name.
    pub fn files(&self, name: &str) -> TlsFiles {
        let file = |kind: &str| self.path(&format!("{name}.{kind}"));
        TlsFiles { cert: file("pem"), key: file("key"), ca: self.path("ca.pem") }
    }

    /// The flags with which this name's certificate is shown.
    pub fn flags(&self, name: &str) -> [String; 3] {
        flags(&self.files(name))
    }

    /// An agent over TLS on a free port of loopback.
    ///
    /// # Errors
    /// If it does not come up, with what it said.
    pub fn agent(&self, arguments: &[&str]) -> anyhow::Result<Agent> {
        let more = arguments.iter().map(|&argument| argument.to_owned());
        Agent::start(&AgentOptions {
            arguments: self.flags("box").into_iter().chain(more).collect(),
            ..AgentOptions::default()
        })
    }
}

/// The flags that name these files.
pub fn flags(files: &TlsFiles) -> [String; 3] {
    let TlsFiles { cert, key, ca } = files;
    [("cert", cert), ("key", key), ("ca", ca)].map(|(what, path)| format!("--tls-{what}={}", path.display()))
}
