//! Connections that are to end without another word: what waits in the kernel for a network that is gone must not reach the
//! target once that is back, long after the lease.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use socket2::SockRef;

use crate::core::limits::ServerAddress;

/// Has the kernel throw away what is unsent on this process's connections to these servers, and reset them, as soon as they
/// are closed. The client keeps its sockets to itself, so they are known by whom they lead to. How many there were.
pub fn abort_when_closed(servers: &[ServerAddress]) -> usize {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        tracing::warn!("/proc/self/fd cannot be read: what the kernel still holds for the target is sent when it can");
        return 0;
    };
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    numbers.filter(|&number| leads_to(number, servers) && abort(number)).count()
}

fn socket<T>(number: RawFd, ask: impl FnOnce(&SockRef) -> std::io::Result<T>) -> Option<T> {
    // SAFETY: borrowed for one call. Where another thread has closed it meanwhile the call fails, or asks another socket.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    ask(&SockRef::from(&descriptor)).ok()
}

fn leads_to(number: RawFd, servers: &[ServerAddress]) -> bool {
    let peer = socket(number, |socket| socket.peer_addr()).and_then(|peer| peer.as_socket());
    peer.is_some_and(|peer| servers.iter().any(|server| is_of(server, peer)))
}

/// A name may stand for any address: its port has to do.
fn is_of(server: &ServerAddress, peer: SocketAddr) -> bool {
    let same = |host: IpAddr| host.to_canonical() == peer.ip().to_canonical();
    server.port == peer.port() && server.host.parse::<IpAddr>().map_or(true, same)
}

fn abort(number: RawFd) -> bool {
    socket(number, |socket| socket.set_linger(Some(Duration::ZERO))).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_to_the_servers_are_reset_and_others_are_closed() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (ours, other) = (listen(), listen());
        let connect = |listener: &TcpListener| {
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (socket, listener.accept().unwrap().0)
        };
        let ((one, mut at_ours), (two, mut at_other)) = (connect(&ours), connect(&other));
        let server = |host: &str, listener: &TcpListener| ServerAddress {
            scheme: "nats".into(),
            host: host.into(),
            port: listener.local_addr().unwrap().port(),
        };
        assert_eq!(abort_when_closed(&[server("10.0.0.1", &ours)]), 0);
        assert_eq!(abort_when_closed(&[server("127.0.0.1", &ours)]), 1);
        assert_eq!(abort_when_closed(&[server("nats.example.com", &ours)]), 1);
        drop((one, two));
        let mut byte = [0];
        assert_eq!(at_ours.read(&mut byte).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(at_other.read(&mut byte).unwrap(), 0);
    }
}
