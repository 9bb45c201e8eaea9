//! Reads requests from the device, hands them to a [`Handler`] and writes the answers.
//!
//! A handler may block for long (an operation waits for the other node, or is held), so there are as many workers as
//! requests in progress, within a bound. They share one device: the kernel binds a request to the descriptor that it was
//! read from, so one duplicate in another process keeps them all when this one dies.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::caller::Caller;
use super::reply::{Reply, finish};
use super::request::{Operation, Request};
use super::wire::{Body, IN_HEADER, NOTIFY_RESEND, OUT_HEADER, UNIQUE_RESEND, init};
use crate::legacy::requests::Requests;

mod parked;

use parked::{Parked, Parking, park};

/// Most bytes of one write.
pub const MAX_WRITE: usize = 1 << 20;
const BUFFER: usize = MAX_WRITE + 8192;
/// Above this, a message keeps the buffer it was read into; below, it is cheaper to copy it.
const COPY_LIMIT: usize = 32 << 10;
/// Buffers kept for the next large messages.
const SPARE: usize = 8;
const MOST_WORKERS: usize = 64;
const IDLE_WORKERS: usize = 6;

/// Carries out requests.
pub trait Handler: Send + Sync + 'static {
    /// One request; may block.
    ///
    /// # Errors
    /// What the application gets.
    fn handle(&self, request: Request) -> Result<Reply, Errno>;

    /// Called before the first request. `writes_back`: the kernel keeps what is written to files until it is made
    /// durable, closed or old, and then tells their times too.
    fn begin(&self, writes_back: bool);

    /// Files of which everything that the kernel has must be written before this request is handled.
    fn awaits(&self, request: &Request) -> Vec<u64>;
}

/// Once frozen, no answer leaves any more: the fence. A reply in progress ends before `freeze` returns.
#[derive(Debug, Default)]
pub struct Gate(RwLock<Answers>);

#[derive(Debug, Default)]
struct Answers {
    frozen: bool,
    fences: u64,
}

impl Gate {
    /// From now on nothing is answered.
    pub fn freeze(&self) {
        let mut answers = self.0.write();
        answers.frozen = true;
        answers.fences += 1;
    }

    /// How often it was frozen.
    #[must_use]
    pub fn fences(&self) -> u64 {
        self.0.read().fences
    }

    /// Answers again, for a new mount that was ordered when it had been frozen so often. False: it was frozen since.
    #[must_use]
    pub fn thaw(&self, fences: u64) -> bool {
        let mut answers = self.0.write();
        if answers.fences == fences {
            answers.frozen = false;
        }
        answers.fences == fences
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.0.read().frozen
    }
}

/// Buffers for large messages: new ones would have to be cleared, and the kernel to find their pages, for each message.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_else(|| vec![0; BUFFER])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.0.lock();
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    }
}

/// A message in the buffer that it was read into, which is given back when nobody needs the message any more.
struct Lent {
    buffer: Vec<u8>,
    length: usize,
    buffers: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.buffer));
    }
}

struct Shared {
    device: OwnedFd,
    buffers: Arc<Buffers>,
    handler: Arc<dyn Handler>,
    gate: Arc<Gate>,
    idle: AtomicUsize,
    workers: Mutex<usize>,
    changed: Condvar,
    /// Requests under way, for the next process; none: there will not be one that goes on.
    requests: Option<Arc<Requests>>,
    /// The kernel may keep what is written.
    write_back: bool,
    parking: Parking,
    /// The connection began; whether the kernel can send again what was not answered.
    begun: Mutex<Option<bool>>,
    beginning: Condvar,
}

/// A connection to the kernel and its workers.
pub struct Session {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("workers", &*self.shared.workers.lock()).finish_non_exhaustive()
    }
}

impl Session {
    /// Begins to serve an opened and mounted device; `write_back`: the kernel may keep what is written, where it can.
    ///
    /// # Errors
    /// The first worker cannot be started.
    pub fn start(
        device: OwnedFd,
        handler: Arc<dyn Handler>,
        gate: Arc<Gate>,
        requests: Option<Arc<Requests>>,
        write_back: bool,
    ) -> std::io::Result<Self> {
        let session = Self::new(device, handler, gate, requests, None, write_back);
        spawn(&session.shared)?;
        Ok(session)
    }

    /// Goes on with a connection that another process served until it died: what it did not answer is sent again.
    ///
    /// # Errors
    /// The first worker cannot be started, or the kernel cannot send requests again.
    pub fn resume(
        device: OwnedFd,
        handler: Arc<dyn Handler>,
        gate: Arc<Gate>,
        requests: Arc<Requests>,
    ) -> std::io::Result<Self> {
        let writes_back = requests.writes_back();
        handler.begin(writes_back);
        let session = Self::new(device, handler, gate, Some(requests), Some(true), writes_back);
        let mut body = Body::default();
        body.zeros(OUT_HEADER);
        // A message without a number is a notification, whose kind is where else the error is.
        rustix::io::write(&session.shared.device, &finish(body, 0, NOTIFY_RESEND, 0))?;
        spawn(&session.shared)?;
        Ok(session)
    }

    fn new(
        device: OwnedFd,
        handler: Arc<dyn Handler>,
        gate: Arc<Gate>,
        requests: Option<Arc<Requests>>,
        begun: Option<bool>,
        write_back: bool,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                device,
                buffers: Arc::default(),
                handler,
                gate,
                idle: AtomicUsize::new(0),
                workers: Mutex::new(0),
                changed: Condvar::new(),
                requests,
                write_back,
                parking: Parking::default(),
                begun: Mutex::new(begun),
                beginning: Condvar::new(),
            }),
        }
    }

    /// Whether the kernel can send again what was not answered; it says so when the connection begins, which is waited
    /// for, for a while.
    #[must_use]
    pub fn resends(&self, limit: Duration) -> bool {
        let mut begun = self.shared.begun.lock();
        self.shared.beginning.wait_while_for(&mut begun, |begun| begun.is_none(), limit);
        *begun == Some(true)
    }

    /// The device, for a duplicate that outlives this process.
    #[must_use]
    pub fn device(&self) -> &OwnedFd {
        &self.shared.device
    }

    /// The connection has ended: nothing is asked and nothing can be answered any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut looked = [PollFd::new(&self.shared.device, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // The kernel reports an error condition of the device exactly when its connection is gone.
        poll(&mut looked, Some(&now)).is_ok() && looked[0].revents().contains(PollFlags::ERR)
    }

    /// Waits until all workers have ended, which they do when the mount is gone or aborted.
    #[must_use]
    pub fn join(&self, limit: Duration) -> bool {
        let mut workers = self.shared.workers.lock();
        !self.shared.changed.wait_while_for(&mut workers, |count| *count > 0, limit).timed_out()
    }
}

fn spawn(shared: &Arc<Shared>) -> std::io::Result<()> {
    let number = {
        let mut workers = shared.workers.lock();
        if *workers >= MOST_WORKERS {
            return Ok(());
        }
        *workers += 1;
        *workers
    };
    let own = Arc::clone(shared);
    let started = std::thread::Builder::new().name(format!("fuse-{number}")).spawn(move || {
        work(&own);
        *own.workers.lock() -= 1;
        own.changed.notify_all();
    });
    started.map(drop).inspect_err(|_| *shared.workers.lock() -= 1)
}

fn work(shared: &Arc<Shared>) {
    let mut buffer = shared.buffers.take();
    loop {
        shared.idle.fetch_add(1, Ordering::SeqCst);
        let read = read_message(shared, &mut buffer);
        let idle = shared.idle.fetch_sub(1, Ordering::SeqCst) - 1;
        let Some(message) = read else { return };
        if idle == 0
            && let Err(error) = spawn(shared)
        {
            tracing::warn!(%error, "cannot start one more FUSE worker");
        }
        if !take(shared, message) {
            return;
        }
        if shared.idle.load(Ordering::SeqCst) >= IDLE_WORKERS {
            return;
        }
    }
}

/// Carries out what is asked, or leaves it to others if it comes too early. False: the connection ends.
fn take(shared: &Arc<Shared>, message: Bytes) -> bool {
    let opcode = u32::from_ne_bytes(message[4..8].try_into().unwrap_or_default());
    let unique = u64::from_ne_bytes(message[8..16].try_into().unwrap_or_default());
    tracing::trace!(opcode, unique, "request");
    let Some(request) = Request::parse(message) else { return carry(shared, unique, None) };
    let files = shared.handler.awaits(&request);
    if files.is_empty() {
        return carry(shared, unique, Some(request));
    }
    park(shared, Parked { unique, request, files });
    true
}

/// Carries out one request, and notes for the next process how far it got. False: the connection ends.
fn carry(shared: &Shared, unique: u64, request: Option<Request>) -> bool {
    if let Some(requests) = &shared.requests {
        requests.begin(unique & !UNIQUE_RESEND, unique & UNIQUE_RESEND != 0);
    }
    let goes_on = serve(shared, unique, request);
    if let Some(requests) = &shared.requests {
        requests.end();
    }
    goes_on
}

/// The next message; none when the connection has ended.
fn read_message(shared: &Shared, buffer: &mut Vec<u8>) -> Option<Bytes> {
    loop {
        match rustix::io::read(&shared.device, buffer.as_mut_slice()) {
            Ok(count) if count < IN_HEADER => {
                tracing::warn!(count, "the kernel sent a message that is too short")
            }
            Ok(count) if count <= COPY_LIMIT => return Some(Bytes::copy_from_slice(&buffer[..count])),
            Ok(length) => {
                let buffer = std::mem::replace(buffer, shared.buffers.take());
                let buffers = Arc::clone(&shared.buffers);
                return Some(Bytes::from_owner(Lent { buffer, length, buffers }));
            }
            // ENOENT: the request was interrupted before it was read.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
            Err(Errno::NODEV | Errno::CONNABORTED) => return None,
            Err(error) => {
                tracing::error!(%error, "cannot read from the FUSE device");
                return None;
            }
        }
    }
}

/// False: the connection ends.
#[expect(clippy::wildcard_enum_match_arm, reason = "the handler matches the rest")]
fn serve(shared: &Shared, unique: u64, request: Option<Request>) -> bool {
    let Some(request) = request else {
        return answer(shared, &Reply::error(unique, libc::EINVAL), &[]);
    };
    match request.operation {
        Operation::Init { major, minor, readahead, flags } => {
            let writes_back = writes_back(shared.write_back, minor, flags);
            shared.handler.begin(writes_back);
            if let Some(requests) = &shared.requests {
                requests.set_writes_back(writes_back);
            }
            let reply = init_reply(unique, (major, minor), readahead, flags, writes_back);
            let answered = answer(shared, &reply, &[]);
            *shared.begun.lock() = Some(flags & init::HAS_RESEND != 0);
            shared.beginning.notify_all();
            answered
        }
        Operation::Interrupt => true,
        Operation::Destroy => {
            answer(shared, &Reply::Empty.encode(unique).unwrap_or_default().0, &[]);
            false
        }
        Operation::Unknown => answer(shared, &Reply::error(unique, libc::ENOSYS), &[]),
        _ => match handle(shared, request) {
            Ok(reply) => match reply.encode(unique) {
                Some((message, data)) => answer(shared, &message, &data),
                None => true,
            },
            Err(errno) => answer(shared, &Reply::error(unique, errno.raw_os_error()), &[]),
        },
    }
}

fn handle(shared: &Shared, request: Request) -> Result<Reply, Errno> {
    Caller { tid: request.tid, uid: request.uid }.set();
    shared.handler.handle(request)
}

/// Writes one answer unless frozen. The answer of a request that was interrupted or aborted goes nowhere: no error.
fn answer(shared: &Shared, head: &[u8], data: &[u8]) -> bool {
    let answers = shared.gate.0.read();
    if answers.frozen {
        return true;
    }
    let parts = [std::io::IoSlice::new(head), std::io::IoSlice::new(data)];
    let parts = if data.is_empty() { &parts[..1] } else { &parts[..] };
    match rustix::io::writev(&shared.device, parts) {
        Ok(_) | Err(Errno::NOENT) => true,
        Err(Errno::NODEV | Errno::CONNABORTED) => false,
        Err(error) => {
            tracing::error!(%error, bytes = head.len() + data.len(), "cannot answer the kernel");
            // Without any answer the application would hang for ever.
            let unique = u64::from_ne_bytes(head[8..16].try_into().unwrap_or_default());
            rustix::io::write(&shared.device, &Reply::error(unique, libc::EIO)).is_ok()
        }
    }
}

/// Whether the kernel is to keep what is written. Before Linux 6.16 a file could not be waited for: what was on its way
/// from the cache was neither dirty nor seen to be written any more.
fn writes_back(wanted: bool, minor: u32, offered: u64) -> bool {
    const WAITS: u32 = 44;
    if !wanted {
        return false;
    }
    let can = minor >= WAITS && offered & init::WRITEBACK_CACHE != 0;
    if !can {
        tracing::warn!(
            minor,
            "sync = \"fsync\" needs Linux 6.16: every write is given to the other node when it is made"
        );
    }
    can
}

fn init_reply(
    unique: u64,
    (major, minor): (u32, u32),
    readahead: u32,
    offered: u64,
    writes_back: bool,
) -> Vec<u8> {
    const MAJOR: u32 = 7;
    const MINOR: u32 = 39;
    let mut body = Body::default();
    body.zeros(OUT_HEADER);
    if major > MAJOR {
        // The kernel asks again with our version.
        body.u32(MAJOR).u32(MINOR);
        return finish(body, 0, 0, unique);
    }
    let wanted = init::ASYNC_READ
        | init::BIG_WRITES
        | init::DONT_MASK
        | init::DO_READDIRPLUS
        | init::READDIRPLUS_AUTO
        | init::ASYNC_DIO
        | init::PARALLEL_DIROPS
        | init::POSIX_ACL
        | init::ABORT_ERROR
        | init::MAX_PAGES
        | init::CACHE_SYMLINKS
        | init::EXPLICIT_INVAL_DATA
        | init::HANDLE_KILLPRIV_V2
        | init::SETXATTR_EXT
        | init::INIT_EXT;
    let cache = if writes_back { init::WRITEBACK_CACHE } else { 0 };
    let flags = (wanted | cache) & offered;
    if flags & init::SETXATTR_EXT == 0 {
        // Every kernel that this runs on (5.14) has it, and its messages look different without.
        return Reply::error(unique, libc::EPROTO);
    }
    let pages = u16::try_from(MAX_WRITE / 4096).unwrap_or(256);
    let (low, high) = (flags & 0xffff_ffff, flags >> 32);
    let word = |value: u64| u32::try_from(value).unwrap_or(0);
    body.u32(MAJOR).u32(minor.min(MINOR)).u32(readahead).u32(word(low));
    body.u16(64).u16(48).u32(u32::try_from(MAX_WRITE).unwrap_or(4096)).u32(1);
    body.u16(pages).u16(0).u32(word(high)).u32(0).zeros(24);
    finish(body, 0, 0, unique)
}

/// Opens the device.
///
/// # Errors
/// There is no /dev/fuse, or it may not be opened.
pub fn open_device() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}
