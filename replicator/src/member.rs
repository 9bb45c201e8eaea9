//! This node's part in the sessions of the module: what the data plane needs of the rest of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use safe_proto::replication::{KeepAlive, Loss, Progress as ProgressReport, Room, Verification};
use safe_replication::dirty::Change;
use safe_replication::op::ObjectId;
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::apply::{Applier, Entrance};
use crate::attend::{Joining, Order, attend};
use crate::backing::Backing;
use crate::epoch::Epochs;
use crate::knowledge::Knowledge;
use crate::operation::Engine;
use crate::pause::Pause;
use crate::progress::{Progress, told_meanwhile};
use crate::report::{Report, Reports};
use crate::resync::{Outcome, Plan, Resync};
use crate::session::{Carrier, Session, SessionName};
use crate::settings::Settings;
use crate::source::Source;
use crate::state::State;
use crate::throttle::Throttle;
use crate::tls::Tls;
use crate::untouched::Untouched;

mod verification;

/// Connections of the other node, as the agent passes them.
pub type Arrivals = Arc<tokio::sync::Mutex<mpsc::Receiver<std::net::TcpStream>>>;

/// A node's part in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends operations; source of the resync.
    Primary,
    /// Carries them out.
    Secondary,
}

/// The session that there is.
struct Current {
    name: SessionName,
    role: Role,
    orders: mpsc::Sender<Order>,
    session: Option<Arc<Session>>,
}

/// What the other node said of itself in its greeting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peer {
    /// Boot id under which its machine runs.
    pub boot: u128,
    /// The last epoch that it knows to be durable on both nodes.
    pub closed: u64,
}

/// A resync under way.
struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// See the module.
pub struct Member {
    settings: ArcSwap<Settings>,
    tls: ArcSwap<Tls>,
    /// The way to the agent.
    pub reports: Arc<Reports>,
    /// What is allowed.
    pub state: Arc<State>,
    /// The agent, or since when it is gone.
    pub agent: Arc<Agent>,
    /// Connections of the other node, as the agent passes them.
    pub arrivals: Arrivals,
    backing: Backing,
    engine: Arc<Engine>,
    knowledge: Arc<Knowledge>,
    current: Mutex<Option<Current>>,
    applier: Mutex<Option<Applier>>,
    resync: Mutex<Option<Running>>,
    /// A person holds resynchronisations back.
    pub pause: Arc<Pause>,
    peer: Mutex<Peer>,
    /// Which of the other node's addresses is tried first.
    pub endpoint: AtomicUsize,
    peer_gone: AtomicBool,
    peer_fenced: AtomicBool,
    /// What was in flight in the last session is known, here at least.
    knows_inflight: Arc<AtomicBool>,
}

impl Member {
    /// Takes part in nothing yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        tls: Tls,
        backing: Backing,
        engine: Arc<Engine>,
        agent: Arc<Agent>,
        arrivals: Arrivals,
        knows_inflight: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
            tls: ArcSwap::from_pointee(tls),
            reports: Arc::clone(&engine.reports),
            state: Arc::clone(&engine.state),
            knowledge: Arc::clone(&engine.knowledge),
            agent,
            arrivals,
            backing,
            engine,
            current: Mutex::default(),
            applier: Mutex::default(),
            resync: Mutex::default(),
            pause: Arc::default(),
            peer: Mutex::default(),
            endpoint: AtomicUsize::new(0),
            peer_gone: AtomicBool::new(false),
            peer_fenced: AtomicBool::new(false),
            knows_inflight,
        })
    }

    /// Present settings.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Present certificates.
    pub fn tls(&self) -> Arc<Tls> {
        self.tls.load_full()
    }

    /// New settings and certificates, for what begins from now on.
    pub fn configure(&self, settings: Settings, tls: Tls) {
        self.settings.store(Arc::new(settings));
        self.tls.store(Arc::new(tls));
    }

    /// Begins a session, unless there is one.
    ///
    /// # Errors
    /// One sentence for people.
    pub fn join(self: &Arc<Self>, plane: &tokio::runtime::Handle, joining: Joining) -> Result<(), String> {
        let mut current = self.current.lock();
        if let Some(other) = current.as_ref() {
            return Err(format!("there is a session already: {:?}", other.name));
        }
        let (orders, receiver) = mpsc::channel(16);
        *current = Some(Current { name: joining.name, role: joining.role, orders, session: None });
        plane.spawn(attend(Arc::clone(self), joining, receiver));
        Ok(())
    }

    /// Gives an order to the session with this name. False: there is none.
    pub fn order(&self, name: SessionName, order: Order) -> bool {
        let current = self.current.lock();
        current
            .as_ref()
            .filter(|current| current.name == name)
            .is_some_and(|current| current.orders.try_send(order).is_ok())
    }

    /// The session, this node's role in it, and whether it is up.
    #[must_use]
    pub fn session(&self) -> Option<(SessionName, Role, Option<Arc<Session>>)> {
        self.current.lock().as_ref().map(|current| (current.name, current.role, current.session.clone()))
    }

    /// The session has ended in every respect.
    pub fn session_over(&self, name: SessionName) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|current| current.name == name) {
            *current = None;
        }
    }

    /// A session with the next serial.
    pub fn new_session(&self, name: SessionName, carrier: Arc<dyn Carrier>) -> Arc<Session> {
        let session = Session::new(self.engine.next_serial(), name, carrier);
        if let Some(current) = self.current.lock().as_mut() {
            current.session = Some(Arc::clone(&session));
        }
        session
    }

    /// The handshake is done: takes up the role.
    ///
    /// # Errors
    /// One sentence for people.
    pub async fn begin(self: &Arc<Self>, session: &Arc<Session>, joining: Joining) -> Result<(), String> {
        self.peer_gone.store(false, Ordering::Relaxed);
        self.peer_fenced.store(false, Ordering::Relaxed);
        let (own, session) = (Arc::clone(self), Arc::clone(session));
        blocking(move || {
            let peer = *own.peer.lock();
            let agrees = own.epochs().meet(peer.closed);
            if joining.plan == FULL {
                own.epochs().set_complete(false).map_err(journal)?;
            }
            own.epochs().open().map_err(journal)?;
            own.knowledge.joined(peer.boot).map_err(journal)?;
            match joining.role {
                Role::Primary => {
                    if !agrees && joining.plan != FULL {
                        tracing::warn!(
                            closed = peer.closed,
                            "the other copy is of another time: everything is compared"
                        );
                        own.knowledge.mark(&[Change::Everything]).map_err(journal)?;
                    }
                    own.state.attach(Arc::clone(&session));
                    own.start_resync(&session, joining.plan)
                }
                Role::Secondary => own.start_applier(&session, joining.untouched),
            }
        })
        .await
    }

    fn start_applier(&self, session: &Arc<Session>, untouched: bool) -> Result<(), String> {
        let (reports, name, own) = (Arc::clone(&self.reports), session.name, Arc::downgrade(session));
        let (knowledge, knows) = (Arc::clone(&self.knowledge), Arc::clone(&self.knows_inflight));
        let on_step = Box::new(move || {
            if let Some(session) = own.upgrade() {
                session.in_step.store(true, Ordering::Release);
            }
            // What this node knew to differ was sent to the source and came back repaired.
            knowledge.in_step_as_target();
            if let (Err(error), Some(session)) = (knowledge.epochs.set_complete(true), own.upgrade()) {
                return session.lose(Loss::Here, &journal(error));
            }
            knows.store(true, Ordering::Release);
            reports.send(Report::InStep(crate::control::session_id(name)));
        });
        let (knowledge, reports) = (Arc::clone(&self.knowledge), Arc::clone(&self.reports));
        let stopwatch = Arc::clone(&self.engine.stopwatch);
        let backing = self.backing.clone();
        let untouched = untouched.then(|| self.ask_for_leave(session.name));
        let session = Arc::clone(session);
        let applier = Applier::start(backing, session, knowledge, reports, stopwatch, on_step, untouched);
        *self.applier.lock() = Some(applier.map_err(|error| format!("cannot start the workers: {error}"))?);
        Ok(())
    }

    /// The agent is asked before the copy is changed.
    fn ask_for_leave(&self, name: SessionName) -> Untouched {
        let reports = Arc::clone(&self.reports);
        Untouched::new(Box::new(move |outcome: Result<(), String>| {
            let (session, fits) = (Some(crate::control::session_id(name)), outcome.is_ok());
            reports.send(Report::Room(Room { session, fits, reason: outcome.err().unwrap_or_default() }));
        }))
    }

    /// The agent gives leave: the copy may be changed in this session.
    pub fn receive(&self, name: SessionName) {
        if self.session().is_some_and(|(current, _, _)| current == name)
            && let Some(applier) = self.applier.lock().as_ref()
        {
            applier.open();
        }
    }

    fn start_resync(self: &Arc<Self>, session: &Arc<Session>, plan: u32) -> Result<(), String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (own, session, stopped) = (Arc::clone(self), Arc::clone(session), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("resync".into())
            .spawn(move || own.resync(&session, plan, &stopped))
            .map_err(|error| format!("cannot start the resync: {error}"))?;
        *self.resync.lock() = Some(Running { stop, thread });
        Ok(())
    }

    fn resync(&self, session: &Arc<Session>, plan: u32, stop: &AtomicBool) {
        let progress = Progress::default();
        // A repair is short, and the application waits for it.
        let pause = if plan == REPAIR { Arc::default() } else { Arc::clone(&self.pause) };
        let throttle = Throttle::new(self.settings().bandwidth_limit).paused_by(Arc::clone(&pause));
        let source = Source::new(&self.engine, session);
        let work = Resync::new(&source, &self.knowledge, &self.backing, &progress, &throttle, stop);
        let order = match plan {
            REPAIR => Plan::Repair,
            FULL => Plan::Full,
            _ => Plan::Delta,
        };
        let tell = || self.reports.hint(Report::Progress(figures(&progress, plan, &pause)));
        let outcome = told_meanwhile(tell, || work.run(order));
        let last = ProgressReport { done: true, ..figures(&progress, plan, &pause) };
        self.reports.send(Report::Progress(last));
        match outcome {
            Outcome::InStep => {
                self.knows_inflight.store(true, Ordering::Release);
                // Soon it is known that both have everything.
                self.epochs().want_close();
                if let Err(error) = self.epochs().set_complete(true) {
                    return session.lose(Loss::Here, &journal(error));
                }
                session.in_step.store(true, Ordering::Release);
                self.reports.send(Report::InStep(crate::control::session_id(session.name)));
            }
            Outcome::Lost(reason) => tracing::info!(reason, "resync interrupted"),
            Outcome::Failed(reason) => session.lose(Loss::Failed, &format!("resync failed: {reason}")),
        }
    }

    /// Begins to compare both copies, if this node is the primary and they are in step; else says why not.
    pub fn verify(self: &Arc<Self>, repair: bool) {
        if let Err(reason) = self.start_verification(repair) {
            self.reports.send(Report::Verification(Verification {
                done: true,
                repair,
                reason,
                ..Verification::default()
            }));
        }
    }

    fn start_verification(self: &Arc<Self>, repair: bool) -> Result<(), String> {
        let session = match self.session() {
            Some((_, Role::Primary, Some(session))) if crate::attend::is_in_step(&session) => session,
            Some(_) | None => return Err("the copies are not in step".into()),
        };
        let mut running = self.resync.lock();
        if running.as_ref().is_some_and(|running| !running.thread.is_finished()) {
            return Err("a comparison is under way".into());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (own, stopped) = (Arc::clone(self), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("verify".into())
            .spawn(move || verification::run(&own, &session, repair, &stopped))
            .map_err(|error| format!("cannot start the comparison: {error}"))?;
        *running = Some(Running { stop, thread });
        Ok(())
    }

    /// The session ended: joins everything that worked for it, and marks what may be on one node only.
    ///
    /// # Errors
    /// The marks cannot be written.
    pub async fn finish(self: &Arc<Self>, session: &Arc<Session>) -> Result<(), String> {
        let (own, session) = (Arc::clone(self), Arc::clone(session));
        blocking(move || own.end_role(&session)).await
    }

    fn end_role(&self, session: &Session) -> Result<(), String> {
        self.state.detach();
        self.end_resync();
        let mut changes = session.uncertain();
        changes.extend(crate::change::places(&changes, &self.engine.nodes));
        self.knowledge.mark(&changes).map_err(journal)?;
        self.knowledge.apart();
        let applier = self.applier.lock().take();
        if let Some(applier) = applier {
            self.knowledge.mark(&applier.close()).map_err(journal)?;
        }
        Ok(())
    }

    fn end_resync(&self) {
        let running = self.resync.lock().take();
        if let Some(running) = running {
            running.stop.store(true, Ordering::Release);
            if running.thread.join().is_err() {
                tracing::error!("the resync panicked");
            }
        }
    }

    /// Exchanges the roles; no operation is under way.
    ///
    /// # Errors
    /// One sentence for people.
    pub async fn turn(self: &Arc<Self>, session: &Arc<Session>, role: Role) -> Result<(), String> {
        if self.session().is_some_and(|(_, current, _)| current == role) {
            return Ok(());
        }
        let (own, kept) = (Arc::clone(self), Arc::clone(session));
        blocking(move || match role {
            Role::Primary => own.become_primary(&kept),
            Role::Secondary => own.become_secondary(&kept),
        })
        .await?;
        if let Some(current) = self.current.lock().as_mut() {
            current.role = role;
        }
        Ok(())
    }

    fn become_secondary(&self, session: &Arc<Session>) -> Result<(), String> {
        self.state.detach();
        self.end_resync();
        if !session.is_quiet() || !crate::attend::is_in_step(session) {
            return Err("roles cannot be exchanged while operations are under way".into());
        }
        self.engine.nodes.clear();
        self.start_applier(session, false)
    }

    /// The other node has given up the primary's role: it had carried out everything that it sent.
    fn become_primary(&self, session: &Arc<Session>) -> Result<(), String> {
        let applier = self.applier.lock().take();
        if let Some(applier) = applier {
            drop(applier.close());
        }
        self.engine.nodes.clear();
        // Equal copies, nothing under way: objects can be named to the other node at once.
        if self.knowledge.take_names().is_some() || !self.knowledge.is_empty() {
            return Err("roles cannot be exchanged while the copies differ".into());
        }
        self.state.attach(Arc::clone(session));
        Ok(())
    }

    /// What was changed since everything was durable on both nodes.
    #[must_use]
    pub fn epochs(&self) -> &Epochs {
        &self.knowledge.epochs
    }

    /// The other node said so.
    pub fn set_peer(&self, peer: Peer) {
        *self.peer.lock() = peer;
    }

    /// Where operations of the other node enter, while this one is the secondary.
    #[must_use]
    pub fn entrance(&self) -> Option<Entrance> {
        self.applier.lock().as_ref().map(Applier::entrance)
    }

    /// What the other side may forget.
    #[must_use]
    pub fn take_released(&self, serial: u64, most: usize) -> Vec<ObjectId> {
        self.engine.nodes.take_released(serial, most)
    }

    /// For how long the agent has been gone.
    #[must_use]
    pub fn agent_gone(&self) -> Option<Duration> {
        self.agent.gone()
    }

    /// No answer leaves any more.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.agent.is_fenced()
    }

    /// What the other replicator says of itself.
    pub fn peer_says(&self, session: &Session, alive: &KeepAlive) {
        if let Some(gone) = alive.agent_gone_ms {
            self.peer_gone.store(true, Ordering::Relaxed);
            self.reports.hint(Report::PeerAgentGone(gone.max(1)));
        } else if self.peer_gone.swap(false, Ordering::Relaxed) {
            self.reports.send(Report::PeerAgentGone(0));
        }
        if alive.fenced && !self.peer_fenced.swap(true, Ordering::Relaxed) {
            self.reports.send(Report::PeerFenced(crate::control::session_id(session.name)));
        }
    }
}

fn journal(error: std::io::Error) -> String {
    format!("the journal cannot be written: {error}")
}

const REPAIR: u32 = 1;
const FULL: u32 = 3;

fn figures(progress: &Progress, plan: u32, pause: &Pause) -> ProgressReport {
    let figures = progress.figures();
    // Rounded up: one that is there never shows as 0.
    let paused_s =
        pause.left().map(|left| u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX));
    ProgressReport {
        plan: i32::try_from(plan).unwrap_or(0),
        files_done: figures.files_done,
        files_total: figures.files_total,
        bytes_done: figures.bytes_done,
        bytes_total: figures.bytes_total,
        bytes_sent: figures.bytes_sent,
        rate: figures.rate,
        eta_s: figures.eta_s,
        done: false,
        paused_s,
    }
}

/// Runs what may wait for a disk beside the data plane.
async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("a worker panicked: {error}")))
}
