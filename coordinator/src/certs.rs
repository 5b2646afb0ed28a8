//! Makes the fleet's certificates: one CA, and what it signs for the coordinator and each agent.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use crate::exit::Failure;
use crate::settings::certs::Certs;

/// A CA outlives several generations of what it signs; a fleet's is replaced by hand after that.
const CA_DAYS: u32 = 5 * 365;
/// The name that agents take by default.
const COORDINATOR: &str = "plimsoll-coordinator";
/// Clocks of a fleet's hosts may differ by this much.
const BACKDATED: Duration = Duration::from_secs(3600);
/// Only the owner reads and writes.
const OF_A_KEY: u32 = 0o600;
const OF_A_CERTIFICATE: u32 = 0o644;

/// A certificate to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaf {
    /// Of its files, and its first name.
    name: String,
    /// All its names and addresses.
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
}

/// Makes what was asked for, and says what it made.
///
/// # Errors
/// A name that does not do, a file that must not be overwritten, or one that cannot be written.
pub fn make(ask: &Certs) -> Result<String, Failure> {
    write(ask, SystemTime::now()).map_err(Failure::Usage)
}

/// A file to be written, and its mode.
struct Output {
    path: PathBuf,
    text: String,
    mode: u32,
}

fn write(ask: &Certs, now: SystemTime) -> Result<String, String> {
    let leaves = leaves(ask)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&ask.dir).map_err(|error| {
        format!("--dir: got '{}', expected a directory that can be written: {error}", ask.dir.display())
    })?;
    let (issuer, mut outputs) = authority(&ask.dir, now)?;
    let mut words = match outputs.first() {
        Some(ca) => format!("{}: a new CA, valid for {CA_DAYS} days\n", ca.path.display()),
        None => format!("{}: the CA that was there\n", ask.dir.join("ca.pem").display()),
    };
    for (index, leaf) in leaves.iter().enumerate() {
        let [certificate, key] = ["pem", "key"].map(|kind| ask.dir.join(format!("{}.{kind}", leaf.name)));
        let there = [&certificate, &key].into_iter().find(|path| path.exists());
        match there {
            // The coordinator's, which comes first and is made once.
            Some(_) if index == 0 && !ask.force && certificate.exists() && key.exists() => {
                words.push_str(&format!("{}: the coordinator's that was there\n", certificate.display()));
                continue;
            }
            Some(path) if !ask.force => {
                return Err(format!("'{}' is there: --force replaces it, nothing was written", path.display()));
            }
            _ => {}
        }
        let (signed, private) = sign(leaf, &issuer, now, ask.days)?;
        let (names, days) = (leaf.names.join(", "), ask.days);
        words.push_str(&format!("{}: for {names}, valid for {days} days\n", certificate.display()));
        outputs.push(Output { path: key, text: private, mode: OF_A_KEY });
        outputs.push(Output { path: certificate, text: signed, mode: OF_A_CERTIFICATE });
    }
    outputs.iter().try_for_each(put)?;
    words.push_str(&next_steps(ask, &leaves));
    Ok(words)
}

fn next_steps(ask: &Certs, leaves: &[Leaf]) -> String {
    let dir = ask.dir.display();
    let agent = leaves.get(1).map_or("AGENT", |leaf| &leaf.name);
    let allowed = match ask.coordinator.as_str() {
        "plimsoll-coordinator" => String::new(),
        other => format!(" --allow-coordinator {other}"),
    };
    let (cert, key) = (format!("{}.pem", ask.coordinator), format!("{}.key", ask.coordinator));
    format!(
        "On each agent's host: plimsoll-agent --listen 0.0.0.0:7700 --tls-cert {agent}.pem --tls-key {agent}.key --tls-ca \
         ca.pem{allowed} --allow-target PATTERN\n\
         Here: --agents {agent}:7700 --tls-cert {dir}/{cert} --tls-key {dir}/{key} --tls-ca {dir}/ca.pem\n"
    )
}

/// The coordinator's first, then the agents' in their order.
fn leaves(ask: &Certs) -> Result<Vec<Leaf>, String> {
    let coordinator = Leaf {
        name: checked_name("--coordinator", &ask.coordinator)?,
        names: vec![ask.coordinator.clone()],
        usage: ExtendedKeyUsagePurpose::ClientAuth,
    };
    let mut leaves = vec![coordinator];
    for agent in &ask.agents {
        let (name, others) =
            agent.split_once('=').map_or((agent.as_str(), None), |(name, others)| (name, Some(others)));
        let name = checked_name("--agent", name)?;
        let mut names = vec![name.clone()];
        for other in others.into_iter().flat_map(|others| others.split(',')).map(str::trim) {
            if other.parse::<IpAddr>().is_err() {
                checked_name("--agent", other.strip_prefix("*.").unwrap_or(other))?;
            }
            if !names.iter().any(|name| name == other) {
                names.push(other.to_owned());
            }
        }
        if leaves.iter().any(|leaf| leaf.name == name) {
            return Err(format!("--agent: '{name}' is named twice: give each name once"));
        }
        leaves.push(Leaf { name, names, usage: ExtendedKeyUsagePurpose::ServerAuth });
    }
    Ok(leaves)
}

/// A name that a host, a certificate and a file can have.
fn checked_name(flag: &str, name: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let fits = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || (name.len() <= 250 && name.split('.').all(label));
    if !fits || name == "ca" {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        return Err(format!(
            "{flag}: got '{shown}', expected a host's name other than ca, such as box-1 or box-1.example.com"
        ));
    }
    Ok(name.to_owned())
}

/// The CA in this directory, or a new one and the files that it makes.
fn authority(dir: &Path, now: SystemTime) -> Result<(Issuer<'static, KeyPair>, Vec<Output>), String> {
    let [certificate, key] = ["ca.pem", "ca.key"].map(|name| dir.join(name));
    let words = |path: &Path, error: &dyn std::fmt::Display| format!("'{}' is of no use: {error}", path.display());
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| words(path, &error));
            // What a file with a key holds is never repeated.
            let pair = KeyPair::from_pem(&read(&key)?).map_err(|_| words(&key, &"it holds no private key in PEM"))?;
            let pem = read(&certificate)?;
            check_authority(&pem, &pair, now).map_err(|why| words(&certificate, &why))?;
            let issuer = Issuer::from_ca_cert_pem(&pem, pair).map_err(|error| words(&certificate, &error))?;
            Ok((issuer, Vec::new()))
        }
        (false, false) => new_authority(now, certificate, key).map_err(|error| format!("no CA could be made: {error}")),
        (there, _) => {
            let (there, absent) = if there { (certificate, key) } else { (key, certificate) };
            Err(format!(
                "'{}' is there and '{}' is not: bring it back, or move the other away for a new CA",
                there.display(),
                absent.display()
            ))
        }
    }
}

/// A CA whose key this is, and that is still valid.
fn check_authority(pem: &str, pair: &KeyPair, now: SystemTime) -> Result<(), String> {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    let der =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| "it holds no certificate in PEM".to_owned())?;
    let certificate = plimsoll_agent::core::certificate::Certificate::read(&der).map_err(|error| error.to_string())?;
    certificate
        .check(plimsoll_agent::core::certificate::Side::Agent, OffsetDateTime::from(now).unix_timestamp())
        .map_err(|error| error.to_string())?;
    // The public key stands in the certificate as it is, whatever stands around it.
    let public = pair.public_key_raw();
    let has_it = der.windows(public.len()).any(|window| window == public);
    if has_it { Ok(()) } else { Err("ca.key is not its key".to_owned()) }
}

fn new_authority(
    now: SystemTime,
    certificate: PathBuf,
    key: PathBuf,
) -> Result<(Issuer<'static, KeyPair>, Vec<Output>), rcgen::Error> {
    let (issuer, signed) = self_signed(now, CA_DAYS)?;
    let outputs = vec![
        Output { path: certificate, text: signed, mode: OF_A_CERTIFICATE },
        Output { path: key, text: issuer.key().serialize_pem(), mode: OF_A_KEY },
    ];
    Ok((issuer, outputs))
}

/// A CA, and its certificate in PEM.
fn self_signed(now: SystemTime, days: u32) -> Result<(Issuer<'static, KeyPair>, String), rcgen::Error> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Plimsoll CA {}", OffsetDateTime::from(now).unix_timestamp()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(now, days);
    let signed = params.self_signed(&pair)?.pem();
    Ok((Issuer::new(params, pair), signed))
}

/// A certificate and its private key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPairPem {
    /// For anybody.
    pub certificate: String,
    /// For its owner alone.
    pub key: String,
}

impl std::fmt::Debug for KeyPairPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPairPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The certificates of a fleet that lives for one run. The CA's key is thrown away: nobody else is ever let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCertificates {
    /// The CA's certificate in PEM.
    pub ca: String,
    /// Of every agent.
    pub agent: KeyPairPem,
    /// Of the coordinator, under the name that agents take by default.
    pub coordinator: KeyPairPem,
}

/// Makes them for agents that are reached by these names, valid from now for so many days.
///
/// # Errors
/// A name that no certificate can have.
pub fn for_one_run(agent_names: &[String], days: u32) -> Result<RunCertificates, String> {
    let now = SystemTime::now();
    let (issuer, ca) = self_signed(now, days).map_err(|error| format!("no CA could be made: {error}"))?;
    let pair = |name: &str, names: Vec<String>, usage: ExtendedKeyUsagePurpose| {
        let leaf = Leaf { name: name.to_owned(), names, usage };
        sign(&leaf, &issuer, now, days).map(|(certificate, key)| KeyPairPem { certificate, key })
    };
    let coordinator = vec![COORDINATOR.to_owned()];
    let first = agent_names.first().ok_or("an agent's certificate is for a name")?;
    Ok(RunCertificates {
        agent: pair(first, agent_names.to_vec(), ExtendedKeyUsagePurpose::ServerAuth)?,
        coordinator: pair(COORDINATOR, coordinator, ExtendedKeyUsagePurpose::ClientAuth)?,
        ca,
    })
}

/// A leaf's certificate and key, in PEM.
fn sign(leaf: &Leaf, issuer: &Issuer<'_, KeyPair>, now: SystemTime, days: u32) -> Result<(String, String), String> {
    let signed = || {
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&leaf.name);
        params.subject_alt_names = leaf.names.iter().map(|name| san(name)).collect::<Result<_, _>>()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![leaf.usage.clone()];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, days);
        let certificate = params.signed_by(&pair, issuer)?;
        Ok::<_, rcgen::Error>((certificate.pem(), pair.serialize_pem()))
    };
    signed().map_err(|error| format!("no certificate for {} could be made: {error}", leaf.name))
}

fn san(name: &str) -> Result<SanType, rcgen::Error> {
    match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into()?)),
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn validity(now: SystemTime, days: u32) -> (OffsetDateTime, OffsetDateTime) {
    let after = now + Duration::from_secs(u64::from(days) * 86_400);
    (OffsetDateTime::from(now - BACKDATED), OffsetDateTime::from(after))
}

/// Writes beside the file and moves it into its place: a key is never half of one, and never open to others.
fn put(output: &Output) -> Result<(), String> {
    let Output { path, text, mode } = output;
    let written = || {
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&beside)?;
        let moved = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&beside, path));
        moved.inspect_err(|_| drop(std::fs::remove_file(&beside)))
    };
    written().map_err(|error| format!("'{}' cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_agent::core::certificate::{Certificate, Side};
    use plimsoll_agent::shell::tls::{Identity, TlsFiles};
    use std::os::unix::fs::PermissionsExt as _;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    fn ask(dir: &Path, agents: &[&str]) -> Certs {
        Certs {
            dir: dir.to_owned(),
            agents: agents.iter().map(|&agent| agent.to_owned()).collect(),
            coordinator: "plimsoll-coordinator".into(),
            days: 30,
            force: false,
        }
    }

    fn certificate(path: &Path) -> Certificate {
        Certificate::read(&CertificateDer::from_pem_file(path).unwrap()).unwrap()
    }

    #[test]
    fn a_fleets_certificates_are_of_one_ca_and_their_keys_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let words = make(&ask(&dir, &["box-1=10.0.0.7,*.boxes.example.com", "10.0.0.9"])).unwrap();
        assert!(words.contains("box-1.pem: for box-1, 10.0.0.7, *.boxes.example.com, valid for 30 days\n"), "{words}");
        assert_eq!(certificate(&dir.join("box-1.pem")).names, ["box-1", "10.0.0.7", "*.boxes.example.com"]);
        for name in ["ca", "plimsoll-coordinator", "box-1", "10.0.0.9"] {
            let mode = std::fs::metadata(dir.join(format!("{name}.key"))).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        for (name, side) in [("plimsoll-coordinator", Side::Coordinator), ("box-1", Side::Agent)] {
            let files = |kind: &str| dir.join(format!("{name}.{kind}"));
            let files = TlsFiles { cert: files("pem"), key: files("key"), ca: dir.join("ca.pem") };
            let identity = Identity::load(&files, side).unwrap();
            let other = if side == Side::Agent { Side::Coordinator } else { Side::Agent };
            let error = Identity::load(&files, other).unwrap_err().to_string();
            assert!(error.starts_with("--tls-cert: got '") && error.contains("the certificate is not for"), "{error}");
            assert!(if side == Side::Agent { identity.acceptor().is_ok() } else { identity.connector().is_ok() });
        }
    }

    #[test]
    fn agents_are_added_to_a_ca_that_is_there_and_nothing_is_replaced_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        make(&ask(dir.path(), &["box-1"])).unwrap();
        let [ca, coordinator, first] = ["ca.key", "plimsoll-coordinator.key", "box-1.key"].map(read);
        make(&ask(dir.path(), &["box-2"])).unwrap();
        assert_eq!([&ca, &coordinator], [&read("ca.key"), &read("plimsoll-coordinator.key")]);
        let error = make(&ask(dir.path(), &["box-3", "box-1"])).unwrap_err().to_string();
        assert!(error.ends_with("box-1.pem' is there: --force replaces it, nothing was written"), "{error}");
        assert!(!dir.path().join("box-3.pem").exists());
        make(&Certs { force: true, ..ask(dir.path(), &["box-1"]) }).unwrap();
        assert!(first != read("box-1.key") && ca == read("ca.key"));
        let mode = std::fs::metadata(dir.path().join("box-1.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_ca_that_is_half_there_over_or_of_another_key_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        make(&ask(dir.path(), &[])).unwrap();
        let later = SystemTime::now() + Duration::from_secs(86_400 * u64::from(CA_DAYS + 1));
        let error = write(&ask(dir.path(), &["box-1"]), later).unwrap_err();
        assert!(error.contains("ca.pem' is of no use: the certificate expired on"), "{error}");
        std::fs::copy(dir.path().join("plimsoll-coordinator.key"), dir.path().join("ca.key")).unwrap();
        let error = make(&ask(dir.path(), &["box-1"])).unwrap_err().to_string();
        assert!(error.ends_with("ca.pem' is of no use: ca.key is not its key"), "{error}");
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = make(&ask(dir.path(), &["box-1"])).unwrap_err().to_string();
        assert!(error.contains("ca.pem' is there and '") && error.contains("ca.key' is not"), "{error}");
    }

    #[test]
    fn names_that_no_host_or_file_can_have_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for agent in ["", "ca", "../box", "a b", "a/b", "box=", "box=a,,b", "box=x/y", ".hidden", "a..b"] {
            let error = make(&ask(dir.path(), &[agent])).unwrap_err().to_string();
            assert!(error.starts_with("--agent: got '"), "{agent}: {error}");
        }
        let error = make(&ask(dir.path(), &["a", "a"])).unwrap_err().to_string();
        assert_eq!(error, "--agent: 'a' is named twice: give each name once");
        assert!(make(&Certs { coordinator: "a/b".into(), ..ask(dir.path(), &[]) }).is_err());
    }
}
