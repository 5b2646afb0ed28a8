//! What a certificate says, as far as the fleet asks: whose it is, what it may be used for, and until when.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// A certificate larger than this is none of a fleet's.
const MOST_BYTES: usize = 64 * 1024;
/// Names beyond this many are not looked at.
const MOST_NAMES: usize = 64;
/// Longer names than this are no DNS names, and no subjects that anybody types.
const LONGEST_NAME: usize = 255;

/// Which side of the fleet's protocol a certificate is to stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It listens: `serverAuth`.
    Agent,
    /// It dials: `clientAuth`.
    Coordinator,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "an agent (extended key usage serverAuth)",
            Self::Coordinator => "a coordinator (extended key usage clientAuth)",
        })
    }
}

/// Why a certificate does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509, or with something behind it.
    #[error("it is no X.509 certificate")]
    Unreadable,
    /// Over.
    #[error("the certificate expired on {0}: make a new one, as `plimsoll certs` does")]
    Expired(String),
    /// Not begun, or the clock is wrong.
    #[error("the certificate is valid only from {0}: is this host's clock right?")]
    NotYet(String),
    /// Made for something else.
    #[error("the certificate is not for {0}: take the one that was made for it")]
    OtherUse(Side),
}

/// What the fleet asks of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is: the alternative names (DNS, URI, e-mail, IP), then the subject's common names; printable, each once.
    pub names: Vec<String>,
    not_before: ASN1Time,
    not_after: ASN1Time,
    agent: bool,
    coordinator: bool,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is none, or larger than any should be.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MOST_BYTES {
            return Err(CertificateError::Unreadable);
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| CertificateError::Unreadable)?;
        let usage = certificate.extended_key_usage().map_err(|_| CertificateError::Unreadable)?;
        let usage = usage.map(|usage| usage.value);
        if !rest.is_empty() {
            return Err(CertificateError::Unreadable);
        }
        let validity = certificate.validity();
        Ok(Self {
            names: names(&certificate)?,
            not_before: validity.not_before,
            not_after: validity.not_after,
            agent: usage.is_none_or(|usage| usage.server_auth || usage.any),
            coordinator: usage.is_none_or(|usage| usage.client_auth || usage.any),
        })
    }

    /// Whether it stands for this side at this instant, in seconds since 1970.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, side: Side, unix_s: i64) -> Result<(), CertificateError> {
        if unix_s < self.not_before.timestamp() {
            return Err(CertificateError::NotYet(self.not_before.to_string()));
        }
        if unix_s > self.not_after.timestamp() {
            return Err(CertificateError::Expired(self.not_after.to_string()));
        }
        let fits = match side {
            Side::Agent => self.agent,
            Side::Coordinator => self.coordinator,
        };
        if fits { Ok(()) } else { Err(CertificateError::OtherUse(side)) }
    }

    /// Whether one of its names is one of these; case does not matter, as in DNS.
    pub fn is_of(&self, allowed: &[String]) -> bool {
        self.names.iter().any(|name| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)))
    }
}

fn names(certificate: &X509Certificate) -> Result<Vec<String>, CertificateError> {
    let alternatives = certificate.subject_alternative_name().map_err(|_| CertificateError::Unreadable)?;
    let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names).filter_map(name);
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
    let mut names: Vec<String> = Vec::new();
    for name in alternatives.chain(common).take(MOST_NAMES) {
        let fits = (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
        if fits && !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn name(name: &GeneralName) -> Option<String> {
    match *name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some(name.to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

    fn made(names: &[&str], usage: &[ExtendedKeyUsagePurpose]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "the subject");
        params.extended_key_usages = usage.to_vec();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    const NEW_YEAR_2026: i64 = 1_767_225_600;
    const YEAR: i64 = 365 * 86_400;

    #[test]
    fn a_certificate_says_whose_it_is_what_for_and_until_when() {
        let read = Certificate::read(&made(&["box-1", "10.0.0.7"], &[ExtendedKeyUsagePurpose::ServerAuth])).unwrap();
        assert_eq!(read.names, ["box-1", "10.0.0.7", "the subject"]);
        assert!(read.is_of(&["BOX-1".into()]) && !read.is_of(&["box".into()]) && !read.is_of(&[]));
        assert_eq!(read.check(Side::Agent, NEW_YEAR_2026), Ok(()));
        assert_eq!(read.check(Side::Coordinator, NEW_YEAR_2026), Err(CertificateError::OtherUse(Side::Coordinator)));
        assert!(matches!(read.check(Side::Agent, NEW_YEAR_2026 - 1), Err(CertificateError::NotYet(_))));
        assert_eq!(read.check(Side::Agent, NEW_YEAR_2026 + YEAR), Ok(()));
        let over = read.check(Side::Agent, NEW_YEAR_2026 + YEAR + 1).unwrap_err().to_string();
        assert!(over.starts_with("the certificate expired on Jan  1 00:00:00 2027"), "{over}");
    }

    #[test]
    fn a_certificate_without_a_usage_does_for_both_sides() {
        let read = Certificate::read(&made(&["a"], &[])).unwrap();
        assert_eq!(read.check(Side::Agent, NEW_YEAR_2026), Ok(()));
        assert_eq!(read.check(Side::Coordinator, NEW_YEAR_2026), Ok(()));
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        let mut longer = made(&["a"], &[]);
        longer.push(0);
        for bytes in [vec![], vec![0x30], longer, vec![0x30; MOST_BYTES + 1]] {
            assert_eq!(Certificate::read(&bytes), Err(CertificateError::Unreadable));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_certificate_that_was_tampered_with_is_read_or_refused_and_never_names_more_than_it_may(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(), cuts in any::<bool>(),
        ) {
            static DER: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| made(&["box-1", "10.0.0.7", "::1"], &[ExtendedKeyUsagePurpose::ClientAuth]));
            let mut der = DER.clone();
            flips.iter().for_each(|(at, byte)| der[at.index(DER.len())] = *byte);
            if cuts {
                der.truncate(cut.index(DER.len()));
            }
            if let Ok(read) = Certificate::read(&der) {
                prop_assert!(read.names.len() <= MOST_NAMES);
                prop_assert!(read.names.iter().all(|name| name.len() <= LONGEST_NAME && !name.contains('\n')));
                let _ = read.check(Side::Agent, NEW_YEAR_2026);
            }
        }
    }
}
