#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]
use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits { objects: 8, names: 6, extents_of_one: 4, extents: 12 };

fn file(number: u8) -> Object {
    Object::new(0, Kind::File, &[number])
}

fn dir(number: u8) -> Object {
    Object::new(0, Kind::Directory, &[number])
}

fn name(number: u8) -> Box<[u8]> {
    Box::new([b'a' + number])
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..12u8, 0..40u64, 1..9u64).prop_map(|(n, offset, len)| Change::Data { object: file(n), offset, len }),
        1 => (0..12u8, 0..40u64).prop_map(|(n, offset)| Change::data_from(file(n), offset)),
        2 => (0..12u8).prop_map(|n| Change::Meta { object: file(n) }),
        4 => (0..3u8, 0..5u8, any::<bool>()).prop_map(|(n, m, deep)| Change::Name { dir: dir(n), name: name(m), deep }),
        1 => (0..3u8, any::<bool>()).prop_map(|(n, deep)| Change::Names { dir: dir(n), deep }),
        1 => (0..3u8).prop_map(|n| Change::Tree { dir: dir(n) }),
        4 => (0..12u8).prop_map(|n| Change::Place { object: file(n), dir: dir(n % 3), name: name(n) }),
    ]
}

/// Whether the set still says what the change says; `places` tells where files are.
fn covers(set: &DirtySet, change: &Change) -> bool {
    if set.is_everything() {
        return true;
    }
    let coarse = |file: &Object| {
        let number = file.handle[0];
        matches!(set.get(&dir(number % 3)).map(|marks| &marks.names), Some(Names::All { .. }))
    };
    match change {
        Change::Data { object, offset, len } => {
            let range = *offset..offset.saturating_add(*len);
            set.get(object).is_some_and(|marks| marks.data.contains(&range) && marks.meta) || coarse(object)
        }
        Change::Meta { object } => set.get(object).is_some_and(|marks| marks.meta) || coarse(object),
        Change::Name { dir, name, deep } => set.get(dir).is_some_and(|marks| match &marks.names {
            Names::All { deep: all } => *all || !deep,
            Names::Some(names) => names.get(name).is_some_and(|known| *known || !deep),
        }),
        Change::Names { dir, deep } => {
            set.get(dir).is_some_and(|marks| matches!(marks.names, Names::All { deep: all } if all || !deep))
        }
        Change::Tree { dir } => set.get(dir).is_some_and(|marks| marks.tree),
        Change::Everything => false,
        Change::Place { .. } => true,
    }
}

fn filled(changes: &[Change], limits: Limits) -> DirtySet {
    let mut set = DirtySet::with_limits(limits, 1);
    changes.iter().for_each(|change| {
        set.mark(change);
    });
    set
}

fn check_counts(set: &DirtySet) -> bool {
    let objects: Vec<_> =
        std::iter::successors(set.next(None), |(object, _)| set.next(Some(object))).collect();
    objects.len() == set.len()
        && objects.iter().map(|(_, marks)| marks.names.len()).sum::<usize>() == set.names
        && objects.iter().map(|(_, marks)| marks.data.len()).sum::<usize>() == set.extents
        && objects.iter().filter(|(object, _)| object.kind.is_directory()).count() == set.with_names
        && objects.iter().all(|(_, marks)| !marks.is_clean())
}

#[test]
fn a_write_is_rounded_out_to_pages_and_includes_times() {
    let mut set = DirtySet::new();
    assert!(set.mark(&Change::Data { object: file(1), offset: 5000, len: 10 }));
    assert!(set.is_dirty_data(&file(1), 4096..4097) && !set.is_dirty_data(&file(1), 0..4096));
    assert!(set.is_dirty_meta(&file(1)) && !set.is_dirty_meta(&file(2)));
    assert!(!set.mark(&Change::Data { object: file(1), offset: 6000, len: 100 }));
    assert_eq!((set.files(), set.bytes(|_| 5000), set.bytes(|_| 9000)), (1, 904, 4096));
}

#[test]
fn a_truncation_reaches_to_the_end() {
    let mut set = DirtySet::new();
    set.mark(&Change::data_from(file(1), 100));
    assert!(set.is_dirty_data(&file(1), u64::MAX - 1..u64::MAX));
    set.clear_data(&file(1), &(0..u64::MAX));
    assert!(!set.is_dirty_data(&file(1), 0..u64::MAX) && set.is_dirty_meta(&file(1)));
    set.clear_meta(&file(1));
    assert!(set.is_empty());
}

#[test]
fn any_marked_name_makes_everything_count_as_dirty_until_names_are_taken() {
    let mut set = DirtySet::new();
    set.mark(&Change::Data { object: file(1), offset: 0, len: 1 });
    set.mark(&Change::Name { dir: dir(1), name: name(1), deep: false });
    assert!(set.has_names() && set.is_dirty_data(&file(7), 0..1));
    let names = set.take_names();
    assert!(!set.has_names() && !set.is_dirty_data(&file(7), 0..1) && set.is_dirty_data(&file(1), 0..1));
    assert!(names.has_names() && names.directories().count() == 1);
    set.mark(&Change::Meta { object: dir(2) });
    assert!(set.has_names(), "a directory's attributes are inherited by what is made in it");
}

#[test]
fn a_place_is_kept_only_with_marks() {
    let mut set = DirtySet::new();
    let place = Change::Place { object: file(1), dir: dir(1), name: name(1) };
    assert!(!set.mark(&place) && set.is_empty());
    set.mark(&Change::Meta { object: file(1) });
    assert!(set.mark(&place) && !set.mark(&place));
    set.clear_meta(&file(1));
    assert!(set.is_empty());
}

#[test]
fn without_places_too_many_files_become_everything() {
    let mut set = DirtySet::with_limits(SMALL, 1);
    (0..9).for_each(|n| {
        set.mark(&Change::Meta { object: file(n) });
    });
    assert!(set.is_everything());
}

proptest! {
    #[test]
    fn never_forgets_and_stays_within_bounds(changes in prop::collection::vec(change(), 0..120)) {
        let set = filled(&changes, SMALL);
        prop_assert!(set.len() <= SMALL.objects && set.names <= SMALL.names && set.extents <= SMALL.extents + 8);
        prop_assert!(check_counts(&set));
        for change in &changes {
            prop_assert!(covers(&set, change), "{:?} lost in {:?}", change, set);
            let is_place = matches!(change, Change::Place { .. });
            prop_assert!(set.is_dirty(change) || is_place);
        }
    }

    #[test]
    fn changes_rebuild_the_set(changes in prop::collection::vec(change(), 0..120), small in any::<bool>()) {
        let limits = if small { SMALL } else { Limits::DEFAULT };
        let set = filled(&changes, limits);
        let again: Vec<Change> = set.changes().collect();
        prop_assert_eq!(filled(&again, limits), set);
    }

    #[test]
    fn merging_covers_both(a in prop::collection::vec(change(), 0..60), b in prop::collection::vec(change(), 0..60)) {
        let mut set = filled(&a, SMALL);
        set.merge(&filled(&b, Limits::DEFAULT));
        prop_assert!(a.iter().chain(&b).all(|change| covers(&set, change)));
        prop_assert!(check_counts(&set));
    }

    #[test]
    fn taking_names_loses_nothing(changes in prop::collection::vec(change(), 0..60)) {
        let whole = filled(&changes, Limits::DEFAULT);
        let mut rest = whole.clone();
        let mut names = rest.take_names();
        prop_assert!(check_counts(&rest) && check_counts(&names));
        names.merge(&rest);
        prop_assert!(changes.iter().all(|change| covers(&names, change)));
    }

    #[test]
    fn marking_reports_whether_more_is_known(changes in prop::collection::vec(change(), 0..60)) {
        let mut set = DirtySet::with_limits(Limits::DEFAULT, 1);
        for change in &changes {
            let before = set.clone();
            let reported = set.mark(change);
            prop_assert_eq!(reported, before != set);
        }
    }
}

#[test]
fn a_mark_covers_what_its_name_leads_to() {
    let dir = |number: u8| Object::new(0, Kind::Directory, &[number]);
    let way = |names: &[(u8, &'static str)]| -> Vec<(Object, Bytes)> {
        names.iter().map(|(number, name)| (dir(*number), Bytes::from_static(name.as_bytes()))).collect()
    };
    let marked = |change: Change| {
        let mut set = DirtySet::new();
        set.mark(&change);
        set
    };
    let to_file = way(&[(1, "a"), (2, "b"), (3, "file")]);
    let name =
        |number: u8, name: &str, deep| Change::Name { dir: dir(number), name: name.as_bytes().into(), deep };
    assert!(marked(name(3, "file", false)).covers(&to_file));
    assert!(!marked(name(3, "other", true)).covers(&to_file));
    assert!(marked(name(1, "a", true)).covers(&to_file), "a directory was moved there");
    assert!(!marked(name(1, "a", false)).covers(&to_file), "nothing below it");
    assert!(marked(Change::Names { dir: dir(3), deep: false }).covers(&to_file));
    assert!(!marked(Change::Names { dir: dir(2), deep: false }).covers(&to_file));
    assert!(marked(Change::Tree { dir: dir(2) }).covers(&to_file));
    assert!(!marked(Change::Meta { object: dir(3) }).covers(&to_file));
    assert!(marked(Change::Everything).covers(&to_file));
}
