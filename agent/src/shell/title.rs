//! A process's title, which every user of its host can read: logins in its arguments do not stay there.

use std::fs::{File, read, read_to_string};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt as _;

/// Overwrites the logins of addresses among this process's arguments, where the kernel shows them from. To be called once they
/// have been read, and before anything else is done.
///
/// # Errors
/// There are some, and this host does not let them be overwritten.
pub fn hide_logins() -> Result<()> {
    let shown = read("/proc/self/cmdline")?;
    let hidden = without_logins(&shown);
    if hidden == shown {
        return Ok(());
    }
    let memory = File::options().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&hidden, arguments_at()?)?;
    match read("/proc/self/cmdline")? == hidden {
        true => Ok(()),
        false => Err(Error::other("its arguments are shown as they were")),
    }
}

/// The same for a `main`: what to say where it does not work.
///
/// # Errors
/// As [`hide_logins`], for people.
pub fn hide_logins_or_say() -> std::result::Result<(), String> {
    hide_logins().map_err(|why| {
        format!(
            "an argument carries a login, which every user of this host would see in the list of processes ({why}): give the \
             address by its PLIMSOLL_ variable or in a plan file"
        )
    })
}

/// Where in this process's memory its arguments begin.
fn arguments_at() -> Result<u64> {
    const ARG_START: usize = 48;
    let stat = read_to_string("/proc/self/stat")?;
    // The second field is the program's name in parentheses, whatever stands in it.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let at = fields.nth(ARG_START - 3).and_then(|field| field.parse().ok()).filter(|&at| at > 0);
    at.ok_or_else(|| Error::new(ErrorKind::Unsupported, "/proc/self/stat does not say where they are"))
}

/// Arguments, each with a zero behind it, with as many asterisks in place of what stands before the last `@` of an address.
fn without_logins(arguments: &[u8]) -> Vec<u8> {
    let mut hidden = arguments.to_vec();
    for argument in hidden.split_mut(|&byte| byte == 0) {
        let Some(end) = argument.iter().rposition(|&byte| byte == b'@') else { continue };
        let value = match argument.starts_with(b"--") {
            true => argument.iter().position(|&byte| byte == b'=').map_or(0, |equals| equals + 1),
            false => 0,
        };
        let scheme = argument.windows(3).position(|window| window == b"://").map_or(value, |at| at + 3);
        let begin = scheme.max(value);
        if begin < end {
            argument[begin..end].fill(b'*');
        }
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_length_and_lose_their_logins() {
        for (shown, hidden) in [
            ("plimsoll\0--nats-url\0nats://ann:pw@h:1\0", "plimsoll\0--nats-url\0nats://******@h:1\0"),
            ("--mongo-uri=mongodb://a:b@h/?x=y\0", "--mongo-uri=mongodb://***@h/?x=y\0"),
            ("tls://a@h,tls://b:c@i\0x\0", "tls://*************@i\0x\0"),
            ("ann:p@w@h\0--agents\0@fleet\0dns:a:1\0", "*******@h\0--agents\0@fleet\0dns:a:1\0"),
            ("--nats-url=ann:pw@h\0", "--nats-url=******@h\0"),
        ] {
            assert_eq!(String::from_utf8(without_logins(shown.as_bytes())).unwrap(), hidden);
        }
        assert!(arguments_at().unwrap() > 0);
    }
}
