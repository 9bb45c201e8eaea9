//! A fence holds against everything that was ordered before it, and is confirmed only when it is true.

use std::fs;
use std::path::Path;
use std::process::Command;

use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{Fence, Mount, Plan, Unmount};

use crate::node::{lineage, until};
use crate::pair::Pair;

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path.to_str().unwrap())
}

#[test]
fn a_mount_ordered_before_a_fence_is_not_carried_out_after_it() {
    let mut pair = Pair::paired(Plan::Repair);
    let open = fs::File::create(pair.at("open")).unwrap();
    // In use: this takes until the fence ends it, and what follows waits for it.
    pair.a.order(Order::Unmount(Unmount { deadline_ms: 60_000 }));
    pair.a.order(Order::Mount(Mount {}));
    pair.a.order(Order::Settle(lineage(9)));
    pair.a.order(Order::Fence(Fence {}));
    pair.a.expect("MountFailed", |report| match report {
        Report::Mounted(_) => panic!("mounted after the fence had come"),
        Report::MountFailed(reason) => {
            assert!(reason.contains("fenced"), "{reason}");
            Some(())
        }
        _ => None,
    });
    pair.a.expect("Fenced", |report| matches!(report, Report::Fenced(_)).then_some(()));
    assert!(!is_mounted(&pair.a.data));
    drop(open);
    pair.a.detach();
    pair.a.attach();
    let found = pair.a.expect("Adopted", |report| match report {
        Report::Adopted(adopted) => Some(adopted.clone()),
        _ => None,
    });
    assert!(found.fenced && !found.mounted, "{found:?}");
    assert_eq!(found.settled, None, "what was ordered before the fence does not count after it");
    // What is ordered afterwards does.
    pair.a.mount();
    assert!(is_mounted(&pair.a.data));
}

#[test]
fn orders_of_an_agent_that_is_gone_are_not_carried_out_for_the_next_one() {
    let mut pair = Pair::paired(Plan::Repair);
    let open = fs::File::create(pair.at("open")).unwrap();
    pair.a.order(Order::Unmount(Unmount { deadline_ms: 60_000 }));
    pair.a.order(Order::Mount(Mount {}));
    // Carried out in order: the first one has begun, and cannot end, when that is in the log.
    until("it waits", || pair.a.log().contains("cannot unmount yet"));
    pair.a.detach();
    pair.a.attach();
    until("the next agent has come", || pair.a.log().matches("an agent has come").count() == 2);
    drop(open);
    let found = pair.a.expect("Adopted", |report| match report {
        Report::Adopted(adopted) => Some(adopted.clone()),
        _ => None,
    });
    assert!(!found.mounted, "{found:?}");
    assert!(!is_mounted(&pair.a.data));
}

/// The mount is covered by another one and there is no other way to its connection: the process must die instead.
#[test]
fn a_connection_that_cannot_be_ended_is_not_confirmed_as_fenced() {
    let mut pair = Pair::unstarted();
    let line = "umount /sys/fs/fuse/connections 2>/dev/null; exec \"$@\"";
    pair.a.through =
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", line, "sh"].map(str::to_owned).to_vec();
    pair.start();
    pair.session(1, Plan::Repair);
    pair.a.mount();
    let pid = pair.a.pid().to_string();
    let inside = |line: &str| {
        let status = Command::new("nsenter").args(["-t", &pid, "-m", "sh", "-euc", line]).status().unwrap();
        assert!(status.success(), "{line}");
    };
    let data = pair.a.data.display().to_string();
    inside(&format!("echo before >{data}/file"));
    let file = fs::File::open(format!("/proc/{pid}/root{data}/file")).unwrap();
    inside(&format!("mount -t tmpfs none {data}"));
    pair.a.order(Order::Fence(Fence {}));
    until("it says why", || pair.a.log().contains("cannot fence"));
    // Answered behind it.
    pair.a.order(Order::Mark(lineage(1)));
    pair.a.expect("Marked", |report| match report {
        Report::Fenced(_) => panic!("confirmed, but the connection goes on"),
        report => matches!(report, Report::Marked(_)).then_some(()),
    });
    pair.a.kill();
    let error = rustix::fs::fstatfs(&file).unwrap_err();
    assert_eq!(error, rustix::io::Errno::NOTCONN, "it ends with the process");
}
