//! Virtual addresses on real interfaces, in a network namespace of the test's own. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::Event;
use safe_proto::module::AddressStatus;
use safe_proto::spec::AddressSpec;
use safed::address::{Addresses, Netlink, Order, Record, Setup};
use safed::events::Events;
use safed::node::{Member, Membership, Ports, Report, Reporter, What};
use safed::paths::Paths;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(20);

/// Set in the copy of the test that runs inside the namespace.
const INSIDE: &str = "SAFED_TEST_INSIDE";

/// Runs this test again inside a new network namespace; false: this is the copy, go on.
fn moved_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(own)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "inside the namespace: {status}");
    true
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

struct Place {
    dir: tempfile::TempDir,
    addresses: Addresses,
    reports: mpsc::Receiver<Report>,
    events: Events,
}

impl Place {
    fn new(addresses: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (addresses, reports, events) = keep(dir.path(), addresses);
        Self { dir, addresses, reports, events }
    }

    /// The first report of a kind; how the cables are is told in between.
    async fn report<T>(&mut self, fits: impl Fn(What) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = fits(self.reports.recv().await.unwrap().what) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    async fn raise(&mut self) -> Result<Vec<AddressStatus>, String> {
        self.addresses.order(Order::Raise).await;
        let raised =
            self.report(|what| {
                if let What::Core(Event::AddressesRaised(raised)) = what { Some(raised) } else { None }
            })
            .await;
        let look = self.look().await;
        raised.map(|()| look)
    }

    async fn lower(&mut self) -> Vec<AddressStatus> {
        self.addresses.order(Order::Drop).await;
        self.report(|what| matches!(what, What::Core(Event::AddressesDropped)).then_some(())).await;
        self.look().await
    }

    async fn look(&mut self) -> Vec<AddressStatus> {
        self.report(|what| if let What::Addresses(addresses) = what { Some(addresses) } else { None }).await
    }
}

fn keep(dir: &Path, addresses: &[(&str, &str)]) -> (Addresses, mpsc::Receiver<Report>, Events) {
    let (setup, reports, events) = setup(dir, addresses);
    (Addresses::keep(setup), reports, events)
}

fn setup(dir: &Path, addresses: &[(&str, &str)]) -> (Setup, mpsc::Receiver<Report>, Events) {
    let paths = Paths::new(Some(dir));
    let (report, reports) = mpsc::channel(64);
    let member = Member {
        name: "n1".to_owned(),
        addresses: [("default".to_owned(), IpAddr::from([10, 88, 0, 1]))].into(),
    };
    let membership = Membership {
        cluster: "demo".to_owned(),
        node: "n1".to_owned(),
        version: 1,
        lans: vec!["default".to_owned()],
        nodes: vec![member],
        witnesses: Vec::new(),
        ports: Ports { api: 9400, heartbeat: 9401, stream: 9402 },
        ca: String::new(),
        certificate: String::new(),
        key: String::new(),
        heartbeat_key: [0; 32],
    };
    std::fs::create_dir_all(paths.module("db").events().parent().unwrap()).unwrap();
    let events = Events::start(&paths).unwrap();
    let setup = Setup {
        module: "db".to_owned(),
        node: "n1".to_owned(),
        addresses: addresses
            .iter()
            .map(|(ip, interface)| AddressSpec {
                ip: ip.parse().unwrap(),
                interface: (*interface).to_owned(),
            })
            .collect(),
        record: Record::at(paths.module("db").addresses()),
        membership: watch::channel(Some(Arc::new(membership))).1,
        netlink: Netlink::open().unwrap(),
        events: events.clone(),
        reporter: Reporter { module: "db".to_owned(), runtime: 1, reports: report },
    };
    (setup, reports, events)
}

/// What `ip` shows of an interface.
fn shown(interface: &str) -> String {
    let shown = Command::new("ip").args(["addr", "show", "dev", interface]).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

fn status(ip: &str, present: bool, interface: &str) -> AddressStatus {
    AddressStatus { ip: ip.to_owned(), present, interface: interface.to_owned() }
}

fn two_interfaces() {
    ip("link add lan0 type veth peer name far0");
    ip("link add lan1 type veth peer name far1");
    for (name, address) in [("lan0", "10.88.0.1/24"), ("lan1", "10.89.0.1/24")] {
        ip(&format!("addr add {address} dev {name}"));
        ip(&format!("link set {name} up"));
    }
    ip("-6 addr add 2001:db8:88::1/64 dev lan0 nodad");
    ip("link set far0 up");
    ip("link set far1 up");
}

#[tokio::test]
async fn raised_announced_dropped_and_all_of_it_twice() {
    if moved_inside("raised_announced_dropped_and_all_of_it_twice") {
        return;
    }
    two_interfaces();
    let arp = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(0x0806_u16.to_be()))))
        .unwrap();
    arp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut place = Place::new(&[("10.89.0.50/24", "auto"), ("2001:db8:88::50/64", "auto")]);
    for _ in 0..2 {
        let raised = place.raise().await.unwrap();
        let expected = [status("10.89.0.50/24", true, "lan1"), status("2001:db8:88::50/64", true, "lan0")];
        assert_eq!(raised, expected);
    }
    let heard = tokio::task::spawn_blocking(move || {
        let mut arp = arp;
        loop {
            let mut packet = [0; 28];
            arp.read_exact(&mut packet).unwrap();
            if packet[14..18] == [10, 89, 0, 50] {
                return packet[24..28] == packet[14..18];
            }
        }
    });
    assert!(heard.await.unwrap());
    assert!(place.dir.path().join("run/modules/db/addresses").exists());
    for _ in 0..2 {
        let dropped = place.lower().await;
        assert!(dropped.iter().all(|address| !address.present), "{dropped:?}");
    }
    assert!(!place.dir.path().join("run/modules/db/addresses").exists());
}

#[tokio::test]
async fn what_another_daemon_left_is_dropped_also_after_the_spec_changed() {
    if moved_inside("what_another_daemon_left_is_dropped_also_after_the_spec_changed") {
        return;
    }
    two_interfaces();
    let mut first = Place::new(&[("10.89.0.50/24", "auto")]);
    first.raise().await.unwrap();
    let (addresses, reports, events) = keep(first.dir.path(), &[("10.89.0.51/24", "auto")]);
    let mut second = Place { dir: first.dir, addresses, reports, events };
    second.lower().await;
    let shown = Command::new("ip").args(["addr", "show", "dev", "lan1"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("10.89.0.1/24") && !shown.contains("10.89.0.50"), "{shown}");
}

/// A version without an address, or with it elsewhere: it is taken away before the replicator hears of that version.
#[tokio::test]
async fn what_a_version_has_no_more_is_shed() {
    if moved_inside("what_a_version_has_no_more_is_shed") {
        return;
    }
    two_interfaces();
    let mut first =
        Place::new(&[("10.89.0.50/24", "auto"), ("10.89.0.51/24", "auto"), ("172.20.0.5/24", "lan0")]);
    first.raise().await.unwrap();
    let next = [("10.89.0.51/24", "auto"), ("172.20.0.5/24", "lan1"), ("10.89.0.52/24", "auto")];
    let (setup, reports, events) = setup(first.dir.path(), &next);
    setup.shed().await;
    let (lan0, lan1) = (shown("lan0"), shown("lan1"));
    assert!(
        !lan1.contains("10.89.0.50") && lan1.contains("10.89.0.51") && !lan1.contains("10.89.0.52"),
        "{lan1}"
    );
    assert!(!lan0.contains("172.20.0.5"), "{lan0}");

    let mut second = Place { dir: first.dir, addresses: Addresses::keep(setup), reports, events };
    second.addresses.order(Order::Follow).await;
    let found = second.look().await;
    let expected = [
        status("10.89.0.51/24", true, "lan1"),
        status("172.20.0.5/24", true, "lan1"),
        status("10.89.0.52/24", true, "lan1"),
    ];
    assert_eq!(found, expected);
    assert!(second.lower().await.iter().all(|address| !address.present));
}

/// Where the record cannot be written, an address that is to go does not wait for it.
#[tokio::test]
async fn a_record_that_cannot_be_written_keeps_no_address() {
    if moved_inside("a_record_that_cannot_be_written_keeps_no_address") {
        return;
    }
    two_interfaces();
    let mut first = Place::new(&[("10.89.0.50/24", "auto"), ("10.89.0.51/24", "auto")]);
    first.raise().await.unwrap();
    std::fs::create_dir(first.dir.path().join("run/modules/db/addresses.new")).unwrap();
    let (addresses, reports, events) = keep(first.dir.path(), &[("10.89.0.51/24", "auto")]);
    let mut second = Place { dir: first.dir, addresses, reports, events };
    second.addresses.order(Order::Follow).await;
    second.lower().await;
    let lan1 = shown("lan1");
    assert!(!lan1.contains("10.89.0.50") && !lan1.contains("10.89.0.51"), "{lan1}");
}

#[tokio::test]
async fn an_address_that_somebody_else_has_put_there_stays_until_it_is_raised() {
    if moved_inside("an_address_that_somebody_else_has_put_there_stays_until_it_is_raised") {
        return;
    }
    two_interfaces();
    ip("addr add 10.89.0.50/24 dev lan1");
    let mut place = Place::new(&[("10.89.0.50/24", "auto")]);
    assert_eq!(place.lower().await, [status("10.89.0.50/24", true, "lan1")]);
    let told = place.events.list("db", 0, 10);
    let told: Vec<_> = told.iter().filter(|event| event.text.contains("10.89.0.50")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.contains("type: ip address del 10.89.0.50/24 dev lan1"), "{told:?}");
    // From now on it is the module's.
    assert_eq!(place.raise().await.unwrap(), [status("10.89.0.50/24", true, "lan1")]);
    assert!(!place.lower().await[0].present);
}

#[tokio::test]
async fn an_address_without_a_place_says_so() {
    if moved_inside("an_address_without_a_place_says_so") {
        return;
    }
    two_interfaces();
    let mut fallback = Place::new(&[("172.20.0.5/24", "auto")]);
    assert_eq!(fallback.raise().await.unwrap(), [status("172.20.0.5/24", true, "lan0")]);
    let mut nowhere = Place::new(&[("10.88.0.7/24", "eth7")]);
    let why = nowhere.raise().await.unwrap_err();
    assert!(why.contains("there is no interface eth7") && why.contains("lan0"), "{why}");
    let mut elsewhere = Place::new(&[("172.20.0.5/24", "lan1")]);
    let why = elsewhere.raise().await.unwrap_err();
    assert!(why.contains("is on interface lan0 already"), "{why}");
}
