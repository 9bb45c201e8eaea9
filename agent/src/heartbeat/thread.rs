//! The heartbeat thread: receives, sends, judges; waits for nothing but its sockets and its next deadline.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use safe_failover::Time;
use safe_proto::datagram::{MAX_DATAGRAM, open};
use safe_proto::peer as wire;

use super::judge::Judge;
use super::link::{Link, Verdict};
use super::{ClusterPlan, IDLE_TIMEOUT, PeerReport, Shared, packet};
use crate::clock;
use crate::linux::precedence::{self, Priority};
use crate::node::NodeEvent;
use crate::peer::convert::view_from_wire;

/// Between two `Heard` of the same node.
const HEARD_PAUSE: Duration = Duration::from_millis(50);
/// Datagrams taken from one socket before anything else is done.
const BURST: usize = 512;
/// Between two lines about pauses of this process.
const PAUSE_QUIET: Duration = Duration::from_secs(10);
/// Longest sleep.
const NAP: Duration = Duration::from_secs(1);

/// One other node.
pub(super) struct Peer {
    pub(super) link: Link,
    pub(super) next: Time,
    pub(super) answered: Time,
    heard_told: Time,
    judge: Judge,
    settings_version: u64,
    modules: u64,
}

/// One module.
pub(super) struct Module {
    pub(super) peer: String,
    interval: Duration,
    timeout: Duration,
    theirs: Terms,
    /// Who is told.
    listener: u64,
    pub(super) view: Option<Arc<wire::View>>,
    pub(super) number: u64,
    pub(super) sent: u64,
    judge: Judge,
    lans: Vec<String>,
    /// Newest view that the loop took: incarnation and serial.
    taken: Option<(u64, u64)>,
    /// The agent process of which it was said that it is gone, and whether the loop took that.
    gone: Option<u64>,
    gone_told: Option<u64>,
}

/// What the other node says of its timeouts: in its newest view, by process and serial.
#[derive(Debug, Default, Clone, Copy)]
struct Terms {
    incarnation: u64,
    serial: u64,
    shortest: Duration,
    longest: Duration,
}

pub(super) struct Beater<'a> {
    pub(super) shared: &'a Shared,
    generation: u64,
    pub(super) cluster: Option<Arc<ClusterPlan>>,
    pub(super) modules: BTreeMap<String, Module>,
    pub(super) digests: BTreeMap<String, u64>,
    pub(super) peers: BTreeMap<String, Peer>,
    pub(super) counter: u64,
    /// Running without a pause since then.
    awake: Time,
}

/// Nothing else depends on what is refused.
fn make_punctual(shared: &Shared) {
    if let Err(error) = precedence::real_time(Priority::Heartbeat) {
        shared.audit.warn(&format!(
            "heartbeats run without real-time priority ({error}): give safed CAP_SYS_NICE or raise its RLIMIT_RTPRIO"
        ));
    }
    if let Err(why) = precedence::lock_memory() {
        shared.audit.warn(&format!("safed runs without locked memory ({why}): give it CAP_IPC_LOCK"));
    }
}

/// The thread's body.
pub(super) fn run(shared: &Shared) {
    make_punctual(shared);
    let mut beater = Beater {
        shared,
        generation: 0,
        cluster: None,
        modules: BTreeMap::new(),
        digests: BTreeMap::new(),
        peers: BTreeMap::new(),
        counter: 0,
        awake: clock::now(),
    };
    let mut deadline = clock::now();
    while !shared.stop.load(Ordering::Acquire) {
        beater.wait(deadline);
        beater.notice_pause(deadline);
        beater.take_plan();
        beater.receive();
        beater.send(clock::now());
        beater.judge(clock::now());
        deadline = beater.deadline(clock::now());
    }
}

impl Beater<'_> {
    fn wait(&self, deadline: Time) {
        let nap = deadline.since(clock::now()).min(NAP);
        let nap = Timespec { tv_sec: nap.as_secs().cast_signed(), tv_nsec: i64::from(nap.subsec_nanos()) };
        let sockets = self.sockets();
        let mut waits = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        waits.extend(
            sockets.iter().map(|(_, socket)| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)),
        );
        // An interruption is as good as a time-out: everything is looked at anyway.
        let _interrupted = poll(&mut waits, Some(&nap));
        let mut number = [0; 8];
        let _empty = rustix::io::read(&self.shared.wake, &mut number);
    }

    fn sockets(&self) -> Vec<(usize, Arc<UdpSocket>)> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let sockets = cluster.sockets.iter().enumerate();
        sockets.filter_map(|(lan, socket)| Some((lan, Arc::clone(socket.as_ref()?)))).collect()
    }

    /// Whoever slept past his deadline heard nobody meanwhile, which is nobody else's fault.
    fn notice_pause(&mut self, deadline: Time) {
        let now = clock::now();
        let shortest = self.modules.values().map(|module| module.judge.timeout).min().unwrap_or(IDLE_TIMEOUT);
        let late = now.since(deadline);
        if late >= (shortest / 4).max(Duration::from_millis(100)) {
            let told = std::mem::replace(&mut self.awake, now);
            if now.since(told) < PAUSE_QUIET {
                return;
            }
            let ms = late.as_millis();
            let what =
                format!("this process was paused for {ms} ms: no node is declared lost for one timeout");
            self.shared.audit.warn(&what);
        }
    }

    fn take_plan(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let shared = self.shared;
        let plan = shared.plan.lock();
        let relaid = match (&self.cluster, &plan.cluster) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (old, new) => old.is_some() != new.is_some(),
        };
        self.cluster.clone_from(&plan.cluster);
        self.digests.clone_from(&plan.digests);
        let lans = self.cluster.as_ref().map(|cluster| cluster.lans.clone()).unwrap_or_default();
        if relaid {
            self.take_peers(&lans);
        }
        self.modules.retain(|name, _| plan.modules.contains_key(name));
        for (name, wanted) in &plan.modules {
            let beats = &wanted.heartbeats;
            let same = self.modules.get(name).is_some_and(|module| {
                !relaid
                    && module.peer == beats.peer
                    && module.lans == beats.lans
                    && module.timeout == beats.timeout
            });
            if !same {
                let old = self.modules.remove(name);
                let module = Module::new(
                    beats,
                    &lans,
                    old.filter(|old| old.peer == beats.peer && old.lans == beats.lans),
                );
                self.modules.insert(name.clone(), module);
            }
            if let Some(module) = self.modules.get_mut(name) {
                module.interval = beats.interval;
                module.tell_to(wanted.listener);
                module.view.clone_from(&wanted.view);
                module.number = wanted.number;
            }
        }
    }

    fn take_peers(&mut self, lans: &[String]) {
        let Some(cluster) = &self.cluster else { return };
        self.peers.retain(|name, _| cluster.peers.contains_key(name));
        for name in cluster.peers.keys() {
            let own = self.shared.incarnation;
            let all = || (0..lans.len()).map(Some).collect();
            let peer = self.peers.entry(name.clone()).or_insert_with(|| Peer {
                link: Link::new(own, lans.len()),
                next: Time(0),
                answered: Time(0),
                heard_told: Time(0),
                judge: Judge::new(all(), IDLE_TIMEOUT),
                settings_version: 0,
                modules: 0,
            });
            if peer.judge.lans.len() != lans.len() {
                peer.link.resize(lans.len());
                peer.judge = Judge::new(all(), IDLE_TIMEOUT);
            }
            peer.next = Time(0);
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for (lan, socket) in self.sockets() {
            for _ in 0..BURST {
                match socket.recv_from(&mut buffer) {
                    Ok((length, from)) => self.take(lan, &buffer[..length], from),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier datagram; it says nothing that silence does not.
                    Err(_) => {}
                }
            }
        }
    }

    fn take(&mut self, lan: usize, datagram: &[u8], from: SocketAddr) {
        let Some(cluster) = self.cluster.clone() else { return };
        let now = clock::now();
        let refuse = |why| self.shared.strangers.note(why, from, now);
        let (header, body) = match open(&cluster.key, datagram) {
            Ok(opened) => opened,
            Err(safe_proto::datagram::OpenError::Malformed) => {
                return refuse("it is not a heartbeat of this version");
            }
            Err(safe_proto::datagram::OpenError::Forged) => {
                return refuse("it is not sealed with this cluster's key");
            }
        };
        let body = match packet::read(body) {
            Ok(body) => body,
            Err(why) => return refuse(why),
        };
        if body.to != cluster.node {
            return refuse("it is for another node");
        }
        let Some(peer) = self.peers.get_mut(&body.from) else {
            return refuse("its sender is not in the cluster settings held here");
        };
        match peer.link.judge(&header, &body, lan, now) {
            Verdict::Agent => {
                if header.counter >= peer.link.echo(now).map_or(0, |echo| echo.counter) {
                    peer.settings_version = body.settings_version;
                    peer.modules = body.modules;
                }
                let contact = peer.link.echoed();
                self.heard(&body, contact, now);
                self.take_views(&body);
            }
            Verdict::StandIn => {
                // It echoes nothing: when it was sent cannot be known, so it is no contact to rely on.
                self.heard(&body, None, now);
                self.note_gone(&body, now);
                self.take_views(&body);
            }
            Verdict::Unproven => self.answer(&body.from, lan, now),
            Verdict::Refused(why) => refuse(why),
        }
    }

    fn heard(&mut self, body: &wire::Heartbeat, contact: Option<Time>, now: Time) {
        if let Some(contact) = contact
            && let Some(watch) = self.shared.contacts.lock().get(&body.from)
        {
            watch.send_if_modified(|old| {
                let newer = Some(contact) > *old;
                *old = (*old).max(Some(contact));
                newer
            });
        }
        let Some(peer) = self.peers.get_mut(&body.from) else { return };
        if now.since(peer.heard_told) < HEARD_PAUSE {
            return;
        }
        peer.heard_told = now;
        let from = || body.from.clone();
        self.shared.node.offer(NodeEvent::Heard { from: from() });
        if let Some(sent) = peer.link.echoed() {
            self.shared.node.offer(NodeEvent::Echoed { from: from(), sent });
        }
    }

    fn take_views(&mut self, body: &wire::Heartbeat) {
        for entry in &body.views {
            let Some(module) = self.modules.get_mut(&entry.module) else { continue };
            let (Some(view), true) = (&entry.view, module.peer == body.from) else { continue };
            module.note_terms(view);
            if module.taken == Some((view.incarnation, view.serial)) {
                continue;
            }
            let Ok(view) = view_from_wire(view) else {
                let why = format!("a view of module {} that no release of this version sends", entry.module);
                self.shared.audit.refused("heartbeat receiver", &why);
                continue;
            };
            let taken = (view.incarnation, view.serial);
            let (name, from) = (entry.module.clone(), body.from.clone());
            if self.shared.node.offer(NodeEvent::View { module: name, from, view: Box::new(view) }) {
                module.taken = Some(taken);
            }
        }
    }

    /// A replicator may lose its agent for a moment that the agent survives: its own heartbeats say so.
    fn note_gone(&mut self, body: &wire::Heartbeat, now: Time) {
        let Some(peer) = self.peers.get(&body.from) else { return };
        for entry in &body.views {
            if let Some(module) = self.modules.get_mut(&entry.module)
                && module.peer == body.from
                && peer.link.agent_heard().is_none_or(|heard| now.since(heard) > module.interval)
            {
                module.gone = Some(body.stands_for);
            }
        }
    }

    fn judge(&mut self, now: Time) {
        let shared = self.shared;
        for (name, module) in &mut self.modules {
            let link = self.peers.get(&module.peer).map(|peer| &peer.link);
            module.judge.look(name, link, self.awake, now);
            module.judge.tell(|lan, up| shared.node.offer(NodeEvent::Lan { module: name.clone(), lan, up }));
            if module.gone.is_some() && module.gone != module.gone_told {
                let event = NodeEvent::AgentGone { module: name.clone(), from: module.peer.clone() };
                if shared.node.offer(event) {
                    module.gone_told = module.gone;
                }
            }
        }
        let mut notable = false;
        let mut reports = shared.reports.lock();
        reports.retain(|name, _| self.peers.contains_key(name));
        for (name, peer) in &mut self.peers {
            peer.judge.look("", Some(&peer.link), self.awake, now);
            let report = peer.report();
            let old = reports.entry(name.clone()).or_default();
            let told = |report: &PeerReport| {
                (report.is_reachable(), report.incarnation, report.settings_version, report.modules)
            };
            notable |= told(old) != told(&report);
            *old = report;
        }
        drop(reports);
        if notable {
            shared.notable.send_modify(|number| *number += 1);
        }
    }

    fn deadline(&self, now: Time) -> Time {
        let beats = self.peers.values().map(|peer| peer.next);
        let judged = self.modules.iter().filter_map(|(name, module)| {
            let link = self.peers.get(&module.peer).map(|peer| &peer.link);
            // A deadline that has passed without a change waits for the next beat.
            module.judge.deadline(name, link, self.awake).filter(|deadline| *deadline > now)
        });
        beats.chain(judged).min().unwrap_or(now + NAP).min(now + NAP)
    }
}

impl Peer {
    fn report(&self) -> PeerReport {
        let lans = 0..self.judge.lans.len();
        PeerReport {
            lans: lans.map(|lan| (self.judge.is_up(lan), self.link.heard(lan))).collect(),
            incarnation: self.link.incarnation(),
            settings_version: self.settings_version,
            modules: self.modules,
        }
    }
}

impl Module {
    fn new(beats: &crate::node::Heartbeats, lans: &[String], old: Option<Self>) -> Self {
        let indexes = beats.lans.iter().map(|lan| lans.iter().position(|known| known == lan)).collect();
        let mut judge = Judge::new(indexes, beats.timeout);
        let (mut taken, mut gone, mut gone_told, mut sent) = (None, None, None, 0);
        let (mut theirs, mut listener) = (Terms::default(), 0);
        if let Some(old) = old {
            judge.inherit(&old.judge);
            (taken, gone, gone_told, sent) = (old.taken, old.gone, old.gone_told, old.sent);
            (theirs, listener) = (old.theirs, old.listener);
            judge.timeout = beats.timeout.max(theirs.longest);
        }
        Self {
            peer: beats.peer.clone(),
            interval: beats.interval,
            timeout: beats.timeout,
            theirs,
            listener,
            view: None,
            number: 0,
            sent,
            judge,
            lans: beats.lans.clone(),
            taken,
            gone,
            gone_told,
        }
    }

    /// How often heartbeats go out for it.
    pub(super) fn pace(&self) -> Duration {
        safe_failover::pace(self.interval, self.timeout, self.theirs.shortest)
    }

    /// The other node's timeout may be another one for a moment: until both have the same, the longer one counts.
    fn note_terms(&mut self, view: &wire::View) {
        let known = self.theirs;
        if view.incarnation == known.incarnation && view.serial <= known.serial {
            return;
        }
        let [timeout, grace] = [view.timeout_ms, view.grace_ms].map(|ms| Duration::from_millis(ms.into()));
        let (shortest, longest) = (timeout.min(grace), timeout.max(grace));
        self.theirs = Terms { incarnation: view.incarnation, serial: view.serial, shortest, longest };
        self.judge.timeout = self.timeout.max(longest);
    }

    /// Another core listens: it is told everything from the beginning.
    fn tell_to(&mut self, listener: u64) {
        if self.listener != listener {
            self.listener = listener;
            self.judge.forget_told();
            (self.taken, self.gone_told) = (None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn module(interval: Duration, timeout: Duration) -> Module {
        let (peer, lans) = ("n2".to_owned(), vec!["default".to_owned()]);
        Module::new(&crate::node::Heartbeats { peer, lans: lans.clone(), interval, timeout }, &lans, None)
    }

    fn says(serial: u64, timeout_ms: u32, grace_ms: u32) -> wire::View {
        wire::View { incarnation: 5, serial, timeout_ms, grace_ms, ..wire::View::default() }
    }

    #[test]
    fn while_timeouts_differ_the_other_node_hears_enough_and_is_waited_for() {
        let mut module = module(MS * 300, MS * 3000);
        assert_eq!(module.pace(), MS * 300);
        module.note_terms(&says(2, 200, 3000));
        assert_eq!((module.pace(), module.judge.timeout), (MS * 50, MS * 3000));
        module.note_terms(&says(1, 9000, 9000));
        assert_eq!(module.pace(), MS * 50, "an older word counts no more");
        module.note_terms(&says(3, 9000, 3000));
        assert_eq!((module.pace(), module.judge.timeout), (MS * 300, MS * 9000));
        module.note_terms(&says(4, 3000, 3000));
        assert_eq!((module.pace(), module.judge.timeout), (MS * 300, MS * 3000));
    }
}
