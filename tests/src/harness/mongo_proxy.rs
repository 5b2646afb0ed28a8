//! A proxy before a MongoDB that answers some commands itself, as a server does whose user may not, whose disk is full, whose
//! connection breaks, or that keeps nothing.

use anyhow::Context as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

/// What happens to a command.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is refused with this code and text, as a whole.
    Refuse(i32, &'static str),
    /// The connection is closed in its place, so often; then it goes through.
    Close(u32),
    /// It is acknowledged, and nobody keeps what it writes, but for the records of seedings, which go through.
    Acknowledge,
    /// It is refused unless it says how many documents it takes at once, as by a server that forgets whoever takes too long over
    /// more.
    Bound,
    /// The first so many about records of seedings go through together, once all of them are there.
    Together(u32),
}

/// Where seedings are recorded.
const RECORDS: &str = "plimsoll_seeds";

/// The field of a command that says how many documents it takes at once.
const BATCH_SIZE: &[u8] = b"batchSize\0";

/// Commands longer than this are none of MongoDB's.
const MOST_BYTES: usize = 64 * 1024 * 1024;
const OP_MSG: i32 = 2013;

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct MongoProxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl MongoProxy {
    /// Passes everything to a server but the commands of these names.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(server: String, commands: &'static [&'static str], fault: Fault) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the proxy")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(AtomicU32::new(0));
        let gathered = Arc::new(Barrier::new(if let Fault::Together(all) = fault { all as usize } else { 1 }));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, fault) = (server.clone(), fault.clone());
                let (seen, gathered) = (Arc::clone(&seen), Arc::clone(&gathered));
                tokio::spawn(async move {
                    // Either side may go whenever it likes.
                    let _ = pass(client, &server, commands, &fault, (&seen, &gathered)).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// Where clients connect.
    pub fn uri(&self) -> String {
        format!("mongodb://{}/?directConnection=true", self.address)
    }
}

impl Drop for MongoProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    server: &str,
    commands: &[&str],
    fault: &Fault,
    (seen, gathered): (&AtomicU32, &Barrier),
) -> anyhow::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    loop {
        let request = message(&mut client).await?;
        if let Some((name, collection)) = command(&request)
            && commands.contains(&name)
        {
            match fault {
                Fault::Refuse(code, text) => {
                    client.write_all(&refusal(&request, *code, text)).await?;
                    continue;
                }
                Fault::Close(times) if seen.fetch_add(1, Ordering::Relaxed) < *times => return Ok(()),
                Fault::Acknowledge if collection != RECORDS => {
                    client.write_all(&acknowledgement(&request)).await?;
                    continue;
                }
                Fault::Bound if !request.windows(BATCH_SIZE.len()).any(|name| name == BATCH_SIZE) => {
                    client.write_all(&refusal(&request, 43, "cursor id 1 not found")).await?;
                    continue;
                }
                Fault::Together(all) if collection == RECORDS && seen.fetch_add(1, Ordering::Relaxed) < *all => {
                    gathered.wait().await;
                }
                Fault::Close(_) | Fault::Acknowledge | Fault::Bound | Fault::Together(_) => {}
            }
        }
        server.write_all(&request).await?;
        let answer = message(&mut server).await?;
        client.write_all(&answer).await?;
    }
}

async fn message(from: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let bytes = u32::from_le_bytes(length) as usize;
    anyhow::ensure!((16..MOST_BYTES).contains(&bytes), "a message of {bytes} bytes");
    let mut message = length.to_vec();
    message.resize(bytes, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}

fn number(message: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_le_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

/// The name of the command in a message and the collection that it is about: the first key of its body and what stands there,
/// whichever section that is.
fn command(message: &[u8]) -> Option<(&str, &str)> {
    if number(message, 12)? != OP_MSG {
        return None;
    }
    let mut at = 20;
    // Kind 1 is a sequence of documents, kind 0 the body.
    while *message.get(at)? == 1 {
        at += 1 + usize::try_from(number(message, at + 1)?).ok()?;
    }
    let name = text(message, at + 6)?;
    // Behind its end and its length; of a command about none, there is no text.
    let collection = text(message, at + 6 + name.len() + 1 + 4).unwrap_or_default();
    Some((name, collection))
}

fn text(message: &[u8], at: usize) -> Option<&str> {
    std::str::from_utf8(message.get(at..)?.split(|byte| *byte == 0).next()?).ok()
}

/// How many documents a message brings beside its body.
fn documents(message: &[u8]) -> Option<i32> {
    let (mut at, mut count) = (20, 0);
    while at < message.len() {
        let end = at + 1 + usize::try_from(number(message, at + 1)?).ok()?;
        if message[at] == 1 {
            let mut document = at + 5 + text(message, at + 5)?.len() + 1;
            while document < end {
                document += usize::try_from(number(message, document)?).ok().filter(|length| *length > 4)?;
                count += 1;
            }
        }
        at = end;
    }
    Some(count)
}

/// `{ok: 0.0, code, errmsg}` in answer to a request.
fn refusal(request: &[u8], code: i32, text: &str) -> Vec<u8> {
    let mut fields = b"\x10code\0".to_vec();
    fields.extend(code.to_le_bytes());
    fields.extend(b"\x02errmsg\0");
    fields.extend((text.len() as i32 + 1).to_le_bytes());
    fields.extend(text.as_bytes());
    fields.push(0);
    answer(request, 0.0, &fields)
}

/// `{ok: 1.0, n}` in answer to a write.
fn acknowledgement(request: &[u8]) -> Vec<u8> {
    let mut fields = b"\x10n\0".to_vec();
    fields.extend(documents(request).unwrap_or_default().to_le_bytes());
    answer(request, 1.0, &fields)
}

fn answer(request: &[u8], ok: f64, fields: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(b"\x01ok\0");
    body.extend(ok.to_le_bytes());
    body.extend(fields);
    body.push(0);
    let length = body.len() as i32;
    body[..4].copy_from_slice(&length.to_le_bytes());
    let mut answer = Vec::new();
    answer.extend((16 + 4 + 1 + length).to_le_bytes());
    answer.extend(1_i32.to_le_bytes());
    answer.extend(&request[4..8]);
    answer.extend(OP_MSG.to_le_bytes());
    answer.extend(0_u32.to_le_bytes());
    answer.push(0);
    answer.extend(body);
    answer
}
