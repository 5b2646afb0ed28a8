//! What opens the target's door: secrets, which no log, report or error ever shows.

use std::fmt;

/// What proves who we are to the target, beside what its URL carries, and whom we take for the target.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// What proves who we are.
    pub login: Option<Login>,
    /// The certificates, in PEM, of those who may sign the target's; `None`: the system's.
    pub tls_ca: Option<String>,
    /// What is shown to a target that asks for a certificate.
    pub tls_identity: Option<TlsIdentity>,
}

/// What proves who we are to the target.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// The text of a NATS credentials file.
    CredentialsFile(String),
    /// The seed of an NKey.
    NkeySeed(String),
    /// A token.
    Token(String),
}

/// A certificate and its private key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The certificate, and what is between it and its CA.
    pub certificates: String,
    /// Its key.
    pub key: String,
}

impl Credentials {
    /// Whether whoever reads this could pass for us.
    pub fn are_secret(&self) -> bool {
        self.login.is_some() || self.tls_identity.is_some()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("login", &self.login)
            .field("tls_ca", &self.tls_ca.as_ref().map(String::len))
            .field("tls_identity", &self.tls_identity)
            .finish()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CredentialsFile(_) => "CredentialsFile(hidden)",
            Self::NkeySeed(_) => "NkeySeed(hidden)",
            Self::Token(_) => "Token(hidden)",
        })
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity(hidden)")
    }
}

/// Schemes that an address may have; a comma before one of them begins the next address.
const SCHEMES: [&str; 6] = ["nats://", "tls://", "ws://", "wss://", "http://", "https://"];

/// A list of server addresses without the user, password or token that one of them may carry. Whatever stands before the
/// last `@` of an address is hidden, commas, slashes and further `@` among it.
pub fn redact_url(urls: &str) -> String {
    let begins = |at: usize| SCHEMES.iter().any(|scheme| urls[at..].trim_start().starts_with(scheme));
    let mut starts = vec![0];
    starts.extend(urls.match_indices(',').map(|(comma, _)| comma + 1).filter(|&at| begins(at)));
    let ends = starts.iter().skip(1).map(|&start| start - 1).chain([urls.len()]);
    let addresses = starts.iter().zip(ends).map(|(&start, end)| redact_address(&urls[start..end]));
    addresses.collect::<Vec<_>>().join(",")
}

/// A text about what was given on a command line or in a variable, without the logins that this may carry.
pub fn redact_given(text: &str, given: impl IntoIterator<Item = String>) -> String {
    let mut logins: Vec<String> = given
        .into_iter()
        .flat_map(|given| [given.split_once('=').map(|(_, value)| value.to_owned()), Some(given)])
        .flatten()
        .filter(|given| given.contains('@'))
        .collect();
    // What holds another goes first.
    logins.sort_by_key(|login| std::cmp::Reverse(login.len()));
    logins.iter().fold(text.to_owned(), |text, login| text.replace(login, &redact_url(login)))
}

fn redact_address(address: &str) -> String {
    let Some((_, host)) = address.rsplit_once('@') else { return address.to_owned() };
    let scheme = SCHEMES.iter().find(|scheme| address.trim_start().starts_with(**scheme)).copied();
    // A scheme that we do not know is shown as far as it is one: letters before the first colon.
    let other = || {
        let (scheme, _) = address.split_once("://")?;
        scheme.bytes().all(|byte| byte.is_ascii_alphabetic()).then(|| format!("{scheme}://"))
    };
    format!("{}***@{host}", scheme.map(str::to_owned).or_else(other).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_shown_and_what_they_carry_is_not() {
        for (urls, shown) in [
            ("nats://chat:4222", "nats://chat:4222"),
            ("nats://a:1,nats://b:2", "nats://a:1,nats://b:2"),
            ("a:1,b:2", "a:1,b:2"),
            ("nats://ann:secret@a:1,tls://token@b:2", "nats://***@a:1,tls://***@b:2"),
            ("nats://ann:se,cret@a:1", "nats://***@a:1"),
            ("nats://ann:se@c/r@a:1, nats://b:2", "nats://***@a:1, nats://b:2"),
            ("ann:secret@a:1", "***@a:1"),
            ("mqtt://ann:secret@a:1", "mqtt://***@a:1"),
            ("", ""),
        ] {
            assert_eq!(redact_url(urls), shown);
        }
    }

    #[test]
    fn what_is_said_of_a_command_line_shows_none_of_its_logins() {
        let given = ["--nats-url=nats://ann:se cret@h", "x", "mongodb://ann:pw@h/"].map(str::to_owned);
        let said = "unexpected 'nats://ann:se cret@h' in '--nats-url=nats://ann:se cret@h', or mongodb://ann:pw@h/ x";
        let shown = redact_given(said, given);
        assert!(
            !shown.contains("cret") && !shown.contains("pw") && shown.contains("unexpected 'nats://***@h'"),
            "{shown}"
        );
    }

    #[test]
    fn nothing_that_is_printed_for_debugging_holds_a_secret() {
        let credentials = Credentials {
            login: Some(Login::NkeySeed("SECRET".into())),
            tls_ca: Some("PEM".into()),
            tls_identity: Some(TlsIdentity { certificates: "PEM".into(), key: "SECRET".into() }),
        };
        let printed = format!("{credentials:?}");
        assert!(!printed.contains("SECRET") && !printed.contains("PEM") && printed.contains("hidden"), "{printed}");
    }

    proptest! {
        #[test]
        fn no_password_is_ever_shown(user in "[a-z]{1,5}", password in "[A-Z@:/,%?#é]{6,20}", host in "[a-z]{1,8}:[0-9]{2,4}") {
            let shown = redact_url(&format!("nats://{user}:{password}@{host},nats://other:4222"));
            prop_assert_eq!(shown, format!("nats://***@{host},nats://other:4222"));
        }

        #[test]
        fn any_text_can_be_redacted(text in "\\PC{0,80}") {
            let _ = redact_url(&text);
        }
    }
}
