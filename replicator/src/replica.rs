//! The replicator of one module: carries out the agent's commands in order.

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
use crate::control::{lineage, parse_lineage, parse_role, session_id, session_name};
use crate::fds::Outbox;
use crate::knowledge::Knowledge;
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

mod copy;

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
    arrivals: Arrivals,
    plane: tokio::runtime::Handle,
    configured: Mutex<Option<(Settings, Tls)>>,
    examined: Mutex<Option<Examined>>,
    mounts: Mutex<Mounts>,
    boot: u128,
}

impl Examined {
    fn knows(&self) -> bool {
        self.knows_inflight.load(Ordering::Acquire)
    }
}

/// For a session to end when the process is to.
const ENDING: Duration = Duration::from_secs(5);

impl Replica {
    /// Knows nothing of its module yet.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, arrivals: Arrivals, plane: tokio::runtime::Handle) -> Arc<Self> {
        Arc::new(Self {
            reports: Arc::default(),
            agent: Agent::new(),
            state: State::new(),
            outbox,
            arrivals,
            plane,
            configured: Mutex::default(),
            examined: Mutex::default(),
            mounts: Mutex::default(),
            boot: boot_id(),
        })
    }

    /// No answer leaves any more; what waits gets an error that goes nowhere.
    pub fn freeze(&self) {
        self.state.gate.freeze();
        self.state.set_closing(true);
    }

    /// Carries out one command. False: the process ends.
    pub fn execute(&self, command: Command) -> bool {
        match self.carry(command) {
            Ok(go_on) => go_on,
            Err(error) => {
                tracing::error!(error, "a command of the agent is malformed");
                self.reports.refuse(Status::invalid_argument(error));
                true
            }
        }
    }

    fn carry(&self, command: Command) -> Result<bool, String> {
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
            Command::Join(join) => self.join(&join)?,
            Command::Leave(id) => self.leave(session_name(&id)),
            Command::Turn(turn) => self.turn(&turn)?,
            Command::Mount(_) => self.mount(),
            Command::Settle(id) => self.state.settle(parse_lineage(&id)?),
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
            Command::Fence(_) => {
                self.fence();
                self.reports.send(Report::Fenced(proto::Fenced {}));
            }
            Command::Stop(_) => {
                self.stop();
                return Ok(false);
            }
            Command::StandIn(given) => self.agent.set_stand_in(StandIn {
                heartbeat: given.heartbeat,
                fenced: given.fenced,
                peers: given.peers.iter().map(|peer| peer.parse().ok()).collect(),
            }),
            Command::PeerContact(contact) => self.state.contact(Boottime(contact.boottime_ns)),
        }
        Ok(true)
    }

    fn configure(&self, given: proto::Configure) -> Result<(), String> {
        let settings = Settings::new(given)?;
        let tls = Tls::new(&settings)?;
        self.state.set_timeout(settings.timeout);
        if let Some(examined) = self.examined.lock().as_ref() {
            examined.member.configure(settings.clone(), tls.clone());
        }
        *self.configured.lock() = Some((settings, tls));
        self.reports.send(Report::Adopted(self.adopted()));
        // Said again: an agent that died may not have heard it, or not have made it durable.
        if let Some(lineage) = self.state.wrote_alone() {
            self.reports.send(Report::WroteAlone(crate::control::lineage(lineage)));
        }
        Ok(())
    }

    fn adopted(&self) -> proto::Adopted {
        let examined = self.examined.lock();
        let session = examined.as_ref().and_then(|examined| examined.member.session());
        let role = session.as_ref().map_or(proto::Role::Unspecified, |(_, role, _)| match role {
            Role::Primary => proto::Role::Primary,
            Role::Secondary => proto::Role::Secondary,
        });
        proto::Adopted {
            protocol: crate::settings::PROTOCOL,
            fresh: examined.is_none(),
            mounted: !self.mounts.lock().is_empty(),
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
        }
    }

    fn knowledge(&self) -> Result<Arc<Knowledge>, String> {
        let examined = self.examined.lock();
        examined.as_ref().map(|examined| Arc::clone(&examined.engine.knowledge)).ok_or_else(not_examined)
    }

    fn join(&self, join: &proto::Join) -> Result<(), String> {
        let id = join.session.ok_or("a session without a name")?;
        let role = parse_role(join.role)?;
        let plan = match proto::Plan::try_from(join.plan) {
            Ok(plan @ (proto::Plan::Repair | proto::Plan::Delta | proto::Plan::Full)) => plan as i32,
            Ok(proto::Plan::Unspecified) | Err(_) => {
                return Err("a plan must be repair, delta or full".into());
            }
        };
        let mut examined = self.examined.lock();
        let examined = examined.as_mut().ok_or_else(not_examined)?;
        let joining = Joining { name: session_name(&id), role, plan: plan.cast_unsigned() };
        let begun = examined.member.join(&self.plane, joining);
        if let Err(reason) = begun {
            self.reports.send(Report::SessionLost(proto::SessionLost { session: Some(id), reason }));
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

    fn turn(&self, turn: &proto::Turn) -> Result<(), String> {
        let name = session_name(&turn.session.ok_or("a session without a name")?);
        let (done, end) = oneshot::channel();
        let role = parse_role(turn.role)?;
        if self.member().is_some_and(|member| member.order(name, Order::Turn(role, done))) {
            // An error means that the session ended, which is reported.
            let _ended = end.blocking_recv();
        }
        Ok(())
    }

    fn mount(&self) {
        let outcome = self.try_mount();
        match outcome {
            Ok(connections) => self.reports.send(Report::Mounted(proto::Mounted { connections })),
            Err(reason) => self.reports.send(Report::MountFailed(reason)),
        }
    }

    fn try_mount(&self) -> Result<Vec<u64>, String> {
        let mut mounts = self.mounts.lock();
        if !mounts.is_empty() {
            return Ok(mounts.connections());
        }
        let examined = self.examined.lock();
        let examined = examined.as_ref().ok_or_else(not_examined)?;
        prepare::must_be_free(&examined.backing)?;
        self.state.gate.thaw();
        self.state.set_closing(false);
        self.agent.set_fenced(false);
        *mounts = Mounts::mount(&examined.backing, &examined.engine, &examined.member.settings().module)?;
        for device in mounts.devices() {
            self.outbox.send_device(device);
        }
        Ok(mounts.connections())
    }

    fn unmount(&self, deadline: Duration) {
        let mut mounts = self.mounts.lock();
        let done = mounts.unmount(deadline, || self.state.gate.frozen());
        if !done {
            self.state.set_closing(true);
            mounts.abort();
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
        if let Some(examined) = self.examined.lock().as_ref() {
            examined.engine.nodes.clear();
        }
    }

    /// No answer leaves any more, then the connections end.
    pub fn fence(&self) {
        self.freeze();
        self.state.unsettle();
        self.mounts.lock().abort();
        self.forget_nodes();
        self.agent.set_fenced(true);
    }

    fn stop(&self) {
        if !self.mounts.lock().is_empty() {
            self.freeze();
            self.mounts.lock().abort();
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
            session.lose("the disk of this node hangs");
        }
    }

    /// What the watch needs: settings, whether anything is mounted, whether going on alone is settled, and when the
    /// other node was last heard.
    #[must_use]
    pub fn watched(&self) -> Option<(Settings, bool, bool, Boottime)> {
        let settings = self.configured.lock().as_ref().map(|(settings, _)| settings.clone())?;
        let mounted = self.mounts.try_lock().is_none_or(|mounts| !mounts.is_empty());
        Some((settings, mounted, self.state.settled().is_some(), self.state.last_contact()))
    }
}

fn not_examined() -> String {
    "the directories were not examined".into()
}

/// Number of this boot of the machine; 0 if it cannot be told, which never equals a journal's.
pub fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}
