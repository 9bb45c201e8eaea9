//! The line of a session: frames over TLS on a blocking socket, with as few threads on the way as there can be.
//!
//! Whoever has a frame writes it to the socket itself, together with what others queued meanwhile. Whoever waits for an
//! answer reads the socket itself ([`turns`]). What nobody waits for is read by one of two threads of the line, which also
//! carry out what is quick ([`post`]). The thread that keeps the session alive never writes: what it has to say is sent by
//! a third one.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead as _, IoSlice, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustls::Connection;
use safe_proto::replication::Frame;

use crate::session::{Carrier, Outcome, Waiter};
use frame::{Assembler, Encoded, encode};
use outgoing::Outgoing;
use post::Post;
use turns::Turns;

pub mod frame;
mod outgoing;
mod post;
mod turns;

/// Frames queued: never reached, since what is numbered is bounded and the rest is little.
const QUEUE: usize = 8192;
/// Bytes that are encrypted before they are sent: the other side decrypts them while the next ones are encrypted.
const PIECE: usize = 128 << 10;
/// Bytes taken from the socket at once.
const RECEIVED: usize = 128 << 10;
/// A thread that reads looks up so often, in case what it waits for has come otherwise.
const GLANCE: Duration = Duration::from_millis(100);
/// For so long after somebody who waits has read the line, its own threads keep away from it.
const ASIDE: Duration = Duration::from_millis(20);
/// Answers that are sent together at most.
const TOGETHER: u32 = 16;

/// What is done with the frames of the other side.
pub trait Handler: Send + Sync {
    /// A frame came. `seat`: the thread may carry out something, and leaves its seat for it.
    ///
    /// # Errors
    /// Why the session cannot go on.
    fn frame(&self, frame: Frame, seat: Option<&Seat<'_>>) -> Result<(), String>;

    /// This side carries out what the other one sends.
    fn carries_out(&self) -> bool;

    /// Nothing comes any more, or nothing can be sent.
    fn ended(&self, reason: &str);
}

/// Where a thread of the line sits while it reads.
pub struct Seat<'a> {
    line: &'a Line,
    term: u64,
    lost: std::cell::Cell<bool>,
}

impl Seat<'_> {
    /// Something may be carried out here: who is on duty is the only one that does.
    #[must_use]
    pub fn may_leave(&self) -> bool {
        self.line.post.is_manned()
    }

    /// Does something; if it takes long, another thread has the seat afterwards.
    pub fn leave_for(&self, work: impl FnOnce()) {
        self.line.post.leave();
        work();
        if !self.line.post.come_back(self.term) {
            self.lost.set(true);
        }
    }
}

#[derive(Default)]
struct Incoming {
    cipher: Vec<u8>,
    assembler: Assembler,
    frames: VecDeque<Frame>,
    /// What the handshake read too much of was looked at.
    begun: bool,
}

/// See the module.
pub struct Line {
    socket: TcpStream,
    tls: Mutex<Connection>,
    /// Through what is encrypted and not sent yet.
    outgoing: Outgoing<Encoded, Vec<u8>>,
    /// Held by who reads.
    incoming: Mutex<Incoming>,
    turns: Turns<Outcome>,
    post: Post,
    handler: OnceLock<Arc<dyn Handler>>,
    over: AtomicBool,
    ended: tokio::sync::Notify,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Line {
    /// Over a connection whose handshake is done.
    ///
    /// # Errors
    /// The socket refuses.
    pub fn new(socket: TcpStream, mut tls: Connection) -> std::io::Result<Arc<Self>> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(GLANCE))?;
        tls.set_buffer_limit(None);
        Ok(Arc::new(Self {
            socket,
            tls: Mutex::new(tls),
            outgoing: Outgoing::default(),
            incoming: Mutex::default(),
            turns: Turns::default(),
            post: Post::default(),
            handler: OnceLock::new(),
            over: AtomicBool::new(false),
            ended: tokio::sync::Notify::new(),
            threads: Mutex::default(),
        }))
    }

    /// Who waits may read from now on.
    pub fn set_handler(&self, handler: Arc<dyn Handler>) {
        if self.handler.set(handler).is_err() {
            tracing::error!("a line has one handler");
        }
    }

    /// Begins to read what nobody waits for.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let mut threads = self.threads.lock();
        for (name, term) in [("line-1", Some(0)), ("line-2", None)] {
            let own = Arc::clone(self);
            let thread = std::thread::Builder::new().name(name.into());
            threads.push(thread.spawn(move || own.work(term))?);
        }
        let own = Arc::clone(self);
        threads.push(std::thread::Builder::new().name("line-send".into()).spawn(move || own.send_hurried())?);
        Ok(())
    }

    /// Takes no more frames, sends what is queued and says that it was the last; returns when the other side has ended too.
    pub async fn finish(&self, limit: Duration) {
        self.outgoing.close();
        let ended = async {
            while !self.over.load(Ordering::Acquire) {
                self.ended.notified().await;
            }
        };
        let _in_time = tokio::time::timeout(limit, ended).await;
    }

    /// Ends it for both directions, and waits for its threads.
    pub fn end(&self) {
        self.outgoing.close();
        self.end_with("the stream ended");
        if let Err(error) = self.socket.shutdown(Shutdown::Both) {
            tracing::debug!(%error, "the connection was gone already");
        }
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the line panicked");
            }
        }
    }

    fn end_with(&self, reason: &str) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(handler) = self.handler.get() {
            handler.ended(reason);
        }
        self.post.end();
        self.ended.notify_one();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// The third thread: sends for those who must not wait.
    fn send_hurried(&self) {
        loop {
            let last = self.outgoing.wait_for_hurry();
            self.sent(self.outgoing.flush_besides(|cipher| self.send_queued(cipher)));
            if last {
                let _gone = self.socket.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    fn sent(&self, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            self.end_with(&reason);
        }
    }

    fn send_queued(&self, cipher: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let next = self.outgoing.next();
            match &next {
                Some(Encoded { message, content }) => {
                    let (first, rest) = content.split_at(content.len().min(PIECE));
                    self.encrypt(&[IoSlice::new(message), IoSlice::new(first)], cipher)?;
                    for piece in rest.chunks(PIECE) {
                        self.send_all(cipher)?;
                        self.encrypt(&[IoSlice::new(piece)], cipher)?;
                    }
                }
                None => self.encrypt(&[], cipher)?,
            }
            if next.is_none() || cipher.len() >= PIECE {
                self.send_all(cipher)?;
            }
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Adds what is to be sent: these, and what TLS itself has to say.
    fn encrypt(&self, parts: &[IoSlice<'_>], cipher: &mut Vec<u8>) -> Result<(), String> {
        let mut tls = self.tls.lock();
        let failed = |error: std::io::Error| format!("a frame cannot be encrypted: {error}");
        if !parts.is_empty() {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            if tls.writer().write_vectored(parts).map_err(failed)? != length {
                return Err("a frame cannot be encrypted".into());
            }
        }
        while tls.wants_write() {
            tls.write_tls(cipher).map_err(failed)?;
        }
        Ok(())
    }

    fn send_all(&self, cipher: &mut Vec<u8>) -> Result<(), String> {
        let mut rest = cipher.as_slice();
        while !rest.is_empty() {
            match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(format!("the stream broke: {error}")),
            }
        }
        cipher.clear();
        Ok(())
    }

    /// Takes what the socket has. False: nothing, for now.
    fn receive(&self, incoming: &mut Incoming, flags: RecvFlags) -> Result<bool, String> {
        let Incoming { cipher, assembler, frames, begun } = incoming;
        if !*begun {
            *begun = true;
            cipher.resize(RECEIVED, 0);
            self.decrypt(&[], assembler, frames)?;
            return Ok(true);
        }
        match rustix::net::recv(&self.socket, cipher.as_mut_slice(), flags) {
            Ok((0, _)) => Err("the other node ended the stream".into()),
            Ok((count, _)) => {
                let text = cipher.get(..count).unwrap_or_default();
                self.decrypt(text, assembler, frames).map(|()| true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(format!("the stream broke: {error}")),
        }
    }

    fn decrypt(
        &self,
        mut cipher: &[u8],
        assembler: &mut Assembler,
        frames: &mut VecDeque<Frame>,
    ) -> Result<(), String> {
        loop {
            // Not held for longer than a record takes: others want to send meanwhile.
            let mut tls = self.tls.lock();
            if !cipher.is_empty() {
                tls.read_tls(&mut cipher).map_err(|error| format!("the stream broke: {error}"))?;
            }
            tls.process_new_packets().map_err(|error| format!("the stream broke: {error}"))?;
            loop {
                let mut reader = tls.reader();
                match reader.fill_buf() {
                    Ok([]) => return Err("the other node ended the stream".into()),
                    Ok(plain) => {
                        let count = plain.len();
                        assembler.take(plain, frames).map_err(|error| error.to_string())?;
                        reader.consume(count);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(format!("the stream broke: {error}")),
                }
            }
            let answers = tls.wants_write();
            drop(tls);
            if answers {
                self.hurry();
            }
            if cipher.is_empty() {
                return Ok(());
            }
        }
    }

    /// Handles frames; the caller has the turn. `wait`: for the socket, while there is none. False: it is over.
    fn read(&self, seat: Option<&Seat<'_>>, flags: RecvFlags, mut goes_on: impl FnMut() -> bool) -> bool {
        let Some(handler) = self.handler.get() else { return false };
        let mut together = 0;
        // Only answers are sent by who reads, and by nobody who asks: so that who asks always reads on, whatever is on its
        // way to the other side, and neither side ever waits for the other one to read.
        let answer = || {
            if handler.carries_out() {
                self.flush()
            }
        };
        while !self.is_over() && seat.is_none_or(|seat| !seat.lost.get()) {
            let frame = self.incoming.lock().frames.pop_front();
            let outcome = if let Some(frame) = frame {
                together += 1;
                if together >= TOGETHER {
                    answer();
                    together = 0;
                }
                handler.frame(frame, seat)
            } else {
                answer();
                together = 0;
                if !goes_on() {
                    return true;
                }
                match self.receive(&mut self.incoming.lock(), flags) {
                    Ok(true) => Ok(()),
                    Ok(false) if flags.contains(RecvFlags::DONTWAIT) => return true,
                    Ok(false) if seat.is_some() => {
                        self.wait_readable();
                        Ok(())
                    }
                    Ok(false) => Ok(()),
                    Err(reason) => Err(reason),
                }
            };
            if let Err(reason) = outcome {
                self.end_with(&reason);
            }
        }
        false
    }

    /// Until there is something to read, or the end of it.
    fn wait_readable(&self) {
        let mut looked = [PollFd::new(&self.socket, PollFlags::IN)];
        if let Err(error) = poll(&mut looked, None)
            && error != Errno::INTR
        {
            tracing::error!(%error, "cannot wait for a socket");
            self.end_with("the stream cannot be waited for");
        }
    }

    /// A thread of the line.
    fn work(&self, mut duty: Option<u64>) {
        loop {
            let term = match duty {
                Some(term) => term,
                None => match self.post.stand_by() {
                    Some(term) => term,
                    None => return,
                },
            };
            let seat = Seat { line: self, term, lost: std::cell::Cell::new(false) };
            self.sit(&seat, term > 0);
            if !seat.lost.get() {
                return;
            }
            duty = None;
        }
    }

    /// `turn`: whoever had the seat before had the turn as well.
    fn sit(&self, seat: &Seat<'_>, mut turn: bool) {
        let Some(handler) = self.handler.get() else { return };
        let mut seen = self.turns.count();
        while !self.is_over() && !seat.lost.get() {
            if turn || (handler.carries_out() && self.turns.take()) {
                turn = true;
                self.read(Some(seat), RecvFlags::empty(), || handler.carries_out());
            } else {
                self.wait_readable();
                if self.turns.take() {
                    turn = true;
                    self.read(Some(seat), RecvFlags::DONTWAIT, || true);
                } else {
                    std::thread::park_timeout(ASIDE);
                }
            }
            if seat.lost.get() {
                return;
            }
            if std::mem::take(&mut turn) {
                self.turns.pass_on();
            }
            if !handler.carries_out() {
                self.keep_aside(&mut seen);
            }
        }
    }

    /// As long as those who wait read themselves.
    fn keep_aside(&self, seen: &mut u64) {
        loop {
            let count = self.turns.count();
            if std::mem::replace(seen, count) == count || self.is_over() {
                return;
            }
            std::thread::park_timeout(ASIDE);
        }
    }
}

impl Carrier for Line {
    fn queue(&self, frame: Frame) -> bool {
        self.outgoing.push(encode(frame), QUEUE)
    }

    fn flush(&self) {
        self.sent(self.outgoing.flush(|cipher| self.send_queued(cipher)));
    }

    fn hurry(&self) {
        self.outgoing.hurry();
    }

    fn wait_for(&self, waiter: &Arc<Waiter>) {
        if waiter.has_come() {
            return;
        }
        if self.turns.take_or_queue(waiter) || waiter.sleep() {
            self.read(None, RecvFlags::empty(), || !waiter.has_come());
            self.turns.pass_on();
            // The line is over, and the session says so next.
            waiter.sleep_for_result();
        } else {
            self.turns.leave(waiter);
        }
    }
}

#[cfg(test)]
mod tests;
