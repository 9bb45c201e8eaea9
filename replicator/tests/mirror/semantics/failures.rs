//! Operations that one node cannot do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use safe_proto::replication::Plan;
use safe_proto::replication::attach_response::Report;

use crate::node::{Node, until};
use crate::pair::Pair;

struct Memory(std::path::PathBuf);

impl Memory {
    /// A filesystem in memory at this place.
    fn mount(at: &Path, options: &str) -> Self {
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status().unwrap();
        assert!(status.success());
        Self(at.to_path_buf())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for _ in 0..2 {
            let _absent = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
        }
    }
}

fn lost(node: &mut Node) -> String {
    node.expect("SessionLost", |report| match report {
        Report::SessionLost(lost) => Some(lost.reason.clone()),
        _ => None,
    })
}

#[test]
fn no_space_on_the_other_node_only() {
    let mut pair = Pair::unstarted();
    let disk = Memory::mount(&pair.b.data, "size=2m,mode=755");
    pair.start();
    pair.session(1, Plan::Repair);
    pair.a.mount();
    fs::write(pair.at("small"), "fits").unwrap();
    let path = pair.at("large");
    let writer = std::thread::spawn(move || fs::write(path, vec![5; 4 << 20]));
    let reason = lost(&mut pair.a);
    assert!(reason.contains("the other node could not carry out"), "{reason}");
    assert!(!writer.is_finished(), "nothing is answered before going on alone is settled");
    pair.a.settle(7);
    writer.join().unwrap().unwrap();
    assert_eq!(fs::read(pair.at("large")).unwrap(), vec![5; 4 << 20]);
    drop(pair);
    drop(disk);
}

fn disk_failed(node: &mut Node) {
    let reason = node.expect("DiskFailed", |report| match report {
        Report::DiskFailed(reason) => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("durable"), "{reason}");
}

#[test]
fn the_first_error_of_fsync_makes_this_copy_inconsistent() {
    let mut pair = Pair::paired(Plan::Repair);
    let file = fs::File::create(pair.at("file")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
    fs::write(pair.a.crash_file(), "sync 1").unwrap();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    disk_failed(&mut pair.a);
    let reason = lost(&mut pair.a);
    assert!(reason.contains("sync failed here"), "{reason}");
}

#[test]
fn the_first_error_of_fsync_on_the_other_node_makes_that_copy_inconsistent() {
    for ack_disk in [false, true] {
        let mut pair = Pair::unstarted();
        pair.b.ack_disk = ack_disk;
        pair.start();
        pair.session(1, Plan::Repair);
        pair.a.mount();
        let file = fs::File::create(pair.at("file")).unwrap();
        fs::write(pair.b.crash_file(), "sync 1").unwrap();
        let application = std::thread::spawn(move || {
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
            file.sync_all().unwrap();
        });
        disk_failed(&mut pair.b);
        lost(&mut pair.a);
        assert!(!application.is_finished(), "it is durable on one node only");
        pair.a.settle(7);
        application.join().unwrap();
    }
}

/// More than ext4 has room for, but tmpfs does; a name that both know.
fn set_large(path: &Path) -> rustix::io::Result<()> {
    rustix::fs::setxattr(path, "user.large", &[b'x'; 20_000], XattrFlags::empty())
}

#[test]
fn what_both_refuse_is_answered_and_the_session_goes_on() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), "x").unwrap();
    let below = set_large(&pair.a.place.join("log"));
    assert_eq!(set_large(&pair.at("file")), below);
    assert_eq!(below, Err(Errno::NOSPC), "this test is for ext4");
    fs::write(pair.at("file"), "more").unwrap();
    assert_eq!(fs::read(pair.beyond("file")).unwrap(), b"more");
    pair.assert_equal();
}

#[test]
fn what_fails_here_only_is_answered_once_the_other_node_cannot_serve_it() {
    let mut pair = Pair::unstarted();
    let disk = Memory::mount(&pair.b.data, "size=20m,mode=755");
    pair.start();
    pair.session(1, Plan::Repair);
    pair.a.mount();
    fs::write(pair.at("file"), "x").unwrap();
    let path = pair.at("file");
    let setter = std::thread::spawn(move || set_large(&path));
    let reason = lost(&mut pair.a);
    assert!(reason.contains("failed here"), "{reason}");
    assert!(!setter.is_finished());
    lost(&mut pair.b);
    // The next session repairs it before the error is told.
    pair.session(2, Plan::Repair);
    assert_eq!(setter.join().unwrap(), Err(Errno::NOSPC));
    until("it is taken away there", || {
        rustix::fs::getxattr(pair.beyond("file"), "user.large", &mut [0; 8]) == Err(Errno::NODATA)
    });
    pair.assert_equal();
    drop(pair);
    drop(disk);
}

/// A filesystem whose disk is served by a process that can be stopped.
struct Disk {
    server: Pair,
    stopped: bool,
}

impl Disk {
    fn on(directory: &Path) -> Self {
        let mut server = Pair::paired(Plan::Repair);
        // What is stopped for a while has lost its session.
        server.leave(1);
        server.a.settle(7);
        let image = server.at("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let script = "mkfs.ext4 -qF \"$0\" && mount -o loop \"$0\" \"$1\"";
        let made = Command::new("sh").args(["-c", script]).arg(&image).arg(directory).status().unwrap();
        assert!(made.success());
        Self { server, stopped: false }
    }

    fn signal(&mut self, signal: rustix::process::Signal) {
        self.stopped = signal == rustix::process::Signal::STOP;
        let pid = rustix::process::Pid::from_raw(self.server.a.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Nothing that comes from it is remembered: the next one to read waits for it.
    fn forget(&self, files: &[&Path]) {
        let image = self.server.at("image");
        for path in files.iter().copied().chain([image.as_path()]) {
            let file = fs::File::open(path).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.stopped {
            self.signal(rustix::process::Signal::CONT);
        }
    }
}

#[test]
fn a_disk_that_hangs_is_noticed_by_who_only_reads() {
    let mut pair = Pair::unstarted();
    let mut disk = Disk::on(&pair.a.data);
    pair.a.local_timeout_ms = 1500;
    pair.start();
    pair.session(1, Plan::Repair);
    pair.a.mount();
    fs::write(pair.at("file"), vec![7; 1 << 20]).unwrap();
    let (file, below) = (pair.at("file"), pair.a.below().join("file"));
    let open = fs::File::open(&file).unwrap();
    disk.forget(&[&file, &below]);
    disk.signal(rustix::process::Signal::STOP);
    let reader = std::thread::spawn(move || {
        let mut found = vec![0; 1 << 20];
        std::os::unix::fs::FileExt::read_exact_at(&open, &mut found, 0).unwrap();
        found
    });
    let reason = pair.a.expect("DiskFailed", |report| match report {
        Report::DiskFailed(reason) => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("has not ended for"), "{reason}");
    assert!(!reader.is_finished(), "it hangs");
    disk.signal(rustix::process::Signal::CONT);
    assert!(reader.join().unwrap() == vec![7; 1 << 20]);
    // It is taken off before the process that serves it ends.
    pair.a.kill();
    for _ in 0..2 {
        let _gone = Command::new("umount").arg("-l").arg(&pair.a.data).status();
    }
}
