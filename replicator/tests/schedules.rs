//! The hand-made parts that threads share, under many schedules. A schedule in which nobody can go on is a failure, too.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "in a test a wrong assumption is a failed test")]

#[expect(unreachable_pub, reason = "a module of the library")]
#[path = "../src/keys.rs"]
mod keys;
#[path = "../src/line/outgoing.rs"]
mod outgoing;
#[path = "../src/line/post.rs"]
mod post;
#[path = "schedules/reading.rs"]
mod reading;
#[path = "schedules/sending.rs"]
mod sending;
#[path = "schedules/sync.rs"]
mod sync;
#[path = "../src/line/turns.rs"]
mod turns;
#[expect(unreachable_pub, reason = "a module of the library")]
#[path = "../src/waiter.rs"]
mod waiter;

use safe_replication::key::Key;
use shuttle::rand::Rng as _;
use shuttle::thread;

use keys::Locks;
use post::Post;
use sync::Arc;
use sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const FEW: usize = 300;
const MANY: usize = 20_000;

/// Holders of a key exclude each other, whatever else they hold; each gets it in the end.
fn keys_are_held_by_one() {
    let locks = Arc::new(Locks::default());
    let inside = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)]);
    let threads: Vec<_> = (0..3_usize)
        .map(|first| {
            let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
            thread::spawn(move || {
                let both = [first, (first + 1) % 3];
                for _ in 0..2 {
                    let keys = both.map(|object| Key::meta(object as u64 + 1));
                    let guard = locks.hold(&[keys[0], keys[1], Key::everything().shared()]);
                    both.iter()
                        .for_each(|object| assert_eq!(inside[*object].fetch_add(1, Ordering::SeqCst), 0));
                    both.iter()
                        .for_each(|object| assert_eq!(inside[*object].fetch_sub(1, Ordering::SeqCst), 1));
                    drop(guard);
                }
            })
        })
        .collect();
    // Who stops them all is alone.
    let guard = locks.hold(&[Key::everything()]);
    assert!(inside.iter().all(|count| count.load(Ordering::SeqCst) == 0));
    drop(guard);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(locks.waiting(), 0);
}

/// What the two threads of a line share.
#[derive(Default)]
struct Line {
    post: Post,
    reading: AtomicBool,
    /// The work of the first one ends only when another one has read meanwhile.
    relieved: AtomicBool,
    done: AtomicUsize,
}

impl Line {
    fn work(&self, mut duty: Option<u64>) {
        loop {
            let Some(term) = duty.take().or_else(|| self.post.stand_by()) else { return };
            self.relieved.fetch_or(term > 0, Ordering::SeqCst);
            assert!(!self.reading.swap(true, Ordering::SeqCst), "two read");
            if !self.read(term) {
                continue;
            }
            self.post.end();
            return;
        }
    }

    /// Reads, and carries out what comes. False: another one reads in its place.
    fn read(&self, term: u64) -> bool {
        while self.done.fetch_add(1, Ordering::SeqCst) < 3 {
            let alone = self.post.is_manned();
            self.reading.store(false, Ordering::SeqCst);
            if alone {
                self.post.leave();
                while term == 0 && !self.relieved.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                if !self.post.come_back(term) {
                    return false;
                }
            }
            assert!(!self.reading.swap(true, Ordering::SeqCst), "two read");
        }
        true
    }
}

/// One reads at a time; who is away for long is replaced; all end.
fn one_reads_a_line() {
    let line = Arc::new(Line::default());
    let other = Arc::clone(&line);
    let second = thread::spawn(move || other.work(None));
    // Who stands by looks often at first, and then sleeps until it is told.
    for _ in 0..shuttle::rand::thread_rng().gen_range(0..100) {
        thread::yield_now();
    }
    line.work(Some(0));
    second.join().unwrap();
    assert!(line.relieved.load(Ordering::SeqCst));
}

#[test]
fn keys_under_schedules() {
    shuttle::check_random(keys_are_held_by_one, FEW);
    shuttle::check_pct(keys_are_held_by_one, FEW, 3);
}

#[test]
fn the_seat_of_a_line_under_schedules() {
    shuttle::check_random(one_reads_a_line, FEW);
}

#[test]
fn who_reads_a_line_under_schedules() {
    shuttle::check_random(reading::all_get_their_answers, FEW);
    shuttle::check_pct(reading::all_get_their_answers, FEW, 3);
}

#[test]
fn what_a_line_sends_under_schedules() {
    shuttle::check_random(sending::all_is_sent_in_order, FEW);
    shuttle::check_pct(sending::all_is_sent_in_order, FEW, 3);
}

#[test]
#[ignore = "many more schedules"]
fn everything_under_many_schedules() {
    shuttle::check_random(keys_are_held_by_one, MANY);
    shuttle::check_pct(keys_are_held_by_one, MANY, 3);
    shuttle::check_random(one_reads_a_line, MANY);
    shuttle::check_random(reading::all_get_their_answers, MANY);
    shuttle::check_pct(reading::all_get_their_answers, MANY, 3);
    shuttle::check_random(sending::all_is_sent_in_order, MANY);
    shuttle::check_pct(sending::all_is_sent_in_order, MANY, 3);
}
