//! The application and the process that serves its files share too little memory: what the one has dirtied can only be
//! freed by the other one's work.

use std::fs;
use std::path::{Path, PathBuf};

use safe_proto::replication::Plan;

use crate::node::until;
use crate::pair::{Pair, script};

/// For both: the pages of either and of the files they write. Less than the file that is mapped.
const MEMORY: u64 = 160 << 20;

const NAME: &str = "safed-pressure-";

/// A group of processes that may use [`MEMORY`], in the second version of the kernel's interface or the first one.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        let second = Path::new("/sys/fs/cgroup");
        let (parent, limit) = if fs::read_to_string(second.join("cgroup.controllers"))
            .is_ok_and(|text| text.contains("memory"))
        {
            // The top one may hold processes and hand on its controllers.
            fs::write(second.join("cgroup.subtree_control"), "+memory").unwrap();
            (second.to_owned(), "memory.max")
        } else {
            (second.join("memory"), "memory.limit_in_bytes")
        };
        for entry in fs::read_dir(&parent).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with(NAME) {
                // Of a test that was killed; one that still holds processes stays.
                let _left = fs::remove_dir(entry.path());
            }
        }
        let group = Self(parent.join(format!("{NAME}{}", std::process::id())));
        fs::create_dir(&group.0).unwrap();
        fs::write(group.0.join(limit), MEMORY.to_string()).unwrap();
        group
    }

    fn take(&self, process: u32) {
        fs::write(self.processes(), process.to_string()).unwrap();
    }

    fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// How often there was no more memory to be had without freeing some.
    fn pressed(&self) -> u64 {
        if let Ok(count) = fs::read_to_string(self.0.join("memory.failcnt")) {
            return count.trim().parse().unwrap();
        }
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap();
        let most = events.lines().find_map(|line| line.strip_prefix("max ")).unwrap();
        most.parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes have ended, and are counted for a moment yet.
        until("the group of processes is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn an_application_and_its_files_go_on_with_too_little_memory() {
    let group = Group::new();
    let pair = Pair::paired(Plan::Repair);
    group.take(pair.a.pid());
    assert!(pair.a.locked_memory() > 0, "it does not lock its memory");
    let processes = group.processes();
    script(
        &pair,
        &format!(
            r#"
            echo $$ >{}
            fio --name=mapped --ioengine=mmap --rw=randwrite --bs=4k --size=176m --io_size=20m --fsync=4096 \
                --verify=crc32c --verify_fatal=1 --name=written --ioengine=psync --rw=write --bs=128k --size=64m \
                --verify=crc32c --verify_fatal=1 --minimal >/dev/null
            "#,
            processes.display()
        ),
    );
    println!(
        "{} times without memory; the process that serves holds {} MiB, {} MiB at most",
        group.pressed(),
        pair.a.memory() >> 20,
        pair.a.most_memory() >> 20
    );
    assert!(group.pressed() > 0, "there was memory enough");
    pair.assert_equal();
}
