//! Draining of what was marked while alone.

use std::path::Path;
use std::sync::atomic::Ordering;

use safe_replication::dirty::Change;
use safe_replicator::journal::Binding;
use safe_replicator::knowledge::Knowledge;
use safe_replicator::resync::{Outcome, Plan};

use crate::application::{Act, Application, any_act, object};
use crate::pair::{Pair, UnderWay, differences};
use crate::random::{Random, grow};

const BINDING: Binding = Binding { lineage: 3, boot: 4 };

fn paired(seed: u64, count: usize) -> (Pair, Random) {
    let pair = Pair::new();
    let mut random = Random::new(seed);
    grow(&pair.source, &mut random, count);
    pair.in_step(Plan::Full);
    (pair, random)
}

fn alone(pair: &Pair, random: &mut Random, count: usize) {
    let application = Application::new(pair);
    for _ in 0..count {
        application.act(&pair.knowledge, &any_act(&pair.source, random), false);
    }
}

#[test]
fn what_was_done_alone_is_brought_over() {
    for seed in 100..120 {
        let (pair, mut random) = paired(seed, 80);
        alone(&pair, &mut random, 60);
        pair.in_step(Plan::Delta);
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    }
}

#[test]
fn also_from_the_journal_of_a_process_that_was_killed() {
    for seed in 120..128 {
        let (mut pair, mut random) = paired(seed, 80);
        pair.knowledge.open_journal(BINDING).unwrap();
        alone(&pair, &mut random, 60);
        let again = Knowledge::new(&pair.journal());
        assert_eq!(again.open_journal(BINDING).unwrap(), None);
        pair.restart(again);
        pair.in_step(Plan::Delta);
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    }
}

#[test]
fn also_when_it_is_cut_and_more_is_done_alone() {
    for seed in 130..135 {
        let (pair, mut random) = paired(seed, 80);
        loop {
            alone(&pair, &mut random, 10);
            pair.link.left.store(random.below(400) as usize, Ordering::SeqCst);
            match pair.resync(Plan::Delta).0 {
                Outcome::InStep => break,
                Outcome::Lost(_) => {}
                Outcome::Failed(reason) => panic!("seed {seed}: {reason}"),
            }
        }
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    }
}

#[test]
fn what_the_target_has_in_flight_is_brought_back() {
    for seed in 140..150 {
        let (pair, mut random) = paired(seed, 80);
        // The target has applied what the source never did.
        let swapped = Pair::over(&pair.target, &pair.source);
        let application = Application::new(&swapped);
        for _ in 0..30 {
            application.act(&swapped.knowledge, &any_act(&swapped.source, &mut random), false);
        }
        *pair.link.in_flight.lock() = swapped.knowledge.snapshot();
        pair.in_step(Plan::Delta);
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    }
}

#[test]
fn a_few_pages_of_a_large_file_cost_a_few_pages() {
    let pair = Pair::new();
    std::fs::write(pair.source.join("large"), Random::new(1).bytes(64 << 20)).unwrap();
    pair.in_step(Plan::Full);
    let application = Application::new(&pair);
    for at in 0..100 {
        let act = Act::Write("large".into(), at * 600_001, vec![at as u8; 4096]);
        assert!(application.act(&pair.knowledge, &act, false));
    }
    let figures = pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert!(figures.bytes_sent <= 100 * 2 * 4096, "{figures:?}");
}

#[test]
fn an_unchanged_tree_costs_nothing() {
    let (pair, _) = paired(1, 100);
    std::fs::write(pair.source.join("one"), "x").unwrap();
    std::fs::write(pair.target.join("one"), "y").unwrap();
    let one = object(&pair.source.join("one")).unwrap();
    let dir = object(&pair.source).unwrap();
    let place = Change::Place { object: one.clone(), dir, name: (*b"one").into() };
    pair.knowledge.mark(&[place, Change::Data { object: one, offset: 0, len: 1 }]).unwrap();
    pair.in_step(Plan::Delta);
    assert!(pair.link.submitted.load(Ordering::SeqCst) + pair.link.queries.load(Ordering::SeqCst) < 12);
    assert_eq!(std::fs::read(pair.target.join("one")).unwrap(), b"x");
}

#[test]
fn an_object_that_was_moved_since_it_was_marked_is_found() {
    let (pair, _) = paired(2, 60);
    let application = Application::new(&pair);
    for act in [Act::Create("moved".into()), Act::Mkdir("dir".into())] {
        application.act(&pair.knowledge, &act, true);
    }
    pair.in_step(Plan::Delta);
    let act = Act::Write("moved".into(), 0, vec![7; 100]);
    application.act(&pair.knowledge, &act, false);
    // Renamed synchronously: on both sides, without a mark.
    for side in [&pair.source, &pair.target] {
        std::fs::rename(side.join("moved"), side.join("dir/elsewhere")).unwrap();
        crate::random::set_mtime(&side.join("dir"), 9, 9);
        crate::random::set_mtime(side, 9, 9);
    }
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert_eq!(std::fs::read(pair.target.join("dir/elsewhere")).unwrap(), vec![7; 100]);
}

#[test]
fn a_new_name_of_an_old_inode_becomes_a_link() {
    use std::os::unix::fs::MetadataExt as _;
    let pair = Pair::new();
    std::fs::create_dir(pair.source.join("dir")).unwrap();
    std::fs::write(pair.source.join("dir/old"), vec![1; 3 << 20]).unwrap();
    pair.in_step(Plan::Full);
    let application = Application::new(&pair);
    application.act(&pair.knowledge, &Act::Link("dir/old".into(), "new".into()), false);
    let figures = pair.in_step(Plan::Delta);
    pair.assert_equal();
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&pair.target.join("new")), inode(&pair.target.join("dir/old")));
    assert_eq!(figures.bytes_sent, 0);
}

#[test]
fn marks_that_lead_nowhere_end_in_a_full_comparison() {
    let (pair, _) = paired(3, 40);
    // The target was edited behind everyone's back, so that a marked file cannot be addressed there.
    std::fs::create_dir(pair.source.join("d")).unwrap();
    std::fs::write(pair.source.join("d/f"), "content").unwrap();
    let file = object(&pair.source.join("d/f")).unwrap();
    let dir = object(&pair.source.join("d")).unwrap();
    let place = Change::Place { object: file.clone(), dir, name: (*b"f").into() };
    pair.knowledge.mark(&[place, Change::Data { object: file, offset: 0, len: 7 }]).unwrap();
    pair.in_step(Plan::Delta);
    pair.assert_equal();
}

#[test]
fn marks_below_what_the_target_lacks_end_in_a_full_comparison() {
    let (pair, _) = paired(5, 40);
    // Nobody knows that the target lacks the directory whose names are marked.
    std::fs::create_dir_all(pair.source.join("d/e")).unwrap();
    std::fs::write(pair.source.join("d/e/f"), "content").unwrap();
    let dir = object(&pair.source.join("d/e")).unwrap();
    pair.knowledge.mark(&[Change::Name { dir, name: (*b"f").into(), deep: false }]).unwrap();
    pair.in_step(Plan::Delta);
    pair.assert_equal();
}

#[test]
fn files_written_beside_and_renamed_alone_are_sent_once() {
    let (pair, _) = paired(4, 20);
    let application = Application::new(&pair);
    for number in 0..40u8 {
        let (beside, name) = (format!("{number}.tmp"), format!("{number}.done"));
        for act in [
            Act::Create((&beside).into()),
            Act::Write((&beside).into(), 0, vec![number; 100_000]),
            Act::Rename((&beside).into(), (&name).into()),
        ] {
            assert!(application.act(&pair.knowledge, &act, false));
        }
    }
    let figures = pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert_eq!(figures.bytes_sent, 40 * 100_000);
}

#[test]
fn many_moved_files_are_found_in_one_search() {
    let pair = Pair::new();
    for number in 0..300 {
        std::fs::write(pair.source.join(format!("f{number}")), "old").unwrap();
    }
    pair.in_step(Plan::Full);
    let application = Application::new(&pair);
    for number in 0..300 {
        application.act(&pair.knowledge, &Act::Write(format!("f{number}").into(), 0, b"new".to_vec()), false);
    }
    for side in [&pair.source, &pair.target] {
        std::fs::create_dir(side.join("dir")).unwrap();
        for number in 0..300 {
            std::fs::rename(side.join(format!("f{number}")), side.join(format!("dir/g{number}"))).unwrap();
        }
        for dir in [side.clone(), side.join("dir")] {
            crate::random::set_mtime(&dir, 9, 9);
        }
    }
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert_eq!(std::fs::read(pair.target.join("dir/g7")).unwrap(), b"new");
}

/// An append is under way, on the target and not yet here, while the resync sets the size of the file.
#[test]
fn setting_the_size_does_not_cut_off_what_is_being_appended() {
    for before in [100, (4 << 20) - 7, (5 << 20) + 100] {
        let pair = Pair::new();
        let file = pair.source.join("ledger");
        std::fs::write(&file, vec![b'.'; before]).unwrap();
        pair.in_step(Plan::Full);
        let object = object(&file).unwrap();
        pair.knowledge.mark(&[Change::data_from(object.clone(), 0)]).unwrap();
        let (offset, data, next) = (before as u64, &b"appended"[..], &b"and more"[..]);
        *pair.link.under_way.lock() =
            Some(UnderWay { object, file: file.clone(), offset, data, next, sent: false });
        pair.in_step(Plan::Delta);
        // If no keys are ever asked for that leave it room, it only comes afterwards.
        let appended = pair.link.under_way.lock().is_none();
        let (source, target) =
            (std::fs::read(&file).unwrap(), std::fs::read(pair.target.join("ledger")).unwrap());
        assert_eq!(source.ends_with(b"appendedand more"), appended);
        assert!(source == target, "{} and {} bytes", source.len(), target.len());
    }
}
