//! What is known of one other node from its datagrams: which are new, which process sends them, what it hears of us.
//! Pure: time is a parameter.
//!
//! A capture must not count twice, also not after this process or the other one restarted. Counters rise within one
//! process of the sender, per lan. A process not known yet is believed only when its datagram echoes this process's
//! own random incarnation with a counter sent moments ago; until then it is answered with an echo of its own, so that
//! it can. Processes that were replaced are remembered and never believed again. A stand-in names the agent's
//! incarnation it stands for: that must be the one believed last, and only one replicator process may do so per module.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use safe_failover::Time;
use safe_proto::datagram::{Header, Origin};
use safe_proto::peer::{Echo, Heartbeat};

/// How old the sent datagram may be that a new process echoes.
const FRESH: Duration = Duration::from_secs(10);
/// Beats remembered with their times.
const SENT: usize = 256;
/// Replaced processes remembered.
const RETIRED: usize = 64;
/// Stand-ins remembered: one per module.
const STAND_INS: usize = 256;

/// What to make of an authenticated datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// New, from the agent of that node.
    Agent,
    /// New, from a replicator in the agent's place.
    StandIn,
    /// From a process not yet known to be alive now: answer it, believe nothing.
    Unproven,
    /// Not to be believed.
    Refused(&'static str),
}

/// The state of one lan towards the node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LanLink {
    last: u64,
    /// When anything new of its agent came on this lan.
    pub(super) heard: Option<Time>,
    /// For how long the node had not heard us on this lan, by its own last word; none: never.
    silent_there: Option<Duration>,
}

#[derive(Debug)]
struct StandInLink {
    stands_for: u64,
    incarnation: u64,
    last: Vec<u64>,
    heard: Vec<Option<Time>>,
}

/// One other node.
#[derive(Debug)]
pub(super) struct Link {
    own: u64,
    known: Option<u64>,
    known_since: Time,
    unproven: Option<(u64, u64)>,
    retired: VecDeque<u64>,
    newest: u64,
    lans: Vec<LanLink>,
    stand_ins: BTreeMap<String, StandInLink>,
    sent: VecDeque<(u64, Time)>,
    echoed: Option<Time>,
}

impl Link {
    /// A node nothing is known of, on this many lans; `own` is this process's incarnation.
    pub(super) fn new(own: u64, lans: usize) -> Self {
        Self {
            own,
            known: None,
            known_since: Time(0),
            unproven: None,
            retired: VecDeque::new(),
            newest: 0,
            lans: vec![LanLink::default(); lans],
            stand_ins: BTreeMap::new(),
            sent: VecDeque::new(),
            echoed: None,
        }
    }

    /// Lans may be added to a cluster.
    pub(super) fn resize(&mut self, lans: usize) {
        self.lans.resize(lans, LanLink::default());
    }

    /// Notes that a beat began with this counter.
    pub(super) fn note_sent(&mut self, counter: u64, now: Time) {
        if self.sent.len() == SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((counter, now));
    }

    /// Judges an authenticated datagram that came on this lan.
    pub(super) fn judge(&mut self, header: &Header, body: &Heartbeat, lan: usize, now: Time) -> Verdict {
        if usize::from(header.lan) != lan || lan >= self.lans.len() {
            return Verdict::Refused("it was sent on another lan");
        }
        if header.counter == 0 {
            return Verdict::Refused("it has no counter");
        }
        match header.origin {
            Origin::Agent => self.judge_agent(header, body, lan, now),
            Origin::StandIn => self.judge_stand_in(header, body, lan, now),
        }
    }

    fn judge_agent(&mut self, header: &Header, body: &Heartbeat, lan: usize, now: Time) -> Verdict {
        if self.known != Some(header.incarnation) {
            if self.retired.contains(&header.incarnation) {
                return Verdict::Refused("its process has ended");
            }
            if !self.proves(body.echo.as_ref(), now) {
                self.unproven = Some((header.incarnation, header.counter));
                return Verdict::Unproven;
            }
            self.adopt(header.incarnation, now);
        }
        if header.counter <= self.lans[lan].last {
            return Verdict::Refused("it is a repetition");
        }
        self.lans[lan].last = header.counter;
        self.lans[lan].heard = Some(now);
        if header.counter > self.newest {
            self.newest = header.counter;
            if let Some(echo) = &body.echo {
                self.take_echo(echo);
            }
        }
        Verdict::Agent
    }

    fn judge_stand_in(&mut self, header: &Header, body: &Heartbeat, lan: usize, now: Time) -> Verdict {
        let [view] = body.views.as_slice() else {
            return Verdict::Refused("a stand-in speaks for one module");
        };
        if self.known != Some(body.stands_for) {
            return Verdict::Refused("it stands for a process that is not the last one");
        }
        if self.stand_ins.len() >= STAND_INS && !self.stand_ins.contains_key(&view.module) {
            return Verdict::Refused("there are too many stand-ins");
        }
        let lans = self.lans.len();
        let fresh = || StandInLink {
            stands_for: body.stands_for,
            incarnation: header.incarnation,
            last: vec![0; lans],
            heard: vec![None; lans],
        };
        let link = self.stand_ins.entry(view.module.clone()).or_insert_with(fresh);
        if link.stands_for != body.stands_for {
            *link = fresh();
        }
        link.last.resize(lans, 0);
        link.heard.resize(lans, None);
        if link.incarnation != header.incarnation {
            return Verdict::Refused("another process stands in already");
        }
        if header.counter <= link.last[lan] {
            return Verdict::Refused("it is a repetition");
        }
        link.last[lan] = header.counter;
        link.heard[lan] = Some(now);
        Verdict::StandIn
    }

    fn proves(&self, echo: Option<&Echo>, now: Time) -> bool {
        let Some(echo) = echo else { return false };
        echo.incarnation == self.own && self.sent_at(echo.counter).is_some_and(|sent| now.since(sent) < FRESH)
    }

    fn adopt(&mut self, incarnation: u64, now: Time) {
        if let Some(old) = self.known.replace(incarnation) {
            if self.retired.len() == RETIRED {
                self.retired.pop_front();
            }
            self.retired.push_back(old);
        }
        self.known_since = now;
        self.unproven = None;
        self.newest = 0;
        for lan in &mut self.lans {
            lan.last = 0;
            lan.silent_there = None;
        }
    }

    fn take_echo(&mut self, echo: &Echo) {
        if echo.incarnation != self.own {
            return;
        }
        if let Some(sent) = self.sent_at(echo.counter) {
            self.echoed = self.echoed.max(Some(sent));
        }
        for (lan, age) in self.lans.iter_mut().zip(&echo.ages_ms) {
            lan.silent_there = age.checked_sub(1).map(|age| Duration::from_millis(u64::from(age)));
        }
    }

    fn sent_at(&self, counter: u64) -> Option<Time> {
        let index = self.sent.partition_point(|(first, _)| *first <= counter);
        index.checked_sub(1).map(|index| self.sent[index].1)
    }

    /// What to tell the node of what was heard of it.
    pub(super) fn echo(&self, now: Time) -> Option<Echo> {
        let (incarnation, counter) = self.known.map(|known| (known, self.newest)).or(self.unproven)?;
        Some(Echo {
            incarnation,
            counter,
            ages_ms: self.lans.iter().map(|lan| age(lan.heard, now)).collect(),
        })
    }

    /// The same for a process that is not proven yet.
    pub(super) fn answer(&self) -> Option<Echo> {
        let (incarnation, counter) = self.unproven?;
        Some(Echo { incarnation, counter, ages_ms: vec![0; self.lans.len()] })
    }

    /// Incarnation of the node's agent.
    pub(super) const fn incarnation(&self) -> Option<u64> {
        self.known
    }

    /// When the newest datagram that the node has heard was sent.
    pub(super) const fn echoed(&self) -> Option<Time> {
        self.echoed
    }

    /// When anything of the agent came last, on any lan.
    pub(super) fn agent_heard(&self) -> Option<Time> {
        self.lans.iter().filter_map(|lan| lan.heard).max()
    }

    /// When anything of the agent came last on this lan.
    pub(super) fn heard(&self, lan: usize) -> Option<Time> {
        self.lans.get(lan).and_then(|lan| lan.heard)
    }

    /// When anything for this module came last on this lan: of the agent, or of the module's stand-in.
    pub(super) fn heard_for(&self, module: &str, lan: usize) -> Option<Time> {
        let stand_in = self.stand_ins.get(module).filter(|link| self.known == Some(link.stands_for));
        self.heard(lan).max(stand_in.and_then(|link| link.heard.get(lan).copied().flatten()))
    }

    /// A stand-in of this module was heard later than the agent, on any lan.
    fn stands_in(&self, module: &str) -> bool {
        let stand_in = self.stand_ins.get(module).filter(|link| self.known == Some(link.stands_for));
        stand_in.and_then(|link| link.heard.iter().flatten().max().copied()) > self.agent_heard()
    }

    /// The node, by its own last word, heard us on this lan within `timeout`.
    pub(super) fn hears_us(&self, module: &str, lan: usize, timeout: Duration) -> bool {
        // A stand-in sends and does not listen.
        self.stands_in(module)
            || self.lans.get(lan).and_then(|lan| lan.silent_there).is_some_and(|silent| silent < timeout)
    }

    /// The node, by its own word, has not heard us on this lan for `timeout`. A process that began later than that
    /// has had no time to.
    pub(super) fn is_deaf(&self, module: &str, lan: usize, timeout: Duration, now: Time) -> bool {
        let silent = self.lans.get(lan).and_then(|lan| lan.silent_there);
        !self.stands_in(module) && silent.unwrap_or_else(|| now.since(self.known_since)) >= timeout
    }
}

fn age(heard: Option<Time>, now: Time) -> u32 {
    heard.map_or(0, |heard| u32::try_from(now.since(heard).as_millis()).unwrap_or(u32::MAX).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use safe_proto::peer::ModuleView;

    use super::*;

    const OWN: u64 = 77;
    const TIMEOUT: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Time {
        Time(1_000_000_000 + ms * 1_000_000)
    }

    fn header(incarnation: u64, counter: u64) -> Header {
        Header { origin: Origin::Agent, lan: 0, incarnation, counter }
    }

    fn echo(incarnation: u64, counter: u64, ages_ms: Vec<u32>) -> Heartbeat {
        Heartbeat { echo: Some(Echo { incarnation, counter, ages_ms }), ..Heartbeat::default() }
    }

    fn met() -> Link {
        let mut link = Link::new(OWN, 2);
        link.note_sent(1, at(0));
        assert_eq!(link.judge(&header(5, 1), &echo(OWN, 1, vec![1, 0]), 0, at(10)), Verdict::Agent);
        link
    }

    #[test]
    fn a_new_process_is_believed_only_when_it_echoes_this_one() {
        let mut link = Link::new(OWN, 1);
        link.note_sent(1, at(0));
        assert_eq!(link.judge(&header(5, 1), &Heartbeat::default(), 0, at(1)), Verdict::Unproven);
        assert_eq!(link.answer().map(|echo| (echo.incarnation, echo.counter)), Some((5, 1)));
        assert_eq!(link.judge(&header(5, 2), &echo(OWN + 1, 1, vec![]), 0, at(2)), Verdict::Unproven);
        assert_eq!(link.judge(&header(5, 3), &echo(OWN, 0, vec![]), 0, at(2)), Verdict::Unproven);
        assert_eq!(link.judge(&header(5, 3), &echo(OWN, 1, vec![]), 0, at(11_000)), Verdict::Unproven);
        assert_eq!(link.heard(0), None);
        assert_eq!(link.judge(&header(5, 4), &echo(OWN, 1, vec![]), 0, at(3)), Verdict::Agent);
        assert_eq!(link.heard(0), Some(at(3)));
    }

    #[test]
    fn repetitions_and_other_lans_are_refused() {
        let mut link = met();
        assert!(matches!(link.judge(&header(5, 1), &Heartbeat::default(), 0, at(11)), Verdict::Refused(_)));
        assert!(matches!(link.judge(&header(5, 2), &Heartbeat::default(), 1, at(11)), Verdict::Refused(_)));
        assert_eq!(link.judge(&header(5, 3), &Heartbeat::default(), 0, at(12)), Verdict::Agent);
        assert!(matches!(link.judge(&header(5, 2), &Heartbeat::default(), 0, at(13)), Verdict::Refused(_)));
        let other = Header { lan: 1, ..header(5, 2) };
        assert_eq!(
            link.judge(&other, &Heartbeat::default(), 1, at(14)),
            Verdict::Agent,
            "a slower lan counts for itself"
        );
    }

    #[test]
    fn a_replaced_process_never_comes_back() {
        let mut link = met();
        link.note_sent(2, at(100));
        assert_eq!(link.judge(&header(6, 1), &echo(OWN, 2, vec![]), 0, at(110)), Verdict::Agent);
        assert!(matches!(link.judge(&header(5, 9), &echo(OWN, 2, vec![]), 0, at(120)), Verdict::Refused(_)));
    }

    #[test]
    fn an_echo_tells_when_we_were_heard_and_where() {
        let mut link = met();
        assert_eq!(link.echoed(), Some(at(0)));
        assert!(link.hears_us("db", 0, TIMEOUT) && !link.hears_us("db", 1, TIMEOUT));
        link.note_sent(10, at(300));
        link.judge(&header(5, 2), &echo(OWN, 12, vec![3001, 1]), 0, at(310));
        assert_eq!(link.echoed(), Some(at(300)), "a datagram of the beat that began with 10");
        assert!(link.is_deaf("db", 0, TIMEOUT, at(310)) && link.hears_us("db", 1, TIMEOUT));
    }

    #[test]
    fn a_restarted_peer_is_not_called_deaf_before_it_could_hear() {
        let mut link = met();
        link.note_sent(2, at(100));
        link.judge(&header(6, 1), &echo(OWN, 2, vec![0, 0]), 0, at(110));
        assert!(!link.hears_us("db", 0, TIMEOUT) && !link.is_deaf("db", 0, TIMEOUT, at(120)));
        assert!(link.is_deaf("db", 0, TIMEOUT, at(3200)));
    }

    fn stand_in(stands_for: u64) -> Heartbeat {
        let views = vec![ModuleView { module: "db".to_owned(), view: None }];
        Heartbeat { stands_for, views, ..Heartbeat::default() }
    }

    #[test]
    fn a_stand_in_counts_for_its_module_and_its_agent_only() {
        let mut link = met();
        let head = |incarnation, counter| Header { origin: Origin::StandIn, ..header(incarnation, counter) };
        assert_eq!(link.judge(&head(9, 1), &stand_in(5), 0, at(1000)), Verdict::StandIn);
        assert!(matches!(link.judge(&head(9, 1), &stand_in(5), 0, at(1001)), Verdict::Refused(_)));
        assert!(matches!(link.judge(&head(8, 2), &stand_in(5), 0, at(1001)), Verdict::Refused(_)));
        assert!(matches!(link.judge(&head(9, 2), &stand_in(4), 0, at(1001)), Verdict::Refused(_)));
        assert_eq!(link.heard_for("db", 0), Some(at(1000)));
        assert_eq!(link.heard_for("web", 0), Some(at(10)));
        assert!(!link.is_deaf("db", 0, TIMEOUT, at(9000)), "a stand-in does not listen");
        link.note_sent(2, at(1100));
        assert_eq!(link.judge(&header(6, 1), &echo(OWN, 2, vec![]), 0, at(1200)), Verdict::Agent);
        assert!(matches!(link.judge(&head(9, 3), &stand_in(5), 0, at(1201)), Verdict::Refused(_)));
    }
}
