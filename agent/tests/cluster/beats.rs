//! Heartbeats of modules between real nodes.

use std::net::UdpSocket;
use std::time::Duration;

use safe_failover::hard::Role;
use safe_failover::lineage::Lineage;
use safe_failover::view::{Copy, Mode, View};
use safe_proto::datagram::{Header, Key, Origin, seal};
use safed::node::{Heartbeats, Network as _};

use crate::host::{Host, pair};

fn beats(peer: &str) -> Heartbeats {
    Heartbeats {
        peer: peer.to_owned(),
        lans: vec!["default".to_owned()],
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(1),
    }
}

fn view(serial: u64) -> View {
    View {
        incarnation: 7,
        serial,
        link: 1,
        heard_link: 0,
        mode: Mode::Waiting,
        meetable: true,
        serving: false,
        role: Role::None,
        term: 0,
        lineage: Lineage::default(),
        copy: Copy::Empty,
        consistent: true,
        outdated: false,
        target: false,
        rebooted: false,
        knows_inflight: true,
        entered: None,
        paired: None,
        demand: None,
        conceded: None,
        fenced: None,
        wish: None,
        grant: None,
        offer: None,
        yields: false,
        timeout: Duration::ZERO,
        grace: Duration::ZERO,
        heard: 0,
        locks: Vec::new(),
    }
}

fn lan_is(up: bool) -> impl Fn(&crate::host::Told) -> bool {
    move |told| told.lans.get(&("db".to_owned(), 0)) == Some(&up)
}

async fn watched(net: u8) -> (Host, Host) {
    let (first, second) = pair(net).await;
    first.cluster.watch_module("db", beats("n2"));
    second.cluster.watch_module("db", beats("n1"));
    first.until("lan up at n1", lan_is(true)).await;
    second.until("lan up at n2", lan_is(true)).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn views_travel_and_a_dead_node_is_noticed() {
    let (first, second) = watched(20).await;
    first.cluster.publish("db", view(1));
    first.cluster.publish("db", view(2));
    let seen =
        |serial| move |told: &crate::host::Told| told.views.contains(&("db".into(), "n1".into(), serial));
    second.until("the second view", seen(2)).await;
    second.until("echoes", |told| told.echoed > 0 && told.heard > 0).await;
    let contact = second.cluster.contact("n1");
    assert!(contact.borrow().is_some() || second.cluster.contact("n1").changed().await.is_ok());
    first.stop().await;
    second.until("lan down at n2", lan_is(false)).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_is_believed_again_and_its_lan_never_goes_down() {
    let (first, second) = watched(21).await;
    second.cluster.publish("db", view(1));
    let first = first.restart().await;
    first.cluster.watch_module("db", beats("n2"));
    first.until("lan up at the new process", lan_is(true)).await;
    first.until("the view, although it is old", |told| !told.views.is_empty()).await;
    assert!(lan_is(true)(&second.told.lock()), "the restart took less than the timeout");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_keeps_the_lan_up_and_says_that_the_agent_is_gone() {
    let (first, second) = watched(22).await;
    first.cluster.publish("db", view(1));
    let stand_in = first.cluster.stand_in("db", view(2), view(3)).unwrap();
    let sockets = first.cluster.sockets("db");
    let key = Key(first.cluster.membership().borrow().as_ref().unwrap().heartbeat_key);
    first.stop().await;
    let (lan, socket) = sockets.into_iter().next().unwrap();
    let socket = UdpSocket::from(socket);
    let send = |counter, body: &[u8]| {
        let header = Header { origin: Origin::StandIn, lan, incarnation: 99, counter };
        socket.send_to(&seal(&key, header, body).unwrap(), stand_in.peers[0]).unwrap();
    };
    // Longer than the timeout.
    for counter in 1..=40 {
        send(counter, &stand_in.heartbeat);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    second.until("agent gone", |told| told.gone == [("db".to_owned(), "n1".to_owned())]).await;
    second.until("its view", |told| told.views.contains(&("db".into(), "n1".into(), 2))).await;
    assert!(lan_is(true)(&second.told.lock()));
    second.until("then silence", lan_is(false)).await;
    // An old one again changes nothing.
    send(40, &stand_in.heartbeat);
    second.audited("it is a repetition").await;
    assert!(lan_is(false)(&second.told.lock()));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_datagrams_change_nothing_and_are_audited_once() {
    let (first, second) = watched(23).await;
    let socket = UdpSocket::bind("127.77.23.9:0").unwrap();
    let forged = seal(
        &Key::derive(b"not the secret"),
        Header { origin: Origin::Agent, lan: 0, incarnation: 1, counter: u64::MAX },
        b"",
    );
    for _ in 0..20 {
        socket.send_to(forged.as_ref().unwrap(), "127.77.23.2:9401").unwrap();
        socket.send_to(b"noise", "127.77.23.2:9401").unwrap();
    }
    second.audited("not sealed with this cluster's key").await;
    second.audited("not a heartbeat of this version").await;
    let log = std::fs::read_to_string(second.context.paths.lib().join("audit.log")).unwrap();
    assert_eq!(log.matches("not sealed").count(), 1);
    assert!(lan_is(true)(&second.told.lock()));
    first.stop().await;
    second.stop().await;
}
