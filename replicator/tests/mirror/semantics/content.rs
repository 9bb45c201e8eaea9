//! Content: by whatever way it is written, and made durable.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::Command;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};
use safe_proto::replication::Plan;

use super::requests::Requests;
use crate::pair::Pair;
use crate::random::Random;

#[test]
fn asynchronous_direct_writes() {
    let pair = Pair::paired(Plan::Repair);
    let output = Command::new("fio")
        .args([
            "--name=aio",
            "--filename=aio",
            "--ioengine=libaio",
            "--direct=1",
            "--rw=randrw",
            "--bsrange=4k-64k",
        ])
        .args([
            "--iodepth=16",
            "--size=8m",
            "--io_size=16m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--end_fsync=1",
        ])
        .current_dir(&pair.a.data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pair.assert_equal();
}

#[test]
fn a_synchronous_write_is_durable_on_both_nodes() {
    let pair = Pair::paired_watching_requests();
    let both = |what: &str, write: &dyn Fn(&File)| {
        let flags = match what {
            "O_SYNC" => libc::O_SYNC,
            "O_DSYNC" => libc::O_DSYNC,
            _ => 0,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(flags)
            .open(pair.at(what))
            .unwrap();
        let (here, there) = (Requests::of(&pair.a), Requests::of(&pair.b));
        write(&file);
        assert_eq!((here.durable(), there.durable()), (1, 1), "{what}");
    };
    both("O_SYNC", &|file| file.write_all_at(b"x", 0).unwrap());
    both("O_DSYNC", &|file| file.write_all_at(b"x", 0).unwrap());
    let buffers = [IoSlice::new(b"x")];
    both("RWF_SYNC", &|file| {
        rustix::io::pwritev2(file, &buffers, 0, ReadWriteFlags::SYNC).unwrap();
    });
    both("RWF_DSYNC", &|file| {
        rustix::io::pwritev2(file, &buffers, 0, ReadWriteFlags::DSYNC).unwrap();
    });
    both("fsync", &|file| file.sync_all().unwrap());
    both("fdatasync", &|file| file.sync_data().unwrap());
    let (here, there) = (Requests::of(&pair.a), Requests::of(&pair.b));
    File::open(&pair.a.data).unwrap().sync_all().unwrap();
    assert_eq!((here.durable(), there.durable()), (1, 1), "fsync of a directory");
    pair.assert_equal();
}

/// Nothing stands between two of them, so that a filesystem below makes several durable by one commit.
#[test]
fn files_are_made_durable_side_by_side_on_both_nodes() {
    const FILES: usize = 6;
    let pair = Pair::paired(Plan::Repair);
    let files: Vec<File> =
        (0..FILES).map(|number| File::create(pair.at(&format!("{number}"))).unwrap()).collect();
    files.iter().for_each(|file| file.write_all_at(b"content", 0).unwrap());
    for node in [&pair.a, &pair.b] {
        fs::write(node.crash_file(), format!("gather-sync {FILES}")).unwrap();
    }
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| file.sync_all().unwrap());
        }
    });
    for node in [&pair.a, &pair.b] {
        fs::remove_file(node.crash_file()).unwrap();
        assert_eq!(node.log().matches("gathered").count(), FILES, "{}", node.name);
    }
    pair.assert_equal();
}

#[test]
fn no_attribute_is_asked_for_before_each_write() {
    let pair = Pair::paired_watching_requests();
    let mut file = File::create(pair.at("file")).unwrap();
    file.write_all(b"first").unwrap();
    let requests = Requests::of(&pair.a);
    for _ in 0..100 {
        file.write_all(b"and more").unwrap();
    }
    const GETATTR: u32 = 3;
    const WRITE: u32 = 16;
    const GETXATTR: u32 = 22;
    assert_eq!(requests.with_code(WRITE), 100);
    assert_eq!((requests.with_code(GETXATTR), requests.with_code(GETATTR)), (0, 0));
}

#[test]
fn every_kind_of_fallocate() {
    let pair = Pair::paired(Plan::Repair);
    let file = File::create_new(pair.at("file")).unwrap();
    file.write_all_at(&[9; 1 << 20], 0).unwrap();
    let allocate = |flags, offset, length| rustix::fs::fallocate(&file, flags, offset, length);
    allocate(FallocateFlags::empty(), 0, 2 << 20).unwrap();
    allocate(FallocateFlags::KEEP_SIZE, 4 << 20, 1 << 20).unwrap();
    allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 5000).unwrap();
    allocate(FallocateFlags::ZERO_RANGE, 64 << 10, 100).unwrap();
    allocate(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 8 << 20, 4096).unwrap();
    for refused in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(allocate(refused, 0, 4096), Err(Errno::OPNOTSUPP));
    }
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    pair.assert_equal();
}

/// Writers of every kind on the same pages of one file: whatever the order was, it is the same on both nodes.
#[test]
fn overlapping_writes_have_one_order() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), vec![0; 1 << 18]).unwrap();
    let mapped = Command::new("python3").args(["-c", MAPPED]).current_dir(&pair.a.data).spawn().unwrap();
    let direct = Command::new("fio")
        .args([
            "--name=aio",
            "--filename=file",
            "--ioengine=libaio",
            "--direct=1",
            "--rw=randwrite",
            "--bs=4k",
        ])
        .args(["--iodepth=8", "--size=256k", "--io_size=2m", "--refill_buffers=1", "--output=/dev/null"])
        .current_dir(&pair.a.data)
        .spawn()
        .unwrap();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let pair = &pair;
            scope.spawn(move || {
                let mut random = Random::new(writer + 1);
                let file = OpenOptions::new().write(true).open(pair.at("file")).unwrap();
                for step in 0..200 {
                    let length = 1 + random.below(9000) as usize;
                    let bytes = vec![(writer * 50 + step % 50) as u8; length];
                    file.write_all_at(&bytes, random.below((1 << 18) - 9000)).unwrap();
                }
            });
        }
    });
    for mut child in [mapped, direct] {
        assert!(child.wait().unwrap().success());
    }
    File::open(pair.at("file")).unwrap().sync_all().unwrap();
    assert!(fs::read(pair.at("file")).unwrap() == fs::read(pair.beyond("file")).unwrap());
    pair.assert_equal();
}

/// Changes pages through a shared mapping, sometimes with msync.
const MAPPED: &str = r#"
import mmap
with open("file", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
    for step in range(400):
        at = step * 7919 % (len(m) - 64)
        m[at:at + 64] = bytes([200 + step % 50]) * 64
        if step % 20 == 0:
            m.flush()
    m.close()
"#;

#[test]
fn what_a_mapping_wrote_without_msync_follows_by_itself() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), vec![0; 8192]).unwrap();
    let script = "import mmap\nf = open('file', 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nm[4096:4100] = b'left'\nm.close()\nf.close()";
    assert!(
        Command::new("python3").args(["-c", script]).current_dir(&pair.a.data).status().unwrap().success()
    );
    // The last close writes the dirty pages of a mapping back.
    crate::node::until("the page arrives", || {
        fs::read(pair.beyond("file")).unwrap().get(4096..4100) == Some(b"left")
    });
    pair.assert_equal();
}

#[test]
fn copies_within_and_between_files() {
    let pair = Pair::paired(Plan::Repair);
    let mut random = Random::new(3);
    fs::write(pair.at("from"), random.bytes(300_000)).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(pair.at("from")).unwrap();
    let to = File::create(pair.at("to")).unwrap();
    let copy = |source, target, length| {
        let (mut from, mut into) = (source, target);
        rustix::fs::copy_file_range(&file, Some(&mut from), &to, Some(&mut into), length)
    };
    assert_eq!(copy(100, 5000, 200_000), Ok(200_000));
    assert_eq!(copy(299_990, 0, 4096), Ok(10));
    assert_eq!(copy(300_000, 0, 4096), Ok(0));
    let within = |from: u64, into: u64, length| {
        let (mut from, mut into) = (from, into);
        rustix::fs::copy_file_range(&file, Some(&mut from), &file, Some(&mut into), length)
    };
    assert_eq!(within(0, 400_000, 1000), Ok(1000));
    assert_eq!(within(0, 500, 1000), Err(Errno::INVAL));
    pair.assert_equal();
}

#[test]
fn content_beyond_four_gigabytes() {
    let pair = Pair::paired(Plan::Repair);
    let file = File::create_new(pair.at("file")).unwrap();
    for at in [(4 << 30) - 3, 5 << 30, (1 << 40) + 5] {
        file.write_all_at(b"across", at).unwrap();
    }
    file.set_len((1 << 40) + 9).unwrap();
    let there = File::open(pair.beyond("file")).unwrap();
    let mut found = [0; 6];
    there.read_exact_at(&mut found, (4 << 30) - 3).unwrap();
    assert_eq!(&found, b"across");
    there.read_exact_at(&mut found[..4], (1 << 40) + 5).unwrap();
    assert_eq!(&found[..4], b"acro");
    assert_eq!(there.metadata().unwrap().len(), (1 << 40) + 9);
    // Comparing the whole of it would take long.
    file.set_len(0).unwrap();
    pair.assert_equal();
}

#[test]
fn appending_from_several_files_at_once() {
    let pair = Pair::paired(Plan::Repair);
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let pair = &pair;
            scope.spawn(move || {
                let mut log = OpenOptions::new().create(true).append(true).open(pair.at("log")).unwrap();
                for _ in 0..100 {
                    log.write_all(&[b'a' + writer; 37]).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read(pair.beyond("log")).unwrap().len(), 4 * 100 * 37);
    pair.assert_equal();
}
