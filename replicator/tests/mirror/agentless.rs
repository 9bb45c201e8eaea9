//! The agent dies; its replicator goes on, and is adopted or fences itself.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use safe_proto::datagram::{Key, Origin, open};
use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{Adopted, Plan, Role, StandIn};

use crate::node::{LIMIT, lineage, name, now, until};
use crate::pair::Pair;

fn adopted(node: &mut crate::node::Node) -> Adopted {
    node.expect("Adopted", |report| match report {
        Report::Adopted(adopted) => Some(adopted.clone()),
        _ => None,
    })
}

#[test]
fn the_next_agent_finds_everything_as_it_was() {
    let mut pair = Pair::paired(Plan::Repair);
    pair.a.detach();
    fs::write(pair.at("file"), "without an agent").unwrap();
    pair.a.attach();
    let found = adopted(&mut pair.a);
    assert!(!found.fresh && found.mounted && found.in_step && !found.fenced, "{found:?}");
    assert_eq!(found.session, Some(name(1)));
    assert_eq!(found.role(), Role::Primary);
    assert_eq!(found.settled, None);
    fs::write(pair.at("file"), "with one again").unwrap();
    pair.assert_equal();
    pair.a.settle(3);
    // Settle has no answer of its own, but commands are carried out in order.
    pair.a.order(Order::Mark(lineage(3)));
    pair.a.expect("Marked", |report| matches!(report, Report::Marked(_)).then_some(()));
    pair.a.detach();
    pair.a.attach();
    assert_eq!(adopted(&mut pair.a).settled, Some(lineage(3)));
}

#[test]
fn the_next_agent_hears_that_operations_were_acknowledged_alone() {
    let mut pair = Pair::paired(Plan::Repair);
    pair.leave(1);
    pair.a.settle(7);
    pair.a.order(Order::Mark(lineage(7)));
    pair.a.expect("Marked", |report| matches!(report, Report::Marked(_)).then_some(()));
    pair.a.detach();
    fs::write(pair.at("file"), "acknowledged while no agent is there").unwrap();
    // Twice: the first one may have died before it made it durable.
    for _ in 0..2 {
        pair.a.attach();
        pair.a.expect("WroteAlone", |report| {
            matches!(report, Report::WroteAlone(found) if *found == lineage(7)).then_some(())
        });
        pair.a.detach();
    }
}

#[test]
fn without_an_agent_the_node_says_so_and_then_fences_itself() {
    let mut pair = Pair::paired(Plan::Repair);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    pair.a.pass_heartbeat_socket(0, &own);
    pair.a.order(Order::StandIn(StandIn {
        heartbeat: "agent gone".into(),
        peers: vec![peer.local_addr().unwrap().to_string()],
        fenced: "fenced".into(),
    }));
    let mut process = Command::new("sleep").arg("60").env("SAFE_MODULE", "m").spawn().unwrap();
    fs::write(pair.at("file"), "before").unwrap();
    pair.a.order(Order::Mark(lineage(1)));
    pair.a.expect("Marked", |report| matches!(report, Report::Marked(_)).then_some(()));
    pair.a.detach();
    let heard = |wanted: &[u8]| {
        let begun = now();
        let mut last = 0;
        while begun.elapsed() < LIMIT {
            let mut datagram = [0; 2048];
            let Ok(length) = peer.recv(&mut datagram) else { continue };
            let (header, body) = open(&Key([7; 32]), &datagram[..length]).unwrap();
            assert_eq!(header.origin, Origin::StandIn);
            assert!(header.counter > last);
            last = header.counter;
            if body == wanted {
                return;
            }
        }
        panic!("never said {wanted:?}");
    };
    heard(b"agent gone");
    fs::write(pair.at("file"), "still serving").unwrap();
    pair.b.expect("PeerAgentGone", |report| matches!(report, Report::PeerAgentGone(1..)).then_some(()));
    heard(b"fenced");
    until("the processes of the module are gone", || process.try_wait().unwrap().is_some());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(pair.a.data.to_str().unwrap()));
    pair.b.expect("PeerFenced", |report| matches!(report, Report::PeerFenced(_)).then_some(()));
    pair.a.attach();
    let found = adopted(&mut pair.a);
    assert!(found.fenced && !found.mounted, "{found:?}");
}
