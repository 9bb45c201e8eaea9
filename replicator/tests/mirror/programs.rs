//! Programs that people run, on the mount: what each says of itself, and the other node afterwards.

use std::process::Command;

use safe_proto::replication::{Plan, Role};

use crate::node::lineage;
use crate::pair::{Pair, assert_equal, script};

#[test]
fn tar_git_and_rsync() {
    let pair = Pair::paired(Plan::Repair);
    script(
        &pair,
        r#"
        mkdir -p from/kept && cp -a /usr/share/doc/{bash,dpkg,rsync} from/
        cp /bin/bash from/program && from/program -c true
        ln from/dpkg/copyright from/again && truncate -s 1M from/sparse && mkfifo from/fifo
        setfattr -n user.kind -v tree from/sparse && setfacl -m u:1000:r from/again && chown 12:34 from/again
        tar --xattrs --acls --sparse -cf archive.tar from
        mkdir one two && tar --xattrs --acls -xpf archive.tar -C one
        rsync -aHAXS from/ two/
        test -z "$(rsync -aHAXnc --delete -i from/ one/from/)" && test -z "$(rsync -aHAXnc --delete -i from/ two/)"
        tar --compare -f archive.tar -C one
        test -z "$(rsync -aHAXnc --delete -i one/from/ "$PEER/two/")"
        git init -q repository && cd repository && cp -r ../from/dpkg/. . && git add -A
        git -c user.name=n -c user.email=e commit -qm first && git checkout -qb other
        git mv copyright moved && git -c user.name=n -c user.email=e commit -qam second
        git checkout -q - && git -c user.name=n -c user.email=e merge -q other && git gc -q
        git fsck --strict && git -C "$PEER/repository" -c safe.directory='*' fsck --strict
        git clone -q . ../clone && cd .. && git -C clone status --porcelain | wc -l | grep -qx 0
        rm -rf one repository
        "#,
    );
    pair.assert_equal();
}

/// Many writers, in the mode that maps a file shared between processes.
const SQLITE: &str = r#"
import os, sqlite3, sys
def connect():
    c = sqlite3.connect("db", timeout=30, isolation_level=None)
    c.execute("pragma synchronous=full")
    return c
c = connect()
assert c.execute("pragma journal_mode=wal").fetchone() == ("wal",)
c.execute("create table t(writer, number, text)")
children = []
for writer in range(3):
    pid = os.fork()
    if pid == 0:
        c = connect()
        for number in range(60):
            c.execute("begin immediate")
            c.execute("insert into t values(?, ?, ?)", (writer, number, "x" * (number * 37)))
            c.execute("commit")
            if number % 20 == 10:
                c.execute("pragma wal_checkpoint(truncate)")
        c.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
assert c.execute("select count(*) from t").fetchone() == (180,)
assert c.execute("pragma integrity_check").fetchone() == ("ok",)
if sys.argv[1:] == ["leave"]:
    c.execute("insert into t values(9, 9, 'in the log only')")
    os._exit(0)
"#;

fn python(place: &std::path::Path, program: &str, arguments: &[&str]) {
    let output =
        Command::new("python3").args(["-c", program]).args(arguments).current_dir(place).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn sqlite_in_wal_mode_on_both_nodes() {
    let mut pair = Pair::paired(Plan::Repair);
    // The process that ends leaves a log that the next one has to read.
    python(&pair.a.data, SQLITE, &["leave"]);
    pair.assert_equal();
    // The other node takes over.
    pair.a.kill();
    pair.a.bury();
    pair.b.expect("SessionLost", |report| {
        matches!(report, safe_proto::replication::attach_response::Report::SessionLost(_)).then_some(())
    });
    pair.b.settle(101);
    pair.b.mount();
    let check = "import sqlite3\nc = sqlite3.connect('db')\n\
        assert c.execute('pragma integrity_check').fetchone() == ('ok',)\n\
        assert c.execute('select count(*) from t').fetchone() == (181,)\n\
        c.execute('delete from t where number % 2')\nc.commit()\n";
    python(&pair.b.data, check, &[]);
    pair.a.start();
    pair.a.examine(&[1]);
    pair.a.join(10, Role::Secondary, Plan::Full);
    pair.b.join(10, Role::Primary, Plan::Full);
    pair.a.expect_in_step(10);
    pair.b.expect_in_step(10);
    pair.b.order(safe_proto::replication::attach_request::Command::Mark(lineage(1)));
    assert_equal(&pair.b.data, &pair.a.data);
}

#[test]
fn fio_verifies_what_it_wrote() {
    let pair = Pair::paired(Plan::Repair);
    fio(
        &pair,
        &[
            ("mixed", ["--rw=randrw", "--bsrange=512-64k", "--fsync=32", "--ioengine=psync"]),
            ("mapped", ["--rw=randwrite", "--bs=4k", "--fsync=64", "--ioengine=mmap"]),
            ("uring", ["--rw=randwrite", "--bs=8k", "--iodepth=8", "--ioengine=io_uring"]),
        ],
    );
    pair.assert_equal();
}

/// Jobs of fio in the mount of `a`, each of which reads back and verifies what it wrote.
#[track_caller]
pub(crate) fn fio(pair: &Pair, jobs: &[(&str, [&str; 4])]) {
    for (name, arguments) in jobs {
        let output = Command::new("fio")
            .args([&format!("--name={name}"), "--size=4m", "--numjobs=2", "--group_reporting"])
            .args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1"])
            .args(arguments)
            .current_dir(&pair.a.data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
