use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc as blocking;

use parking_lot::Mutex;
use safe_failover::Time;
use safe_failover::hard::Role;
use safe_failover::lineage::{Lineage, LineageId};
use safe_failover::view::{Copy, Mode};
use tokio::sync::watch;

use super::*;
use crate::children::Children;
use crate::node::{Heartbeats, Membership, Report, StandIn};
use crate::paths::Paths;

const PATIENCE: Duration = Duration::from_secs(20);

/// A disk that hangs until it is told how the write ends.
struct Hanging(Mutex<blocking::Receiver<Result<(), StoreError>>>);

impl Durable for Hanging {
    fn persist(&mut self, _: &HardState) -> Result<(), StoreError> {
        self.0.lock().recv().unwrap_or(Ok(()))
    }
}

struct Silence;

impl Network for Silence {
    fn membership(&self) -> watch::Receiver<Option<Arc<Membership>>> {
        watch::channel(None).1
    }
    fn watch_module(&self, _: &str, _: Heartbeats) {}
    fn listen_anew(&self, _: &str) {}

    fn forget_module(&self, _: &str) {}
    fn publish(&self, _: &str, _: View) {}
    fn contact(&self, _: &str) -> watch::Receiver<Option<Time>> {
        watch::channel(None).1
    }
    fn sockets(&self, _: &str) -> Vec<(u8, OwnedFd)> {
        Vec::new()
    }
    fn stand_in(&self, _: &str, _: View, _: View) -> Option<StandIn> {
        None
    }
}

struct Place {
    executor: Executor,
    disk: blocking::SyncSender<Result<(), StoreError>>,
    replica: mpsc::Receiver<replica::Order>,
    addresses: mpsc::Receiver<address::Order>,
    reports: mpsc::Receiver<Report>,
    _dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with_limit(PATIENCE)
    }

    fn with_limit(write_limit: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path()));
        let (disk, ends) = blocking::sync_channel(16);
        let (replica_orders, replica) = mpsc::channel(64);
        let (address_orders, addresses) = mpsc::channel(64);
        let (report, reports) = mpsc::channel(64);
        let module = || "db".to_owned();
        let scripts = Scripts {
            module: module(),
            node: "n1".to_owned(),
            dir: dir.path().to_owned(),
            env: std::collections::BTreeMap::new(),
            log: dir.path().join("log"),
            children: Children::default(),
        };
        let hunt = Hunt {
            module: module(),
            dir: PathBuf::from("/nowhere"),
            directories: Vec::new(),
            spare: std::collections::BTreeSet::new(),
        };
        let reporter = Reporter { module: module(), runtime: 1, reports: report };
        let events = Events::start(&paths).unwrap();
        let executor = Executor::start(Setup {
            module: module(),
            store: Box::new(Hanging(Mutex::new(ends))),
            write_limit,
            network: Arc::new(Silence),
            replica: Replica::taken_by(replica_orders),
            addresses: Addresses::taken_by(address_orders),
            arbiters: Arbiters::none("db", events.clone(), reporter.clone()),
            scripts: Arc::new(scripts),
            hunt,
            events,
            reporter,
        });
        Self { executor, disk, replica, addresses, reports, _dir: dir }
    }

    fn begin(&self, actions: Vec<Action>) {
        self.executor.begin(Batch { actions, generation: 0, stand_in: (view(), view()) }).unwrap();
    }

    async fn replica(&mut self) -> String {
        let order = tokio::time::timeout(PATIENCE, self.replica.recv()).await.unwrap().unwrap();
        format!("{order:?}")
    }

    async fn address(&mut self) -> address::Order {
        tokio::time::timeout(PATIENCE, self.addresses.recv()).await.unwrap().unwrap()
    }

    async fn event(&mut self) -> Event {
        let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await.unwrap().unwrap();
        let What::Core(event) = report.what else { panic!("unexpected {report:?}") };
        event
    }
}

fn view() -> View {
    View {
        incarnation: 1,
        serial: 1,
        link: 1,
        heard_link: 0,
        mode: Mode::Waiting,
        meetable: false,
        serving: false,
        role: Role::None,
        term: 0,
        lineage: Lineage::default(),
        copy: Copy::Unexamined,
        consistent: false,
        outdated: false,
        target: false,
        rebooted: false,
        knows_inflight: false,
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

fn persist(serial: u64) -> Action {
    Action::Persist(Box::new(HardState { serial, ..HardState::default() }))
}

fn order(command: ReplicatorCommand) -> Action {
    Action::Replicator(command)
}

#[tokio::test]
async fn a_fence_does_not_wait_for_a_write_that_hangs() {
    let mut place = Place::new();
    place.begin(vec![persist(1), order(ReplicatorCommand::Mount), Action::RaiseAddresses]);
    place.begin(vec![order(ReplicatorCommand::Fence), Action::DropAddresses]);
    assert_eq!(place.replica().await, "Early(Fence)");
    assert_eq!(place.address().await, address::Order::DropEarly);
    place.disk.send(Ok(())).unwrap();
    assert_eq!(place.event().await, Event::Persisted { serial: 1 });
    // What was ordered before is left out: nothing goes up between the two.
    assert_eq!(place.replica().await, "Command(Fence)");
    assert_eq!(place.address().await, address::Order::Drop);
}

#[tokio::test]
async fn a_fence_behind_a_write_in_one_batch_does_not_wait_for_it() {
    let mut place = Place::new();
    place.begin(vec![persist(1), order(ReplicatorCommand::Fence), Action::DropAddresses]);
    assert_eq!(place.replica().await, "Early(Fence)");
    assert_eq!(place.address().await, address::Order::DropEarly);
    place.begin(vec![order(ReplicatorCommand::Kill)]);
    assert_eq!(place.replica().await, "Early(Kill)");
    place.disk.send(Ok(())).unwrap();
    assert_eq!(place.replica().await, "Command(Fence)");
    assert_eq!(place.address().await, address::Order::Drop);
    assert_eq!(place.replica().await, "Command(Kill)");
}

#[tokio::test]
async fn nothing_is_done_twice_when_no_write_is_under_way() {
    let mut place = Place::new();
    place.disk.send(Ok(())).unwrap();
    place.begin(vec![persist(1), order(ReplicatorCommand::Settle(LineageId(5)))]);
    assert_eq!(place.event().await, Event::Persisted { serial: 1 });
    assert_eq!(place.replica().await, "Command(Settle(LineageId(5)))");
    place.begin(vec![order(ReplicatorCommand::Mount), order(ReplicatorCommand::Unsettle)]);
    assert_eq!(place.replica().await, "Command(Mount)");
    assert_eq!(place.replica().await, "Command(Unsettle)");
    place.begin(vec![order(ReplicatorCommand::Fence), Action::DropAddresses]);
    assert_eq!(place.replica().await, "Command(Fence)");
    assert_eq!(place.address().await, address::Order::Drop);
}

#[tokio::test]
async fn a_write_that_does_not_end_has_failed_and_the_disk_is_used_again_when_it_is_well() {
    let mut place = Place::with_limit(Duration::from_millis(200));
    place.begin(vec![persist(1), order(ReplicatorCommand::Mount)]);
    assert_eq!(place.event().await, Event::PersistFailed);
    let retry = |place: &Place, serial| {
        let batch = Batch { actions: vec![persist(serial)], generation: serial, stand_in: (view(), view()) };
        place.executor.begin(batch).unwrap();
    };
    retry(&place, 2);
    assert_eq!(place.event().await, Event::PersistFailed);
    place.disk.send(Ok(())).unwrap();
    place.disk.send(Ok(())).unwrap();
    // The write that hung ends in a thread of its own.
    let mut serial = 3;
    let written = loop {
        retry(&place, serial);
        let event = place.event().await;
        if event != Event::PersistFailed {
            break event;
        }
        serial += 1;
        tokio::task::yield_now().await;
    };
    assert_eq!(written, Event::Persisted { serial });
    assert!(place.replica.try_recv().is_err(), "what followed the failed write was dropped");
}
