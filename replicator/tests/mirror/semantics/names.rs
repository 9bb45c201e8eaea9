//! Names and what they stand for.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use safe_proto::replication::Plan;

use crate::pair::Pair;

#[test]
fn names_of_any_bytes() {
    let pair = Pair::paired(Plan::Repair);
    for byte in 1..=255u8 {
        if byte == b'/' {
            continue;
        }
        let name = [byte, b'x', byte];
        fs::write(pair.at(".").join(std::ffi::OsStr::from_bytes(&name)), [byte]).unwrap();
    }
    let longest = [0xffu8; 255];
    fs::write(pair.at(".").join(std::ffi::OsStr::from_bytes(&longest)), "").unwrap();
    assert_eq!(fs::read_dir(pair.beyond(".")).unwrap().count(), 255);
    pair.assert_equal();
}

#[test]
fn every_kind_of_object() {
    let pair = Pair::paired(Plan::Repair);
    let device = rustix::fs::makedev(259, 70_000);
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("char", FileType::CharacterDevice, device),
        ("block", FileType::BlockDevice, device),
        ("file", FileType::RegularFile, 0),
    ] {
        rustix::fs::mknodat(CWD, pair.at(name), kind, Mode::from_raw_mode(0o1640), device).unwrap();
        let (here, there) = (fs::metadata(pair.at(name)).unwrap(), fs::metadata(pair.beyond(name)).unwrap());
        assert_eq!((here.mode(), here.rdev()), (there.mode(), there.rdev()), "{name}");
    }
    assert!(fs::metadata(pair.beyond("char")).unwrap().file_type().is_char_device());
    let long = "x".repeat(4095);
    std::os::unix::fs::symlink(&long, pair.at("link")).unwrap();
    assert_eq!(fs::read_link(pair.beyond("link")).unwrap(), Path::new(&long));
    pair.assert_equal();
}

#[test]
fn names_of_one_file_are_one_file() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("one"), "content").unwrap();
    for number in 0..40 {
        fs::hard_link(pair.at("one"), pair.at(&format!("link{number}"))).unwrap();
    }
    let (one, other) = (fs::metadata(pair.at("one")).unwrap(), fs::metadata(pair.at("link7")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (other.ino(), 41));
    let (one, other) =
        (fs::metadata(pair.beyond("one")).unwrap(), fs::metadata(pair.beyond("link7")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (other.ino(), 41));
    for number in 0..20 {
        fs::remove_file(pair.at(&format!("link{number}"))).unwrap();
    }
    fs::remove_file(pair.at("one")).unwrap();
    fs::write(pair.at("link30"), "changed").unwrap();
    assert_eq!(fs::read(pair.beyond("link39")).unwrap(), b"changed");
    // A name that comes back is another file, even where the inode number is the same.
    fs::write(pair.at("one"), "new").unwrap();
    assert_eq!(fs::read(pair.beyond("one")).unwrap(), b"new");
    assert_eq!(fs::read(pair.at("link39")).unwrap(), b"changed");
    pair.assert_equal();
}

#[test]
fn locks_are_those_of_the_serving_node() {
    let pair = Pair::paired(Plan::Repair);
    let (one, other) = (File::create(pair.at("file")).unwrap(), File::open(pair.at("file")).unwrap());
    rustix::fs::flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    rustix::fs::flock(&one, FlockOperation::Unlock).unwrap();
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
    let script = r#"
import fcntl, os
a = open("file", "r+b")
fcntl.lockf(a, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
child = os.fork()
if child == 0:
    b = open("file", "r+b")
    fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
    try:
        fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14)
        os._exit(1)
    except BlockingIOError:
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"#;
    assert!(
        Command::new("python3").args(["-c", script]).current_dir(&pair.a.data).status().unwrap().success()
    );
}

#[test]
fn what_is_not_supported_says_so() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), "x").unwrap();
    let whiteout =
        rustix::fs::renameat_with(CWD, pair.at("file"), CWD, pair.at("new"), RenameFlags::WHITEOUT);
    assert_eq!(whiteout, Err(Errno::INVAL));
    let file = File::open(pair.at("file")).unwrap();
    assert_eq!(rustix::fs::ioctl_getflags(&file), Err(Errno::NOTTY));
    fs::create_dir(pair.at("dir")).unwrap();
    assert_eq!(rustix::fs::link(pair.at("dir"), pair.at("other")), Err(Errno::PERM));
    let names = ["user.x".into(), format!("user.{}", "n".repeat(251))];
    let errors: Vec<_> = names
        .iter()
        .map(|name| {
            let value = vec![0; 65537];
            rustix::fs::setxattr(pair.at("file"), name, &value, rustix::fs::XattrFlags::empty()).unwrap_err()
        })
        .collect();
    assert_eq!(errors, [Errno::TOOBIG, Errno::RANGE]);
    pair.assert_equal();
}

#[test]
fn times_of_every_age() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), "x").unwrap();
    for (seconds, nanos) in [(-2_147_483_000, 1), (-1, 999_999_999), (0, 0), (4_102_444_800, 123_456_789)] {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, pair.at("file"), &times, rustix::fs::AtFlags::empty()).unwrap();
        for path in [pair.at("file"), pair.beyond("file")] {
            let found = fs::metadata(path).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), (seconds, nanos));
            assert_eq!((found.atime(), found.atime_nsec()), (seconds, nanos));
        }
    }
}

/// The names are there before, since making them one by one would take long.
#[test]
fn a_hundred_thousand_names_in_one_directory() {
    const MANY: usize = 100_000;
    let mut pair = Pair::new();
    fs::create_dir(pair.a.data.join("many")).unwrap();
    for number in 0..MANY {
        let path = pair.a.data.join(format!("many/name{number}"));
        rustix::fs::mknodat(CWD, path, FileType::RegularFile, Mode::RUSR, 0).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(pair.a.data.join(".")).arg(&pair.b.data).status().unwrap();
    assert!(copied.success());
    pair.session(1, Plan::Repair);
    pair.a.mount();
    let mut seen: Vec<bool> = vec![false; MANY];
    let before = pair.a.memory();
    for entry in fs::read_dir(pair.at("many")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let number: usize = name["name".len()..].parse().unwrap();
        assert!(!std::mem::replace(&mut seen[number], true), "{name} came twice");
        assert_eq!(entry.metadata().unwrap().len(), 0);
    }
    let each = (pair.a.memory() - before) / MANY as u64;
    assert!((100..300).contains(&each), "each file that the kernel remembers takes {each} bytes");
    assert!(seen.iter().all(|seen| *seen), "a name was left out");
    fs::remove_file(pair.at("many/name500")).unwrap();
    fs::rename(pair.at("many/name501"), pair.at("many/other")).unwrap();
    fs::write(pair.at("many/new"), "x").unwrap();
    assert!(!pair.beyond("many/name500").exists() && pair.beyond("many/other").exists());
    // Comparing all attributes of all of them would take long.
    let listed = |place: &Path| -> BTreeSet<_> {
        fs::read_dir(place.join("many")).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert!(listed(&pair.a.data) == listed(&pair.b.data));
    let (here, there) = (fs::metadata(pair.at("many")).unwrap(), fs::metadata(pair.beyond("many")).unwrap());
    assert_eq!((here.mtime(), here.mtime_nsec()), (there.mtime(), there.mtime_nsec()));
}
