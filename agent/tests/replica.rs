//! The keeper of a replicator, with a replicator that agrees to everything: start, adoption, hanging, death.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use safe_failover::action::ReplicatorCommand;
use safe_failover::event::{Adopted, ReplicatorEvent};
use safe_failover::hard::Role;
use safe_failover::lineage::LineageId;
use safe_failover::view::{Copy, Plan, SessionId, View};
use safe_failover::{Event, Time};
use safed::children::Children;
use safed::cover::Cover;
use safed::events::Events;
use safed::module::{Module, Pair};
use safed::node::{Heartbeats, Member, Membership, Network, Ports, Report, Reporter, StandIn, What};
use safed::paths::{ModulePaths, Paths, make_private};
use safed::replica::{Order, Replica, Setup};
use safed::spec_store;
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(30);

/// A network without anybody in it.
struct Silence(watch::Sender<Option<Time>>);

impl Network for Silence {
    fn membership(&self) -> watch::Receiver<Option<Arc<Membership>>> {
        watch::channel(None).1
    }
    fn watch_module(&self, _: &str, _: Heartbeats) {}
    fn listen_anew(&self, _: &str) {}

    fn forget_module(&self, _: &str) {}
    fn publish(&self, _: &str, _: View) {}
    fn contact(&self, _: &str) -> watch::Receiver<Option<Time>> {
        self.0.subscribe()
    }
    fn sockets(&self, _: &str) -> Vec<(u8, std::os::fd::OwnedFd)> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").map(std::os::fd::OwnedFd::from);
        socket.map(|socket| (0, socket)).into_iter().collect()
    }
    fn stand_in(&self, _: &str, _: View, _: View) -> Option<StandIn> {
        None
    }
}

struct Place {
    dir: tempfile::TempDir,
    network: Arc<Silence>,
    events: Events,
}

struct Kept {
    replica: Replica,
    adopted: Option<Adopted>,
    reports: mpsc::Receiver<Report>,
}

impl Place {
    fn new(behaviour: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(Some(dir.path()));
        let module = paths.module("db");
        let spec = "[module]\nname = \"db\"\nkind = \"mirror\"\nnodes = [\"n1\", \"n2\"]\n";
        let files = safe_proto::module::ModuleFiles { spec: spec.to_owned(), files: Vec::new() };
        let nodes = vec!["n1".to_owned(), "n2".to_owned()];
        let version = spec_store::version(&files, None);
        let label = spec_store::next_label(None, "db", &version, None, nodes);
        spec_store::prepare(&module, &label, &files).unwrap();
        spec_store::commit(&module, &version).unwrap();
        make_private(module.run()).unwrap();
        std::fs::write(module.run().join("behaviour"), behaviour).unwrap();
        let events = Events::start(&paths).unwrap();
        Self { dir, network: Arc::new(Silence(watch::channel(None).0)), events }
    }

    fn paths(&self) -> ModulePaths {
        Paths::new(Some(self.dir.path())).module("db")
    }

    async fn keep(&self) -> Kept {
        let module = Arc::new(Module::load(&Paths::new(Some(self.dir.path())), "db", "n1").unwrap());
        let pair: Pair = module.pair().unwrap();
        let (report, reports) = mpsc::channel(64);
        let (_, membership) = watch::channel(Some(Arc::new(membership())));
        let setup = Setup {
            cover: Cover::new("db", Vec::new(), &module.paths.cover(), 1),
            unlocked: false,
            module,
            pair,
            membership,
            network: Arc::clone(&self.network) as Arc<dyn Network>,
            children: Children::default(),
            program: fake(),
            events: self.events.clone(),
            reporter: Reporter { module: "db".to_owned(), runtime: 1, reports: report },
        };
        let (replica, adopted) = Replica::keep(setup).await;
        Kept { replica, adopted, reports }
    }

    /// Commands that the replicator got, by name.
    fn commands(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.paths().run().join("commands")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Kept {
    async fn command(&self, command: ReplicatorCommand) {
        self.replica.order(Order::Command(command)).await;
    }

    async fn event(&mut self) -> ReplicatorEvent {
        let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await.unwrap().unwrap();
        let What::Core(Event::Replicator(event)) = report.what else { panic!("unexpected {report:?}") };
        event
    }

    async fn ready(&mut self) {
        self.command(ReplicatorCommand::Start { accept: vec![LineageId(7)] }).await;
        let ready = ReplicatorEvent::Ready { copy: Copy::Known, knows_inflight: true };
        assert_eq!(self.event().await, ready);
    }

    fn pid(&self) -> i32 {
        self.replica.spare().into_iter().next().unwrap()
    }

    async fn stop(mut self) {
        self.command(ReplicatorCommand::Kill).await;
        assert_eq!(self.event().await, ReplicatorEvent::Died);
    }
}

fn membership() -> Membership {
    let member = |name: &str, ip: &str| Member {
        name: name.to_owned(),
        addresses: [("default".to_owned(), ip.parse().unwrap())].into(),
    };
    Membership {
        cluster: "demo".to_owned(),
        node: "n1".to_owned(),
        version: 1,
        lans: vec!["default".to_owned()],
        nodes: vec![member("n1", "10.0.0.1"), member("n2", "10.0.0.2")],
        witnesses: Vec::new(),
        ports: Ports { api: 9400, heartbeat: 9401, stream: 9402 },
        ca: String::new(),
        certificate: String::new(),
        key: String::new(),
        heartbeat_key: [0; 32],
    }
}

fn fake() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let fake = tests.parent().and_then(Path::parent).unwrap().join("examples/fake_replicator");
    assert!(fake.is_file(), "{} is built with the tests", fake.display());
    fake
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

const SESSION: SessionId = SessionId { first: 1, second: 2 };

#[tokio::test]
async fn commands_are_obeyed_in_order_until_it_is_told_to_stop() {
    let place = Place::new("");
    let mut kept = place.keep().await;
    assert_eq!(kept.adopted, None);
    kept.ready().await;
    let pid = kept.pid();
    kept.command(ReplicatorCommand::OpenJournal(LineageId(9))).await;
    kept.command(ReplicatorCommand::Mount).await;
    kept.command(ReplicatorCommand::Unmount(Duration::from_secs(1))).await;
    assert_eq!(kept.event().await, ReplicatorEvent::JournalOpen(LineageId(9)));
    assert_eq!(kept.event().await, ReplicatorEvent::Mounted);
    assert_eq!(kept.event().await, ReplicatorEvent::Unmounted);
    kept.command(ReplicatorCommand::Stop).await;
    assert_eq!(kept.event().await, ReplicatorEvent::Stopped);
    assert!(!alive(pid));
    assert_eq!(place.commands(), ["Configure", "Examine", "OpenJournal", "Mount", "Unmount", "Stop"]);
}

#[tokio::test]
async fn a_replicator_outlives_its_keeper_and_is_adopted_as_it_is() {
    let place = Place::new("");
    let mut first = place.keep().await;
    first.ready().await;
    let pid = first.pid();
    first
        .command(ReplicatorCommand::Join {
            session: SESSION,
            role: Role::Primary,
            plan: Plan::Delta,
            room: false,
        })
        .await;
    assert_eq!(first.event().await, ReplicatorEvent::SessionUp(SESSION));
    assert_eq!(first.event().await, ReplicatorEvent::InStep(SESSION));
    first.command(ReplicatorCommand::Mount).await;
    assert_eq!(first.event().await, ReplicatorEvent::Mounted);
    let ended = first.replica.ended();
    drop(first);
    tokio::time::timeout(PATIENCE, ended.cancelled()).await.unwrap();
    let second = place.keep().await;
    let adopted = second.adopted.clone().unwrap();
    assert!(adopted.mounted && adopted.in_step && !adopted.fenced, "{adopted:?}");
    assert_eq!(adopted.session, Some((SESSION, Role::Primary)));
    assert_eq!(second.pid(), pid);
    second.stop().await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn what_happens_while_it_introduces_itself_is_no_disorder() {
    let place = Place::new("hasty");
    let mut kept = place.keep().await;
    kept.command(ReplicatorCommand::Start { accept: Vec::new() }).await;
    assert!(matches!(kept.event().await, ReplicatorEvent::DiskFailed(_)));
    assert!(matches!(kept.event().await, ReplicatorEvent::Ready { .. }));
}

#[tokio::test]
async fn its_death_is_reported_once_and_what_it_owes_is_answered() {
    let place = Place::new("");
    let mut kept = place.keep().await;
    kept.ready().await;
    let pid = rustix::process::Pid::from_raw(kept.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(kept.event().await, ReplicatorEvent::Died);
    assert!(kept.replica.spare().is_empty());
    kept.command(ReplicatorCommand::Leave(SESSION)).await;
    kept.command(ReplicatorCommand::Fence).await;
    kept.command(ReplicatorCommand::Unmount(Duration::from_secs(1))).await;
    assert_eq!(kept.event().await, ReplicatorEvent::SessionEnded(SESSION));
    assert_eq!(kept.event().await, ReplicatorEvent::Fenced);
    assert_eq!(kept.event().await, ReplicatorEvent::Unmounted);
    kept.ready().await;
    kept.stop().await;
}

#[tokio::test]
async fn one_that_does_not_stop_is_killed() {
    let place = Place::new("stubborn");
    let mut kept = place.keep().await;
    kept.ready().await;
    let pid = kept.pid();
    kept.command(ReplicatorCommand::Stop).await;
    assert_eq!(kept.event().await, ReplicatorEvent::Stopped);
    assert!(!alive(pid));
}

#[tokio::test]
async fn one_that_answers_nothing_is_killed_and_refused() {
    let place = Place::new("deaf");
    let mut kept = place.keep().await;
    kept.command(ReplicatorCommand::Start { accept: Vec::new() }).await;
    let ReplicatorEvent::Refused(why) = kept.event().await else { panic!("not refused") };
    assert!(why.contains("does not answer"), "{why}");
    assert!(kept.replica.spare().is_empty());
}

#[tokio::test]
async fn contact_with_the_peer_reaches_it() {
    let place = Place::new("");
    let mut kept = place.keep().await;
    kept.ready().await;
    place.network.0.send_replace(Some(Time(1)));
    for _ in 0..1000 {
        if place.commands().contains(&"PeerContact".to_owned()) {
            return kept.stop().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no contact in {:?}", place.commands());
}
