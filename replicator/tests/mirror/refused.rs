//! Bad input and bad days: a clear reason, nothing changed.

use std::fs;
use std::process::Command;

use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{Examine, Plan, Role};

use crate::certificates::Authority;
use crate::node::Node;
use crate::pair::Pair;

fn refused(node: &mut Node) -> String {
    node.start();
    node.order(Order::Examine(Examine { accept: Vec::new() }));
    node.expect("Refused", |report| match report {
        Report::Refused(reason) => Some(reason.clone()),
        Report::Ready(_) => panic!("accepted"),
        _ => None,
    })
}

#[test]
fn a_directory_in_use_or_with_a_mount_beneath() {
    let mut pair = Pair::unstarted();
    let mut user = Command::new("sleep").arg("60").current_dir(&pair.a.data).spawn().unwrap();
    let reason = refused(&mut pair.a);
    user.kill().unwrap();
    user.wait().unwrap();
    assert!(reason.contains("sleep") && reason.contains(&user.id().to_string()), "{reason}");
    let beneath = pair.b.data.join("beneath");
    fs::create_dir(&beneath).unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&beneath).status().unwrap().success());
    let reason = refused(&mut pair.b);
    assert!(Command::new("umount").arg(&beneath).status().unwrap().success());
    assert!(reason.contains("beneath") && reason.contains("umount"), "{reason}");
}

#[test]
fn a_directory_that_is_none() {
    let mut pair = Pair::unstarted();
    fs::remove_dir(&pair.a.data).unwrap();
    let reason = refused(&mut pair.a);
    assert!(reason.contains("mkdir -p"), "{reason}");
    fs::remove_dir(&pair.b.data).unwrap();
    fs::write(&pair.b.data, "").unwrap();
    let reason = refused(&mut pair.b);
    assert!(reason.contains("not a directory"), "{reason}");
}

#[test]
fn a_session_of_another_name_never_comes_up() {
    let mut pair = Pair::new();
    pair.b.join(1, Role::Secondary, Plan::Repair);
    pair.a.join(2, Role::Primary, Plan::Repair);
    for node in [&mut pair.a, &mut pair.b] {
        let reason = node.expect("SessionLost", |report| match report {
            Report::SessionLost(lost) => Some(lost.reason.clone()),
            Report::SessionUp(_) => panic!("came up"),
            _ => None,
        });
        assert!(reason.contains("session differs") || reason.contains("did not connect"), "{reason}");
    }
    // Both try again with the right one.
    pair.session(3, Plan::Repair);
}

#[test]
fn a_peer_of_another_cluster_never_comes_up() {
    let mut pair = Pair::unstarted();
    let place = tempfile::tempdir().unwrap();
    let mut stranger = Node::new("a", "b", place.path(), &Authority::new());
    stranger.endpoint = pair.b.address;
    for node in [&mut stranger, &mut pair.b] {
        node.start();
        node.examine(&[]);
    }
    pair.b.join(1, Role::Secondary, Plan::Repair);
    stranger.join(1, Role::Primary, Plan::Repair);
    let reason = stranger.expect("SessionLost", |report| match report {
        Report::SessionLost(lost) => Some(lost.reason.clone()),
        Report::SessionUp(_) => panic!("came up"),
        _ => None,
    });
    assert!(reason.contains("certificate"), "{reason}");
}

#[test]
fn what_is_excluded_stays_here() {
    let mut pair = Pair::unstarted();
    for node in [&mut pair.a, &mut pair.b] {
        node.exclude = vec!["tmp/**".into(), "*.log".into()];
    }
    pair.start();
    pair.session(1, Plan::Full);
    pair.a.mount();
    fs::create_dir(pair.at("tmp")).unwrap();
    fs::write(pair.at("tmp/here"), "x").unwrap();
    fs::create_dir(pair.at("tmp/deep")).unwrap();
    fs::write(pair.at("tmp/deep/er"), "x").unwrap();
    fs::write(pair.at("a.log"), "x").unwrap();
    fs::write(pair.at("there"), "x").unwrap();
    fs::rename(pair.at("tmp/here"), pair.at("tmp/deep/moved")).unwrap();
    assert!(pair.beyond("there").exists() && pair.beyond("tmp").exists());
    assert!(!pair.beyond("a.log").exists() && fs::read_dir(pair.beyond("tmp")).unwrap().next().is_none());
    for (from, to) in [("a.log", "a.txt"), ("there", "there.log"), ("tmp/deep", "deep"), ("tmp", "other")] {
        let error = fs::rename(pair.at(from), pair.at(to)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "{from} -> {to}");
    }
    assert_eq!(
        fs::hard_link(pair.at("there"), pair.at("x.log")).unwrap_err().raw_os_error(),
        Some(libc::EXDEV)
    );
}
