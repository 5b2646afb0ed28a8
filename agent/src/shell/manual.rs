//! What a program says of its own command line: completions of shells, and manual pages.

use std::io::Write as _;
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

/// Prints what was asked for. A reader that has gone away, as `head` does, is no reason to fail.
///
/// # Errors
/// It cannot be written, as on a full disk.
pub fn print(text: &[u8]) -> Result<(), String> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("standard output cannot be written: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes the program's page and one for each of its commands into a directory, which is made if it is not there.
///
/// # Errors
/// A page cannot be written; with the flag and the directory.
pub fn write_pages(command: Command, dir: &Path) -> Result<(), String> {
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written
        .map_err(|error| format!("--dir: got '{}', expected a directory that can be written: {error}", dir.display()))
}
