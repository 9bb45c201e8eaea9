//! Processes are killed under load, again and again; whatever was acknowledged is there afterwards, on the node that
//! serves, and after each repair both trees are equal.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{ClearJournal, Plan, Role, Unsettle};

use crate::node::{Node, lineage, until};
use crate::pair::{Pair, assert_equal};

const WRITERS: usize = 4;
const SLOTS: u64 = 64;

/// What one writer knows to be on the disk.
struct Writer {
    number: usize,
    random: u64,
    slots: Vec<u64>,
    names: BTreeMap<String, u64>,
    /// What may or may not have happened when the last call failed.
    doubt: Option<Doubt>,
}

enum Doubt {
    Slot(usize, u64),
    Names(Vec<String>),
}

impl Writer {
    fn new(number: usize) -> Self {
        Self {
            number,
            random: number as u64 + 99,
            slots: vec![0; usize::try_from(SLOTS).unwrap()],
            names: BTreeMap::new(),
            doubt: None,
        }
    }

    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn prepare(&self, root: &Path) {
        fs::create_dir_all(root.join(format!("d{}", self.number))).unwrap();
        fs::write(self.table(root), vec![0; 8 * self.slots.len()]).unwrap();
    }

    fn table(&self, root: &Path) -> PathBuf {
        root.join(format!("table{}", self.number))
    }

    fn named(&self, root: &Path, name: &str) -> PathBuf {
        root.join(format!("d{}", self.number)).join(name)
    }

    /// One acknowledged step, or an error that leaves a doubt.
    fn step(&mut self, root: &Path) -> io::Result<()> {
        let value = self.next();
        if value.is_multiple_of(3) {
            return self.step_names(root, value);
        }
        let slot = usize::try_from(value % SLOTS).unwrap();
        self.doubt = Some(Doubt::Slot(slot, value));
        let table = OpenOptions::new().write(true).open(self.table(root))?;
        table.write_all_at(&value.to_le_bytes(), 8 * slot as u64)?;
        if value.is_multiple_of(5) {
            table.sync_data()?;
        }
        self.slots[slot] = value;
        self.doubt = None;
        Ok(())
    }

    fn step_names(&mut self, root: &Path, value: u64) -> io::Result<()> {
        let name = format!("n{}", value % 7);
        let other = format!("n{}", value / 7 % 7);
        self.doubt = Some(Doubt::Names(vec![name.clone(), other.clone()]));
        match (self.names.get(&name).copied(), value % 4) {
            (None, _) => {
                fs::write(self.named(root, &name), value.to_le_bytes())?;
                self.names.insert(name, value);
            }
            (Some(_), 0) => {
                fs::remove_file(self.named(root, &name))?;
                self.names.remove(&name);
            }
            (Some(content), _) => {
                fs::rename(self.named(root, &name), self.named(root, &other))?;
                self.names.remove(&name);
                self.names.insert(other, content);
            }
        }
        self.doubt = None;
        Ok(())
    }

    /// Compares with what is there, and takes what was in doubt as it is.
    fn check(&mut self, root: &Path) {
        let table = fs::read(self.table(root)).unwrap();
        let found: Vec<u64> =
            table.chunks_exact(8).map(|slot| u64::from_le_bytes(slot.try_into().unwrap())).collect();
        if let Some(Doubt::Slot(slot, value)) = self.doubt
            && found[slot] == value
        {
            self.slots[slot] = value;
        }
        assert_eq!(found, self.slots, "table of writer {}", self.number);
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(self.named(root, "")).unwrap() {
            let entry = entry.unwrap();
            let content = fs::read(entry.path()).unwrap();
            let content = content.try_into().map_or(0, u64::from_le_bytes);
            names.insert(entry.file_name().into_string().unwrap(), content);
        }
        if let Some(Doubt::Names(doubtful)) = &self.doubt {
            for name in doubtful {
                match names.get(name) {
                    Some(content) => self.names.insert(name.clone(), *content),
                    None => self.names.remove(name),
                };
            }
        }
        assert_eq!(names, self.names, "names of writer {}", self.number);
        self.doubt = None;
    }
}

/// Runs all writers until told to stop, or until the mount fails them.
fn write_until(writers: &Mutex<Vec<Writer>>, root: &Path, stop: &AtomicBool, steps: &AtomicU64) {
    let taken = std::mem::take(&mut *writers.lock().unwrap());
    let back: Vec<Writer> = std::thread::scope(|scope| {
        let threads: Vec<_> = taken
            .into_iter()
            .map(|mut writer| {
                scope.spawn(move || {
                    while !stop.load(Ordering::Acquire) && writer.step(root).is_ok() {
                        steps.fetch_add(1, Ordering::AcqRel);
                    }
                    writer
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    *writers.lock().unwrap() = back;
}

/// What an agent does when its peer comes back: the session, then the journal is forgotten.
pub(crate) fn repair(pair: &mut Pair, session: u64, plan: Plan) {
    pair.session(session, plan);
    pair.a.order(Order::ClearJournal(ClearJournal {}));
    pair.a.expect("Cleared", |report| matches!(report, Report::Cleared(_)).then_some(()));
    pair.a.order(Order::Unsettle(Unsettle {}));
}

fn lost(node: &mut Node) {
    node.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
}

#[test]
fn nothing_acknowledged_is_lost_when_processes_are_killed() {
    let rounds: u64 = std::env::var("SAFE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4);
    let mut pair = Pair::paired(Plan::Repair);
    let writers = Mutex::new((0..WRITERS).map(Writer::new).collect::<Vec<_>>());
    writers.lock().unwrap().iter().for_each(|writer| writer.prepare(&pair.a.data));
    for round in 1..=rounds {
        let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
        let root = pair.a.data.clone();
        // Odd rounds kill the secondary, even ones the primary.
        let primary = round % 2 == 0;
        std::thread::scope(|scope| {
            scope.spawn(|| write_until(&writers, &root, &stop, &steps));
            let _stop = Stop(&stop, &root);
            let some = |more: u64| {
                let from = steps.load(Ordering::Acquire);
                until("writers go on", || steps.load(Ordering::Acquire) >= from + more);
            };
            some(150 + 37 * round);
            if primary {
                pair.a.kill();
                pair.a.bury();
                return;
            }
            pair.b.kill();
            lost(&mut pair.a);
            pair.a.settle(u128::from(100 + round));
            some(100);
            pair.b.start();
            pair.b.examine(&[1]);
            repair(&mut pair, 10 * round, Plan::Full);
            some(50);
        });
        if primary {
            lost(&mut pair.b);
            pair.b.settle(u128::from(100 + round));
            pair.b.mount();
            writers.lock().unwrap().iter_mut().for_each(|writer| writer.check(&pair.b.data));
            pair.a.start();
            pair.a.examine(&[1]);
            std::mem::swap(&mut pair.a, &mut pair.b);
            repair(&mut pair, 10 * round, Plan::Full);
        } else {
            writers.lock().unwrap().iter_mut().for_each(|writer| writer.check(&pair.a.data));
        }
        assert_equal(&pair.a.data, &pair.b.data);
    }
}

/// Ends the writers however the test ends.
struct Stop<'a>(&'a AtomicBool, &'a Path);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        if std::thread::panicking() {
            // They may be waiting for what will not come any more.
            let _gone = std::process::Command::new("umount").args(["-f", "-l"]).arg(self.1).status();
        }
    }
}

/// Nobody kills a process here: the stream is lost, and repaired from what both know to have been in flight.
#[test]
fn a_broken_stream_is_repaired_from_what_was_in_flight() {
    let mut pair = Pair::paired(Plan::Repair);
    let writers = Mutex::new((0..WRITERS).map(Writer::new).collect::<Vec<_>>());
    writers.lock().unwrap().iter().for_each(|writer| writer.prepare(&pair.a.data));
    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let root = pair.a.data.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| write_until(&writers, &root, &stop, &steps));
        let _stop = Stop(&stop, &root);
        for session in 1..6 {
            let from = steps.load(Ordering::Acquire);
            until("writers go on", || steps.load(Ordering::Acquire) >= from + 100);
            // The secondary leaves in mid-stream; the primary loses it.
            pair.b.order(Order::Leave(crate::node::name(session)));
            lost(&mut pair.a);
            pair.b.expect("end", |report| {
                matches!(report, Report::SessionEnded(_) | Report::SessionLost(_)).then_some(())
            });
            pair.b.join(session + 1, Role::Secondary, Plan::Repair);
            pair.a.join(session + 1, Role::Primary, Plan::Repair);
            pair.a.expect_in_step(session + 1);
            pair.b.expect_in_step(session + 1);
        }
    });
    writers.lock().unwrap().iter_mut().for_each(|writer| writer.check(&pair.a.data));
    assert_equal(&pair.a.data, &pair.b.data);
    pair.a.order(Order::Mark(lineage(1)));
}
