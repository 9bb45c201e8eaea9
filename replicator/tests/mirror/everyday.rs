//! What applications do every day arrives on the other node.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use safe_proto::replication::Plan;

use crate::pair::{Pair, script};

fn mtime(path: &Path) -> (i64, i64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mtime(), metadata.mtime_nsec())
}

#[test]
fn a_file_written_is_on_both_nodes_when_the_write_returns() {
    let pair = Pair::paired(Plan::Repair);
    let mut file = File::create(pair.at("file")).unwrap();
    file.write_all(b"first").unwrap();
    assert_eq!(fs::read(pair.beyond("file")).unwrap(), b"first");
    file.write_all(b", second").unwrap();
    assert_eq!(fs::read(pair.beyond("file")).unwrap(), b"first, second");
    file.sync_all().unwrap();
    assert_eq!(mtime(&pair.at("file")), mtime(&pair.beyond("file")));
    assert_eq!(mtime(&pair.at(".")), mtime(&pair.beyond(".")));
    drop(file);
    pair.assert_equal();
}

#[test]
fn names_come_and_go() {
    let pair = Pair::paired(Plan::Repair);
    script(
        &pair,
        r#"
        mkdir -p a/b/c && echo one > a/b/c/one && ln a/b/c/one a/two && ln -s ../nowhere a/link
        mkfifo a/fifo && mknod a/null c 1 3 && mknod a/block b 7 200
        mv a/b a/moved && mv a/moved/c/one a/three && echo more >> a/two
        cmp a/three "$PEER/a/three" && test "$(stat -c %h "$PEER/a/three")" = 2
        mkdir x y && touch y/old && ! mv -T x y 2>/dev/null && rm y/old && mv -T x y && test ! -e "$PEER/x"
        echo gone > gone && rm gone && rmdir y && test ! -e "$PEER/gone"
        ! rmdir a 2>/dev/null
        printf 'odd' > $'name\nwith \xff bytes'
        "#,
    );
    let error = fs::create_dir(pair.at("a")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    let long = "x".repeat(256);
    assert_eq!(File::create(pair.at(&long)).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    File::create(pair.at(&long[..255])).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(pair.at("s")).unwrap();
    drop(socket);
    pair.assert_equal();
}

#[test]
fn renames_with_flags() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("one"), "1").unwrap();
    fs::write(pair.at("two"), "2").unwrap();
    fs::create_dir(pair.at("dir")).unwrap();
    let rename =
        |from: &str, to: &str, flags| rustix::fs::renameat_with(CWD, pair.at(from), CWD, pair.at(to), flags);
    assert_eq!(rename("one", "two", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    rename("one", "two", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(pair.beyond("one")).unwrap(), b"2");
    rename("one", "dir", RenameFlags::EXCHANGE).unwrap();
    assert!(pair.beyond("one").is_dir());
    rename("two", "one/new", RenameFlags::NOREPLACE).unwrap();
    pair.assert_equal();
}

#[test]
fn attributes_and_times() {
    let pair = Pair::paired(Plan::Repair);
    fs::write(pair.at("file"), "x").unwrap();
    fs::set_permissions(pair.at("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(pair.at("file"), Some(1234), Some(5678)).unwrap();
    assert_eq!(fs::metadata(pair.beyond("file")).unwrap().mode() & 0o7777, 0o751, "chown takes setuid away");
    symlink("target", pair.at("link")).unwrap();
    std::os::unix::fs::lchown(pair.at("link"), Some(3), Some(4)).unwrap();
    for (path, seconds, nanos) in
        [("file", -86_400 * 365, 123_456_789), ("link", 4_000_000_000, 1), (".", 0, 5)]
    {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, pair.at(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert_eq!(mtime(&pair.at(path)), (seconds, nanos));
        assert_eq!(mtime(&pair.beyond(path)), (seconds, nanos));
        assert_eq!(fs::symlink_metadata(pair.beyond(path)).unwrap().atime(), seconds);
    }
    pair.assert_equal();
}

#[test]
fn extended_attributes_and_acls() {
    let pair = Pair::paired(Plan::Repair);
    script(
        &pair,
        r#"
        mkdir dir && setfacl -d -m u:1000:rwx,g:2000:rx,m::rwx dir && setfacl -m u:1001:rw dir
        umask 077; touch dir/inherits && mkdir dir/below && umask 022
        test "$(getfacl -cp dir/inherits)" = "$(getfacl -cp "$PEER/dir/inherits")"
        getfacl -cpn dir/inherits | grep -q '^user:1000:rwx'
        getfacl -cpn dir/below | grep -q '^default:user:1000:rwx'
        setfacl -m u:1002:r dir/inherits && chmod g-w dir/inherits && setfacl -b dir/below
        setfattr -n user.one -v 1 dir/inherits && setfattr -n trusted.two -v 2 dir/inherits
        setfattr -n user.gone -v 3 dir/inherits && setfattr -x user.gone dir/inherits
        ! setfattr -x user.gone dir/inherits 2>/dev/null
        test "$(getfattr -n user.one --only-values "$PEER/dir/inherits")" = 1
        "#,
    );
    let file = pair.at("dir/inherits");
    let set = |flags| rustix::fs::setxattr(&file, "user.one", b"x", flags);
    assert_eq!(set(XattrFlags::CREATE), Err(rustix::io::Errno::EXIST));
    set(XattrFlags::REPLACE).unwrap();
    assert_eq!(
        rustix::fs::setxattr(pair.at("."), "trusted.safed.root", b"x", XattrFlags::empty()),
        Err(rustix::io::Errno::PERM)
    );
    pair.assert_equal();
}

#[test]
fn holes_and_space() {
    let pair = Pair::paired(Plan::Repair);
    let file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(pair.at("file")).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", 5 << 30).unwrap();
    assert!(fs::metadata(pair.beyond("file")).unwrap().blocks() < 1024, "holes stay holes");
    file.set_len(1 << 20).unwrap();
    let allocate = |flags, offset, length| rustix::fs::fallocate(&file, flags, offset, length);
    allocate(FallocateFlags::empty(), 1 << 20, 4096).unwrap();
    allocate(FallocateFlags::KEEP_SIZE, 2 << 20, 4096).unwrap();
    file.write_all_at(&[7; 64 << 10], 0).unwrap();
    allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 8192, 16384).unwrap();
    allocate(FallocateFlags::ZERO_RANGE, 32768, 4096).unwrap();
    assert_eq!(fs::metadata(pair.beyond("file")).unwrap().len(), (1 << 20) + 4096);
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    assert_eq!(hole, 8192);
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(8192)).unwrap(), 24576);
    pair.assert_equal();
}

#[test]
fn copies_appends_and_mappings() {
    let pair = Pair::paired(Plan::Repair);
    let content: Vec<u8> = (0u32..400_000).flat_map(u32::to_le_bytes).collect();
    fs::write(pair.at("big"), &content).unwrap();
    let from = File::open(pair.at("big")).unwrap();
    let to = File::create(pair.at("copy")).unwrap();
    let mut left = content.len();
    while left > 0 {
        left -= rustix::fs::copy_file_range(&from, None, &to, None, left).unwrap();
    }
    assert_eq!(fs::read(pair.beyond("copy")).unwrap(), content);
    let mut append = OpenOptions::new().append(true).open(pair.at("copy")).unwrap();
    append.write_all(b"appended").unwrap();
    script(&pair, "echo again >> copy; tail -c 14 \"$PEER/copy\" | grep -q appendedagain");
    script(
        &pair,
        r#"python3 - <<'END'
import mmap, os
with open("big", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0)
    m[5000:5005] = b"mmap!"
    m.flush()
    assert open(os.environ["PEER"] + "/big", "rb").read()[5000:5005] == b"mmap!"
    m[70000:70005] = b"later"
    m.close()
END
sync big; cmp big "$PEER/big""#,
    );
    pair.assert_equal();
}

#[test]
fn direct_and_synchronous_writes() {
    let pair = Pair::paired(Plan::Repair);
    for flags in [libc::O_DIRECT, libc::O_SYNC, libc::O_DSYNC, libc::O_DIRECT | libc::O_DSYNC] {
        let file =
            OpenOptions::new().create(true).write(true).custom_flags(flags).open(pair.at("file")).unwrap();
        let mut buffer = vec![3u8; 8192];
        let start = buffer.as_ptr().align_offset(4096);
        buffer.resize(8192 + start, 3);
        file.write_all_at(&buffer[start..start + 4096], 4096).unwrap();
        assert_eq!(fs::metadata(pair.beyond("file")).unwrap().len(), 8192);
        fs::remove_file(pair.at("file")).unwrap();
    }
    pair.assert_equal();
}

#[test]
fn a_file_without_a_name_stays_usable() {
    let pair = Pair::paired(Plan::Repair);
    let file =
        OpenOptions::new().create(true).truncate(true).read(true).write(true).open(pair.at("file")).unwrap();
    file.write_all_at(b"before", 0).unwrap();
    fs::remove_file(pair.at("file")).unwrap();
    file.write_all_at(b"after!", 6).unwrap();
    file.set_len(9).unwrap();
    let mut content = [0; 9];
    file.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content, b"beforeaft");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.sync_all().unwrap();
    fs::write(pair.at("file"), "another").unwrap();
    assert_eq!(fs::read(pair.beyond("file")).unwrap(), b"another");
    pair.assert_equal();
}

#[test]
fn privileges_go_when_others_write() {
    let pair = Pair::paired(Plan::Repair);
    fs::set_permissions(&pair.a.data, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(pair.at("file"), "x").unwrap();
    std::os::unix::fs::chown(pair.at("file"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(pair.at("file"), fs::Permissions::from_mode(0o6777)).unwrap();
    // Root keeps them, as on any filesystem.
    OpenOptions::new().append(true).open(pair.at("file")).unwrap().write_all(b"y").unwrap();
    assert_eq!(fs::metadata(pair.beyond("file")).unwrap().mode() & 0o7777, 0o6777);
    let status = Command::new("setpriv")
        .args(["--reuid=1001", "--regid=1001", "--clear-groups", "sh", "-c", "echo z >> file"])
        .current_dir(&pair.a.data)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::metadata(pair.at("file")).unwrap().mode() & 0o7777, 0o777);
    assert_eq!(fs::metadata(pair.beyond("file")).unwrap().mode() & 0o7777, 0o777);
    script(
        &pair,
        r#"
        mkdir shared && chgrp 4321 shared && chmod 2777 shared
        setpriv --reuid=1001 --regid=1001 --clear-groups sh -c 'umask 027; echo x > shared/f; mkdir shared/d'
        test "$(stat -c '%u %g %a' "$PEER/shared/f")" = "1001 4321 640"
        test "$(stat -c '%u %g %a' "$PEER/shared/d")" = "1001 4321 2750"
        ! setpriv --reuid=1002 --regid=1002 --clear-groups sh -c 'echo x > shared/f' 2>/dev/null
        "#,
    );
    pair.assert_equal();
}

#[test]
fn many_names_in_one_directory() {
    let pair = Pair::paired(Plan::Repair);
    for number in 0..2000 {
        rustix::fs::mknodat(CWD, pair.at(&format!("n{number}")), FileType::RegularFile, Mode::RUSR, 0)
            .unwrap();
    }
    assert_eq!(fs::read_dir(&pair.a.data).unwrap().count(), 2000);
    script(&pair, "ls -l | tail -n +2 | wc -l | grep -qx 2000; find . -name 'n*5' -delete");
    assert_eq!(fs::read_dir(&pair.a.data).unwrap().count(), 1800);
    pair.assert_equal();
}

#[test]
fn programs_run_as_on_any_filesystem() {
    let pair = Pair::paired(Plan::Repair);
    script(
        &pair,
        r#"
        tar -C /usr/share/doc -cf - $(ls /usr/share/doc | head -40) | tar -xf -
        git init -q repo && cd repo && cp -r ../$(ls .. | head -1) x && git add -A
        git -c user.name=n -c user.email=e commit -qm first && git fsck --strict 2>/dev/null && git gc -q
        cd .. && rm -rf repo/x && cp /bin/true program && ./program
        "#,
    );
    pair.assert_equal();
}

#[test]
fn writers_side_by_side() {
    let pair = Pair::paired(Plan::Repair);
    std::thread::scope(|scope| {
        for writer in 0..6u8 {
            let pair = &pair;
            scope.spawn(move || {
                let directory = pair.at(&format!("d{}", writer % 3));
                // Two writers share a directory: one of them makes it.
                let _made = fs::create_dir(&directory);
                for number in 0..60u32 {
                    let path = directory.join(format!("w{writer}-{number}"));
                    fs::write(&path, vec![writer; 1000 * number as usize]).unwrap();
                    if number % 3 == 0 {
                        fs::rename(&path, directory.join(format!("r{writer}-{}", number % 7))).unwrap();
                    } else if number % 3 == 1 {
                        fs::remove_file(&path).unwrap();
                    }
                }
            });
        }
    });
    pair.assert_equal();
}

#[test]
fn a_full_disk_is_told_before_the_other_node_has_anything() {
    let mut pair = Pair::unstarted();
    let mount = |path: &Path| {
        let size = "-osize=3m,nr_inodes=60,mode=755";
        assert!(
            Command::new("mount").args(["-t", "tmpfs", size, "none"]).arg(path).status().unwrap().success()
        );
    };
    mount(&pair.a.data);
    let mut held = Unmount(vec![pair.a.data.clone()]);
    pair.start();
    pair.session(1, Plan::Repair);
    pair.a.mount();
    fs::write(pair.at("small"), "fits").unwrap();
    let error = fs::write(pair.at("big"), vec![1; 5 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    fs::remove_file(pair.at("big")).unwrap();
    let mut made = 0;
    let error = loop {
        match File::create(pair.at(&format!("f{made}"))) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert!(made > 10);
    pair.assert_equal();
    // The session has outlived it all.
    fs::write(pair.at("small"), "more").unwrap();
    assert_eq!(fs::read(pair.beyond("small")).unwrap(), b"more");
    held.0.push(pair.a.data.clone());
    drop(pair);
    drop(held);
}

/// Takes mounts away however the test ends.
struct Unmount(Vec<std::path::PathBuf>);

impl Drop for Unmount {
    fn drop(&mut self) {
        for path in &self.0 {
            let _absent =
                Command::new("umount").arg("-l").arg(path).stderr(std::process::Stdio::null()).status();
        }
    }
}

#[test]
fn a_file_grows_as_long_as_the_filesystem_below_lets_it() {
    let pair = Pair::paired(Plan::Repair);
    let plain = File::create(pair.a.place.join("plain")).unwrap();
    let (mut short, mut long) = (0, 1 << 63);
    while long - short > 1 {
        let middle = short + (long - short) / 2;
        if plain.set_len(middle).is_ok() { short = middle } else { long = middle }
    }
    let too_long = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFBIG));
    };
    let file = File::create(pair.at("file")).unwrap();
    file.set_len(short).unwrap();
    if short < i64::MAX.cast_unsigned() {
        assert_eq!(file.write_at(b"12345678", short - 4).unwrap(), 4, "as much as fits");
        too_long(file.write_at(b"12345678", short).map(drop));
        too_long(file.set_len(short + 1));
        let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), short - 4096, 8192);
        too_long(allocated.map_err(Into::into));
    }
    fs::remove_file(pair.at("file")).unwrap();
    // The session is the same: nothing of this was asked of the other node.
    fs::write(pair.at("other"), "at once").unwrap();
    pair.assert_equal();
}

#[test]
fn a_file_known_by_another_name_only_is_found() {
    let mut pair = Pair::new();
    for node in [&pair.a, &pair.b] {
        fs::create_dir_all(node.data.join("x/y")).unwrap();
        fs::write(node.data.join("one"), "shared").unwrap();
        fs::hard_link(node.data.join("one"), node.data.join("x/y/two")).unwrap();
    }
    pair.session(1, Plan::Full);
    pair.a.mount();
    // The second name is never looked up.
    let file = OpenOptions::new().write(true).open(pair.at("one")).unwrap();
    fs::remove_file(pair.at("one")).unwrap();
    file.write_all_at(b"SHARED", 0).unwrap();
    assert_eq!(fs::read(pair.beyond("x/y/two")).unwrap(), b"SHARED");
    pair.assert_equal();
}
