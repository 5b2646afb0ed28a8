//! A container where there is no engine: the image's files put together as deploy/Dockerfile does, and its programs run in
//! namespaces of their own, as its user, with a root that cannot be written to.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use plimsoll_tests::harness::processes::Program;

use super::install::{binaries, install, output};

/// The image's user.
pub const USER: u32 = 65_532;
/// Libraries that the runtime stage's base (distroless "cc") has.
const LIBRARIES: [&str; 5] =
    ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];

/// The files of the image.
#[derive(Debug)]
pub struct Image {
    dir: tempfile::TempDir,
}

/// A directory of the host's at a path of the container's.
#[derive(Debug, Clone)]
pub struct Volume {
    pub from: PathBuf,
    pub at: String,
    pub read_only: bool,
}

impl Image {
    /// The runtime stage: what `deploy/install.sh` installs, on a base of the C library alone. The stand-in lies beside.
    pub fn assemble() -> anyhow::Result<Self> {
        let image = Self { dir: tempfile::tempdir()? };
        let root = image.root();
        install(root, "/usr/local")?;
        fs::copy(binaries()?.join("plimsoll-standin"), root.join("usr/local/bin/plimsoll-standin"))?;
        for program in [Program::Cli, Program::Agent, Program::Standin] {
            for library in libraries(program)? {
                let name = library.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                ensure!(LIBRARIES.contains(&name), "{program:?} needs {library:?}, which the image's base has not");
                let to = root.join(library.strip_prefix("/")?);
                fs::create_dir_all(to.parent().context("a library lies somewhere")?)?;
                fs::copy(&library, to)?;
            }
        }
        for dir in ["proc", "tmp", "etc/plimsoll", "certs", "results"] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::write(root.join("etc/passwd"), format!("nonroot:x:{USER}:{USER}::/:/sbin/nologin\n"))?;
        fs::write(root.join("etc/nsswitch.conf"), "hosts: files\n")?;
        // A name may stand for several, as in an engine's or a cluster's DNS.
        fs::write(root.join("etc/host.conf"), "multi on\n")?;
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        Ok(image)
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Names of other containers, as an engine or a cluster resolves them.
    pub fn names(&self, hosts: &[(&str, std::net::Ipv4Addr)]) -> anyhow::Result<()> {
        let lines = hosts.iter().map(|(name, address)| format!("{address} {name}\n")).collect::<String>();
        Ok(fs::write(self.root().join("etc/hosts"), format!("127.0.0.1 localhost\n{lines}"))?)
    }

    /// Runs arguments in it.
    pub fn command<A: AsRef<str>>(&self, arguments: &[A], volumes: &[Volume]) -> anyhow::Result<Command> {
        let mut script = "set -e\nmount --bind \"$0\" \"$0\"\nmount -t proc proc \"$0/proc\"\n".to_owned();
        for Volume { from, at, read_only } in volumes {
            fs::create_dir_all(self.root().join(at.trim_start_matches('/')))?;
            let to = format!("\"$0\"{at}");
            script.push_str(&format!("mount --bind '{}' {to}\n", from.display()));
            if *read_only {
                script.push_str(&format!("mount -o remount,bind,ro {to}\n"));
            }
        }
        script.push_str("mount -o remount,bind,ro \"$0\"\n");
        script.push_str(&format!("exec chroot --userspec={USER}:{USER} \"$0\" \"$@\"\n"));
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(self.root()).args(arguments.iter().map(AsRef::as_ref));
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }
}

/// What the loader says that a program needs.
fn libraries(program: Program) -> anyhow::Result<BTreeSet<PathBuf>> {
    let words = output(Command::new("ldd").arg(program.command()?.get_program()))?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(words.lines().filter_map(path).collect())
}

/// Gives a directory and all that is in it to the image's user, as a volume of an engine or an `fsGroup` does.
pub fn give(dir: &Path) -> anyhow::Result<()> {
    chown(dir, Some(USER), Some(USER)).context("giving files to another user takes root")?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            give(&path)?;
        } else {
            chown(&path, Some(USER), Some(USER))?;
        }
    }
    Ok(())
}
