//! How much there is, and for whom.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safe_proto::replication::Plan;

use crate::node::until;
use crate::pair::Pair;

/// A small ext4 of its own, a part of it reserved for root.
struct Disk(PathBuf);

impl Disk {
    fn new(image: &Path, at: &Path) -> Self {
        File::create(image).unwrap().set_len(64 << 20).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-m", "40", "-b", "4096"]).arg(image).status().unwrap();
        assert!(made.success());
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(image).arg(at).status().unwrap();
        assert!(mounted.success());
        fs::remove_dir(at.join("lost+found")).unwrap();
        Self(at.to_path_buf())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _absent = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

fn fill(pair: &Pair, user: &str) -> u64 {
    let path = format!("by-{user}");
    let command = format!("dd if=/dev/zero of={path} bs=64k 2>&1 | grep -q 'No space left'");
    let status = Command::new("setpriv")
        .args([&format!("--reuid={user}"), "--regid=0", "--clear-groups", "sh", "-c", &command])
        .current_dir(&pair.a.data)
        .status()
        .unwrap();
    assert!(status.success(), "no ENOSPC for user {user}");
    fs::metadata(pair.at(&path)).unwrap().len()
}

#[test]
fn reserved_blocks_are_for_root() {
    let mut pair = Pair::unstarted();
    let disk = Disk::new(&pair.a.place.join("image"), &pair.a.data);
    pair.start();
    pair.session(1, Plan::Repair);
    pair.a.mount();
    fs::set_permissions(&pair.a.data, fs::Permissions::from_mode(0o777)).unwrap();
    let user = fill(&pair, "1001");
    assert!(user > 10 << 20, "{user}");
    assert_eq!(fs::metadata(pair.beyond("by-1001")).unwrap().len(), user);
    let root = fill(&pair, "0");
    assert!(root > 15 << 20, "root gets what is reserved: {root}");
    pair.assert_equal();
    fs::remove_file(pair.at("by-0")).unwrap();
    // The kernel tells a moment later that nobody uses the file any more: then its space is free.
    let after = pair.at("after");
    let write = || File::create(&after).and_then(|mut file| file.write_all(b"x"));
    until("the space of the removed file", || match write() {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => false,
        other => other.map(|()| true).unwrap(),
    });
    // The session has outlived it.
    assert_eq!(fs::read(pair.beyond("after")).unwrap(), b"x");
    drop(pair);
    drop(disk);
}

#[test]
fn sizes_are_those_of_the_filesystem_below() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), vec![1; 1 << 20]).unwrap();
    let (here, below) =
        (rustix::fs::statvfs(&pair.a.data).unwrap(), rustix::fs::statvfs(&pair.a.place).unwrap());
    assert_eq!(
        (here.f_blocks, here.f_frsize, here.f_files, here.f_namemax),
        (below.f_blocks, below.f_frsize, below.f_files, below.f_namemax)
    );
    // Others use the disk meanwhile.
    assert!(here.f_bavail.abs_diff(below.f_bavail) < below.f_blocks / 50);
}
