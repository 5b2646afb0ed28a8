//! What the operator guide says of load boxes, followed with an ssh that reaches a directory for each box.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use plimsoll_tests::harness::processes::Process;

use super::guide::blocks;
use super::in_checkout;
use super::install::{binaries, output};

const GUIDE: &str = "docs/operator-guide.md";
const BOXES: [&str; 2] = ["box-1", "box-2"];

/// A box is the directory of its name: what is absolute in a command for it lies below that.
const SSH: &str = r#"#!/bin/sh
box=$1 && shift && case "$1" in sudo) shift ;; *) echo "not as root: $*" >&2; exit 1 ;; esac
root=$BOXES/$box
test -d "$root" || exit 255
case "$1" in systemctl) echo "$*" >>"$root/asked"; exit ;; esac
exec sh -c "$(echo "$*" | sed "s|-C / |-C $root |; s|/etc/plimsoll|$root/etc/plimsoll|")"
"#;

fn program(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

#[test]
fn the_guides_commands_bring_each_box_what_it_takes_and_start_its_agent() -> anyhow::Result<()> {
    let (dir, boxes) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (bin, here) = (dir.path().join("bin"), dir.path().join("checkout"));
    std::fs::create_dir_all(&bin)?;
    std::fs::create_dir_all(&here)?;
    std::os::unix::fs::symlink(in_checkout("deploy").canonicalize()?, here.join("deploy"))?;
    for name in BOXES {
        let usr = boxes.path().join(name).join("usr");
        std::fs::create_dir_all(&usr)?;
        std::fs::set_permissions(&usr, std::fs::Permissions::from_mode(0o711))?;
        std::fs::set_permissions(boxes.path().join(name), std::fs::Permissions::from_mode(0o751))?;
    }
    program(&bin.join("ssh"), SSH)?;
    program(&bin.join("make"), "#!/bin/sh\ntest \"$*\" = build || test \"$*\" = install\n")?;
    program(&bin.join("sudo"), "#!/bin/sh\nexec \"$@\"\n")?;
    let is_of_boxes = |text: &str| text.contains("for box in ") || text.contains("certs --dir certs --agent box-1 ");
    let blocks = blocks(GUIDE)?;
    let settings = blocks.iter().find(|block| block.text.starts_with("PLIMSOLL_ALLOW_TARGET=")).expect("settings");
    std::fs::write(here.join("agent.env"), &settings.text)?;
    let script: String =
        blocks.iter().filter(|block| is_of_boxes(&block.text)).map(|block| block.text.as_str()).collect();
    let (binaries, path) = (binaries()?, std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    // A strict umask, as of many an administrator, is no reason for directories that nobody else can enter.
    command.args(["-euo", "pipefail", "-c", &format!("umask 077\n{script}")]).current_dir(&here);
    command.env("PATH", format!("{}:{}:{path}", bin.display(), binaries.display()));
    command.env("BINARIES", &binaries).env("BOXES", boxes.path()).env_remove("PREFIX");
    let ended = Process::spawn(command)?.wait(Duration::from_secs(60))?;
    ensure!(ended.code == Some(0), "{script}\n{ended:?}");

    for name in BOXES {
        let root = boxes.path().join(name);
        let mode = |path: &str| -> anyhow::Result<u32> { Ok(std::fs::metadata(root.join(path))?.mode() & 0o777) };
        assert_eq!((mode("")?, mode("usr")?), (0o751, 0o711), "directories of the box stay as they are");
        let agent = root.join("usr/local/bin/plimsoll-agent");
        assert!(output(Command::new(&agent).arg("--version"))?.starts_with("plimsoll-agent "));
        assert_eq!((mode("usr/local")?, mode("usr/local/bin/plimsoll-agent")?), (0o755, 0o755));
        assert_eq!(mode("usr/local/lib/systemd/system/plimsoll-agent.service")?, 0o644);
        let own = std::fs::read(here.join(format!("certs/{name}.key")))?;
        assert_eq!(
            (mode("etc/plimsoll/agent.key")?, std::fs::read(root.join("etc/plimsoll/agent.key"))?),
            (0o600, own)
        );
        let mut files: Vec<_> = std::fs::read_dir(root.join("etc/plimsoll"))?
            .map(|file| Ok(file?.file_name().to_string_lossy().into_owned()))
            .collect::<anyhow::Result<_>>()?;
        files.sort();
        assert_eq!(files, ["agent.env", "agent.key", "agent.pem", "ca.pem"], "and no key of the CA");
        assert_eq!(std::fs::read_to_string(root.join("etc/plimsoll/agent.env"))?, settings.text);
        // An agent that runs already, with other limits or of another release, is not left as it is.
        let asked = std::fs::read_to_string(root.join("asked"))?;
        let commands = ["daemon-reload", "enable plimsoll-agent", "restart plimsoll-agent"];
        assert_eq!(asked.lines().collect::<Vec<_>>(), commands.map(|command| format!("systemctl {command}")));
    }
    Ok(())
}
