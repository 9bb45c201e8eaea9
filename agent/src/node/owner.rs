//! The loop: one typed event at a time, and nothing slow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::Event;
use safe_failover::event::Command;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::install::{self, Installer};
use super::load::{Ground, Loaded, load};
use super::runtime::Runtime;
use super::slot::Slot;
use super::{
    Context, Membership, ModuleName, Network, NodeEvent, Refusal, Reply, Report, Statuses, boot, wait,
};
use crate::address::Netlink;
use crate::arbiter::Witnesses;
use crate::children::Children;
use crate::node::Startup;
use crate::{clock, command, replica, spec_store, status};

/// Reports that may wait. Their senders wait for room, so this only has to carry a burst.
const REPORTS: usize = 1024;

/// Ends of slow work that may wait.
const ENDS: usize = 256;

/// Longest wait for the replicator of a module that is replaced or removed.
const REPLICATOR_END: Duration = Duration::from_secs(20);

/// The owner of all modules.
pub struct Owner {
    ground: Ground,
    inbox: mpsc::Receiver<NodeEvent>,
    reports: mpsc::Receiver<Report>,
    ends: mpsc::Receiver<End>,
    end: mpsc::Sender<End>,
    membership: watch::Receiver<Option<Arc<Membership>>>,
    statuses: watch::Sender<Statuses>,
    installer: Installer,
    slots: BTreeMap<ModuleName, Slot>,
    runtimes: u64,
    /// The last step was a tick.
    ticked: bool,
}

/// A thread in real time must not spin: a deadline that a tick did not move is looked at again after this time.
const NAP: Duration = Duration::from_millis(1);

/// Slow work has ended.
enum End {
    Listed(std::io::Result<Vec<ModuleName>>),
    Loaded { module: ModuleName, runtime: u64, loaded: Loaded },
    Committed { module: ModuleName, done: Result<(), Refusal>, reply: Reply<()> },
    Removed { module: ModuleName, done: Result<(), Refusal>, reply: Reply<()> },
    BootDelay { module: ModuleName, runtime: u64 },
}

/// What the loop waits for.
enum Step {
    Outside(NodeEvent),
    Report(Report),
    End(End),
    Membership,
    Tick,
    Shutdown,
}

impl Owner {
    /// Everything but the loop itself. `inbox` and `statuses` come from `NodeHandle::new`.
    ///
    /// # Errors
    /// The kernel does not offer what is needed.
    pub fn new(
        context: Context,
        network: Arc<dyn Network>,
        children: Children,
        inbox: mpsc::Receiver<NodeEvent>,
        statuses: watch::Sender<Statuses>,
    ) -> Result<Self, Startup> {
        let netlink =
            Netlink::open().map_err(|error| Startup(format!("cannot open a netlink socket: {error}")))?;
        let boot_id =
            boot::boot_id().map_err(|error| Startup(format!("cannot read the boot id: {error}")))?;
        let membership = network.membership();
        let (report, reports) = mpsc::channel(REPORTS);
        let (end, ends) = mpsc::channel(ENDS);
        let ground = Ground {
            context,
            network,
            membership: membership.clone(),
            netlink,
            witnesses: Witnesses::new(membership.clone()),
            children,
            reports: report,
            boot_id,
        };
        Ok(Self {
            ground,
            inbox,
            reports,
            ends,
            end,
            membership,
            statuses,
            installer: Installer::default(),
            slots: BTreeMap::new(),
            runtimes: 0,
            ticked: false,
        })
    }

    /// Runs on the calling thread until the daemon ends; what is slow is done by the runtime. Modules go on under their
    /// replicators.
    pub fn run(mut self, runtime: &Handle) {
        let _entered = runtime.enter();
        self.membership.mark_changed();
        loop {
            match self.next() {
                Step::Outside(event) => self.outside(event),
                Step::Report(report) => self.report(report),
                Step::End(end) => self.ended(end),
                Step::Membership => self.changed(),
                Step::Tick => self.tick(),
                Step::Shutdown => return,
            }
        }
    }

    fn next(&mut self) -> Step {
        let timeout = self.slots.values().filter_map(Slot::timeout).min();
        let mut rest = timeout.map(|at| at.since(clock::now()));
        let ticked = std::mem::take(&mut self.ticked);
        if rest == Some(Duration::ZERO) && ticked {
            rest = Some(NAP);
        }
        // Whatever else there is: who has a deadline is not kept from it for longer than one step takes.
        let step = if rest == Some(Duration::ZERO) { None } else { wait::within(rest, self.select()) };
        self.ticked = step.is_none();
        step.unwrap_or(Step::Tick)
    }

    async fn select(&mut self) -> Step {
        tokio::select! {
            () = self.ground.context.shutdown.cancelled() => Step::Shutdown,
            Some(event) = self.inbox.recv() => Step::Outside(event),
            Some(report) = self.reports.recv() => Step::Report(report),
            Some(end) = self.ends.recv() => Step::End(end),
            Ok(()) = self.membership.changed() => Step::Membership,
        }
    }

    fn tick(&mut self) {
        let now = clock::now();
        let due = |slot: &Slot| slot.timeout().is_some_and(|at| at <= now);
        let names: Vec<ModuleName> =
            self.slots.iter().filter(|(_, slot)| due(slot)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.with(&name, |runtime| {
                runtime.drive(Event::Tick);
            });
        }
    }

    fn outside(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::View { module, from, view } => self.with(&module, |runtime| runtime.view(&from, view)),
            NodeEvent::Heard { from } => self.with_peer(&from, &Event::Heard),
            NodeEvent::Echoed { from, sent } => self.with_peer(&from, &Event::Echoed(sent)),
            NodeEvent::Lan { module, lan, up } => self.with(&module, |runtime| runtime.lan(lan, up)),
            NodeEvent::AgentGone { module, from } => self.with(&module, |runtime| {
                if runtime.mirror.pair.peer == from {
                    runtime.drive(Event::PeerAgentGone);
                }
            }),
            NodeEvent::Stream { module, socket } => self.with(&module, |runtime| {
                // Without room the connection is closed: the peer tries again.
                runtime.mirror.replica.offer(replica::Order::Stream(socket));
            }),
            NodeEvent::Control { module, command, reply } => self.control(&module, command, reply),
            NodeEvent::PauseResync { module, seconds, reply } => {
                let paused = self.runtime(&module).and_then(|runtime| runtime.pause_resync(seconds));
                answer(reply, paused);
            }
            NodeEvent::PrepareInstall { install, reply } => self.prepare(*install, reply),
            NodeEvent::CommitInstall { module, version, reply } => self.commit(module, version, reply),
            NodeEvent::AbortInstall { module, version, reply } => self.abort(module, version, reply),
            NodeEvent::PrepareRemove { module, reply } => answer(reply, self.removable(&module)),
            NodeEvent::Remove { module, reply } => self.remove(module, reply),
            NodeEvent::Inspect { module, reply } => {
                let answered = self.runtime(&module).map(|runtime| runtime.inspect());
                answer(reply, answered);
            }
            NodeEvent::SetResource { module, resource: name, value, reason, reply } => {
                let set = self.runtime(&module).map(|runtime| {
                    runtime.drive(Event::Resource { name, value, reason });
                });
                answer(reply, set);
                self.publish(&module);
            }
            NodeEvent::List { reply } => {
                let modules = self.slots.values().filter_map(Slot::module);
                answer(reply, Ok(modules.map(|module| install::info(module)).collect()));
            }
        }
    }

    fn report(&mut self, report: Report) {
        self.with(&report.module, |runtime| {
            if runtime.number == report.runtime {
                runtime.report(report.what);
            }
        });
    }

    /// Does something to a module that runs, and publishes what became of it.
    fn with(&mut self, module: &str, work: impl FnOnce(&mut Runtime)) {
        if let Some(Slot::Mirror(runtime)) = self.slots.get_mut(module) {
            work(runtime);
            let renew = runtime.renew && runtime.at_rest();
            self.publish(module);
            if renew {
                self.renew(module, Vec::new());
            }
        }
    }

    fn runtime(&mut self, module: &str) -> Result<&mut Runtime, Refusal> {
        match self.slots.get_mut(module) {
            Some(Slot::Mirror(runtime)) => Ok(runtime),
            Some(slot) => Err(slot.refusal(module)),
            None => Err(not_found(module)),
        }
    }

    fn with_peer(&mut self, peer: &str, event: &Event) {
        let of_peer = |slot: &Slot| matches!(slot, Slot::Mirror(runtime) if runtime.mirror.pair.peer == peer);
        let names: Vec<ModuleName> =
            self.slots.iter().filter(|(_, slot)| of_peer(slot)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.with(&name, |runtime| {
                runtime.drive(event.clone());
            });
        }
    }

    fn publish(&self, module: &str) {
        let membership = self.membership.borrow().clone();
        let fresh = self.slots.get(module).and_then(|slot| slot.status(module, membership.as_deref()));
        self.statuses.send_if_modified(|statuses| {
            let before = statuses.get(module);
            match fresh {
                None if before.is_none() => false,
                None => {
                    Arc::make_mut(statuses).remove(module);
                    true
                }
                Some(mut after) => {
                    let changed = status::follow(before, &mut after);
                    if changed {
                        Arc::make_mut(statuses).insert(module.to_owned(), after);
                    }
                    changed
                }
            }
        });
    }

    fn control(&mut self, module: &str, command: Command, reply: Reply<String>) {
        match self.slots.get_mut(module) {
            Some(Slot::Mirror(runtime)) => {
                if command::wants_running(command) {
                    let (record, boot_id) = (runtime.mirror.module.paths.boot(), self.ground.boot_id);
                    tokio::task::spawn_blocking(move || boot::settle(&record, boot_id));
                }
                runtime.control(command, reply);
                self.publish(module);
            }
            Some(slot) => answer(reply, Err(slot.refusal(module))),
            None => answer(reply, Err(not_found(module))),
        }
    }
}

mod change;

fn not_found(module: &str) -> Refusal {
    Refusal::NotFound(format!("there is no module {module} on this node; type: safectl module list"))
}

fn answer<T>(reply: Reply<T>, what: Result<T, Refusal>) {
    // Who asked has gone.
    let _gone = reply.send(what);
}
