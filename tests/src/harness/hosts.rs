//! Hosts of their own for the programs under test: network namespaces on one wire, which delays, loses and cuts what a test
//! wants delayed, lost and cut.
//!
//! The namespaces have no names: the kernel takes them away with the last process and descriptor in them, however the test
//! ends. Each has one TUN device, and this process is the wire between these, so that no bridge, filter or queueing
//! discipline is needed of the kernel. What one host sends another arrives in its order.

use anyhow::{Context as _, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::time::Instant;

/// Beyond what a device of 1500 bytes lets through.
const PACKET: usize = 2048;
/// What the wire's losses and jitter are drawn with: the same in every run.
const SEED: u64 = 7;
/// `10.77.0.1` is the first host.
const NETWORK: [u8; 3] = [10, 77, 0];
const DEVICE: &[u8] = b"wire0";
const NEEDED: &str = "hosts of their own are network namespaces with TUN devices, which takes root (CAP_SYS_ADMIN and \
                      CAP_NET_ADMIN) and /dev/net/tun: run the suite so, or leave these tests out with `--skip hosts::`";

/// What happens to packets from one host to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    pub delay: Duration,
    /// Delays vary by so much to either side.
    pub jitter: Duration,
    /// The part that is lost, 0 to 1.
    pub loss: f64,
    /// What the path carries, in bytes per second; 0: whatever comes. The rest waits in front of it.
    pub bytes_per_second: u64,
    /// Nothing arrives, and nobody is told.
    pub cut: bool,
}

impl Path {
    /// Whatever comes arrives at once.
    pub const FREE: Self =
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, bytes_per_second: 0, cut: false };
    pub const CUT: Self = Self { cut: true, ..Self::FREE };

    pub const fn narrow(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, ..Self::FREE }
    }

    pub const fn delayed(ms: u64, jitter_ms: u64) -> Self {
        Self { delay: Duration::from_millis(ms), jitter: Duration::from_millis(jitter_ms), ..Self::FREE }
    }
}

/// A host: whatever is put there has its address, and a loopback of its own.
#[derive(Debug, Clone)]
pub struct Host(Arc<Place>);

#[derive(Debug)]
struct Place {
    address: Ipv4Addr,
    namespace: File,
    device: File,
}

impl Host {
    pub fn address(&self) -> Ipv4Addr {
        self.0.address
    }

    /// Has a command run there.
    pub fn put(&self, command: &mut Command) {
        let place = self.clone();
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || enter(place.0.namespace.as_raw_fd()));
        }
    }

    /// Does something there, such as opening a connection.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let work = || enter(self.0.namespace.as_raw_fd()).map(|()| work());
        let done =
            thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.context("entering a network namespace")
    }

    fn new(address: Ipv4Addr) -> io::Result<Self> {
        // A thread that has left the others' namespace does not come back: this one ends.
        let made = thread::spawn(move || {
            // SAFETY: takes no pointer, and concerns this thread alone.
            checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
            let namespace = File::open("/proc/thread-self/ns/net")?;
            let device = device()?;
            configure(b"lo", None)?;
            configure(DEVICE, Some(address))?;
            Ok(Self(Arc::new(Place { address, namespace, device })))
        });
        made.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    }
}

fn enter(namespace: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer; the descriptor is open as long as its host.
    checked(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// As the kernel's `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    fn of(device: &[u8], value: &[u8]) -> Self {
        let mut request = Self { name: [0; 16], value: [0; 24] };
        request.name[..device.len()].copy_from_slice(device);
        request.value[..value.len()].copy_from_slice(value);
        request
    }

    fn send(&self, to: RawFd, code: libc::c_ulong) -> io::Result<()> {
        // SAFETY: every code used here takes a pointer to such a request, which outlives the call.
        checked(unsafe { libc::ioctl(to, code as _, std::ptr::from_ref(self)) })
    }
}

/// The TUN device of this thread's namespace; packets alone come through it.
fn device() -> io::Result<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    Request::of(DEVICE, &flags.to_ne_bytes()).send(device.as_raw_fd(), TUNSETIFF)?;
    Ok(device)
}

/// Gives a device of this thread's namespace its address, if any, and sets it up.
fn configure(device: &[u8], address: Option<Ipv4Addr>) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let set = |value: &[u8], code| Request::of(device, value).send(socket.as_raw_fd(), code);
    // As `struct sockaddr_in`.
    let inet = |address: Ipv4Addr| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        bytes[4..8].copy_from_slice(&address.octets());
        bytes
    };
    if let Some(address) = address {
        set(&inet(address), libc::SIOCSIFADDR as _)?;
        set(&inet(Ipv4Addr::new(255, 255, 255, 0)), libc::SIOCSIFNETMASK as _)?;
    }
    set(&((libc::IFF_UP | libc::IFF_RUNNING) as u16).to_ne_bytes(), libc::SIOCSIFFLAGS as _)
}

/// Hosts on one wire. Dropping it ends the wire; the hosts go with whoever is there.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    wire: Arc<Wire>,
    /// Closed, it ends the wire's threads.
    open: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Wire {
    hosts: Vec<Host>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// By sender, by receiver.
    paths: Vec<Vec<Path>>,
    /// By sender, by receiver: when the newest packet arrives, which none overtakes.
    newest: Vec<Vec<Instant>>,
    /// By sender, by receiver: when a path of bounded speed has taken what was sent.
    free: Vec<Vec<Instant>>,
    under_way: BinaryHeap<Packet>,
    sent: u64,
    over: bool,
    chance: ChaCha8Rng,
}

#[derive(Debug, PartialEq, Eq)]
struct Packet {
    arrives: Instant,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
}

impl Ord for Packet {
    /// The first to arrive is the largest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.arrives, other.number).cmp(&(self.arrives, self.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Network {
    /// So many hosts, each reaching every other at once.
    ///
    /// # Errors
    /// If the system refuses, with what it takes.
    pub fn new(hosts: usize) -> anyhow::Result<Self> {
        ensure!((1..=250).contains(&hosts), "a network of {hosts} hosts: expected 1 to 250");
        let [a, b, c] = NETWORK;
        let hosts: io::Result<Vec<Host>> =
            (1..=hosts as u8).map(|number| Host::new(Ipv4Addr::new(a, b, c, number))).collect();
        let hosts = hosts.context(NEEDED)?;
        let count = hosts.len();
        let state = State {
            paths: vec![vec![Path::FREE; count]; count],
            newest: vec![vec![Instant::now(); count]; count],
            free: vec![vec![Instant::now(); count]; count],
            under_way: BinaryHeap::new(),
            sent: 0,
            over: false,
            chance: ChaCha8Rng::seed_from_u64(SEED),
        };
        let wire = Arc::new(Wire { hosts: hosts.clone(), state: Mutex::new(state), changed: Condvar::new() });
        let (closed, open) = io::pipe().context("making a pipe")?;
        let mut network = Self { hosts, wire, open: Some(open), threads: Vec::new() };
        for from in 0..count {
            let (wire, closed) = (network.wire.clone(), closed.try_clone().context("sharing a pipe")?);
            network.threads.push(thread::spawn(move || wire.listen(from, &closed)));
        }
        let wire = network.wire.clone();
        network.threads.push(thread::spawn(move || wire.deliver()));
        Ok(network)
    }

    pub fn host(&self, host: usize) -> &Host {
        &self.hosts[host]
    }

    /// Changes what happens from one host to another from now on; what is under way arrives as it was to.
    pub fn one_way(&self, from: usize, to: usize, path: Path) {
        self.wire.lock().paths[from][to] = path;
    }

    /// The same in both directions.
    pub fn both_ways(&self, one: usize, other: usize, path: Path) {
        self.one_way(one, other, path);
        self.one_way(other, one, path);
    }

    /// Between a host and everybody, in both directions.
    pub fn all_of(&self, host: usize, path: Path) {
        (0..self.hosts.len()).filter(|&other| other != host).for_each(|other| self.both_ways(host, other, path));
    }

    /// Everybody reaches everybody at once again.
    pub fn heal(&self) {
        (0..self.hosts.len()).for_each(|host| self.all_of(host, Path::FREE));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.open.take());
        self.wire.lock().over = true;
        self.wire.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a host sends, until the pipe is closed.
    fn listen(&self, from: usize, closed: &PipeReader) {
        let mut device = &self.hosts[from].0.device;
        let mut buffer = [0; PACKET];
        loop {
            let wait = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut waits = [wait(device.as_raw_fd()), wait(closed.as_raw_fd())];
            // SAFETY: the pointer is to as many as are said.
            let ready = unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as _, -1) };
            if ready < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if ready < 0 || waits[1].revents != 0 {
                return;
            }
            while let Ok(length) = device.read(&mut buffer) {
                self.take(from, &buffer[..length]);
            }
        }
    }

    fn take(&self, from: usize, bytes: &[u8]) {
        // IPv4 alone: its destination is the last of the four words from byte 16 on.
        let [a, b, c] = NETWORK;
        let Some([x, y, z, number]) = bytes.get(16..20).filter(|_| bytes[0] >> 4 == 4) else { return };
        let Some(to) = usize::from(*number).checked_sub(1).filter(|&to| to < self.hosts.len()) else { return };
        if [*x, *y, *z] != [a, b, c] {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        let path = state.paths[from][to];
        if path.cut || (path.loss > 0.0 && state.chance.random::<f64>() < path.loss) {
            return;
        }
        let free = state.free[from][to].max(now);
        if path.bytes_per_second > 0 {
            let takes = Duration::from_secs_f64(bytes.len() as f64 / path.bytes_per_second as f64);
            state.free[from][to] = free + takes;
        }
        let through = if path.bytes_per_second > 0 { state.free[from][to] } else { now };
        let varied = path.jitter.mul_f64(2.0 * state.chance.random::<f64>());
        let arrives = (through + path.delay + varied - path.jitter.min(path.delay)).max(state.newest[from][to]);
        state.newest[from][to] = arrives;
        if arrives <= now {
            drop(state);
            return self.hand(to, bytes);
        }
        state.sent += 1;
        let packet = Packet { arrives, number: state.sent, to, bytes: bytes.to_owned() };
        state.under_way.push(packet);
        drop(state);
        self.changed.notify_all();
    }

    fn hand(&self, to: usize, bytes: &[u8]) {
        // A device whose queue is full drops, as a host does.
        let _ = (&self.hosts[to].0.device).write(bytes);
    }

    /// Hands over what was delayed, until it is over.
    fn deliver(&self) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            let first = state.under_way.peek().map(|packet| packet.arrives);
            if first.is_some_and(|first| first <= now)
                && let Some(packet) = state.under_way.pop()
            {
                drop(state);
                self.hand(packet.to, &packet.bytes);
                state = self.lock();
                continue;
            }
            let wait = first.map_or(Duration::from_secs(1), |first| first - now);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

const _: () = assert!(size_of::<Request>() == 40, "as large as the kernel's");

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    /// Says so where this machine has no right to it.
    fn network() -> Network {
        Network::new(2).unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[test]
    fn hosts_reach_each_other_at_their_addresses_and_a_cut_is_silent() {
        let network = network();
        let (one, other) = (network.host(0).clone(), network.host(1).clone());
        let listener = other.inside(|| TcpListener::bind((other.address(), 0))).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let mut socket = one.inside(|| TcpStream::connect(address)).unwrap().unwrap();
        let (mut accepted, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), one.address());
        socket.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        network.one_way(0, 1, Path::CUT);
        socket.write_all(b"lost").unwrap();
        accepted.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(accepted.read(&mut heard).is_err(), "nothing comes, and nothing is said");
        accepted.write_all(b"other").unwrap();
        socket.read_exact(&mut heard).unwrap();
        network.heal();
        // Sent again by the host itself, as it lost it.
        accepted.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        accepted.read_exact(&mut heard[..4]).unwrap();
        assert_eq!(&heard[..4], b"lost");
    }

    #[test]
    fn a_path_keeps_its_delay_and_its_order_and_loses_its_part() {
        let network = network();
        let (one, other) = (network.host(0).clone(), network.host(1).clone());
        let bound = |host: &Host| host.inside(|| UdpSocket::bind((host.address(), 0))).unwrap().unwrap();
        let (from, to) = (bound(&one), bound(&other));
        network.one_way(0, 1, Path { loss: 0.5, ..Path::delayed(20, 15) });
        let sent = Instant::now();
        for number in 0..200_u8 {
            from.send_to(&[number], to.local_addr().unwrap()).unwrap();
        }
        to.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut numbers = Vec::new();
        let mut byte = [0];
        while to.recv(&mut byte).is_ok() {
            numbers.push(byte[0]);
        }
        assert!(sent.elapsed() >= Duration::from_millis(5));
        assert!(numbers.is_sorted() && (50..150).contains(&numbers.len()), "{numbers:?}");
    }
    #[test]
    fn a_narrow_path_takes_its_time() {
        let network = network();
        let (one, other) = (network.host(0).clone(), network.host(1).clone());
        let bound = |host: &Host| host.inside(|| UdpSocket::bind((host.address(), 0))).unwrap().unwrap();
        let (from, to) = (bound(&one), bound(&other));
        // 1,000 bytes and two headers: 40 a second.
        network.one_way(0, 1, Path::narrow(40 * 1028));
        let sent = Instant::now();
        for _ in 0..60 {
            from.send_to(&[0; 1000], to.local_addr().unwrap()).unwrap();
        }
        to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (0..60).for_each(|_| assert_eq!(to.recv(&mut [0; 1000]).unwrap(), 1000));
        assert!(sent.elapsed() >= Duration::from_millis(1500));
    }
}
