//! How Plimsoll is put to work: what is installed, and that every manifest, unit and page of `deploy/` is what the programs,
//! and whoever else reads it, take it for.

mod install;
mod kubernetes;
mod objects;

use std::path::{Path, PathBuf};

/// A file or directory of this checkout.
fn in_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in a checkout").join(path)
}
