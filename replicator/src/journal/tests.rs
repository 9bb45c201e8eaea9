use safe_replication::dirty::Names;
use safe_replication::object::{Kind, Object};

use super::*;

const BINDING: Binding = Binding { lineage: 7, boot: 9 };

fn file(number: u32) -> Object {
    Object::new(0, Kind::File, &number.to_le_bytes())
}

fn dir(number: u32) -> Object {
    Object::new(0, Kind::Directory, &number.to_le_bytes())
}

fn data(number: u32, offset: u64) -> Change {
    Change::Data { object: file(number), offset, len: 4096 }
}

fn none() -> DirtySet {
    DirtySet::new()
}

fn reopen(directory: &Path) -> (Journal, DirtySet) {
    Journal::open(directory, BINDING).expect("open")
}

#[test]
fn what_was_appended_is_read_and_a_hot_range_costs_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::create(directory.path(), BINDING, &none()).expect("create");
    journal.append(&[data(1, 0)], &none).expect("append");
    let end = journal.end;
    (0..16).for_each(|page| journal.append(&[data(1, page * 4096)], &none).expect("append"));
    assert_eq!(journal.end, end, "64 KiB are one record");
    journal.append(&[Change::Name { dir: dir(1), name: (*b"x").into(), deep: true }], &none).expect("append");
    drop(journal);
    let (mut journal, set) = reopen(directory.path());
    assert_eq!((set.len(), set.bytes(|_| 0)), (2, 0));
    assert!(set.has_names() && set.get(&file(1)).is_some_and(|marks| marks.data.contains(&(0..65536))));
    let end = journal.end;
    journal.append(&[data(1, 0)], &none).expect("append");
    assert_eq!(journal.end, end, "it is known again after opening");
}

#[test]
fn a_journal_of_another_lineage_or_boot_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let none_there = Journal::open(directory.path(), BINDING).expect_err("absent");
    assert!(none_there.0.contains("cannot be read"), "{none_there}");
    Journal::create(directory.path(), BINDING, &none()).expect("create");
    for (binding, reason) in [
        (Binding { lineage: 8, ..BINDING }, "another lineage"),
        (Binding { boot: 8, ..BINDING }, "restarted"),
    ] {
        let lost = Journal::open(directory.path(), binding).expect_err("lost");
        assert!(lost.0.contains(reason), "{lost}");
    }
}

#[test]
fn a_torn_tail_is_dropped_and_a_damaged_middle_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::create(directory.path(), BINDING, &none()).expect("create");
    journal.append(&[data(1, 0)], &none).expect("append");
    let first = journal.end;
    journal.append(&[data(2, 0)], &none).expect("append");
    journal.file.write_all_at(&[0xff; 3], journal.end - 3).expect("tear");
    drop(journal);
    let (mut journal, set) = reopen(directory.path());
    assert_eq!((set.len(), journal.end), (1, first));
    journal.append(&[data(3, 0)], &none).expect("append");
    drop(journal);
    let (mut journal, set) = reopen(directory.path());
    assert_eq!(set.len(), 2, "what follows a dropped tail is read");
    (10..40).for_each(|n| journal.append(&[data(n, 0)], &none).expect("append"));
    journal.file.write_all_at(&[0xff; 3], first + 20).expect("damage");
    drop(journal);
    assert!(Journal::open(directory.path(), BINDING).expect_err("lost").0.contains("damaged"));
}

#[test]
fn it_is_rewritten_when_most_of_it_is_no_longer_true() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::create(directory.path(), BINDING, &none()).expect("create");
    let truth = || {
        let mut set = DirtySet::new();
        set.mark(&data(3, 0));
        set
    };
    for n in 0..80_000u32 {
        journal.append(&[data(n, 0)], &truth).expect("append");
    }
    assert_eq!(journal.allocated, STEP);
    drop(journal);
    let (_, set) = reopen(directory.path());
    assert!(set.len() < 80_000 && set.get(&file(3)).is_some() && set.get(&file(79_999)).is_some());
}

#[test]
fn it_grows_while_all_of_it_is_true_and_then_becomes_coarser() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::create_with(directory.path(), BINDING, &none(), 3 * STEP).expect("create");
    let truth = std::cell::RefCell::new(DirtySet::new());
    for n in 0..150_000u32 {
        let place =
            Change::Place { object: file(n), dir: dir(n / 1000), name: Box::from(n.to_string().as_bytes()) };
        let changes = [data(n, 0), place];
        changes.iter().for_each(|change| {
            truth.borrow_mut().mark(change);
        });
        journal.append(&changes, &|| truth.borrow().clone()).expect("append");
    }
    assert!(journal.allocated <= 3 * STEP && journal.end <= journal.allocated);
    drop(journal);
    let (_, set) = reopen(directory.path());
    for n in 0..150_000u32 {
        let whole = set.get(&dir(n / 1000)).is_some_and(|marks| matches!(marks.names, Names::All { .. }));
        assert!(whole || set.is_everything() || set.get(&file(n)).is_some(), "{n} was forgotten");
    }
}

#[test]
fn without_space_for_more_it_says_everything() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::create_with(directory.path(), BINDING, &none(), STEP).expect("create");
    fs::remove_file(directory.path().join("journal.spare")).expect("remove");
    let truth = std::cell::RefCell::new(DirtySet::new());
    for n in 0..80_000u32 {
        truth.borrow_mut().mark(&data(n, 0));
        journal.append(&[data(n, 0)], &|| truth.borrow().clone()).expect("append");
    }
    assert!(journal.end <= STEP);
    drop(journal);
    assert!(reopen(directory.path()).1.is_everything());
}

#[test]
fn a_cleared_journal_is_gone_and_its_space_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let journal = Journal::create(directory.path(), BINDING, &none()).expect("create");
    journal.clear().expect("clear");
    assert!(Journal::open(directory.path(), BINDING).is_err());
    assert_eq!(fs::metadata(directory.path().join("journal.spare")).expect("spare").len(), STEP);
}

#[test]
fn where_no_space_is_reserved_that_of_a_journal_that_has_ended_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let spare = directory.path().join("journal.spare");
    let mut journal = Journal::create(directory.path(), BINDING, &none()).expect("create");
    journal.append(&[data(1, 0)], &|| none()).expect("append");
    fs::remove_file(&spare).expect("as if there had been no room for it");
    journal.clear().expect("clear");
    assert_eq!(fs::metadata(&spare).expect("spare").len(), STEP);
    assert!(!directory.path().join(USED).exists());
    let journal = Journal::create(directory.path(), BINDING, &none()).expect("create");
    assert!(reopen(directory.path()).1.is_empty(), "nothing of the old one is in it");
    drop(journal);
    // Cut off in the middle.
    fs::remove_file(&spare).expect("as if there had been no room for it");
    fs::rename(directory.path().join("journal"), directory.path().join(USED)).expect("rename");
    Journal::prepare(directory.path()).expect("prepare");
    assert_eq!(fs::metadata(&spare).expect("spare").len(), STEP);
    assert!(!directory.path().join(USED).exists());
}
