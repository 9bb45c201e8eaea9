//! Those who wait for answers read the line in turn, and beside them a thread of the line; the session may end meanwhile.

use shuttle::rand::Rng as _;
use shuttle::thread;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::turns::Turns;
use crate::waiter::Waiter;

const THREADS: usize = 3;
const QUESTIONS: usize = 2;

type Outcome = Result<usize, ()>;
type Asked = (usize, Arc<Waiter<Outcome>>);

/// The far end answers at once; what it says waits in the socket.
#[derive(Default)]
struct Line {
    turns: Turns<Outcome>,
    /// Asked and not answered, in this order in the socket.
    socket: Mutex<Vec<Asked>>,
    reading: AtomicBool,
    over: AtomicBool,
}

impl Line {
    /// As a session does: under its lock nothing is added any more once it is over.
    fn ask(&self, question: usize) -> Option<Arc<Waiter<Outcome>>> {
        let mut socket = self.socket.lock();
        if self.over.load(Ordering::SeqCst) {
            return None;
        }
        let waiter = Arc::new(Waiter::default());
        let at = shuttle::rand::thread_rng().gen_range(0..=socket.len());
        socket.insert(at, (question, Arc::clone(&waiter)));
        Some(waiter)
    }

    /// The caller has the turn.
    fn read(&self, waits: bool, mut goes_on: impl FnMut() -> bool) {
        assert!(!self.reading.swap(true, Ordering::SeqCst), "two read");
        while !self.over.load(Ordering::SeqCst) && goes_on() {
            let mut socket = self.socket.lock();
            let next = if socket.is_empty() { None } else { Some(socket.remove(0)) };
            drop(socket);
            match next {
                Some((question, waiter)) => waiter.complete(Ok(question)),
                None if waits => thread::yield_now(),
                None => break,
            }
        }
        assert!(self.reading.swap(false, Ordering::SeqCst), "another one ended it");
        self.turns.pass_on();
    }

    fn wait_for(&self, waiter: &Arc<Waiter<Outcome>>) -> Outcome {
        if !waiter.has_come() {
            if self.turns.take_or_queue(waiter) || waiter.sleep() {
                self.read(true, || !waiter.has_come());
                waiter.sleep_for_result();
            } else {
                self.turns.leave(waiter);
            }
        }
        waiter.take().unwrap()
    }

    fn end(&self) {
        let mut socket = self.socket.lock();
        self.over.store(true, Ordering::SeqCst);
        let rest = std::mem::take(&mut *socket);
        drop(socket);
        rest.into_iter().for_each(|(_, waiter)| waiter.complete(Err(())));
    }
}

/// Each gets the answer to its own question, or learns of the end; one reads at a time.
pub(crate) fn all_get_their_answers() {
    let line = Arc::new(Line::default());
    let ends = shuttle::rand::thread_rng().gen_bool(0.3);
    let mut threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                for question in (0..QUESTIONS).map(|turn| thread * QUESTIONS + turn) {
                    match line.ask(question).map(|waiter| line.wait_for(&waiter)) {
                        Some(Ok(answered)) => assert_eq!(answered, question),
                        Some(Err(())) | None => assert!(ends),
                    }
                }
            })
        })
        .collect();
    let own = Arc::clone(&line);
    threads.push(thread::spawn(move || {
        let mut seen = own.turns.count();
        for _ in 0..3 {
            if own.turns.take() {
                own.read(false, || true);
            }
            let count = own.turns.count();
            assert!(seen <= count && count <= (THREADS * QUESTIONS) as u64, "{count} turns");
            seen = count;
            thread::yield_now();
        }
    }));
    if ends {
        line.end();
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(line.turns.take(), "the turn was lost");
}
