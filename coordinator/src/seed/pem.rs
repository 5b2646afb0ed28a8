//! Certificates and keys in PEM, of whom we take for a database and of who we are.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::shell::target::file;

/// The certificates in a file of a CA.
///
/// # Errors
/// It cannot be read, or holds none; its flag and what is missing.
pub(super) fn authority(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates(flag, &file(flag, path, "a CA certificate in PEM")?)
}

/// A certificate, with those that lead to its CA, and its key: both in one file.
///
/// # Errors
/// It cannot be read, or lacks one of them; its flag and what is missing.
pub(super) fn identity(
    flag: &str,
    path: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let pem = file(flag, path, "a certificate and its key in PEM")?;
    let key =
        PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| format!("{flag}: holds no private key in PEM"))?;
    Ok((certificates(flag, &pem)?, key))
}

fn certificates(flag: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| format!("{flag}: holds no certificate in PEM"))
}
