//! What a program says of its own command line: completions of shells, and manual pages.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// What completes the command line in this shell, to be sourced by it.
pub fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    text
}

/// Writes the program's page and one for each of its commands into a directory, which is made if it is not there.
///
/// # Errors
/// A page cannot be written; with the flag and the directory.
pub fn write_pages(command: Command, dir: &Path) -> Result<(), String> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|error| format!("--dir: got '{}', takes a directory that can be written: {error}", dir.display()))
}
