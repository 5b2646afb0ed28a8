//! Asks an agent's `/healthz`, as a container's health check does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// An agent that takes longer to answer does not serve.
const PATIENCE: Duration = Duration::from_secs(2);
/// The head and the two letters of the body are far below.
const MOST_BYTES: u64 = 4096;

/// Whether the agent whose `--metrics-listen` this is serves.
///
/// # Errors
/// It does not, and why.
pub fn ask(listens_at: SocketAddr) -> Result<(), String> {
    let at = reachable(listens_at);
    let answer = page(at).map_err(|error| format!("no agent answers on {at}: {error}"))?;
    let first = answer.lines().next().unwrap_or_default();
    if first.split_whitespace().nth(1) == Some("200") { Ok(()) } else { Err(format!("{at} answers '{first}'")) }
}

/// What listens on every address is asked on loopback.
fn reachable(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, at.port())
}

fn page(at: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&at, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    // In one piece: a server need not read a request to its end before it answers.
    socket.write_all(format!("GET /healthz HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    socket.take(MOST_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// What is found of a server that answers one request so.
    fn check(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            assert!(asked.starts_with(b"GET /healthz HTTP/1.0\r\n"));
            socket.write_all(answer.as_bytes()).unwrap();
        });
        let found = ask(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        server.join().unwrap();
        found
    }

    #[test]
    fn only_a_page_that_is_there_is_health() {
        assert_eq!(check("HTTP/1.0 200 OK\r\n\r\nok\n"), Ok(()));
        assert!(check("HTTP/1.0 404 Not Found\r\n\r\n").unwrap_err().ends_with("answers 'HTTP/1.0 404 Not Found'"));
        assert!(check("").unwrap_err().ends_with("answers ''"));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(free).unwrap_err().starts_with(&format!("no agent answers on {free}: ")));
    }
}
