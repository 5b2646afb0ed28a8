//! A proxy before a Cassandra that lets everything through but the rows that a seeding writes: those it acknowledges itself, so
//! that they cost no server anything, or no longer after so many, as a node whose disk is full.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};

/// What happens to the rows of a seeding.
#[derive(Debug, Clone, Copy)]
pub enum Rows {
    /// They are acknowledged, and nobody keeps them.
    Acknowledged,
    /// So many reach the server; every later one is refused, as by a node that can no longer write.
    RefusedAfter(u64),
    /// So many reach the server; then every connection breaks and nobody is let in, as where a node ends.
    GoneAfter(u64),
}

/// Frames longer than this are none of Cassandra's.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// Answers that wait until the client reads.
const ANSWERS: usize = 4096;
/// Version, flags, stream (2), opcode, length (4).
const HEADER: usize = 9;
const ANSWER_VERSION: u8 = 0x84;
const ERROR: u8 = 0x00;
const RESULT: u8 = 0x08;
const PREPARE: u8 = 0x09;
const EXECUTE: u8 = 0x0A;
const BATCH: u8 = 0x0D;
const VOID: [u8; 4] = [0, 0, 0, 1];
const PREPARED: [u8; 4] = [0, 0, 0, 4];
const WRITE_FAILURE: [u8; 4] = [0, 0, 0x15, 0];

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct CassandraProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    fate: Rows,
    written: AtomicU64,
    /// Prepared statements that insert; every connection knows them.
    inserts: Mutex<HashSet<Vec<u8>>>,
    gone: Notify,
}

impl CassandraProxy {
    /// # Errors
    /// If there is no free port.
    pub async fn start(server: String, fate: Rows) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the proxy")?;
        let address = listener.local_addr()?;
        let (written, inserts, gone) = (AtomicU64::new(0), Mutex::default(), Notify::new());
        let shared = Arc::new(Shared { fate, written, inserts, gone });
        let own = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            // Dropped with this task, it ends every connection.
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    () = own.gone.notified() => return,
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { return };
                        connections.spawn(pass(client, server.clone(), Arc::clone(&own)));
                    }
                }
            }
        });
        Ok(Self { address, shared, task })
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Rows that were acknowledged or let through.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }
}

impl Drop for CassandraProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// What is answered in a server's place.
    fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let rows = self.rows(request)?;
        match self.fate {
            Rows::Acknowledged => {}
            Rows::RefusedAfter(most) if self.written() >= most => {
                return Some(answer(request, ERROR, &write_failure()));
            }
            Rows::GoneAfter(most) if self.written() >= most => {
                self.gone.notify_one();
                return Some(Vec::new());
            }
            Rows::RefusedAfter(_) | Rows::GoneAfter(_) => {
                self.written.fetch_add(rows, Ordering::Relaxed);
                return None;
            }
        }
        self.written.fetch_add(rows, Ordering::Relaxed);
        Some(answer(request, RESULT, &VOID))
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many rows a request writes, if it writes any.
    fn rows(&self, request: &[u8]) -> Option<u64> {
        let body = &request[HEADER..];
        match request[4] {
            BATCH => Some(u64::from(short(body, 1)?)),
            EXECUTE if self.inserts().contains(body.get(2..2 + usize::from(short(body, 0)?))?) => Some(1),
            _ => None,
        }
    }

    fn inserts(&self) -> std::sync::MutexGuard<'_, HashSet<Vec<u8>>> {
        self.inserts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(client: TcpStream, server: String, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (answers, answered) = mpsc::channel(ANSWERS);
    // Streams on which an insert is being prepared.
    let preparing = Mutex::default();
    // Either side may go whenever it likes, and the other goes with it.
    tokio::select! {
        _ = requests(from_client, to_server, &shared, &preparing, answers.clone()) => {}
        _ = results(from_server, &shared, &preparing, answers) => {}
        _ = written(answered, to_client) => {}
    }
}

type Streams = Mutex<HashSet<[u8; 2]>>;

async fn requests(
    client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    shared: &Shared,
    preparing: &Streams,
    answers: mpsc::Sender<Vec<u8>>,
) -> anyhow::Result<()> {
    let mut client = BufReader::new(client);
    loop {
        let request = frame(&mut client).await?;
        if let Some(answer) = shared.answer(&request) {
            answers.send(answer).await?;
            continue;
        }
        // Behind the length of its text.
        if request[4] == PREPARE && request[HEADER..].get(4..).is_some_and(|text| text.starts_with(b"INSERT")) {
            preparing.lock().unwrap_or_else(PoisonError::into_inner).insert([request[2], request[3]]);
        }
        server.write_all(&request).await?;
    }
}

async fn results(
    server: OwnedReadHalf,
    shared: &Shared,
    preparing: &Streams,
    answers: mpsc::Sender<Vec<u8>>,
) -> anyhow::Result<()> {
    let mut server = BufReader::new(server);
    loop {
        let result = frame(&mut server).await?;
        let was_insert = preparing.lock().unwrap_or_else(PoisonError::into_inner).remove(&[result[2], result[3]]);
        let body = &result[HEADER..];
        if was_insert && result[4] == RESULT && body.starts_with(&PREPARED) {
            let id = short(body, 4).and_then(|length| body.get(6..6 + usize::from(length)));
            shared.inserts().insert(id.context("a prepared statement without an id")?.to_vec());
        }
        answers.send(result).await?;
    }
}

async fn written(mut answers: mpsc::Receiver<Vec<u8>>, mut client: OwnedWriteHalf) -> anyhow::Result<()> {
    let mut frames = Vec::new();
    while answers.recv_many(&mut frames, ANSWERS).await > 0 {
        client.write_all(&frames.concat()).await?;
        frames.clear();
    }
    Ok(())
}

async fn frame(from: &mut BufReader<OwnedReadHalf>) -> anyhow::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await?;
    let bytes = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]) as usize;
    anyhow::ensure!(bytes < MOST_BYTES, "a frame of {bytes} bytes");
    frame.resize(HEADER + bytes, 0);
    from.read_exact(&mut frame[HEADER..]).await?;
    Ok(frame)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A frame in answer to a request.
fn answer(request: &[u8], opcode: u8, body: &[u8]) -> Vec<u8> {
    let mut answer = vec![ANSWER_VERSION, 0, request[2], request[3], opcode];
    answer.extend((body.len() as u32).to_be_bytes());
    answer.extend(body);
    answer
}

/// At consistency ONE none of one node has written it, and one has failed.
fn write_failure() -> Vec<u8> {
    let mut body = WRITE_FAILURE.to_vec();
    let text = |text: &str| {
        let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let (message, kind) = (text("Operation failed - received 0 responses and 1 failures"), text("SIMPLE"));
    body.extend(message);
    body.extend([0, 1]);
    for number in [0_u32, 1, 1] {
        body.extend(number.to_be_bytes());
    }
    body.extend(kind);
    body
}
