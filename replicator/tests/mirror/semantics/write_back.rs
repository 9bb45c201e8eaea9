//! `sync = "fsync"`: what is written is on the other node once it is made durable, closed or named.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, RenameFlags, SeekFrom};
use rustix::io::Errno;
use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{Fence, Plan};

use super::requests::Requests;
use crate::node::until;
use crate::pair::{Pair, script};

const WRITE: u32 = 16;

#[test]
fn few_operations_carry_many_writes_and_fsync_has_them_all_on_both_nodes() {
    let pair = Pair::writing_back();
    let mut file = File::create(pair.at("file")).unwrap();
    let (here, there) = (Requests::of(&pair.a), Requests::of(&pair.b));
    let mut wanted = Vec::new();
    for number in 0..2000 {
        let line = format!("line {number}\n");
        file.write_all(line.as_bytes()).unwrap();
        wanted.extend(line.into_bytes());
    }
    assert_eq!(
        fs::metadata(pair.at("file")).unwrap().len(),
        wanted.len() as u64,
        "to whom reads it, it is there"
    );
    file.sync_all().unwrap();
    assert!(here.with_code(WRITE) < 200, "{} operations for 2000 writes", here.with_code(WRITE));
    assert_eq!((here.durable(), there.durable()), (1, 1));
    assert!(fs::read(pair.beyond("file")).unwrap() == wanted);
    assert!(fs::read(pair.a.below().join("file")).unwrap() == wanted);
    let before = Requests::of(&pair.a);
    let synchronous =
        OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(pair.at("file")).unwrap();
    synchronous.write_all_at(b"LINE", 0).unwrap();
    assert_eq!((before.with_code(WRITE), before.durable()), (1, 1), "O_DSYNC");
    assert_eq!(&fs::read(pair.beyond("file")).unwrap()[..4], b"LINE");
    drop((file, synchronous));
    pair.assert_equal();
}

#[test]
fn what_was_made_durable_outlives_the_primary() {
    let mut pair = Pair::writing_back();
    let mut file = File::create(pair.at("log")).unwrap();
    let mut durable = Vec::new();
    for round in 0..50 {
        let entry = format!("entry {round}\n").repeat(1 + round * 13 % 40);
        file.write_all(entry.as_bytes()).unwrap();
        file.sync_data().unwrap();
        durable.extend(entry.into_bytes());
    }
    file.write_all(b"not made durable").unwrap();
    pair.a.kill();
    assert!(fs::read(pair.beyond("log")).unwrap().starts_with(&durable));
}

#[test]
fn a_closed_file_is_on_both_nodes() {
    let pair = Pair::writing_back();
    for number in 0..20 {
        let content = format!("{number} ").repeat(number * 1000);
        fs::write(pair.at("file"), &content).unwrap();
        assert!(fs::read_to_string(pair.beyond("file")).unwrap() == content);
    }
    script(&pair, "for i in 1 2 3; do echo $i >> log; done");
    assert_eq!(fs::read_to_string(pair.beyond("log")).unwrap(), "1\n2\n3\n");
    pair.assert_equal();
}

/// Whoever writes a new file and renames it over the old one means either, never an empty one.
#[test]
fn a_file_renamed_while_it_is_written_is_whole_on_the_other_node() {
    let mut pair = Pair::writing_back();
    fs::write(pair.at("settings"), "old").unwrap();
    fs::write(pair.at("other"), "old").unwrap();
    let write = |name: &str, content: &str| {
        let mut file = File::create(pair.at(name)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    };
    let (large, small) = ("large ".repeat(200_000), "small");
    let renamed = write("settings.new", &large);
    fs::rename(pair.at("settings.new"), pair.at("settings")).unwrap();
    let exchanged = write("other.new", small);
    let flags = RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(CWD, pair.at("other.new"), CWD, pair.at("other"), flags).unwrap();
    let linked = write("first", small);
    fs::hard_link(pair.at("first"), pair.at("second")).unwrap();
    let nameless = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(&pair.a.data).unwrap();
    nameless.write_all_at(large.as_bytes(), 0).unwrap();
    let open = format!("/proc/self/fd/{}", nameless.as_raw_fd());
    rustix::fs::linkat(CWD, open, CWD, pair.at("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    pair.a.kill();
    for (name, content) in [
        ("settings", large.as_str()),
        ("other", small),
        ("other.new", "old"),
        ("second", small),
        ("named", &large),
    ] {
        assert!(fs::read_to_string(pair.beyond(name)).unwrap() == content, "{name}");
    }
    drop((renamed, exchanged, linked, nameless));
}

/// More of them than there are workers: who waits for the kernel's pages must leave somebody to take them.
#[test]
fn many_renames_at_once_do_not_wait_for_each_other() {
    let pair = Pair::writing_back();
    let threads = 150;
    std::thread::scope(|scope| {
        let ready = std::sync::Arc::new(std::sync::Barrier::new(threads));
        for number in 0..threads {
            let (pair, ready) = (&pair, std::sync::Arc::clone(&ready));
            scope.spawn(move || {
                let directory = pair.at(&format!("{number}"));
                fs::create_dir(&directory).unwrap();
                let mut file = File::create(directory.join("new")).unwrap();
                file.write_all(&[number as u8; 10_000]).unwrap();
                ready.wait();
                fs::rename(directory.join("new"), directory.join("final")).unwrap();
                let there = fs::read(pair.beyond(&format!("{number}/final"))).unwrap();
                assert!(there == [number as u8; 10_000]);
            });
        }
    });
    pair.assert_equal();
}

#[test]
fn where_content_is_can_be_asked_while_it_is_written() {
    let pair = Pair::writing_back();
    let file = File::create(pair.at("file")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(b"here", 512 << 10).unwrap();
    let other = File::open(pair.at("file")).unwrap();
    assert_eq!(rustix::fs::seek(&other, SeekFrom::Data(0)), Ok(512 << 10));
    let mut copy = File::create(pair.at("copy")).unwrap();
    copy.write_all(b"written").unwrap();
    assert_eq!(rustix::fs::seek(&copy, SeekFrom::Hole(0)), Ok(7));
    copy.rewind().unwrap();
    drop((file, copy, other));
    script(&pair, "cp --sparse=always file sparse; cmp file sparse; cmp file $PEER/sparse");
    pair.assert_equal();
}

/// The kernel tells the times of files, and not always after what was written at them.
#[test]
fn times_are_those_that_the_application_sees() {
    let pair = Pair::writing_back();
    let file = File::create(pair.at("file")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 123_456_789);
    file.set_modified(old).unwrap();
    file.write_all_at(b"content", 0).unwrap();
    let time = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    // Content is written back so that it can be asked for, without a word about times: nobody makes one up.
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Ok(0));
    let below = pair.a.below().join("file");
    assert_eq!(fs::read(pair.beyond("file")).unwrap(), b"content");
    assert_eq!(
        (time(&below), time(&pair.beyond("file"))),
        ((1_000_000, 123_456_789), (1_000_000, 123_456_789))
    );
    let seen = time(&pair.at("file"));
    assert!(seen > (1_000_000, 123_456_789), "the application sees when it wrote");
    file.sync_all().unwrap();
    assert_eq!((time(&below), time(&pair.beyond("file"))), (seen, seen));
    file.set_modified(old).unwrap();
    drop(file);
    assert_eq!(
        (time(&pair.at("file")), time(&pair.beyond("file"))),
        ((1_000_000, 123_456_789), (1_000_000, 123_456_789))
    );
    fs::write(pair.at("file"), "more").unwrap();
    assert_eq!(time(&pair.at("file")), time(&pair.beyond("file")));
    pair.assert_equal();
}

#[test]
fn what_does_not_fit_is_told_by_fsync_and_close() {
    let mut pair = Pair::unstarted();
    let size = "-osize=3m,nr_inodes=60,mode=755";
    assert!(
        Command::new("mount")
            .args(["-t", "tmpfs", size, "none"])
            .arg(&pair.a.data)
            .status()
            .unwrap()
            .success()
    );
    pair.start_writing_back();
    let file = File::create(pair.at("big")).unwrap();
    let outcome = (0..5).try_for_each(|piece| file.write_all_at(&[1; 1 << 20], piece << 20));
    let outcome = outcome.and_then(|()| file.sync_all());
    assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    drop(file);
    fs::remove_file(pair.at("big")).unwrap();
    // The session has outlived it.
    fs::write(pair.at("small"), "fits").unwrap();
    assert_eq!(fs::read(pair.beyond("small")).unwrap(), b"fits");
    let longest = OpenOptions::new().create_new(true).write(true).open(pair.at("longest")).unwrap();
    let written = rustix::io::pwrite(&longest, b"beyond", (i64::MAX - 3).cast_unsigned());
    assert!(matches!(written, Err(Errno::FBIG | Errno::INVAL)), "{written:?}");
    drop(longest);
    pair.assert_equal();
}

/// An unmount in good order leaves nothing behind in the kernel.
#[test]
fn what_was_written_is_there_after_an_unmount() {
    let mut pair = Pair::writing_back();
    for number in 0..50 {
        let name = format!("{number}");
        fs::write(pair.at(&name), name.repeat(number)).unwrap();
        fs::rename(pair.at(&name), pair.at(&format!("{number}.moved"))).unwrap();
    }
    pair.a.unmount();
    for number in 0..50 {
        let found = fs::read_to_string(pair.at(&format!("{number}.moved"))).unwrap();
        assert_eq!(found, number.to_string().repeat(number));
    }
    pair.assert_equal();
}

/// As the kernel does it by itself after a while.
#[test]
fn what_is_left_open_follows() {
    let pair = Pair::writing_back();
    let mut file = File::create(pair.at("file")).unwrap();
    file.write_all(b"left open").unwrap();
    // It begins to write everything back, and may not wait for the end of it.
    rustix::fs::syncfs(&file).unwrap();
    until("the content arrives", || fs::read(pair.beyond("file")).unwrap() == b"left open");
    drop(file);
    pair.assert_equal();
}

#[test]
fn fio_verifies_what_it_wrote_back() {
    let pair = Pair::writing_back();
    crate::programs::fio(
        &pair,
        &[
            ("mixed", ["--rw=randrw", "--bsrange=512-64k", "--fsync=32", "--ioengine=psync"]),
            ("mapped", ["--rw=randwrite", "--bs=4k", "--fsync=64", "--ioengine=mmap"]),
            ("direct", ["--rw=randrw", "--bs=4k", "--direct=1", "--ioengine=libaio"]),
            ("sequential", ["--rw=write", "--bs=1k", "--fsync=100", "--ioengine=psync"]),
        ],
    );
    pair.assert_equal();
}

#[test]
fn without_the_option_every_write_is_an_operation() {
    let pair = Pair::paired_watching_requests();
    let mut file = File::create(pair.at("file")).unwrap();
    let requests = Requests::of(&pair.a);
    for _ in 0..50 {
        file.write_all(b"line\n").unwrap();
    }
    assert_eq!(requests.with_code(WRITE), 50);
    assert_eq!(fs::read(pair.beyond("file")).unwrap(), b"line\n".repeat(50));
}

#[test]
fn a_stream_that_breaks_loses_nothing_that_was_made_durable() {
    let mut pair = Pair::writing_back();
    let mut durable = Vec::new();
    let mut file = File::create(pair.at("log")).unwrap();
    for session in 1..=3 {
        file.write_all(b"before the stream breaks\n").unwrap();
        file.sync_data().unwrap();
        durable.extend_from_slice(b"before the stream breaks\n");
        file.write_all(b"while it breaks\n").unwrap();
        durable.extend_from_slice(b"while it breaks\n");
        pair.leave(session);
        pair.session(session + 1, Plan::Repair);
        file.sync_all().unwrap();
        assert!(fs::read(pair.beyond("log")).unwrap() == durable);
    }
    drop(file);
    pair.assert_equal();
}

#[test]
fn a_fence_is_told_to_who_makes_durable() {
    let mut pair = Pair::writing_back();
    let mut file = File::create(pair.at("file")).unwrap();
    file.write_all(b"durable").unwrap();
    file.sync_all().unwrap();
    file.write_all(b" and not").unwrap();
    pair.a.order(Order::Fence(Fence {}));
    pair.a.expect("Fenced", |report| matches!(report, Report::Fenced(_)).then_some(()));
    let error = file.sync_all().unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO)), "{error}");
    assert!(fs::read(pair.beyond("file")).unwrap().starts_with(b"durable"));
}
