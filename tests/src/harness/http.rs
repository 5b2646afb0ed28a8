//! Pages of the programs under test and of nats-server, fetched as simply as can be.

use anyhow::{Context as _, ensure};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// The body of a page.
///
/// # Errors
/// If nobody answers, or not with 200.
pub fn get(url: &str) -> anyhow::Result<String> {
    let (host, path) = url.strip_prefix("http://").context("not http")?.split_once('/').context("no path")?;
    let mut socket = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(socket, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).with_context(|| format!("reading {url}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    ensure!(head.split_whitespace().nth(1) == Some("200"), "{url}: {head}");
    Ok(body.to_owned())
}
