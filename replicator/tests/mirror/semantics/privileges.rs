//! What depends on who asks.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use safe_proto::replication::Plan;

use crate::pair::{Pair, script};

#[test]
fn sticky_and_setgid_directories() {
    let pair = Pair::paired(Plan::Repair);
    script(
        &pair,
        r#"
        as() { setpriv --reuid="$1" --regid="$1" --clear-groups sh -c "$2"; }
        chmod 755 . && mkdir -m 1777 sticky && mkdir group && chgrp 50 group && chmod 2777 group
        as 1001 'echo mine > sticky/mine; ln -s x sticky/link'
        ! as 1002 'rm -f sticky/mine' && ! as 1002 'mv sticky/mine sticky/yours' && ! as 1002 'rm sticky/link'
        as 1001 'mv sticky/mine sticky/again && rm sticky/again'
        as 1001 'echo x > group/file; mkdir -p group/deep/deeper; mkfifo group/fifo; ln -s x group/link'
        test "$(stat -c %g "$PEER"/group/{file,deep,deep/deeper,fifo,link} | sort -u)" = 50
        test "$(stat -c %a "$PEER/group/deep/deeper")" = 2755
        as 1001 'chmod 2755 group/file' && test "$(stat -c %a "$PEER/group/file")" = 755
        "#,
    );
    pair.assert_equal();
}

#[test]
fn every_way_to_change_content_takes_privileges_away_from_others() {
    let pair = Pair::paired(Plan::Repair);
    fs::set_permissions(&pair.a.data, fs::Permissions::from_mode(0o777)).unwrap();
    for (way, command) in [
        ("write", "echo x >> file"),
        ("truncate", "truncate -s 1 file"),
        ("open", ": > file"),
        ("fallocate", "fallocate -l 100000 file"),
        ("punch", "fallocate -p -o 0 -l 4096 file"),
        ("copy", "python3 -c 'import os; os.copy_file_range(os.open(\"from\", 0), os.open(\"file\", 2), 5)'"),
        (
            "mapping",
            "python3 -c 'import mmap; f = open(\"file\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[0] = 1; m.flush()'",
        ),
    ] {
        fs::write(pair.at("from"), "content").unwrap();
        fs::write(pair.at("file"), vec![1; 8192]).unwrap();
        std::os::unix::fs::chown(pair.at("file"), Some(1000), Some(1000)).unwrap();
        fs::set_permissions(pair.at("file"), fs::Permissions::from_mode(0o6777)).unwrap();
        let status = Command::new("setpriv")
            .args(["--reuid=1001", "--regid=1001", "--clear-groups", "sh", "-c", command])
            .current_dir(&pair.a.data)
            .status()
            .unwrap();
        assert!(status.success(), "{way}");
        // Linux leaves them when a mapping is written.
        let expected = if way == "mapping" { 0o6777 } else { 0o777 };
        for path in [pair.at("file"), pair.beyond("file")] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, expected, "{way}");
        }
        fs::remove_file(pair.at("file")).unwrap();
    }
    pair.assert_equal();
}

#[test]
fn capabilities_of_a_file_go_when_it_is_written() {
    let pair = Pair::paired(Plan::Repair);
    let file = File::create(pair.at("file")).unwrap();
    let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = || {
        rustix::fs::fsetxattr(&file, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    let there = || {
        let mut found = [0; 64];
        rustix::fs::getxattr(pair.beyond("file"), "security.capability", &mut found).is_ok()
    };
    set();
    assert!(there());
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 0).unwrap();
    assert!(!there(), "a write takes them away");
    set();
    std::os::unix::fs::chown(pair.at("file"), Some(5), None).unwrap();
    assert!(!there(), "a change of owner takes them away");
    pair.assert_equal();
}

#[test]
fn attributes_of_every_namespace() {
    let pair = Pair::paired(Plan::Repair);
    script(
        &pair,
        r#"
        echo x > file && mkdir dir && ln -s x link
        for name in user.a trusted.b security.c; do
            setfattr -n $name -v value file && setfattr -n $name -v value dir
            test "$(getfattr -n $name --only-values "$PEER/file")" = value
        done
        setfattr -h -n trusted.on.link -v value link && ! setfattr -h -n user.on.link -v x link 2>/dev/null
        test "$(getfattr -h -n trusted.on.link --only-values "$PEER/link")" = value
        setfattr -n user.empty file && setfattr -n user.bytes -v 0x00ff00 file
        getfattr -d -m - file | grep -q trusted.b && ! getfattr -d -m - . | grep -q trusted.safed
        chmod 755 . && chmod 666 file && echo y > root-only && chmod 600 root-only
        as() { setpriv --reuid=1001 --regid=1001 --clear-groups sh -c "$1"; }
        as 'setfattr -n user.theirs -v 1 file' && ! as 'setfattr -n trusted.no -v 1 file' 2>/dev/null
        ! as 'setfattr -n user.no -v 1 root-only' 2>/dev/null
        setfacl -m u:1001:rw root-only && as 'echo z >> root-only' && setfacl -x u:1001 root-only
        ! as 'echo z >> root-only' 2>/dev/null
        "#,
    );
    pair.assert_equal();
}
