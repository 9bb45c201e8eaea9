//! The replicator of one module: carries out the agent's commands in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use safe_proto::replication as proto;
use safe_proto::replication::attach_request::Command;
use tokio::sync::oneshot;
use tonic::Status;

use crate::agent::{Agent, StandIn};
use crate::attend::{Joining, Order, is_in_step};
use crate::backing::Backing;
use crate::clock::Boottime;
use crate::control::{Ordered, lineage, parse_lineage, parse_role, session_id, session_name};
use crate::crash;
use crate::fds::Outbox;
use crate::knowledge::Knowledge;
use crate::legacy::Legacy;
use crate::legacy::inherited::Inherited;
use crate::marker;
use crate::member::{Arrivals, Member, Role};
use crate::mounts::Mounts;
use crate::operation::Engine;
use crate::prepare;
use crate::report::{Report, Reports};
use crate::session::SessionName;
use crate::settings::Settings;
use crate::state::State;
use crate::tls::Tls;

mod archive;
mod copy;
mod resume;

use archive::Archiving;
use copy::condition;

/// What exists once the directories were examined.
struct Examined {
    backing: Backing,
    engine: Arc<Engine>,
    member: Arc<Member>,
    copy: marker::Copy,
    knows_inflight: Arc<AtomicBool>,
    /// Lineages of hard state: a journal of one of them was there before.
    accept: Vec<u128>,
    /// The last lineage that was named: the journal's or the markers'.
    lineage: u128,
}

/// See the module.
pub struct Replica {
    /// The way to the agent.
    pub reports: Arc<Reports>,
    /// The agent, or since when it is gone.
    pub agent: Arc<Agent>,
    state: Arc<State>,
    outbox: Arc<Outbox>,
    inherited: Arc<Inherited>,
    run_dir: PathBuf,
    arrivals: Arrivals,
    plane: tokio::runtime::Handle,
    configured: Mutex<Option<(Settings, Tls)>>,
    examined: Mutex<Option<Examined>>,
    mounts: Mutex<Mounts>,
    /// What outlives this process while mounted.
    legacy: Mutex<Option<Arc<Legacy>>>,
    boot: u128,
    archiving: Archiving,
}

impl Examined {
    fn knows(&self) -> bool {
        self.knows_inflight.load(Ordering::Acquire)
    }

    /// Lineages that a journal may be of.
    fn known(&self) -> Vec<proto::LineageId> {
        let named = Some(self.lineage).filter(|id| *id != 0 && !self.accept.contains(id));
        self.accept.iter().copied().chain(named).map(lineage).collect()
    }
}

/// For what is stuck to come loose where something else waits.
const STUCK: Duration = Duration::from_millis(500);
const FENCED_SINCE: &str = "this node was fenced in between";
/// For a session to end when the process is to, or for a mount.
const ENDING: Duration = Duration::from_secs(5);

impl Replica {
    /// Knows nothing of its module yet.
    #[must_use]
    pub fn new(
        run_dir: &Path,
        outbox: Arc<Outbox>,
        inherited: Arc<Inherited>,
        arrivals: Arrivals,
        plane: tokio::runtime::Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            reports: Arc::default(),
            agent: Agent::new(),
            state: State::new(),
            outbox,
            inherited,
            run_dir: run_dir.to_owned(),
            arrivals,
            plane,
            configured: Mutex::default(),
            examined: Mutex::default(),
            mounts: Mutex::default(),
            legacy: Mutex::default(),
            boot: boot_id(),
            archiving: Archiving::default(),
        })
    }

    /// No answer leaves any more; what waits gets an error that goes nowhere.
    pub fn freeze(&self) {
        self.state.gate.freeze();
        self.state.set_closing(true);
    }

    /// How often this replicator was fenced.
    #[must_use]
    pub fn fences(&self) -> u64 {
        self.state.gate.fences()
    }

    /// Carries out one command. False: the process ends.
    pub fn execute(&self, ordered: Ordered) -> bool {
        let Ordered { generation, fences, command } = ordered;
        let always = matches!(command, Command::Fence(_) | Command::Unsettle(_));
        if generation < self.agent.generation() && !always {
            tracing::warn!(?command, "an order of an agent that is gone is not carried out");
            return true;
        }
        match self.carry(command, fences) {
            Ok(go_on) => go_on,
            Err(error) => {
                tracing::error!(error, "a command of the agent is malformed");
                self.reports.refuse(Status::invalid_argument(error));
                true
            }
        }
    }

    /// `fences`: how often this replicator had been fenced when the command came.
    fn carry(&self, command: Command, fences: u64) -> Result<bool, String> {
        if matches!(command, Command::Join(_) | Command::Mount(_) | Command::Resume(_)) {
            self.archiving.end();
        } else if matches!(command, Command::Fence(_) | Command::Stop(_)) {
            self.archiving.cancel();
        }
        match command {
            Command::Configure(given) => self.configure(given)?,
            Command::Examine(examine) => {
                let accept = examine.accept.iter().map(parse_lineage).collect::<Result<Vec<_>, _>>()?;
                match self.examine(accept) {
                    Ok(ready) => self.reports.send(Report::Ready(ready)),
                    Err(reason) => self.reports.send(Report::Refused(reason)),
                }
            }
            Command::OpenJournal(id) => self.open_journal(parse_lineage(&id)?)?,
            Command::Mark(id) => self.mark(parse_lineage(&id)?)?,
            Command::Join(join) => self.join(&join, fences)?,
            Command::Receive(id) => self.member().ok_or_else(not_examined)?.receive(session_name(&id)),
            Command::Leave(id) => self.leave(session_name(&id)),
            Command::Turn(turn) => self.turn(&turn, fences)?,
            Command::Mount(_) => self.mount(fences),
            Command::Settle(id) => self.settle(parse_lineage(&id)?, fences),
            Command::Resume(resume) => {
                let accept = resume.accept.iter().map(parse_lineage).collect::<Result<Vec<_>, _>>()?;
                match self.resume(accept, resume.files as usize, fences) {
                    Ok(resumed) => self.reports.send(Report::Resumed(resumed)),
                    Err(reason) => self.reports.send(Report::Refused(reason)),
                }
            }
            Command::Unsettle(_) => self.state.unsettle(),
            Command::ClearJournal(_) => match self.knowledge()?.clear() {
                Ok(()) => self.reports.send(Report::Cleared(proto::Cleared {})),
                Err(error) => self.disk_failed(&format!("the journal cannot be cleared: {error}")),
            },
            Command::Unmount(unmount) => {
                if !(1..=600_000).contains(&unmount.deadline_ms) {
                    return Err("deadline_ms must be 1 to 600000".into());
                }
                self.unmount(Duration::from_millis(unmount.deadline_ms.into()));
            }
            Command::Fence(_) => match self.fence() {
                Ok(()) => {
                    self.agent.set_fenced(true);
                    self.reports.send(Report::Fenced(proto::Fenced {}));
                }
                // Not confirmed: the agent kills this process, and the connection ends with it.
                Err(error) => tracing::error!(error, "cannot fence"),
            },
            Command::Stop(_) => {
                self.stop();
                return Ok(false);
            }
            Command::StandIn(given) => self.agent.set_stand_in(StandIn {
                heartbeat: given.heartbeat,
                fenced: given.fenced,
                peers: given.peers.iter().map(|peer| peer.parse().ok()).collect(),
            }),
            Command::Verify(verify) => self.member().ok_or_else(not_examined)?.verify(verify.repair),
            Command::PauseResync(pause) => {
                // Without one there is nothing to hold back.
                if let Some(member) = self.member() {
                    member.pause.set(Duration::from_secs(pause.seconds.into()));
                }
            }
            Command::Limit(limit) => self.limit(limit)?,
            Command::Archive(id) => self.archive(parse_lineage(&id)?)?,
            Command::PeerContact(contact) => self.state.contact(Boottime(contact.boottime_ns)),
        }
        Ok(true)
    }

    fn limit(&self, limit: u32) -> Result<(), String> {
        if !(1..=3_600_000).contains(&limit) {
            return Err("limit must be 1 to 3600000".into());
        }
        self.state.set_limit(Duration::from_millis(limit.into()));
        self.reports.send(Report::Limited(limit));
        Ok(())
    }

    fn configure(&self, given: proto::Configure) -> Result<(), String> {
        let settings = Settings::new(given)?;
        let tls = Tls::new(&settings)?;
        // Another agent of the same module: the other node may not know yet what it says.
        if self.configured.lock().is_none() {
            self.state.set_limit(settings.timeout);
        }
        if let Some(examined) = self.examined.lock().as_ref() {
            examined.member.configure(settings.clone(), tls.clone());
        }
        *self.configured.lock() = Some((settings, tls));
        self.reports.send(Report::Adopted(self.adopted()));
        // Said again: an agent that died may not have heard it, or not have made it durable.
        if let Some(lineage) = self.state.wrote_alone() {
            self.reports.send(Report::WroteAlone(crate::control::lineage(lineage)));
        }
        self.reports.catch_up();
        Ok(())
    }

    fn adopted(&self) -> proto::Adopted {
        let examined = self.examined.lock();
        let session = examined.as_ref().and_then(|examined| examined.member.session());
        let role = session.as_ref().map_or(proto::Role::Unspecified, |(_, role, _)| match role {
            Role::Primary => proto::Role::Primary,
            Role::Secondary => proto::Role::Secondary,
        });
        let (mounted, connections) = {
            let mounts = self.mounts.lock();
            (!mounts.is_empty(), mounts.connections())
        };
        proto::Adopted {
            protocol: crate::settings::PROTOCOL,
            fresh: examined.is_none(),
            mounted,
            session: session.as_ref().map(|(name, _, _)| session_id(*name)),
            role: role.into(),
            in_step: session
                .is_some_and(|(_, _, session)| session.is_some_and(|session| is_in_step(&session))),
            settled: self.state.settled().map(lineage),
            fenced: self.agent.is_fenced(),
            copy: examined
                .as_ref()
                .map_or(proto::Copy::Unspecified, |examined| condition(examined.copy))
                .into(),
            knows_inflight: examined.as_ref().is_some_and(Examined::knows),
            contact_boottime_ns: self.state.last_contact().0,
            accept: examined.as_ref().map(Examined::known).unwrap_or_default(),
            connections,
            limit_ms: u32::try_from(self.state.limit().as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn knowledge(&self) -> Result<Arc<Knowledge>, String> {
        let examined = self.examined.lock();
        examined.as_ref().map(|examined| Arc::clone(&examined.engine.knowledge)).ok_or_else(not_examined)
    }

    fn join(&self, join: &proto::Join, fences: u64) -> Result<(), String> {
        let id = join.session.ok_or("a session without a name")?;
        let role = parse_role(join.role)?;
        let plan = match proto::Plan::try_from(join.plan) {
            Ok(plan @ (proto::Plan::Repair | proto::Plan::Delta | proto::Plan::Full)) => plan as i32,
            Ok(proto::Plan::Unspecified) | Err(_) => {
                return Err("a plan must be repair, delta or full".into());
            }
        };
        let (name, plan, untouched) = (session_name(&id), plan.cast_unsigned(), join.room);
        let joining = Joining { name, role, plan, untouched };
        let begun = self.unfenced_since(fences).and_then(|()| self.mounts.lock().wait_for_workers(STUCK));
        let member = self.member().ok_or_else(not_examined)?;
        if let Err(reason) = begun.and_then(|()| member.join(&self.plane, joining)) {
            let loss = proto::Loss::Here.into();
            self.reports.send(Report::SessionLost(proto::SessionLost { session: Some(id), reason, loss }));
        }
        Ok(())
    }

    fn member(&self) -> Option<Arc<Member>> {
        self.examined.lock().as_ref().map(|examined| Arc::clone(&examined.member))
    }

    fn leave(&self, name: SessionName) {
        let ordered = self.member().is_some_and(|member| member.order(name, Order::Leave));
        if !ordered {
            // It has ended by itself.
            self.reports.send(Report::SessionEnded(session_id(name)));
        }
    }

    fn unfenced_since(&self, fences: u64) -> Result<(), String> {
        if self.fences() == fences { Ok(()) } else { Err(FENCED_SINCE.to_owned()) }
    }

    fn turn(&self, turn: &proto::Turn, fences: u64) -> Result<(), String> {
        let name = session_name(&turn.session.ok_or("a session without a name")?);
        let (done, end) = oneshot::channel();
        let role = parse_role(turn.role)?;
        if role == Role::Primary && self.fences() != fences {
            tracing::info!("fenced in between: the roles are not exchanged");
        } else if self.member().is_some_and(|member| member.order(name, Order::Turn(role, done))) {
            // An error means that the session ended, which is reported.
            let _ended = end.blocking_recv();
        }
        Ok(())
    }

    fn mount(&self, fences: u64) {
        let outcome = self.try_mount(fences);
        match outcome {
            Ok(connections) => self.reports.send(Report::Mounted(proto::Mounted { connections })),
            Err(reason) => self.reports.send(Report::MountFailed(reason)),
        }
    }

    fn try_mount(&self, fences: u64) -> Result<Vec<u64>, String> {
        let mut mounts = self.mounts.lock();
        self.unfenced_since(fences)?;
        if !mounts.is_empty() {
            return Ok(mounts.connections());
        }
        let examined = self.examined.lock();
        let examined = examined.as_ref().ok_or_else(not_examined)?;
        prepare::must_be_free(&examined.backing)?;
        mounts.wait_for_workers(STUCK)?;
        // What a fence that could not wait left there.
        examined.engine.nodes.clear();
        if !self.state.gate.thaw(fences) {
            return Err(FENCED_SINCE.to_owned());
        }
        self.state.set_closing(false);
        self.agent.set_fenced(false);
        let legacy = self.begin_legacy(examined);
        let module = examined.member.settings().module.clone();
        let mounted = mounts.mount(&examined.backing, &examined.engine, &module, legacy.as_deref());
        mounted.inspect_err(|_| self.end_legacy(examined))?;
        if mounts.resend() {
            self.send_legacy(&mounts, examined);
        } else {
            self.end_legacy(examined);
        }
        Ok(mounts.connections())
    }

    fn unmount(&self, deadline: Duration) {
        let mut mounts = self.mounts.lock();
        let done = mounts.unmount(deadline, || self.state.gate.frozen());
        if !done {
            self.state.set_closing(true);
            if let Err(error) = mounts.abort() {
                // Not reported: the agent kills this process, and the connection ends with it.
                tracing::error!(error, "cannot unmount");
                return;
            }
        }
        drop(mounts);
        self.forget_nodes();
        self.reports.send(if done {
            Report::Unmounted(proto::Unmounted {})
        } else {
            Report::Aborted(proto::Aborted {})
        });
    }

    fn forget_nodes(&self) {
        // Who holds it may wait for a disk; nobody may wait for that one here. The next mount forgets them too.
        if let Some(examined) = self.examined.try_lock_for(STUCK)
            && let Some(examined) = examined.as_ref()
        {
            self.end_legacy(examined);
            examined.engine.nodes.clear();
        }
    }

    /// No answer leaves any more, then the connections end.
    ///
    /// # Errors
    /// A connection goes on: one sentence for people. It ends with this process.
    pub fn fence(&self) -> Result<(), String> {
        self.freeze();
        self.state.unsettle();
        // Who holds them waits for a disk, or ends soon because no answer leaves any more.
        let mut mounts = self.mounts.try_lock_for(ENDING).ok_or("the mounts are busy: the disk hangs")?;
        mounts.abort()?;
        drop(mounts);
        self.forget_nodes();
        Ok(())
    }

    fn stop(&self) {
        if !self.mounts.lock().is_empty() {
            self.freeze();
            if let Err(error) = self.mounts.lock().abort() {
                tracing::error!(error, "it ends with this process");
            }
            self.forget_nodes();
        }
        let mut left = true;
        if let Some(member) = self.member()
            && let Some((name, _, _)) = member.session()
        {
            member.order(name, Order::Leave);
            let begun = Boottime::now();
            while member.session().is_some() && begun.elapsed() < ENDING {
                std::thread::sleep(Duration::from_millis(10));
            }
            left = member.session().is_none();
        }
        if left && let Err(error) = self.leave_note() {
            tracing::warn!(error, "what is in flight will not be known: everything will be compared");
        }
        self.agent.end();
        self.reports.send(Report::Stopped(proto::Stopped {}));
    }

    fn disk_failed(&self, reason: &str) {
        tracing::error!(reason, "the disk failed");
        self.reports.send(Report::DiskFailed(reason.to_owned()));
    }

    /// For how long the oldest operation on the files below has been under way, if that is too long.
    #[must_use]
    pub fn hanging(&self) -> Option<Duration> {
        let examined = self.examined.try_lock()?;
        let examined = examined.as_ref()?;
        let oldest = examined.engine.stopwatch.oldest();
        (oldest > examined.member.settings().local_timeout).then_some(oldest)
    }

    /// The disk hangs: this copy cannot be relied on.
    pub fn disk_hangs(&self, since: Duration) {
        self.disk_failed(&format!("an operation on the disk has not ended for {} s", since.as_secs()));
        if let Some((_, _, Some(session))) = self.member().and_then(|member| member.session()) {
            session.lose(proto::Loss::Here, "the disk of this node hangs");
        }
    }

    /// What the watch needs: settings with the limit in force, whether anything is mounted, whether going on alone is settled, and when the
    /// other node was last heard.
    #[must_use]
    pub fn watched(&self) -> Option<(Settings, bool, bool, Boottime)> {
        let mut settings = self.configured.lock().as_ref().map(|(settings, _)| settings.clone())?;
        settings.timeout = self.state.limit();
        settings.interval = settings.interval.min(settings.timeout / 4);
        let mounted = self.mounts.try_lock().is_none_or(|mounts| !mounts.is_empty());
        Some((settings, mounted, self.state.settled().is_some(), self.state.last_contact()))
    }
}

fn not_examined() -> String {
    "the directories were not examined".into()
}

/// Number of this boot of the machine; 0 if it cannot be told, which never equals a journal's.
pub fn boot_id() -> u128 {
    if let Some(other) = crash::boot_id() {
        return other;
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}
