//! What an operator lets this agent do, whoever asks: no coordinator can raise it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use plimsoll_common::units::Rate;

/// An agent's own limits; `None` and an empty list are no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Its share is never above this.
    pub max_rate: Option<Rate>,
    /// Connections to the target that a run may open here.
    pub max_connections: Option<u32>,
    /// How long a run may hold this agent, from its claim.
    pub max_run: Option<Duration>,
    /// Where load may go.
    pub targets: Targets,
}

/// Where load may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Targets {
    /// Wherever a coordinator says.
    #[default]
    Any,
    /// This box itself, since the agent listens beyond it and nobody named a target.
    LoopbackOnly,
    /// What `--allow-target` names.
    Named(Vec<TargetPattern>),
}

/// A server's address as a client dials it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// `nats`, `tls`, …
    pub scheme: String,
    /// A name or an address without brackets.
    pub host: String,
    /// Of the service.
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

/// What a coordinator asked for and this agent does not do. The coordinator names the agent before these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not on the list.
    #[error("its --allow-target does not allow {address}: it allows {takes}")]
    Target {
        /// What was asked for, without secrets.
        address: String,
        /// The patterns.
        takes: String,
    },
    /// More than its ceiling.
    #[error("a share of {share}/s is above its --max-rate of {ceiling}/s")]
    Rate {
        /// What was asked for.
        share: Rate,
        /// The ceiling.
        ceiling: Rate,
    },
    /// More connections than it may open.
    #[error("the run needs {needed} connections to the target here, and its --max-connections is {limit}")]
    Connections {
        /// What the run needs.
        needed: u32,
        /// The limit.
        limit: u32,
    },
    /// Longer than a run may be.
    #[error("this would hold it for {} s, and its --max-run is {} s", asked.as_secs_f64().ceil(), limit.as_secs_f64())]
    Run {
        /// From the claim to the end of what was asked for.
        asked: Duration,
        /// The limit.
        limit: Duration,
    },
}

impl Limits {
    /// Whether load may go to all of these servers.
    ///
    /// # Errors
    /// The first to which it may not.
    pub fn check_targets(&self, servers: &[ServerAddress]) -> Result<(), LimitError> {
        let allowed = |server: &&ServerAddress| match &self.targets {
            Targets::Any => true,
            Targets::LoopbackOnly => is_loopback(&server.host),
            Targets::Named(patterns) => patterns.iter().any(|pattern| pattern.matches(server)),
        };
        match servers.iter().find(|server| !allowed(server)) {
            None => Ok(()),
            Some(server) => Err(LimitError::Target { address: server.to_string(), takes: self.targets.to_string() }),
        }
    }

    /// Whether it may make this much load.
    ///
    /// # Errors
    /// It is too much.
    pub fn check_share(&self, share: Rate) -> Result<(), LimitError> {
        match self.max_rate {
            Some(ceiling) if share > ceiling => Err(LimitError::Rate { share, ceiling }),
            _ => Ok(()),
        }
    }

    /// Whether a run may open so many connections.
    ///
    /// # Errors
    /// They are too many.
    pub fn check_connections(&self, needed: u32) -> Result<(), LimitError> {
        match self.max_connections {
            Some(limit) if needed > limit => Err(LimitError::Connections { needed, limit }),
            _ => Ok(()),
        }
    }

    /// Whether what ends so long after the claim still fits.
    ///
    /// # Errors
    /// It ends too late.
    pub fn check_run(&self, asked: Duration) -> Result<(), LimitError> {
        match self.max_run {
            Some(limit) if asked > limit => Err(LimitError::Run { asked, limit }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::LoopbackOnly => {
                f.write_str("loopback targets only, as it listens beyond loopback and no --allow-target was given")
            }
            Self::Named(patterns) => {
                let patterns: Vec<String> = patterns.iter().map(TargetPattern::to_string).collect();
                f.write_str(&patterns.join(", "))
            }
        }
    }
}

/// Targets: `[SCHEME://]HOST[:PORT]`, where HOST is a name, `*` (any), `*.example.com` (any name below it), an address or
/// a network (`10.1.0.0/16`). Names are compared as they are written, never resolved: what a name stands for may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPattern {
    scheme: Option<String>,
    host: HostPattern,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Any,
    /// In lower case, without the star: `.example.com`.
    Below(String),
    /// In lower case.
    Name(String),
    Network(IpAddr, u8),
}

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "got '{0}', expected [SCHEME://]HOST[:PORT] such as nats://chat.example.com:4222, *.example.com, 10.1.0.0/16, [::1]:4222 \
     or *"
)]
pub struct PatternError(String);

impl FromStr for TargetPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        // What stands before an @ is nobody's host, and a secret that must not be repeated.
        let shown = text.rsplit('@').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(100).collect();
        parse_pattern(text.trim()).ok_or(PatternError(shown))
    }
}

fn parse_pattern(text: &str) -> Option<TargetPattern> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, text),
    };
    if scheme.as_ref().is_some_and(|scheme| scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric())) {
        return None;
    }
    let (host, port) = host_and_port(rest)?;
    Some(TargetPattern { scheme, host: host_pattern(host)?, port })
}

/// `[::1]:4222`, `[::1]`, `::1`, `host:4222`, `host`.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|&port| port > 0);
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.split('/').next()?.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(digits) => Some((host, Some(port(digits)?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        Some((host, digits)) if !digits.contains(':') => Some((host, Some(port(digits)?))),
        _ => Some((text, None)),
    }
}

fn host_pattern(host: &str) -> Option<HostPattern> {
    if host == "*" {
        return Some(HostPattern::Any);
    }
    if let Some((address, bits)) = host.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        return bits.parse().ok().filter(|&bits| bits <= most).map(|bits| HostPattern::Network(address, bits));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(HostPattern::Network(address, if address.is_ipv4() { 32 } else { 128 }));
    }
    let (below, name) = match host.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, host),
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !name.trim_end_matches('.').split('.').all(label) {
        return None;
    }
    let name = canonical_name(name);
    Some(if below { HostPattern::Below(format!(".{name}")) } else { HostPattern::Name(name) })
}

fn canonical_name(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl TargetPattern {
    /// Whether it allows this server.
    pub fn matches(&self, server: &ServerAddress) -> bool {
        let address = server.host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let host = match (&self.host, address) {
            (HostPattern::Any, _) => true,
            (HostPattern::Network(network, bits), Some(address)) => within(*network, *bits, address),
            (HostPattern::Network(..), None) | (HostPattern::Below(_) | HostPattern::Name(_), Some(_)) => false,
            (HostPattern::Name(name), None) => *name == canonical_name(&server.host),
            (HostPattern::Below(suffix), None) => {
                let host = canonical_name(&server.host);
                host.len() > suffix.len() && host.ends_with(suffix)
            }
        };
        let scheme = self.scheme.as_ref().is_none_or(|scheme| scheme.eq_ignore_ascii_case(&server.scheme));
        host && scheme && self.port.is_none_or(|port| port == server.port)
    }
}

fn within(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let prefix = |value: u128, width: u32| value.checked_shr(width - u32::from(bits)).unwrap_or(0);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let [network, address] = [network, address].map(|address| u128::from(u32::from(address)));
            prefix(network, 32) == prefix(address, 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            prefix(u128::from(network), 128) == prefix(u128::from(address), 128)
        }
        _ => false,
    }
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => canonical_name(host) == "localhost",
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Below(suffix) => write!(f, "*{suffix}")?,
            HostPattern::Name(name) => f.write_str(name)?,
            HostPattern::Network(address @ IpAddr::V4(_), 32) => write!(f, "{address}")?,
            HostPattern::Network(address @ IpAddr::V6(_), 128) => write!(f, "[{address}]")?,
            HostPattern::Network(address @ IpAddr::V4(_), bits) => write!(f, "{address}/{bits}")?,
            HostPattern::Network(address @ IpAddr::V6(_), bits) => write!(f, "[{address}/{bits}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(url: &str) -> ServerAddress {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (host, port) = rest.rsplit_once(':').unwrap();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerAddress { scheme: scheme.into(), host, port: port.parse().unwrap() }
    }

    fn allows(pattern: &str, url: &str) -> bool {
        let targets = Targets::Named(vec![pattern.parse().unwrap()]);
        Limits { targets, ..Limits::default() }.check_targets(&[server(url)]).is_ok()
    }

    #[test]
    fn patterns_allow_what_they_name_and_nothing_else() {
        for (pattern, allowed, refused) in [
            ("nats://chat.example.com:4222", "nats://Chat.example.com:4222", "nats://chat.example.com:4223"),
            ("nats://chat.example.com:4222", "nats://chat.example.com.:4222", "tls://chat.example.com:4222"),
            ("chat", "tls://chat:1", "nats://chat.evil:4222"),
            ("*.example.com", "nats://a.b.example.com:4222", "nats://example.com:4222"),
            ("*.example.com", "nats://a.example.com:4222", "nats://aexample.com:4222"),
            ("10.1.0.0/16", "nats://10.1.255.3:4222", "nats://10.2.0.1:4222"),
            ("10.1.0.0/16", "nats://[::ffff:10.1.0.1]:4222", "nats://10.1.example.com:4222"),
            ("0.0.0.0/0", "nats://8.8.8.8:4222", "nats://[::1]:4222"),
            ("[fd00::/8]:4222", "nats://[fd12::1]:4222", "nats://[fe80::1]:4222"),
            ("::1", "nats://[::1]:9", "nats://127.0.0.1:9"),
            ("127.0.0.1", "nats://127.0.0.1:4222", "nats://localhost:4222"),
            ("*:4222", "nats://anything:4222", "nats://anything:8222"),
        ] {
            assert!(allows(pattern, allowed), "{pattern} allows {allowed}");
            assert!(!allows(pattern, refused), "{pattern} does not allow {refused}");
        }
    }

    #[test]
    fn an_agent_that_is_open_to_others_drives_this_box_only_until_told_otherwise() {
        let limits = Limits { targets: Targets::LoopbackOnly, ..Limits::default() };
        let here = ["nats://127.0.0.1:4222", "nats://[::1]:4222", "nats://localhost:4222", "nats://127.8.8.8:1"];
        assert_eq!(limits.check_targets(&here.map(server)), Ok(()));
        let two = [server("nats://127.0.0.1:4222"), server("nats://10.0.0.1:4222")];
        assert_eq!(
            limits.check_targets(&two).unwrap_err().to_string(),
            "its --allow-target does not allow nats://10.0.0.1:4222: it allows loopback targets only, as it listens beyond \
             loopback and no --allow-target was given"
        );
        assert!(limits.check_targets(&[server("nats://localhost.evil.com:4222")]).is_err());
    }

    #[test]
    fn rates_connections_and_times_at_the_limit_are_fine_and_above_are_not() {
        let rate = |milli| Rate::from_milli(milli).unwrap();
        let second = Duration::from_secs(1);
        let limits = Limits {
            max_rate: Some(rate(1000)),
            max_connections: Some(2),
            max_run: Some(second),
            targets: Targets::Any,
        };
        assert!(limits.check_share(rate(1000)).is_ok() && limits.check_connections(2).is_ok());
        assert!(limits.check_run(second).is_ok());
        for (error, flag) in [
            (limits.check_share(rate(1001)), "--max-rate"),
            (limits.check_connections(3), "--max-connections"),
            (limits.check_run(second * 2), "--max-run"),
        ] {
            let words = error.unwrap_err().to_string();
            assert!(words.contains(flag), "{words}");
        }
        assert!(Limits::default().check_share(rate(u64::from(u32::MAX))).is_ok());
    }

    #[test]
    fn what_is_no_pattern_is_refused_without_repeating_a_secret() {
        for text in
            ["", "a b", "*a.com", "a.*.com", "nats://", "://a", "a:0", "a:70000", "10.0.0.0/33", "[::1", "[a]", "a/"]
        {
            assert!(text.parse::<TargetPattern>().is_err(), "{text}");
        }
        let error = "nats://user:secret@chat:4222".parse::<TargetPattern>().unwrap_err().to_string();
        assert!(error.starts_with("got 'chat:4222'") && !error.contains("secret"), "{error}");
    }

    proptest! {
        #[test]
        fn a_pattern_is_read_as_it_is_written(text in "([a-z]{2,4}://)?(\\*\\.|\\[)?[a-z0-9.:]{0,12}(/[0-9]{1,3})?\\]?(:[0-9]{1,5})?") {
            if let Ok(pattern) = text.parse::<TargetPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<TargetPattern>(), Ok(pattern));
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in "\\PC{0,60}") {
            let _ = text.parse::<TargetPattern>();
        }
    }
}
