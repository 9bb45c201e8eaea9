//! O_TMPFILE: here only until the file gets a name, then whole on both nodes at once.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, XattrFlags};
use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{ClearJournal, Plan, Unsettle};

use crate::node::name;
use crate::pair::Pair;

fn nameless(directory: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(directory).unwrap()
}

fn give_name(file: &File, path: &Path) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, open, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

/// Data, a hole, attributes.
fn fill(file: &File) {
    file.write_all_at(&[7; 3 << 20], 0).unwrap();
    file.write_all_at(b"behind a hole", 9 << 20).unwrap();
    file.set_len(10 << 20).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o6750)).unwrap();
    std::os::unix::fs::fchown(file, Some(1000), Some(1001)).unwrap();
    rustix::fs::fsetxattr(file, "user.kind", b"temporary", XattrFlags::empty()).unwrap();
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn a_file_made_without_a_name_is_on_both_nodes_once_it_has_one() {
    let pair = Pair::paired(Plan::Repair);
    fs::create_dir(pair.at("dir")).unwrap();
    let before = fs::metadata(pair.at("dir")).unwrap();
    let file = nameless(&pair.at("dir"));
    fill(&file);
    file.sync_all().unwrap();
    let after = fs::metadata(pair.at("dir")).unwrap();
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    assert!(is_empty(&pair.beyond("dir")));
    give_name(&file, &pair.at("dir/named")).unwrap();
    let there = fs::metadata(pair.beyond("dir/named")).unwrap();
    assert_eq!((there.uid(), there.gid(), there.mode() & 0o7777), (1000, 1001, 0o750));
    assert_eq!(there.len(), 10 << 20);
    assert!(there.blocks() < (4 << 20) / 512, "holes stay holes");
    pair.assert_equal();
    // From now on it is a file as any other.
    file.write_all_at(b"more", 5 << 20).unwrap();
    assert_eq!(fs::read(pair.beyond("dir/named")).unwrap()[5 << 20..][..4], *b"more");
    fs::hard_link(pair.at("dir/named"), pair.at("second")).unwrap();
    file.sync_all().unwrap();
    drop(file);
    pair.assert_equal();
    // One that never gets a name leaves nothing.
    fill(&nameless(&pair.at("dir")));
    assert_eq!(fs::read_dir(pair.beyond("dir")).unwrap().count(), 1);
    pair.assert_equal();
}

/// What it was copied into has a name, so it is on both nodes.
#[test]
fn what_is_copied_from_it_is_replicated() {
    let pair = Pair::paired(Plan::Repair);
    let file = nameless(&pair.a.data);
    file.write_all_at(b"copied from a file without a name", 0).unwrap();
    let mut from = file.try_clone().unwrap();
    let mut to = File::create(pair.at("to")).unwrap();
    // By copy_file_range(2) where that is possible, else by reading and writing.
    assert_eq!(std::io::copy(&mut from, &mut to).unwrap(), 33);
    assert_eq!(fs::read(pair.beyond("to")).unwrap(), b"copied from a file without a name");
    let (mut start, mut end) = (0, 40);
    match rustix::fs::copy_file_range(&file, Some(&mut start), &to, Some(&mut end), 10) {
        Ok(_) | Err(rustix::io::Errno::XDEV) => {}
        Err(error) => panic!("{error}"),
    }
    pair.assert_equal();
}

#[test]
fn its_name_may_be_taken_and_its_directory_may_have_an_acl() {
    let pair = Pair::paired(Plan::Repair);
    fs::create_dir(pair.at("dir")).unwrap();
    for directory in [".", "dir"] {
        let status = std::process::Command::new("setfacl")
            .args(["-d", "-m", "u:1000:rwx,m::rwx"])
            .arg(pair.at(directory))
            .status()
            .unwrap();
        assert!(status.success());
    }
    fs::set_permissions(pair.at("dir"), fs::Permissions::from_mode(0o2777)).unwrap();
    std::os::unix::fs::chown(pair.at("dir"), None, Some(77)).unwrap();
    let inherits = nameless(&pair.at("dir"));
    inherits.write_all_at(b"x", 0).unwrap();
    give_name(&inherits, &pair.at("dir/inherits")).unwrap();
    assert_eq!(fs::metadata(pair.beyond("dir/inherits")).unwrap().gid(), 77);
    // What the default ACL gave may be taken away before.
    let plain = nameless(&pair.at("dir"));
    rustix::fs::fremovexattr(&plain, "system.posix_acl_access").unwrap();
    assert_eq!(give_name(&plain, &pair.at("dir/inherits")), Err(rustix::io::Errno::EXIST));
    give_name(&plain, &pair.at("dir/plain")).unwrap();
    let closed = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE | libc::O_EXCL)
        .open(pair.at("dir"))
        .unwrap();
    assert_eq!(give_name(&closed, &pair.at("dir/closed")), Err(rustix::io::Errno::NOENT));
    pair.assert_equal();
}

fn settle_down(pair: &mut Pair) {
    pair.a.order(Order::ClearJournal(ClearJournal {}));
    pair.a.expect("Cleared", |report| matches!(report, Report::Cleared(_)).then_some(()));
    pair.a.order(Order::Unsettle(Unsettle {}));
}

fn part(pair: &mut Pair, session: u64) {
    pair.a.order(Order::Leave(name(session)));
    pair.a.expect("SessionEnded", |report| matches!(report, Report::SessionEnded(_)).then_some(()));
    pair.b.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
}

#[test]
fn it_may_be_named_alone_or_in_a_later_session() {
    let mut pair = Pair::paired(Plan::Repair);
    let (early, late, late_too) = (nameless(&pair.a.data), nameless(&pair.a.data), nameless(&pair.a.data));
    for file in [&early, &late, &late_too] {
        fill(file);
    }
    part(&mut pair, 1);
    pair.a.settle(7);
    early.write_all_at(b"alone", 1 << 20).unwrap();
    give_name(&early, &pair.at("early")).unwrap();
    let alone = nameless(&pair.a.data);
    fill(&alone);
    give_name(&alone, &pair.at("alone")).unwrap();
    late_too.write_all_at(b"alone", 1 << 20).unwrap();
    assert!(is_empty(&pair.b.data));
    pair.session(2, Plan::Delta);
    settle_down(&mut pair);
    pair.assert_equal();
    give_name(&late, &pair.at("late")).unwrap();
    give_name(&late_too, &pair.at("late too")).unwrap();
    late.write_all_at(b"after", 2 << 20).unwrap();
    pair.assert_equal();
}

#[test]
fn it_may_be_written_while_it_gets_its_name() {
    let pair = Pair::paired(Plan::Repair);
    for round in 0..20u64 {
        let file = nameless(&pair.a.data);
        file.set_len(1 << 20).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..3u64 {
                let file = &file;
                scope.spawn(move || {
                    for step in 0..40u64 {
                        let at = (writer * 7 + step * 11) * 4096;
                        file.write_all_at(&(round + step).to_le_bytes(), at).unwrap();
                    }
                });
            }
            give_name(&file, &pair.at(&format!("one{round}"))).unwrap();
            give_name(&file, &pair.at(&format!("two{round}"))).unwrap();
        });
    }
    pair.assert_equal();
}
