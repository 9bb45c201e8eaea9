//! Operations that try to touch something outside.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use safe_proto::replication::Directory;
use safe_replication::op::{Allocation, Number, ObjectId, Op, RenameMode, Timestamp, Xattr};
use safe_replicator::carry::carry_out;
use safe_replicator::clock::Boottime;
use safe_replicator::node::Nodes;

const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanos: 5 };
const ROOT: ObjectId = ObjectId::root(0);

/// A replicated directory, and beside it what must stay as it is.
struct Place {
    place: tempfile::TempDir,
    nodes: Nodes,
}

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        for directory in ["data", "data/inside", "outside", "outside/deep"] {
            fs::create_dir(place.path().join(directory)).unwrap();
        }
        fs::write(place.path().join("outside/secret"), "untouched").unwrap();
        fs::write(place.path().join("data/file"), "content").unwrap();
        let path = place.path().join("data").display().to_string();
        let directory = Directory { path, exclude: Vec::new(), ack_disk: false, write_back: false };
        let nodes = Nodes::new(safe_replicator::prepare::open(&[directory]).unwrap());
        Self { place, nodes }
    }

    fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    fn outside(&self) -> PathBuf {
        self.place.path().join("outside")
    }

    fn run(&self, op: &Op) -> Result<(), Errno> {
        carry_out(&self.nodes, Number(1), op)
    }

    fn bind(&self, id: u64, parent: ObjectId, name: &str, kind: u32) -> Result<ObjectId, Errno> {
        let id = ObjectId(100_000 + id);
        self.run(&Op::Bind { id, parent, name: Bytes::copy_from_slice(name.as_bytes()), kind })?;
        Ok(id)
    }

    /// Everything outside, as it was.
    #[track_caller]
    fn assert_untouched(&self) {
        let mut names: Vec<_> =
            fs::read_dir(self.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["deep", "secret"]);
        assert_eq!(fs::read_dir(self.outside().join("deep")).unwrap().count(), 0);
        let secret = fs::metadata(self.outside().join("secret")).unwrap();
        assert_eq!(fs::read(self.outside().join("secret")).unwrap(), b"untouched");
        assert_eq!((secret.mode() & 0o7777, secret.uid(), secret.nlink()), (0o644, 0, 1));
        assert_ne!(secret.mtime(), TIME.seconds);
        assert!(rustix::fs::getxattr(self.outside().join("secret"), "user.x", &mut [0; 8]).is_err());
    }
}

fn bytes(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

/// Every operation that takes an object, on this one.
fn on_object(id: ObjectId) -> Vec<Op> {
    let (time, mode) = (TIME, Some(0o777));
    let xattr = Xattr { name: bytes("user.x"), value: bytes("x") };
    vec![
        Op::Write { id, offset: 0, data: bytes("overwritten"), time, mode },
        Op::Truncate { id, size: 1, time, mode },
        Op::Allocate { id, how: Allocation::Grow, offset: 0, length: 5, time, mode },
        Op::Copy { source: id, source_offset: 0, id, offset: 100, length: 5, time, mode },
        Op::SetMeta { id, mode, uid: Some(7), gid: Some(7), atime: Some(time), mtime: Some(time) },
        Op::SetXattr { id, xattr, mode },
        Op::RemoveXattr { id, name: bytes("user.x") },
        Op::Sync { id, data_only: false },
    ]
}

/// Every operation with a name in this directory.
fn on_name(parent: ObjectId, name: &str) -> Vec<Op> {
    let (name, time, new) = (bytes(name), TIME, ObjectId(200_000));
    let create = |mode, target: &str| Op::Create {
        id: new,
        parent,
        name: name.clone(),
        mode,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: bytes(target),
        time,
    };
    let rename = |parent, name: Bytes, new_parent, new_name: Bytes| Op::Rename {
        parent,
        name,
        new_parent,
        new_name,
        how: RenameMode::Replace,
        id: ObjectId::NONE,
        replaced: ObjectId::NONE,
        time,
    };
    vec![
        Op::Bind { id: new, parent, name: name.clone(), kind: libc::S_IFREG },
        create(libc::S_IFREG | 0o644, ""),
        create(libc::S_IFDIR | 0o755, ""),
        create(libc::S_IFLNK | 0o777, "x"),
        Op::Unlink { parent, name: name.clone(), id: ObjectId::NONE, directory: false, time },
        Op::Unlink { parent, name: name.clone(), id: ObjectId::NONE, directory: true, time },
        rename(parent, name.clone(), ROOT, bytes("taken")),
        rename(ROOT, bytes("file"), parent, name.clone()),
        Op::Link { id: ROOT, parent, name, time },
    ]
}

#[test]
fn names_that_lead_out_are_refused_below_the_decoder_too() {
    let place = Place::new();
    for name in ["..", ".", "", "../outside/secret", "inside/../../outside/secret", "/etc/passwd"] {
        for op in on_name(ROOT, name) {
            // An empty name is a file without one.
            if matches!(&op, Op::Create { mode, .. } if name.is_empty() && mode & libc::S_IFMT == libc::S_IFREG)
            {
                continue;
            }
            place.run(&op).expect_err(&format!("{op:?}"));
        }
    }
    place.assert_untouched();
    assert_eq!(fs::read(place.data().join("file")).unwrap(), b"content");
}

#[test]
fn a_symbolic_link_is_never_followed() {
    let place = Place::new();
    symlink("../outside", place.data().join("out")).unwrap();
    symlink("../outside/secret", place.data().join("secret")).unwrap();
    for (name, kind) in [("out", libc::S_IFDIR), ("secret", libc::S_IFREG)] {
        assert_eq!(place.bind(1, ROOT, name, kind), Err(Errno::STALE), "{name} is a link");
    }
    for (number, name) in ["out", "secret"].into_iter().enumerate() {
        let link = place.bind(10 + number as u64, ROOT, name, libc::S_IFLNK).unwrap();
        for op in on_object(link).into_iter().chain(on_name(link, "secret")).chain(on_name(link, "new")) {
            // What a link itself may have (owner, times) is changed, nothing else.
            let _done_or_refused = place.run(&op);
        }
        place.assert_untouched();
    }
    for op in on_name(ROOT, "out") {
        let _done_or_refused = place.run(&op);
    }
    place.assert_untouched();
}

#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let place = Place::new();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (inside, aside) = (place.data().join("inside"), place.data().join("aside"));
            while !ended.load(Ordering::Acquire) {
                fs::rename(&inside, &aside).unwrap();
                symlink("../outside", &inside).unwrap();
                fs::remove_file(&inside).unwrap();
                fs::rename(&aside, &inside).unwrap();
            }
        });
        let (mut bound, mut refused, begun) = (0, 0, Boottime::now());
        while (bound < 50 || refused < 50) && begun.elapsed() < Duration::from_secs(30) {
            let Ok(id) = place.bind(bound + refused, ROOT, "inside", libc::S_IFDIR) else {
                refused += 1;
                continue;
            };
            bound += 1;
            for op in on_name(id, "secret").into_iter().chain(on_name(id, "new")) {
                let _done_or_refused = place.run(&op);
            }
        }
        ended.store(true, Ordering::Release);
        assert!(bound >= 50 && refused >= 50, "found {bound} times, not found {refused} times");
    });
    place.assert_untouched();
}

#[test]
fn devices_and_fifos_are_named_but_never_opened() {
    let place = Place::new();
    let disk = rustix::fs::makedev(1, 8);
    for (number, (name, kind, device)) in [
        ("fifo", libc::S_IFIFO, 0),
        ("random", libc::S_IFCHR, disk),
        ("ram", libc::S_IFBLK, rustix::fs::makedev(1, 0)),
        ("socket", libc::S_IFSOCK, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let kind_of = rustix::fs::FileType::from_raw_mode(kind);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            place.data().join(name),
            kind_of,
            rustix::fs::Mode::RUSR,
            device,
        )
        .unwrap();
        let id = place.bind(number as u64, ROOT, name, kind).unwrap();
        for op in on_object(id) {
            let content =
                matches!(op, Op::Write { .. } | Op::Truncate { .. } | Op::Allocate { .. } | Op::Copy { .. });
            let result = place.run(&op);
            assert!(!content || result == Err(Errno::INVAL), "{name} {op:?}: {result:?}");
        }
        assert!(!fs::metadata(place.data().join(name)).unwrap().file_type().is_file());
    }
    assert!(fs::metadata(place.data().join("random")).unwrap().file_type().is_char_device());
    place.assert_untouched();
}

/// A mount that appeared beneath the directory.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(from: &Path, to: &Path) -> Self {
        let status = Command::new("mount").arg("--bind").args([from, to]).status().unwrap();
        assert!(status.success());
        Self(to.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_mount_is_not_crossed() {
    let place = Place::new();
    let mounted = Mounted::bind(&place.outside(), &place.data().join("inside"));
    assert_eq!(place.bind(1, ROOT, "inside", libc::S_IFDIR), Err(Errno::XDEV));
    for op in on_name(ROOT, "inside") {
        place.run(&op).expect_err(&format!("{op:?}"));
    }
    place.assert_untouched();
    // One whose directory was known before goes to the directory below the mount.
    drop(mounted);
    let id = place.bind(2, ROOT, "inside", libc::S_IFDIR).unwrap();
    let mounted = Mounted::bind(&place.outside(), &place.data().join("inside"));
    for op in on_name(id, "secret").into_iter().chain(on_name(id, "new")) {
        let _done_or_refused = place.run(&op);
    }
    place.assert_untouched();
    drop(mounted);
}

#[test]
fn ids_that_mean_nothing_are_refused() {
    let place = Place::new();
    for id in [ObjectId::NONE, ObjectId(2), ObjectId(99_999), ObjectId(u64::MAX)] {
        for op in on_object(id).into_iter().chain(on_name(id, "file")) {
            assert_eq!(place.run(&op), Err(Errno::STALE), "{op:?}");
        }
    }
    let marker = Xattr { name: bytes("trusted.safed.root"), value: bytes("another lineage") };
    assert_eq!(place.run(&Op::SetXattr { id: ROOT, xattr: marker, mode: None }), Err(Errno::PERM));
    place.assert_untouched();
}
