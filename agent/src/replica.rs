//! Keeps the replicator of one module: starts or adopts it, passes commands and reports, buries it.
//!
//! One task per module owns everything that connects the daemon with the process. It never decides: a replicator that
//! dies is reported once it is certain that nothing of it can serve any more.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use safe_failover::action::ReplicatorCommand;
use safe_failover::event::{Adopted, ReplicatorEvent};
use safe_failover::lineage::LineageId;
use safe_failover::{Event, Time};
use safe_proto::replication::attach_request::Command;
use safe_proto::replication::{AttachRequest, AttachResponse, PauseResync, PeerContact};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

mod attach;
mod convert;
mod covered;
mod fds;
mod kept;
mod mount;
mod process;
mod resync;

use attach::Attached;
use convert::{Malformed, Reported};
use covered::Lifted;
use fds::Packet;
use kept::Kept;
use process::Process;

use crate::children::Children;
use crate::clock;
use crate::cover::Cover;
use crate::events::Events;
use crate::module::{Module, Pair};
use crate::node::{Membership, Network, Reporter, StandIn, What};
use crate::paths::ModulePaths;
use crate::verification::Verification;

pub use process::program;

/// Orders that may wait for the keeper.
const QUEUE: usize = 256;

/// Longest wait for a new process to open its sockets.
const START: Duration = Duration::from_secs(10);

/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(10);

/// Longest wait for the process to end as told.
const STOP: Duration = Duration::from_secs(10);

/// A replicator that takes no command for this long is hung.
const STUCK: Duration = Duration::from_secs(3);

/// What the keeper is told.
#[derive(Debug)]
pub enum Order {
    /// From the core.
    Command(ReplicatorCommand),
    /// `Fence` or `Kill`, out of turn: done at once, and not reported, for it comes once more in its turn and only then
    /// nothing that was ordered before it can follow.
    Early(ReplicatorCommand),
    /// A connection for the replicator.
    Stream(OwnedFd),
    /// What to say should this daemon go.
    StandIn(StandIn),
    /// Hold resynchronisations back for so many seconds; 0: they go on. Nothing to do without a replicator.
    PauseResync(u32),
    /// Its reports are heard from now on: look at the directories, and tell what is found.
    Look,
}

/// What the keeper needs.
pub struct Setup {
    /// The module.
    pub module: Arc<Module>,
    /// Its pair.
    pub pair: Pair,
    /// The cluster.
    pub membership: watch::Receiver<Option<Arc<Membership>>>,
    /// Heartbeat sockets and times of contact.
    pub network: Arc<dyn Network>,
    /// Child processes.
    pub children: Children,
    /// What is started; see [`program`].
    pub program: PathBuf,
    /// The read-only cover of its directories.
    pub cover: Cover,
    /// An administrator has taken it off.
    pub unlocked: bool,
    /// The record of events.
    pub events: Events,
    /// The owner loop.
    pub reporter: Reporter,
}

/// True if a replicator of the module runs.
pub async fn lives(paths: &ModulePaths) -> bool {
    attach::connect(paths).await.is_ok()
}

/// Kills a replicator that nobody keeps, and clears away what it held.
///
/// # Errors
/// What is left, in one sentence.
pub async fn end(module: &Module) -> Result<(), String> {
    if let Ok((_, pid)) = attach::connect(&module.paths).await
        && let Ok(mut process) = Process::of(pid)
    {
        process.kill().await;
    }
    clear(module).await
}

/// Aborts and detaches whatever a dead replicator left mounted.
///
/// # Errors
/// What is left, in one sentence.
pub async fn clear(module: &Module) -> Result<(), String> {
    mount::clear(&module.name, &module.directories()).await
}

/// A way to the keeper of one module.
#[derive(Debug, Clone)]
pub struct Replica {
    orders: mpsc::Sender<Order>,
    pid: Arc<Mutex<Option<i32>>>,
    ended: CancellationToken,
}

impl Replica {
    /// Adopts the replicator if one outlived an earlier daemon, else clears away what one left; then keeps it.
    pub async fn keep(setup: Setup) -> (Self, Option<Adopted>) {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let pid = Arc::new(Mutex::new(None));
        let contact = setup.network.contact(&setup.pair.peer);
        let verification = Verification::load(&setup.module.paths.verification());
        let lifted = if setup.unlocked { Lifted::Unlocked } else { Lifted::No };
        let mut keeper = Keeper {
            inbox,
            contact,
            attached: None,
            pid: Arc::clone(&pid),
            stand_in: None,
            peer_agent_gone: false,
            kept: Kept::default(),
            connections: Vec::new(),
            mounted: false,
            changing: false,
            accept: Vec::new(),
            born: clock::now(),
            deaths: 0,
            reviving: false,
            verification,
            cover: setup.cover.clone(),
            lifted,
            uncovered: None,
            warnings: Vec::new(),
            looked: tokio::time::Instant::now(),
            setup,
        };
        if keeper.verification.status(None).is_some() {
            keeper.tell_verification(None).await;
        }
        let adopted = keeper.adopt().await;
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        tokio::spawn(async move {
            keeper.run().await;
            drop(guard);
        });
        (Self { orders, pid, ended }, adopted)
    }

    /// A way to whoever takes the orders in a test.
    #[cfg(test)]
    pub(crate) fn taken_by(orders: mpsc::Sender<Order>) -> Self {
        Self { orders, pid: Arc::default(), ended: CancellationToken::new() }
    }

    /// Gives an order, in order; waits for room.
    pub async fn order(&self, order: Order) {
        // The keeper ends only with the module's runtime.
        let _ended = self.orders.send(order).await;
    }

    /// Gives an order if there is room: for what is not worth waiting for.
    pub fn offer(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Cancelled when the keeper has ended: when every way to it is gone and every order carried out.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Processes that no hunt for the module's processes may touch.
    #[must_use]
    pub fn spare(&self) -> BTreeSet<i32> {
        self.pid.lock().iter().copied().collect()
    }
}

struct Keeper {
    setup: Setup,
    inbox: mpsc::Receiver<Order>,
    contact: watch::Receiver<Option<Time>>,
    attached: Option<Attached>,
    pid: Arc<Mutex<Option<i32>>>,
    /// The newest one, for a replicator that starts later.
    stand_in: Option<StandIn>,
    /// What was last said of the peer's agent.
    peer_agent_gone: bool,
    /// What its mounts would end with.
    kept: Kept,
    /// FUSE connections while mounted.
    connections: Vec<u64>,
    /// Its directories are mounted.
    mounted: bool,
    /// It was told to mount, unmount or fence, and has not answered.
    changing: bool,
    /// Lineages that its journal and markers may be of.
    accept: Vec<LineageId>,
    /// When the process was attached.
    born: Time,
    /// How many died, one after the other, before they came to anything.
    deaths: u32,
    /// Another process is being started in the place of one that died.
    reviving: bool,
    /// Comparisons of the copies.
    verification: Verification,
    /// The read-only cover of the directories.
    cover: Cover,
    /// Why it is off.
    lifted: Lifted,
    /// What was last said of directories that could not be covered.
    uncovered: Option<String>,
    /// What was last said of services that start at boot.
    warnings: Vec<String>,
    /// When it was last looked at.
    looked: tokio::time::Instant,
}

/// One thing that happened to the keeper.
enum Step {
    Order(Order),
    Response(Result<Option<AttachResponse>, tonic::Status>),
    Descriptor(io::Result<Packet>),
    Contact(Time),
    /// Now and then: see whether it is time to compare the copies.
    Glance,
    /// Now and then: see whether the directories are covered.
    Look,
    /// Nothing to do after all.
    Idle,
    End,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            match self.select().await {
                Step::Order(order) => self.order(order).await,
                Step::Response(response) => self.response(response).await,
                Step::Descriptor(descriptor) => self.descriptor(descriptor).await,
                Step::Contact(at) => self.contact(at),
                Step::Glance => self.see_whether_to_verify().await,
                Step::Look => self.look().await,
                Step::Idle => {}
                Step::End => return,
            }
        }
    }

    async fn select(&mut self) -> Step {
        let look = self.next_look();
        let Self { inbox, contact, attached, .. } = self;
        let order = async {
            match inbox.recv().await {
                Some(order) => Step::Order(order),
                None => Step::End,
            }
        };
        if let Some(attached) = attached.as_mut()
            && let Some(early) = attached.early.pop()
        {
            return Step::Response(Ok(Some(early)));
        }
        let Some(Attached { responses, fds, .. }) = attached.as_mut() else {
            return tokio::select! {
                step = order => step,
                () = tokio::time::sleep_until(look) => Step::Look,
            };
        };
        tokio::select! {
            step = order => step,
            response = responses.message() => Step::Response(response),
            descriptor = fds.receive() => Step::Descriptor(descriptor),
            changed = contact.changed() => match changed {
                Ok(()) => contact.borrow_and_update().map_or(Step::Idle, Step::Contact),
                // That node is none of the cluster any more: there will be no contact.
                Err(_) => std::future::pending().await,
            },
            () = tokio::time::sleep_until(self.verification.next_glance()) => Step::Glance,
            () = tokio::time::sleep_until(look) => Step::Look,
        }
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Command(ReplicatorCommand::Start { accept }) => self.start(accept).await,
            Order::Command(ReplicatorCommand::Stop) => self.stop().await,
            Order::Command(ReplicatorCommand::Uncover) => self.unlock().await,
            Order::Command(ReplicatorCommand::Kill) => self.give_up("it was told to die").await,
            Order::Command(command) => {
                self.note_command(&command);
                self.command(&command).await;
            }
            Order::Early(ReplicatorCommand::Kill) => {
                self.note(true, "the replicator is killed");
                self.end_process().await;
            }
            Order::Early(command) => {
                self.note_command(&command);
                self.fence_early(&command).await;
            }
            Order::PauseResync(seconds) => self.send(Command::PauseResync(PauseResync { seconds })).await,
            Order::Look => self.look().await,
            Order::Stream(socket) => self.pass(b"S", &socket).await,
            Order::StandIn(stand_in) => {
                self.stand_in = Some(stand_in);
                self.send_stand_in().await;
            }
        }
    }

    /// What must be known of a replicator that dies.
    fn note_command(&mut self, command: &ReplicatorCommand) {
        match command {
            ReplicatorCommand::OpenJournal(id) | ReplicatorCommand::Mark(id) => {
                if !self.accept.contains(id) {
                    self.accept.push(*id);
                }
            }
            ReplicatorCommand::Mount | ReplicatorCommand::Unmount(_) | ReplicatorCommand::Fence => {
                self.changing = true;
            }
            ReplicatorCommand::Start { .. }
            | ReplicatorCommand::Join { .. }
            | ReplicatorCommand::Leave(_)
            | ReplicatorCommand::Receive(_)
            | ReplicatorCommand::Turn(..)
            | ReplicatorCommand::Settle(_)
            | ReplicatorCommand::Unsettle
            | ReplicatorCommand::ClearJournal
            | ReplicatorCommand::Archive(_)
            | ReplicatorCommand::Verify { .. }
            | ReplicatorCommand::Limit(_)
            | ReplicatorCommand::Uncover
            | ReplicatorCommand::Stop
            | ReplicatorCommand::Kill => {}
        }
    }

    async fn command(&mut self, command: &ReplicatorCommand) {
        if self.attached.is_none() {
            return self.answer_for_the_dead(command).await;
        }
        if let Some(command) = convert::command_to(command) {
            self.send(command).await;
        }
    }

    async fn fence_early(&mut self, command: &ReplicatorCommand) {
        let Some(attached) = &mut self.attached else { return };
        if let Some(command) = convert::command_to(command) {
            attached.unreported += 1;
            self.send(command).await;
        }
    }

    /// There is no replicator: what a command asks for has come true by that, or cannot.
    async fn answer_for_the_dead(&mut self, command: &ReplicatorCommand) {
        let event = match command {
            ReplicatorCommand::Leave(session) => ReplicatorEvent::SessionEnded(*session),
            ReplicatorCommand::Unmount(_) => ReplicatorEvent::Unmounted,
            ReplicatorCommand::Fence => ReplicatorEvent::Fenced,
            ReplicatorCommand::Limit(limit) => ReplicatorEvent::Limited(*limit),
            ReplicatorCommand::Unsettle
            | ReplicatorCommand::Verify { .. }
            | ReplicatorCommand::Uncover
            | ReplicatorCommand::Stop => return,
            ReplicatorCommand::Start { .. }
            | ReplicatorCommand::OpenJournal(_)
            | ReplicatorCommand::Mark(_)
            | ReplicatorCommand::Join { .. }
            | ReplicatorCommand::Receive(_)
            | ReplicatorCommand::Turn(..)
            | ReplicatorCommand::Mount
            | ReplicatorCommand::Settle(_)
            | ReplicatorCommand::Archive(_)
            | ReplicatorCommand::ClearJournal
            | ReplicatorCommand::Kill => ReplicatorEvent::Died,
        };
        self.report(event).await;
    }

    async fn send(&mut self, command: Command) {
        let Some(attached) = &self.attached else { return };
        let request = AttachRequest { command: Some(command) };
        if attached.requests.send_timeout(request, STUCK).await.is_err() {
            self.bury("it takes no commands").await;
        }
    }

    async fn response(&mut self, response: Result<Option<AttachResponse>, tonic::Status>) {
        let report = match response {
            Ok(Some(AttachResponse { report: Some(report) })) => report,
            Ok(Some(AttachResponse { report: None })) => return self.bury("it sent an empty report").await,
            Ok(None) => return self.bury("it ended").await,
            Err(status) => return self.bury(status.message()).await,
        };
        match convert::report_from(report) {
            Ok(reported) => self.reported(reported).await,
            Err(Malformed(what)) => self.bury(&format!("it sent {what}")).await,
        }
    }

    async fn reported(&mut self, reported: Reported) {
        match reported {
            Reported::Event(event) => {
                let unmounted = matches!(
                    event,
                    ReplicatorEvent::Unmounted | ReplicatorEvent::Aborted | ReplicatorEvent::Fenced
                );
                if unmounted {
                    self.not_mounted();
                }
                if event == ReplicatorEvent::Fenced
                    && let Some(attached) = &mut self.attached
                    && attached.unreported > 0
                {
                    attached.unreported -= 1;
                    return;
                }
                if unmounted || matches!(event, ReplicatorEvent::MountFailed(_)) {
                    self.changing = false;
                }
                if matches!(event, ReplicatorEvent::InStep(_)) {
                    self.deaths = 0;
                }
                if matches!(event, ReplicatorEvent::Ready { .. } | ReplicatorEvent::Refused(_)) {
                    self.lower().await;
                }
                // The first marker makes them directories that are to be covered.
                if unmounted || matches!(event, ReplicatorEvent::Marked(_)) {
                    self.cover().await;
                }
                self.report(event).await;
            }
            Reported::Mounted(connections) => {
                self.connections = connections;
                (self.mounted, self.changing) = (true, false);
                self.report(ReplicatorEvent::Mounted).await;
            }
            Reported::Lost(session, loss, reason) => {
                self.setup.events.record(
                    &self.setup.module.name,
                    false,
                    &format!("replication stream lost: {reason}"),
                );
                self.report(ReplicatorEvent::SessionLost { session, loss, reason }).await;
            }
            Reported::Progress(progress) => {
                if progress.done {
                    self.setup.events.record(&self.setup.module.name, false, &resync::ended(&progress));
                }
                self.setup.reporter.tell(What::Progress(progress)).await;
            }
            Reported::Verification(verification) => self.verified(verification).await,
            Reported::Figures(figures) => self.setup.reporter.tell(What::Figures(figures)).await,
            Reported::PeerAgentGone(since) => self.peer_agent(since != 0).await,
            Reported::PeerFenced => {
                self.note(true, "the other node's replicator fenced itself: its safed is gone")
            }
            Reported::Resumed => self.bury("it went on with what nobody left it").await,
            Reported::Adopted => self.bury("it introduced itself twice").await,
        }
    }

    /// The peer's replicator says over the stream that its agent is gone, again and again, or back. That may be read
    /// late; heartbeats of the agent itself, echoed a moment ago, prove it wrong.
    async fn peer_agent(&mut self, gone: bool) {
        let patience = self.setup.module.spec.heartbeat.interval * 3;
        let contact = *self.contact.borrow();
        if gone && contact.is_some_and(|contact| clock::now().since(contact) < patience) {
            return;
        }
        if self.peer_agent_gone != gone {
            self.peer_agent_gone = gone;
            self.note(
                gone,
                if gone { "the other node's safed is gone" } else { "the other node's safed is back" },
            );
        }
        if gone {
            self.setup.reporter.event(Event::PeerAgentGone).await;
        } else {
            self.setup.reporter.tell(What::PeerAgentBack).await;
        }
    }

    async fn descriptor(&mut self, packet: io::Result<Packet>) {
        match packet {
            Ok(packet) => {
                let kind = packet.words.first().copied();
                if !self.kept.take(packet) {
                    tracing::warn!(module = %self.setup.module.name, kind, "unexpected descriptor");
                }
            }
            Err(error) => self.bury(&format!("its socket for descriptors broke: {error}")).await,
        }
    }

    fn not_mounted(&mut self) {
        self.kept.clear();
        self.connections.clear();
        self.mounted = false;
    }

    fn contact(&self, at: Time) {
        if let Some(attached) = &self.attached {
            let command = Command::PeerContact(PeerContact { boottime_ns: at.0 });
            // The next contact makes up for one that does not fit.
            let _full = attached.requests.try_send(AttachRequest { command: Some(command) });
        }
    }

    async fn pass(&mut self, words: &[u8], fd: &OwnedFd) {
        // Without a replicator the connection is closed: the peer tries again.
        let Some(attached) = &self.attached else { return };
        let sent = tokio::time::timeout(STUCK, attached.fds.send(words, fd.as_fd())).await;
        let failed = match sent {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("it takes no descriptor: {error}"),
            Err(_) => "it takes no descriptor".to_owned(),
        };
        self.bury(&failed).await;
    }

    async fn send_stand_in(&mut self) {
        let Some(stand_in) = self.stand_in.clone() else { return };
        if self.attached.as_ref().is_some_and(|attached| !attached.sockets_sent) {
            let sockets = self.setup.network.sockets(&self.setup.module.name);
            if let Some(attached) = self.attached.as_mut() {
                attached.sockets_sent = !sockets.is_empty();
            }
            for (lan, socket) in sockets {
                self.pass(&[b'H', lan], &socket).await;
            }
        }
        self.send(Command::StandIn(safe_proto::replication::StandIn {
            heartbeat: stand_in.heartbeat.into(),
            fenced: stand_in.fenced.into(),
            peers: stand_in.peers.iter().map(ToString::to_string).collect(),
        }))
        .await;
    }

    async fn report(&self, event: ReplicatorEvent) {
        self.setup.reporter.event(Event::Replicator(event)).await;
    }
}

mod life;
mod survive;
mod verified;
