//! The journal of a process that is killed at any instant says everything that was marked before.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use safe_replication::dirty::{Change, DirtySet, Names};
use safe_replication::object::{Kind, Object};
use safe_replicator::journal::{Binding, Journal};
use safe_replicator::knowledge::Knowledge;

const BINDING: Binding = Binding { lineage: 11, boot: 12 };

/// So many of the last marks are never settled by the writer.
const KEPT: u64 = 1000;

fn file(number: u64) -> Object {
    Object::new(0, Kind::File, &number.to_le_bytes())
}

fn dir(number: u64) -> Object {
    Object::new(0, Kind::Directory, &number.to_le_bytes())
}

fn marks(number: u64) -> Vec<Change> {
    let place = Change::Place {
        object: file(number),
        dir: dir(number / 100),
        name: number.to_string().into_bytes().into_boxed_slice(),
    };
    let data = Change::Data { object: file(number), offset: number * 4096, len: 100 };
    if number.is_multiple_of(3) {
        let name = format!("name {number}").into_bytes().into_boxed_slice();
        return vec![
            Change::Name { dir: dir(number / 100), name, deep: number.is_multiple_of(2) },
            data,
            place,
        ];
    }
    vec![data, place]
}

fn says(set: &DirtySet, number: u64) -> bool {
    let coarse = || matches!(set.get(&dir(number / 100)).map(|marks| &marks.names), Some(Names::All { .. }));
    let content = set
        .get(&file(number))
        .is_some_and(|marks| marks.data.contains(&(number * 4096..number * 4096 + 100)));
    let name = format!("name {number}");
    let named = !number.is_multiple_of(3)
        || set.get(&dir(number / 100)).is_some_and(|marks| match &marks.names {
            Names::Some(names) => names.contains_key(name.as_bytes()),
            Names::All { .. } => true,
        });
    set.is_everything() || ((content || coarse()) && named)
}

/// Not a test by itself: the process that is killed.
#[test]
#[ignore = "started by the test below"]
fn writer() {
    let Some(directory) = std::env::var_os("JOURNAL_DIRECTORY") else { return };
    let knowledge = Knowledge::new(Path::new(&directory));
    knowledge.open_journal(BINDING).unwrap();
    let first: u64 = std::env::var("JOURNAL_FIRST").unwrap().parse().unwrap();
    let mut out = std::io::stdout();
    for number in first.. {
        knowledge.mark(&marks(number)).unwrap();
        writeln!(out, "\nmarked {number}").unwrap();
        out.flush().unwrap();
        if number.is_multiple_of(KEPT) && number > first + KEPT {
            // What is older is settled, so that the journal shrinks when it is rewritten.
            for old in number - 2 * KEPT..number - KEPT {
                knowledge.sent(&marks(old));
            }
            knowledge.sync_begins();
            knowledge.sync_ended();
        }
    }
}

fn run_and_kill(directory: &Path, first: u64, count: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--ignored", "--nocapture"])
        .env("JOURNAL_DIRECTORY", directory)
        .env("JOURNAL_FIRST", first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut last = first;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("marked ") {
            last = number.parse().unwrap();
            if last >= first + count {
                break;
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(last >= first + count, "the writer ended by itself at {last}");
    last
}

#[test]
fn killed_at_any_instant() {
    let base = tempfile::tempdir().unwrap();
    let directory = base.path().join("journal");
    let mut first = 0;
    // Enough to pass the end of the first space of the file, and to be rewritten.
    for count in [1, 2, 700, 5003, 9_999, 17_000, 12_345, 3, 20_000] {
        let last = run_and_kill(&directory, first, count);
        let (_, set) = Journal::open(&directory, BINDING).unwrap();
        for number in last.saturating_sub(KEPT - 1).max(first)..=last {
            assert!(says(&set, number), "{number} of {last} was forgotten");
        }
        first = last + 1;
    }
}
