//! A client that writes without end through the virtual address and remembers what was acknowledged.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http;
use crate::clock;
use crate::error::{Context as _, Error, Result};
use crate::host::Host;
use crate::linux::enter_network_of;

/// A client with less patience than any failover takes.
const CONNECT: Duration = Duration::from_millis(250);
const ANSWER: Duration = Duration::from_millis(1000);

/// Pause behind a failed attempt.
const BACKOFF: Duration = Duration::from_millis(20);

/// Longest answer: the whole ledger.
const ANSWER_MAX: usize = 256 * 1024 * 1024;

/// An acknowledged write.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// Entry.
    pub id: u64,
    /// When the attempt began that was answered.
    pub sent: Instant,
    /// When its answer came.
    pub heard: Instant,
}

/// What the client knows.
#[derive(Debug, Default)]
struct Record {
    acknowledged: Vec<Acknowledged>,
    failures: u64,
}

/// A writing client; stops when dropped.
#[derive(Debug)]
pub struct Client {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    init: u32,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Client {
    /// Starts writing from this host.
    pub fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        Self::start_at(host, address, 1)
    }

    /// As [`Client::start`], the entries being numbered from `first` on: several clients write to one ledger.
    pub fn start_at(host: &Host, address: SocketAddr, first: u64) -> Result<Self> {
        let record = Arc::new(Mutex::new(Record::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let init = host.init()?;
        let (shared, end) = (Arc::clone(&record), Arc::clone(&stop));
        let thread = std::thread::spawn(move || write_on(init, address, first, &shared, &end));
        Ok(Self { record, stop, address, init, thread: Some(thread) })
    }

    /// Writes acknowledged until now.
    pub fn count(&self) -> usize {
        self.lock().acknowledged.len()
    }

    /// Attempts that failed until now.
    pub fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// The first write that was sent after `moment` and acknowledged.
    pub fn first_after(&self, moment: Instant) -> Option<Acknowledged> {
        self.lock().acknowledged.iter().find(|one| one.sent >= moment).copied()
    }

    /// The longest time without an acknowledgement between two moments.
    pub fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let record = self.lock();
        let heard = record.acknowledged.iter().map(|one| one.heard);
        let within: Vec<_> = heard.filter(|heard| (from..=to).contains(heard)).collect();
        let pauses = within.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0]));
        pauses.max().unwrap_or_else(|| to.saturating_duration_since(from))
    }

    /// Ends writing. An error is one that no retry helps against: the ledger contradicts itself.
    pub fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| Error::new("the client panicked"))?
    }

    /// Acknowledged writes that the ledger, as read through the address, does not have, or has with other content.
    pub fn lost(&self) -> Result<Vec<u64>> {
        self.entries().map(|entries| self.missing(&entries))
    }

    /// The whole ledger, as read through this client's address.
    pub fn entries(&self) -> Result<BTreeMap<u64, String>> {
        let (init, address) = (self.init, self.address);
        let read = std::thread::spawn(move || read_all(init, address));
        read.join().map_err(|_| Error::new("the client panicked"))?
    }

    /// Writes acknowledged to this client that are not in these entries as they were written.
    pub fn missing(&self, entries: &BTreeMap<u64, String>) -> Vec<u64> {
        let record = self.lock();
        let ids = record.acknowledged.iter().map(|one| one.id);
        ids.filter(|id| entries.get(id) != Some(&content(*id))).collect()
    }

    /// Every acknowledged write, in order.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.lock().acknowledged.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

/// What entry `id` says: no two are alike, and it can be told later what it was.
fn content(id: u64) -> String {
    format!("entry {id} {:016x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn write_on(
    init: u32,
    address: SocketAddr,
    first: u64,
    record: &Mutex<Record>,
    stop: &AtomicBool,
) -> Result<()> {
    enter_network_of(init)?;
    let mut connection = None;
    let mut id = first;
    while !stop.load(Ordering::Relaxed) {
        let sent = clock::now();
        let outcome = attempt(&mut connection, address, id);
        let heard = clock::now();
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_ok() {
            record.acknowledged.push(Acknowledged { id, sent, heard });
            id += 1;
            continue;
        }
        record.failures += 1;
        drop(record);
        connection = None;
        std::thread::sleep(BACKOFF);
    }
    Ok(())
}

type Connection = BufReader<TcpStream>;

fn attempt(connection: &mut Option<Connection>, address: SocketAddr, id: u64) -> Result<()> {
    let stream = match connection.take() {
        Some(stream) => stream,
        None => connect(address)?,
    };
    let body = format!("{id}\t{}", content(id));
    let (stream, answer) = ask(stream, "POST /entries HTTP/1.1", &body)?;
    if answer != id.to_string().into_bytes() {
        return Err(Error::new("not the answer to this request"));
    }
    *connection = Some(stream);
    Ok(())
}

fn connect(address: SocketAddr) -> Result<Connection> {
    let stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(BufReader::new(stream))
}

fn ask(mut stream: Connection, first: &str, body: &str) -> Result<(Connection, Vec<u8>)> {
    http::write(stream.get_mut(), first, body.as_bytes())?;
    let answer = http::read(&mut stream, ANSWER_MAX)?.context(|| "connection closed".to_owned())?;
    if answer.first.starts_with("HTTP/1.1 200 ") {
        return Ok((stream, answer.body));
    }
    Err(Error::new(format!("{}: {}", answer.first, String::from_utf8_lossy(&answer.body))))
}

fn read_all(init: u32, address: SocketAddr) -> Result<BTreeMap<u64, String>> {
    enter_network_of(init)?;
    let (_, body) = ask(connect(address)?, "GET /entries HTTP/1.1", "")?;
    let text = String::from_utf8(body).context(|| "ledger".to_owned())?;
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs.map(|(id, content)| Ok((id.parse().context(|| "id".to_owned())?, content.to_owned()))).collect()
}
