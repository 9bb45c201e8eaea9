//! Large files that are under another name than before: what the target has of them is not sent.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use safe_replication::dirty::Change;
use safe_replicator::resync::Plan;

use crate::application::{Act, Application, object};
use crate::pair::Pair;
use crate::random::Random;

const MIB: u64 = 1 << 20;

/// Larger than what goes along with its name.
const SIZE: u64 = 24 * MIB;

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len / 8).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect()
}

/// Both have `disks/image`, and beside it what makes it one of several.
fn paired() -> Pair {
    let pair = Pair::new();
    for directory in ["disks", "other"] {
        std::fs::create_dir(pair.source.join(directory)).unwrap();
    }
    std::fs::write(pair.source.join("disks/image"), noise(1, SIZE)).unwrap();
    std::fs::write(pair.source.join("disks/small"), noise(2, 8 * 1000)).unwrap();
    pair.in_step(Plan::Full);
    pair
}

fn alone(pair: &Pair, acts: &[Act]) {
    let application = Application::new(pair);
    for act in acts {
        assert!(application.act(&pair.knowledge, act, false), "{act:?}");
    }
}

fn rename(from: &str, to: &str) -> Act {
    Act::Rename(PathBuf::from(from), PathBuf::from(to))
}

fn sent(pair: &Pair) -> u64 {
    pair.link.content.load(Ordering::SeqCst)
}

/// Nothing of the target is kept that has no name: its space is free again.
fn nothing_is_kept(pair: &Pair) {
    let kept =
        |path: PathBuf| path.starts_with(&pair.target) && path.to_string_lossy().ends_with(" (deleted)");
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open: Vec<_> =
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|path| kept(path.clone())).collect();
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_file_that_was_renamed_is_not_sent() {
    for plan in [Plan::Delta, Plan::Full] {
        // To a directory before it and to one after it in the order of names, within its own, and away from above.
        for to in ["aside", "other/image", "disks/before", "disks/zzz"] {
            let pair = paired();
            alone(&pair, &[rename("disks/image", to)]);
            pair.in_step(plan);
            pair.assert_equal();
            assert_eq!(sent(&pair), 0, "{plan:?}, {to}");
            nothing_is_kept(&pair);
        }
    }
}

#[test]
fn what_was_changed_in_it_is_sent() {
    let pair = paired();
    let image = || PathBuf::from("other/image");
    alone(
        &pair,
        &[
            rename("disks/image", "other/image"),
            Act::Write(image(), 5 * MIB + 77, vec![7; 4096]),
            Act::Write(image(), 20 * MIB, vec![8; 4096]),
            Act::Write(image(), SIZE, noise(3, MIB)),
        ],
    );
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert!(sent(&pair) <= 2 * 2 * 128 * 1024 + MIB + 128 * 1024, "{} bytes were sent", sent(&pair));
    nothing_is_kept(&pair);
}

#[test]
fn nor_when_its_directory_was_renamed_or_it_took_another_ones_place() {
    let pair = paired();
    alone(&pair, &[rename("disks", "machines")]);
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert!(sent(&pair) < MIB, "{} bytes were sent", sent(&pair));

    std::fs::write(pair.source.join("other/old"), noise(4, SIZE + 3 * MIB)).unwrap();
    pair.in_step(Plan::Full);
    alone(&pair, &[rename("machines/image", "other/old")]);
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert!(sent(&pair) < MIB, "{} bytes were sent", sent(&pair));
    nothing_is_kept(&pair);
}

#[test]
fn holes_stay_holes() {
    let pair = Pair::new();
    let (path, size) = (pair.source.join("sparse"), 200 * MIB);
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&noise(5, 2 * MIB), 0).unwrap();
    file.write_all_at(&noise(6, 2 * MIB), 100 * MIB).unwrap();
    pair.in_step(Plan::Full);
    alone(&pair, &[rename("sparse", "renamed")]);
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert_eq!(sent(&pair), 0);
    let blocks = |root: &Path| root.join("renamed").metadata().unwrap().blocks();
    assert!(blocks(&pair.target) <= blocks(&pair.source) + 64, "{} blocks", blocks(&pair.target));
}

#[test]
fn another_file_is_not_taken_for_it() {
    let pair = paired();
    alone(&pair, &[Act::Unlink(PathBuf::from("disks/image")), Act::Create(PathBuf::from("other/new"))]);
    std::fs::write(pair.source.join("other/new"), noise(9, SIZE)).unwrap();
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert_eq!(sent(&pair), SIZE);
    nothing_is_kept(&pair);
}

/// One that is equal already, but not known to be, is not filled with what only has as much nothing in it.
#[test]
fn zeros_are_no_likeness() {
    let pair = Pair::new();
    let image = |seed| [vec![0; 20 << 20], noise(seed, 4 * MIB)].concat();
    std::fs::write(pair.source.join("equal"), image(10)).unwrap();
    std::fs::write(pair.source.join("removed"), image(11)).unwrap();
    pair.in_step(Plan::Full);
    alone(&pair, &[Act::Unlink(PathBuf::from("removed"))]);
    let object = object(&pair.source.join("equal")).unwrap();
    pair.knowledge.mark(&[Change::data_from(object, 0)]).unwrap();
    pair.in_step(Plan::Delta);
    pair.assert_equal();
    assert_eq!(sent(&pair), 0);
    nothing_is_kept(&pair);
}

/// Where the target's copy is good all the while, nothing of it is worse for a moment.
#[test]
fn a_repair_keeps_nothing() {
    let pair = paired();
    alone(&pair, &[rename("disks/image", "other/image")]);
    pair.in_step(Plan::Repair);
    pair.assert_equal();
    assert_eq!(sent(&pair), SIZE);
}
