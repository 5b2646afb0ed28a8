//! What a load box should grant an agent, and the commands that make it grant that.

use std::fmt;

/// Connections that a box is made ready for where its operator names no `--max-connections`: users of `daily` have one each,
/// and no more than this fit between two addresses.
pub const CONNECTIONS: u64 = 60_000;
/// Descriptors beside those of connections: listeners, timers and epolls of workers, files of certificates.
const OTHER_DESCRIPTORS: u64 = 1_000;
/// What Linux lets a TCP buffer grow to by default, at least. Below, a connection that carries all of a worker's load waits for
/// the network's round trips.
const BUFFER_BYTES: u64 = 4 * 1024 * 1024;
/// Ports up to here are left to services.
const LOWEST_PORT: u64 = 1024;

/// What the box grants; `None`: it could not be read, and nothing is said of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Granted {
    /// Open files of the process: the hard limit.
    pub open_files: Option<u64>,
    /// First and last port of outgoing connections.
    pub local_ports: Option<(u64, u64)>,
    /// Ports that are not given to them, as `/proc/sys/net/ipv4/ip_local_reserved_ports` has it: `7700,9000-9100`.
    pub reserved_ports: Option<String>,
    /// Bytes that the receive buffer of a connection may grow to.
    pub receive_buffer: Option<u64>,
    /// Bytes that its send buffer may grow to.
    pub send_buffer: Option<u64>,
    /// Cores of the CPU quota; `None` also where there is none.
    pub quota_cores: Option<f64>,
}

/// Something that the box should grant and does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is, and what comes of it.
    pub problem: String,
    /// The command that changes it, to be given as root.
    pub command: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; as root: {}", self.problem, self.command)
    }
}

/// What to change on a box that is to open so many connections to one target, in the agent of this process id that is reached on
/// these ports.
pub fn advice(granted: &Granted, connections: u64, listens_on: &[u16], process: u32) -> Vec<Advice> {
    let mut advice = Vec::new();
    let mut say = |problem: String, command: String| advice.push(Advice { problem, command });
    let files = connections + OTHER_DESCRIPTORS;
    if let Some(open) = granted.open_files.filter(|&open| open < files) {
        say(
            format!("{open} open files are allowed, which is fewer than {connections} connections take"),
            format!("prlimit --pid {process} --nofile={files}:{files}  (for good: LimitNOFILE={files} in the unit)"),
        );
    }
    if let Some((first, last)) = granted.local_ports {
        let ports = (last + 1).saturating_sub(first);
        if ports < connections.min(u64::from(u16::MAX) - LOWEST_PORT) {
            let reserve = reservation(granted, listens_on, (LOWEST_PORT, u16::MAX.into()));
            let reserve = reserve.map(|reserve| format!(" {reserve}")).unwrap_or_default();
            say(
                format!(
                    "{ports} local ports ({first} to {last}) are all the connections that fit to one target address"
                ),
                format!("sysctl -w net.ipv4.ip_local_port_range=\"{LOWEST_PORT} {}\"{reserve}", u16::MAX),
            );
        } else if let Some(reserve) = reservation(granted, listens_on, (first, last)) {
            say(
                format!(
                    "ports that this agent is reached on lie among the local ports ({first} to {last}): a connection may hold one \
                     when the agent is started again"
                ),
                format!("sysctl -w {reserve}"),
            );
        }
    }
    let buffers = [("receive", "tcp_rmem", granted.receive_buffer), ("send", "tcp_wmem", granted.send_buffer)];
    for (what, name, bytes) in buffers {
        if let Some(bytes) = bytes.filter(|&bytes| bytes < BUFFER_BYTES) {
            say(
                format!("a connection's {what} buffer grows to {bytes} bytes only"),
                format!("sysctl -w net.ipv4.{name}=\"4096 131072 {BUFFER_BYTES}\""),
            );
        }
    }
    if let Some(cores) = granted.quota_cores {
        say(
            format!(
                "a CPU quota of {cores} cores stops the agent for the rest of a period once it is used up: operations get late"
            ),
            "systemctl set-property plimsoll-agent CPUQuota=  (Kubernetes: no CPU limit, only a request)".to_owned(),
        );
    }
    advice
}

/// The setting that keeps these ports from connections where local ports are in this range, beside what is kept already; `None`:
/// they are kept, or none of them.
fn reservation(granted: &Granted, ports: &[u16], (first, last): (u64, u64)) -> Option<String> {
    let reserved = granted.reserved_ports.as_deref()?.trim();
    let is_open = |port: &&u16| (first..=last).contains(&u64::from(**port)) && !is_reserved(reserved, **port);
    let mut open: Vec<String> = ports.iter().filter(is_open).map(u16::to_string).collect();
    if open.is_empty() {
        return None;
    }
    open.splice(0..0, Some(reserved.to_owned()).filter(|reserved| !reserved.is_empty()));
    Some(format!("net.ipv4.ip_local_reserved_ports=\"{}\"", open.join(",")))
}

fn is_reserved(reserved: &str, port: u16) -> bool {
    reserved.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let numbers = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
        matches!(numbers, (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

/// First and last port of `/proc/sys/net/ipv4/ip_local_port_range`.
pub fn local_ports(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next()?, numbers.next()?, numbers.next()) {
        (Ok(first), Ok(last), None) if first <= last => Some((first, last)),
        _ => None,
    }
}

/// The largest of the three sizes of `tcp_rmem` and `tcp_wmem`.
pub fn largest_buffer(text: &str) -> Option<u64> {
    text.split_whitespace().nth(2)?.parse().ok()
}

/// Cores of `cpu.max`, which says `max` where there is no quota.
pub fn quota_cores(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPLE: Granted = Granted {
        open_files: Some(524_288),
        local_ports: Some((1024, 65_535)),
        reserved_ports: Some(String::new()),
        receive_buffer: Some(6_291_456),
        send_buffer: Some(4_194_304),
        quota_cores: None,
    };

    fn check(granted: Granted, connections: u64) -> Vec<String> {
        check_ports(granted, connections, &[])
    }

    fn check_ports(granted: Granted, connections: u64, listens_on: &[u16]) -> Vec<String> {
        advice(&granted, connections, listens_on, 7).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_that_it_is_reached_on_are_kept_from_connections() {
        let wide = |reserved: &str| Granted { reserved_ports: Some(reserved.to_owned()), ..AMPLE };
        let told = check_ports(wide("\n"), CONNECTIONS, &[7700, 9700]);
        assert_eq!(
            told,
            [
                "ports that this agent is reached on lie among the local ports (1024 to 65535): a connection may hold one when the \
              agent is started again; as root: sysctl -w net.ipv4.ip_local_reserved_ports=\"7700,9700\""
            ]
        );
        let partly = check_ports(wide("80,7000-7800\n"), 8, &[7700, 9700]);
        assert!(partly[0].ends_with("sysctl -w net.ipv4.ip_local_reserved_ports=\"80,7000-7800,9700\""), "{partly:?}");
        assert_eq!(check_ports(wide("7700,9000-9700"), CONNECTIONS, &[7700, 9700]), Vec::<String>::new());
        // The range that is recommended has them too, and the one that there is has not.
        let narrow = Granted { local_ports: Some((32_768, 60_999)), ..AMPLE };
        let told = check_ports(narrow.clone(), CONNECTIONS, &[7700]);
        let both = "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\" net.ipv4.ip_local_reserved_ports=\"7700\"";
        assert!(told.len() == 1 && told[0].ends_with(both), "{told:?}");
        assert_eq!(check_ports(narrow, 8, &[7700]), Vec::<String>::new());
        assert_eq!(check_ports(Granted { reserved_ports: None, ..AMPLE }, 8, &[7700]), Vec::<String>::new());
    }

    #[test]
    fn a_box_that_grants_enough_hears_nothing() {
        assert_eq!(check(AMPLE, CONNECTIONS), Vec::<String>::new());
        assert_eq!(check(Granted::default(), CONNECTIONS), Vec::<String>::new());
        let small = Granted { open_files: Some(1024), local_ports: Some((32_768, 60_999)), ..AMPLE };
        assert_eq!(check(small, 8), Vec::<String>::new(), "eight connections take little");
    }

    #[test]
    fn what_is_short_is_named_with_the_command_that_mends_it() {
        let files = check(Granted { open_files: Some(20_000), ..AMPLE }, CONNECTIONS);
        assert_eq!(
            files,
            ["20000 open files are allowed, which is fewer than 60000 connections take; as root: prlimit --pid 7 \
              --nofile=61000:61000  (for good: LimitNOFILE=61000 in the unit)"]
        );
        let ports = check(Granted { local_ports: Some((32_768, 60_999)), ..AMPLE }, CONNECTIONS);
        assert_eq!(
            ports,
            ["28232 local ports (32768 to 60999) are all the connections that fit to one target address; as root: \
              sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\""]
        );
        let buffers =
            check(Granted { receive_buffer: Some(212_992), send_buffer: Some(212_992), ..AMPLE }, CONNECTIONS);
        assert!(buffers.len() == 2 && buffers[0].contains("tcp_rmem") && buffers[1].contains("tcp_wmem"));
        let quota = check(Granted { quota_cores: Some(1.5), ..AMPLE }, 8);
        assert!(quota.len() == 1 && quota[0].starts_with("a CPU quota of 1.5 cores"), "{quota:?}");
        // More than there are ports between two addresses is no reason to ask for more than there can be.
        let all = Granted { open_files: Some(1_000_000), ..AMPLE };
        assert_eq!(check(all, 200_000), Vec::<String>::new());
    }

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(local_ports("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!((local_ports("60999 32768"), local_ports("1"), local_ports("a b")), (None, None, None));
        assert_eq!(largest_buffer("4096\t131072\t6291456\n"), Some(6_291_456));
        assert_eq!(quota_cores("150000 100000\n"), Some(1.5));
        assert_eq!((quota_cores("max 100000\n"), quota_cores("-1 100000\n")), (None, None));
    }
}
