use std::os::unix::fs::FileExt as _;

use safe_replication::dirty::Names;
use safe_replication::object::Kind;

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

fn name(number: u32, name: &[u8], deep: bool) -> Change {
    Change::Name { dir: dir(number), name: name.into(), deep }
}

fn open(directory: &Path) -> Epochs {
    let epochs = Epochs::new(directory);
    epochs.recall(&[7], 9, false).expect("recall");
    epochs.bind(BINDING, None).expect("bind");
    epochs.open().expect("open");
    epochs.set_complete(true).expect("written");
    epochs
}

fn recall(directory: &Path, boot: u128) -> Option<Recalled> {
    Epochs::new(directory).recall(&[7], boot, false).expect("recall")
}

fn enter(epochs: &Epochs, changes: &[Change]) -> Entered {
    let entered = epochs.enter(changes).expect("enter");
    entered.make_durable().expect("durable");
    entered
}

#[test]
fn what_was_recorded_is_known_to_the_next_process_and_coarser_after_a_loss_of_power() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    drop(enter(&epochs, &[data(1, 8192), name(1, b"x", false)]));
    drop(enter(&epochs, &[name(2, b"d", true), Change::Meta { object: dir(3) }]));
    assert!(recall(place.path(), 9).is_some_and(|known| known.set == epochs.since() && !known.journalled));
    let whole = recall(place.path(), 8).expect("it is there").set;
    assert!(whole.get(&file(1)).is_some_and(|marks| marks.data.is_whole()));
    let names = |number: u32| whole.get(&dir(number)).map(|marks| marks.names.clone());
    assert_eq!(names(1), Some(Names::All { deep: false }));
    assert_eq!(names(2), Some(Names::All { deep: true }));
    assert!(matches!(names(3), Some(Names::Some(names)) if names.is_empty()));
    // The next process goes on with it, and what it records is added.
    let next = open(place.path());
    drop(enter(&next, &[data(5, 0)]));
    let known = recall(place.path(), 9).expect("it is there").set;
    assert!(known.get(&file(5)).is_some() && known.get(&file(1)).is_some());
    assert!(Epochs::new(place.path()).recall(&[6], 9, false).expect("recall").is_none(), "another lineage");
}

#[test]
fn an_epoch_is_closed_only_when_its_operations_were_carried_out() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    let under_way = enter(&epochs, &[data(1, 0)]);
    let closing = epochs.begin_close(false).expect("files").expect("something is recorded");
    assert!(!closing.wait(Duration::ZERO, || false), "one is under way");
    drop(enter(&epochs, &[data(2, 0)]));
    drop(under_way);
    assert!(closing.wait(Duration::ZERO, || false));
    // The sync fails, and is tried again by another session.
    let again = epochs.begin_close(false).expect("files").expect("it is not closed");
    assert!(again.set().get(&file(1)).is_some() && again.set().get(&file(2)).is_none());
    assert!(recall(place.path(), 9).is_some_and(|known| known.set.len() == 2));
    epochs.closed_on_both(&again);
    epochs.sweep();
    assert!(recall(place.path(), 9).is_some_and(|known| known.set.len() == 1));
    assert_eq!(epochs.closed(), again.epoch);
    assert!(!epochs.meet(again.epoch + 2), "it is of another time, and stays so");
    assert!(!epochs.meet(again.epoch + 2));
    assert!(epochs.meet(again.epoch + 1));
}

#[test]
fn the_secondary_keeps_what_it_does_not_know_to_be_carried_out_and_what_is_not_said_to_be_closed() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    drop(enter(&epochs, &[data(1, 0)]));
    drop(enter(&epochs, &[data(2, 0)]));
    let closing = epochs.asked_to_close(4, &[data(2, 0)]).expect("files").expect("open");
    epochs.peer_closed(4);
    assert_eq!(epochs.since().len(), 2, "this node has not synced yet");
    closing.flush().expect("flush");
    epochs.synced(&closing);
    epochs.peer_closed(3);
    assert_eq!(epochs.since().len(), 2, "another epoch");
    epochs.peer_closed(4);
    assert_eq!((epochs.since().len(), epochs.closed()), (1, 4));
    assert!(epochs.since().get(&file(2)).is_some());
    // The next one says that the one before is closed, should no keepalive have said so.
    let closing = epochs.asked_to_close(5, &[]).expect("files").expect("open");
    epochs.synced(&closing);
    epochs.asked_to_close(6, &[]).expect("files").expect("open");
    assert_eq!(epochs.closed(), 5);
}

#[test]
fn sessions_that_fail_to_close_never_run_out_of_segments() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    for round in 0..6 {
        drop(enter(&epochs, &[data(round, 0)]));
        assert!(epochs.meet(0));
        epochs.asked_to_close(u64::from(round) + 1, &[]).expect("files").expect("open");
    }
    assert_eq!(recall(place.path(), 9).expect("there").set.len(), 6);
    let last = epochs.asked_to_close(9, &[]).expect("files").expect("open");
    epochs.synced(&last);
    epochs.peer_closed(9);
    let left = epochs.since().len();
    assert!(left < 6, "{left} are left");
}

#[test]
fn a_file_costs_one_durable_record_and_one_made_in_the_epoch_none() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    let first = enter(&epochs, &[data(1, 0)]);
    assert!(first.marked.until > 0 && first.is_unplaced());
    let second = enter(&epochs, &[data(1, 1 << 20)]);
    assert_eq!((second.marked.until, second.is_unplaced()), (first.marked.until, false));
    let made = enter(&epochs, &[name(1, b"new", false)]);
    made.made(&file(2));
    assert_eq!(epochs.enter(&[data(2, 0)]).expect("enter").marked.until, 0);
    let other = epochs.enter(&[name(1, b"another", false)]).expect("enter");
    assert_eq!(other.marked.until, made.marked.until, "the directory has its record");
    let deep = epochs.enter(&[name(1, b"gone", true)]).expect("enter");
    assert!(deep.marked.until > made.marked.until, "but not of this kind of change");
}

#[test]
fn a_full_segment_becomes_coarser_and_forgets_nothing() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    for number in 0..60_000_u32 {
        let offset = u64::from(number) * 8192 % (1 << 30);
        drop(
            epochs
                .enter(&[data(number / 40, offset), name(number % 7, number.to_string().as_bytes(), false)]),
        );
    }
    let known = recall(place.path(), 9).expect("there").set;
    let said = |change: &Change| known.is_everything() || known.says(change);
    for number in 0..60_000_u32 {
        assert!(said(&data(number / 40, u64::from(number) * 8192 % (1 << 30))), "{number}");
        assert!(said(&name(number % 7, number.to_string().as_bytes(), false)), "{number}");
    }
    assert!(!known.is_everything());
    for number in 0..160_000_u32 {
        drop(epochs.enter(&[data(100_000 + number, 0)]));
    }
    assert!(recall(place.path(), 9).expect("there").set.is_everything());
}

#[test]
fn a_torn_tail_is_dropped_and_damage_is_noticed() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    drop(enter(&epochs, &[data(1, 0)]));
    drop(enter(&epochs, &[data(2, 0)]));
    let damage = |at: u64| {
        let file = File::options().write(true).open(segment::path(place.path(), 0)).expect("open");
        file.write_all_at(&[0xee; 8], at).expect("write");
    };
    let header = header::SIZE;
    // Never made durable: a loss of power may have torn it.
    drop(epochs.enter(&[data(1, 1 << 20)]).expect("enter"));
    drop(epochs.enter(&[data(1, 2 << 20)]).expect("enter"));
    let end = header + 3 * 68;
    damage(end - 60);
    assert!(recall(place.path(), 9).is_none(), "nothing tears it without a loss of power");
    let known = recall(place.path(), 8).expect("it is usable");
    assert!(known.set.get(&file(2)).is_some());
    // The record of the second file says that the first one's was durable.
    damage(header + 20);
    assert!(recall(place.path(), 8).is_none(), "it was durable");
}

#[test]
fn records_that_begin_when_something_was_lost_are_not_everything_until_the_copies_are_in_step() {
    let place = tempfile::tempdir().expect("a directory");
    let epochs = Epochs::new(place.path());
    assert!(epochs.recall(&[7], 9, false).expect("recall").is_none());
    epochs.bind(BINDING, None).expect("bind");
    epochs.open().expect("open");
    drop(enter(&epochs, &[data(1, 0)]));
    assert!(recall(place.path(), 9).is_none());
    epochs.set_complete(true).expect("written");
    assert!(recall(place.path(), 9).is_some());
}

/// What each change pays for being recorded before it is made.
#[test]
#[ignore = "a measurement, not a check"]
#[expect(clippy::print_stdout, reason = "the figures are the result")]
fn cost_of_a_record() {
    const MANY: u32 = 100_000;
    const FEW: u32 = 500;
    let place = tempfile::tempdir().expect("a directory");
    let epochs = open(place.path());
    let each = |what: &str, count: u32, change: &dyn Fn(u32) -> Change| {
        let begun = Boottime::now();
        (0..count).for_each(|number| drop(enter(&epochs, &[change(number)])));
        println!("{what}: {:?}", begun.elapsed() / count);
    };
    each("the first change of a file in an epoch, durable before it is made", FEW, &|number| data(number, 0));
    each("a change of a place that is recorded", MANY, &|_| data(1, 0));
    each("another place of a file that is recorded", MANY, &|number| data(1, u64::from(number) * 8192));
    each("a random place of a file that is recorded throughout", MANY, &|number| {
        data(1, u64::from(number.wrapping_mul(2_654_435_761) % MANY) * 8192)
    });
}
