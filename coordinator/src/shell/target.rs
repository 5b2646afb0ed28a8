//! What the run needs to be let in by the target: read from the files that settings name, and never shown.

use std::path::Path;

use plimsoll_agent::shell::files;
use plimsoll_common::plan::{Credentials, Login, Target, TlsIdentity};

use crate::settings::{Login as LoginChoice, TargetChoice};

/// Files of credentials and certificates are some kilobytes.
const MOST_BYTES: u64 = 1024 * 1024;

/// The target with everything that opens it.
///
/// # Errors
/// A file or variable that cannot be read; its flag, and never what it holds.
pub fn open(choice: &TargetChoice) -> Result<Target, String> {
    let login = match &choice.login {
        None => None,
        Some(LoginChoice::CredentialsFile(path)) => {
            Some(Login::CredentialsFile(file("--nats-creds", path, "a credentials file")?))
        }
        Some(LoginChoice::NkeySeed(from)) => {
            Some(Login::NkeySeed(secret("--nats-nkey", from, "a file with the seed of an NKey")?))
        }
        Some(LoginChoice::Token(from)) => Some(Login::Token(secret("--nats-token", from, "a file with a token")?)),
    };
    let tls_ca = choice.tls_ca.as_ref().map(|path| file("--nats-tls-ca", path, "a CA certificate in PEM"));
    let tls_identity = match &choice.tls_identity {
        None => None,
        Some((certificates, key)) => Some(TlsIdentity {
            certificates: file("--nats-tls-cert", certificates, "a certificate in PEM")?,
            key: file("--nats-tls-key", key, "a private key in PEM")?,
        }),
    };
    let credentials = Credentials { login, tls_ca: tls_ca.transpose()?, tls_identity };
    let credentials = (credentials != Credentials::default()).then_some(credentials);
    Ok(Target { url: choice.nats_url.clone(), credentials })
}

/// The text of a file of credentials or certificates.
///
/// # Errors
/// It cannot be read; its flag and path, never what it holds.
pub fn file(flag: &str, path: &Path, what: &str) -> Result<String, String> {
    let error = |why| format!("{flag}: got '{}', expected the path of {what}: {why}", path.display());
    files::read_text(path, MOST_BYTES).map_err(error)
}

/// The first line of a file, or of the variable after `env:`.
///
/// # Errors
/// It cannot be read or is empty; its flag, never what it holds.
pub fn secret(flag: &str, from: &str, what: &str) -> Result<String, String> {
    let text = kept(flag, from, what)?;
    // Comments are for seeds that were kept as `nk` prints them.
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.map(str::to_owned).ok_or_else(|| empty(flag, from, what))
}

/// The first line of a file, or of the variable after `env:`, as it is: a password may begin with '#' and end with a space.
///
/// # Errors
/// It cannot be read or is empty; its flag, never what it holds.
pub fn password(flag: &str, from: &str) -> Result<String, String> {
    const WHAT: &str = "a file with a password";
    let text = kept(flag, from, WHAT)?;
    let line = text.lines().next().filter(|line| !line.is_empty());
    line.map(str::to_owned).ok_or_else(|| empty(flag, from, WHAT))
}

fn kept(flag: &str, from: &str, what: &str) -> Result<String, String> {
    match from.strip_prefix("env:") {
        Some(name) => std::env::var(name)
            .map_err(|_| format!("{flag}: got '{from}', expected env: and the name of a variable that is set")),
        None => file(flag, Path::new(from), what),
    }
}

fn empty(flag: &str, from: &str, what: &str) -> String {
    format!("{flag}: got '{from}', expected the path of {what}: it is empty")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Preflight;
    use std::path::PathBuf;
    use std::time::Duration;

    fn choice(login: LoginChoice) -> TargetChoice {
        TargetChoice {
            nats_url: "nats://127.0.0.1:4222".into(),
            login: Some(login),
            tls_ca: None,
            tls_identity: None,
            durables: Vec::new(),
            jsz_url: None,
            recovery_limit: Duration::from_secs(1),
            preflight: Preflight::Skip,
        }
    }

    #[test]
    fn secrets_are_read_from_files_and_errors_do_not_repeat_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("token"), "\n# mine\n  s3cret \n").unwrap();
        std::fs::write(path("empty"), "\n").unwrap();
        let named = |name: &str| path(name).display().to_string();
        let opened = open(&choice(LoginChoice::Token(named("token")))).unwrap();
        assert_eq!(opened.credentials.unwrap().login, Some(Login::Token("s3cret".into())));
        std::fs::write(path("password"), "#p@ss: w/ord% \r\nanother\n").unwrap();
        assert_eq!(password("--flag", &named("password")).unwrap(), "#p@ss: w/ord% ");
        assert!(password("--flag", &named("empty")).unwrap_err().ends_with("it is empty"));
        for (login, words) in [
            (LoginChoice::Token(named("empty")), "it is empty"),
            (LoginChoice::NkeySeed(named("absent")), "--nats-nkey: got '"),
            (LoginChoice::Token("env:PLIMSOLL_NO_SUCH_VARIABLE".into()), "a variable that is set"),
            (
                LoginChoice::CredentialsFile(PathBuf::from("/absent")),
                "--nats-creds: got '/absent', expected the path of",
            ),
        ] {
            let error = open(&choice(login)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
