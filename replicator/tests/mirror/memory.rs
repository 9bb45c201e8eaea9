//! What a process holds for a large tree.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};
use safe_proto::replication::Plan;

use crate::pair::Pair;

/// For a process that does nothing, and what does not grow with the tree.
const BASE: u64 = 64 << 20;
/// For a file that the kernel remembers.
const EACH: u64 = 236;
/// Files in a directory.
const TOGETHER: usize = 1000;
/// Most bytes at a million files.
const BAR: u64 = 300 << 20;

/// A tree of so many files, the same below both nodes.
fn grow(pair: &Pair, files: usize) {
    for directory in 0..files.div_ceil(TOGETHER) {
        let place = pair.a.data.join(format!("directory-{directory}"));
        fs::create_dir(&place).unwrap();
        for number in 0..TOGETHER.min(files - directory * TOGETHER) {
            let path = place.join(format!("file-{number}.data"));
            rustix::fs::mknodat(CWD, path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
    }
    let copied = Command::new("cp").arg("-a").arg(pair.a.data.join(".")).arg(&pair.b.data).status().unwrap();
    assert!(copied.success());
}

/// Looks at everything, as `find -size` does.
fn walk(root: &Path) -> usize {
    let mut seen = 0;
    for directory in fs::read_dir(root).unwrap() {
        for entry in fs::read_dir(directory.unwrap().path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().len(), 0);
            seen += 1;
        }
    }
    seen
}

/// What both processes hold at most, in bytes, with so many files known and so many of them open and written.
fn held(files: usize, open: usize) -> [u64; 2] {
    let mut pair = Pair::new();
    grow(&pair, files);
    pair.session(1, Plan::Repair);
    pair.a.mount();
    assert_eq!(walk(&pair.a.data), files);
    let step = files / open;
    let path = |number: usize| format!("directory-{}/file-{}.data", number / TOGETHER, number % TOGETHER);
    let opened: Vec<File> = (0..open)
        .map(|number| File::options().write(true).open(pair.at(&path(number * step))).unwrap())
        .collect();
    for file in &opened {
        std::os::unix::fs::FileExt::write_all_at(file, b"x", 0).unwrap();
    }
    let most = [pair.a.most_memory(), pair.b.most_memory()];
    println!(
        "{files} files, {open} open: primary {} MiB now, {} MiB at most; secondary {} MiB now, {} MiB at most",
        pair.a.memory() >> 20,
        most[0] >> 20,
        pair.b.memory() >> 20,
        most[1] >> 20
    );
    assert_eq!(fs::read(pair.beyond(&path((open - 1) * step))).unwrap(), b"x");
    most
}

#[test]
fn a_tree_costs_little_for_each_file() {
    const FILES: usize = 20_000;
    for most in held(FILES, 1000) {
        assert!(most < BASE + EACH * FILES as u64, "{} MiB", most >> 20);
    }
}

#[test]
#[ignore = "a million files"]
fn a_million_files_and_ten_thousand_open_ones_are_within_the_bar() {
    // Descriptors of this process.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted).unwrap();
    for most in held(1_000_000, 10_000) {
        assert!(most <= BAR, "{} MiB", most >> 20);
    }
}
