//! Full comparison.

use std::sync::atomic::Ordering;

use safe_replicator::resync::{Outcome, Plan};

use crate::pair::{Pair, differences};
use crate::random::{Random, edit, grow, walk};

#[test]
fn an_empty_target_gets_everything() {
    for seed in 0..6 {
        let pair = Pair::new();
        grow(&pair.source, &mut Random::new(seed), 150);
        pair.in_step(Plan::Full);
        pair.assert_equal();
    }
}

#[test]
fn another_tree_becomes_equal() {
    for seed in 10..18 {
        let pair = Pair::new();
        grow(&pair.source, &mut Random::new(seed), 150);
        grow(&pair.target, &mut Random::new(seed + 1000), 150);
        pair.in_step(Plan::Full);
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    }
}

#[test]
fn an_edited_copy_becomes_equal_and_then_nothing_is_sent() {
    for seed in 20..26 {
        let pair = Pair::new();
        let mut random = Random::new(seed);
        grow(&pair.source, &mut random, 150);
        pair.in_step(Plan::Full);
        edit(&pair.target, &mut random, 20);
        edit(&pair.source, &mut random, 20);
        pair.in_step(Plan::Full);
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
        pair.in_step(Plan::Full);
        assert_eq!(pair.link.content.load(Ordering::SeqCst), 0, "seed {seed}");
    }
}

#[test]
fn equal_size_and_time_do_not_hide_another_content() {
    let pair = Pair::new();
    for (side, text) in [(&pair.source, "right"), (&pair.target, "wrong")] {
        std::fs::write(side.join("file"), text).unwrap();
        crate::random::set_mtime(&side.join("file"), 5, 5);
    }
    pair.in_step(Plan::Full);
    assert_eq!(std::fs::read(pair.target.join("file")).unwrap(), b"right");
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let pair = Pair::new();
    let path = pair.source.join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.write_all_at(&[1; 4096], 100 << 20).unwrap();
    file.set_len(300 << 20).unwrap();
    // The target has data where the source has a hole.
    std::fs::write(pair.target.join("sparse"), vec![7; 4 << 20]).unwrap();
    let figures = pair.in_step(Plan::Full);
    pair.assert_equal();
    assert!(std::fs::metadata(pair.target.join("sparse")).unwrap().blocks() * 512 < 1 << 20);
    assert!(figures.bytes_sent < 1 << 20, "{figures:?}");
}

#[test]
fn a_large_file_is_sent_once_names_are_equal_and_only_where_it_differs() {
    use std::os::unix::fs::FileExt as _;
    let pair = Pair::new();
    let content = Random::new(1).bytes(40 << 20);
    std::fs::write(pair.source.join("large"), &content).unwrap();
    pair.in_step(Plan::Full);
    pair.assert_equal();
    let file = std::fs::OpenOptions::new().write(true).open(pair.source.join("large")).unwrap();
    for at in 0..10 {
        file.write_all_at(b"changed", at * (4 << 20) + 5).unwrap();
    }
    file.set_len(39 << 20).unwrap();
    let figures = pair.in_step(Plan::Full);
    pair.assert_equal();
    assert!(figures.bytes_sent <= 10 * 128 * 1024, "{figures:?}");
}

#[test]
fn excluded_names_are_left_alone_on_both_sides() {
    let pair = Pair::excluding(&["tmp/**", "*.log"]);
    for (side, text) in [(&pair.source, "source"), (&pair.target, "target")] {
        std::fs::create_dir(side.join("tmp")).unwrap();
        std::fs::write(side.join("tmp/scratch"), text).unwrap();
        std::fs::write(side.join("a.log"), text).unwrap();
        std::fs::write(side.join("kept"), text).unwrap();
    }
    pair.in_step(Plan::Full);
    for (name, text) in [("tmp/scratch", "target"), ("a.log", "target"), ("kept", "source")] {
        assert_eq!(std::fs::read_to_string(pair.target.join(name)).unwrap(), text, "{name}");
    }
}

#[test]
fn the_marker_is_never_sent_nor_removed() {
    use safe_replicator::marker::{Copy, Owner, examine, write};
    let pair = Pair::new();
    let owner = |node: &str| Owner { module: "m".into(), node: node.into() };
    write(std::slice::from_ref(&pair.source), &owner("n1"), 1, 1).unwrap();
    write(std::slice::from_ref(&pair.target), &owner("n2"), 2, 1).unwrap();
    grow(&pair.source, &mut Random::new(3), 30);
    pair.in_step(Plan::Full);
    pair.assert_equal();
    assert_eq!(examine(std::slice::from_ref(&pair.target), &owner("n2"), &[2], &[]), Ok(Copy::Known));
}

#[test]
fn cut_anywhere_it_goes_on_where_it_was() {
    let mut cuts = 0;
    for seed in 30..34 {
        let pair = Pair::new();
        let mut random = Random::new(seed);
        grow(&pair.source, &mut random, 100);
        grow(&pair.target, &mut random, 60);
        loop {
            pair.link.left.store(20 + random.below(100) as usize, Ordering::SeqCst);
            match pair.resync(Plan::Full).0 {
                Outcome::InStep => break,
                Outcome::Lost(_) => cuts += 1,
                Outcome::Failed(reason) => panic!("seed {seed}: {reason}"),
            }
            assert!(!pair.knowledge.snapshot().is_empty(), "what is left is known");
        }
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    }
    assert!(cuts > 8, "{cuts}");
}

#[test]
fn many_entries_and_deep_trees() {
    let pair = Pair::new();
    for number in 0..3000 {
        std::fs::write(pair.source.join(format!("f{number:05}")), number.to_string()).unwrap();
    }
    for number in (0..3500).step_by(2) {
        std::fs::write(pair.target.join(format!("f{number:05}")), number.to_string()).unwrap();
    }
    for side in [&pair.source, &pair.target] {
        let mut path = side.clone();
        for _ in 0..200 {
            path.push(if side == &pair.source { "s" } else { "t" });
            std::fs::create_dir(&path).unwrap();
        }
    }
    pair.in_step(Plan::Full);
    pair.assert_equal();
    assert_eq!(walk(&pair.target).len(), 3200);
}

#[test]
fn what_waits_for_its_turn_is_not_told_as_done() {
    // More than is sent along with a name.
    const LARGE: u64 = 20 << 20;
    let mut waited = 0;
    for left in 1..40 {
        let pair = Pair::new();
        std::fs::write(pair.source.join("large"), vec![7; 20 << 20]).unwrap();
        std::fs::write(pair.source.join("small"), "small").unwrap();
        pair.link.left.store(left, Ordering::SeqCst);
        let (outcome, figures) = pair.resync(Plan::Full);
        if outcome == Outcome::InStep {
            assert_eq!((figures.files_done, figures.files_total), (2, 2));
            assert_eq!((figures.bytes_done, figures.bytes_total), (LARGE + 5, LARGE + 5));
            break;
        }
        // All of it is new to the target; the small one goes along with its name.
        assert!(figures.bytes_done <= figures.bytes_sent + 5, "{left}: {figures:?}");
        waited += u32::from(pair.target.join("large").exists() && figures.bytes_total == LARGE + 5);
    }
    assert!(waited > 0, "it was never cut off in between");
}
