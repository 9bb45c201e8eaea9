//! Those who have frames send them, and what others queued; a thread of the line sends for who is in a hurry.

use shuttle::thread;

use crate::outgoing::Outgoing;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const THREADS: usize = 3;
const FRAMES: usize = 2;

type Frame = (usize, usize);

#[derive(Default)]
struct Line {
    outgoing: Outgoing<Frame, Vec<Frame>>,
    sent: AtomicUsize,
    /// The encryption has something to say, which is no frame.
    besides: AtomicBool,
    /// How often who sends for others has finished.
    hurries: AtomicUsize,
}

impl Line {
    fn send(&self, way: &mut Vec<Frame>) -> Result<(), ()> {
        while let Some(frame) = self.outgoing.next() {
            way.push(frame);
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        self.besides.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn send_hurried(&self) {
        while !self.outgoing.wait_for_hurry() {
            self.outgoing.flush_besides(|way| self.send(way)).unwrap();
            self.hurries.fetch_add(1, Ordering::SeqCst);
        }
        self.outgoing.flush_besides(|way| self.send(way)).unwrap();
    }
}

/// All is sent once all have returned, each one's frames in their order; nothing that is taken is left behind at the end.
pub(crate) fn all_is_sent_in_order() {
    let line = Arc::new(Line::default());
    let hurried = {
        let line = Arc::clone(&line);
        thread::spawn(move || line.send_hurried())
    };
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                for frame in 0..FRAMES {
                    assert!(line.outgoing.push((thread, frame), 100));
                    line.outgoing.flush(|way| line.send(way)).unwrap();
                }
            })
        })
        .collect();
    // Who may not wait.
    line.besides.store(true, Ordering::SeqCst);
    line.outgoing.hurry();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    while line.hurries.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert_eq!(line.sent.load(Ordering::SeqCst), THREADS * FRAMES, "left in the queue");
    assert!(!line.besides.load(Ordering::SeqCst), "what is no frame was not sent");
    for frame in 0..FRAMES {
        assert!(line.outgoing.push((THREADS, frame), 100));
    }
    line.outgoing.close();
    assert!(!line.outgoing.push((THREADS, FRAMES), 100), "taken although it is closed");
    hurried.join().unwrap();
    let mut sent = Vec::new();
    line.outgoing
        .flush_besides(|way| {
            sent = std::mem::take(way);
            Ok::<_, ()>(())
        })
        .unwrap();
    assert_eq!(sent.len(), (THREADS + 1) * FRAMES);
    for thread in 0..=THREADS {
        let own: Vec<_> = sent.iter().filter(|(from, _)| *from == thread).map(|(_, frame)| *frame).collect();
        assert_eq!(own, [0, 1]);
    }
}
