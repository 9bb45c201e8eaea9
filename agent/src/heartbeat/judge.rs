//! Whether a lan is up for a module: heard in both directions within the module's timeout. Pure.

use std::time::Duration;

use safe_failover::Time;

use super::link::Link;

/// The lans of one module.
#[derive(Debug)]
pub(super) struct Judge {
    /// For each of the module's lans its index in the cluster settings; none: the cluster has no such lan.
    pub(super) lans: Vec<Option<usize>>,
    /// Silence after which a lan is down.
    pub(super) timeout: Duration,
    up: Vec<bool>,
    told: Vec<bool>,
}

impl Judge {
    /// All lans down, and known to be.
    pub(super) fn new(lans: Vec<Option<usize>>, timeout: Duration) -> Self {
        let count = lans.len();
        Self { lans, timeout, up: vec![false; count], told: vec![false; count] }
    }

    /// Goes on from the state of another one for the same lans.
    pub(super) fn inherit(&mut self, old: &Self) {
        if old.up.len() == self.up.len() {
            self.up.clone_from(&old.up);
            self.told.clone_from(&old.told);
        }
    }

    /// Nobody was told anything: all lans are down for who listens.
    pub(super) fn forget_told(&mut self) {
        self.told.fill(false);
    }

    /// Looks again. A process that was suspended, and ran again only since `awake`, declares nothing down before it
    /// was awake for one timeout.
    pub(super) fn look(&mut self, module: &str, link: Option<&Link>, awake: Time, now: Time) {
        for (lan, up) in self.lans.iter().zip(&mut self.up) {
            let (Some(lan), Some(link)) = (*lan, link) else {
                *up = false;
                continue;
            };
            let heard = link.heard_for(module, lan);
            let silent = heard.is_none_or(|heard| now.since(heard) >= self.timeout);
            if !silent && link.hears_us(module, lan, self.timeout) {
                *up = true;
            } else if now.since(awake) >= self.timeout
                && (silent || link.is_deaf(module, lan, self.timeout, now))
            {
                *up = false;
            }
        }
    }

    /// When a lan that is up goes down if nothing more is heard.
    pub(super) fn deadline(&self, module: &str, link: Option<&Link>, awake: Time) -> Option<Time> {
        let link = link?;
        let up = self.lans.iter().zip(&self.up).filter_map(|(lan, up)| lan.filter(|_| *up));
        up.filter_map(|lan| link.heard_for(module, lan)).min().map(|heard| heard.max(awake) + self.timeout)
    }

    /// Hands over what changed; what is not taken is offered again the next time.
    pub(super) fn tell(&mut self, mut take: impl FnMut(u8, bool) -> bool) {
        for (index, (up, told)) in self.up.iter().zip(&mut self.told).enumerate() {
            let index = u8::try_from(index).unwrap_or(u8::MAX);
            if up != told && take(index, *up) {
                *told = *up;
            }
        }
    }

    /// Whether the node is heard at all.
    pub(super) fn is_up(&self, index: usize) -> bool {
        self.up.get(index).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use safe_proto::datagram::{Header, Origin};
    use safe_proto::peer::{Echo, Heartbeat};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Time {
        Time(1_000_000_000 + ms * 1_000_000)
    }

    fn beat(link: &mut Link, counter: u64, ages_ms: Vec<u32>, now: Time) {
        let header = Header { origin: Origin::Agent, lan: 0, incarnation: 5, counter };
        let echo = Some(Echo { incarnation: 1, counter: 1, ages_ms });
        link.judge(&header, &Heartbeat { echo, ..Heartbeat::default() }, 0, now);
    }

    fn met() -> (Link, Judge) {
        let mut link = Link::new(1, 1);
        link.note_sent(1, at(0));
        beat(&mut link, 1, vec![1], at(0));
        let mut judge = Judge::new(vec![Some(0), None], TIMEOUT);
        judge.look("db", Some(&link), Time(0), at(1));
        assert!(judge.is_up(0) && !judge.is_up(1));
        (link, judge)
    }

    #[test]
    fn silence_takes_exactly_one_timeout() {
        let (link, mut judge) = met();
        assert_eq!(judge.deadline("db", Some(&link), Time(0)), Some(at(3000)));
        judge.look("db", Some(&link), Time(0), at(2999));
        assert!(judge.is_up(0));
        judge.look("db", Some(&link), Time(0), at(3000));
        assert!(!judge.is_up(0));
    }

    #[test]
    fn one_direction_alone_is_not_up() {
        let (mut link, mut judge) = met();
        beat(&mut link, 2, vec![2990], at(3000));
        judge.look("db", Some(&link), Time(0), at(3000));
        assert!(judge.is_up(0));
        beat(&mut link, 3, vec![3001], at(3300));
        judge.look("db", Some(&link), Time(0), at(3300));
        assert!(!judge.is_up(0), "heard, but not hearing us");
        beat(&mut link, 4, vec![1], at(3600));
        judge.look("db", Some(&link), Time(0), at(3600));
        assert!(judge.is_up(0));
    }

    #[test]
    fn after_a_pause_a_full_timeout_must_pass_awake() {
        let (mut link, mut judge) = met();
        let awake = at(60_000);
        judge.look("db", Some(&link), awake, at(60_001));
        assert!(judge.is_up(0));
        beat(&mut link, 2, vec![60_000], at(60_002));
        judge.look("db", Some(&link), awake, at(60_002));
        assert!(judge.is_up(0), "the peer did not hear us because we slept");
        assert_eq!(judge.deadline("db", Some(&link), awake), Some(at(63_002)));
        judge.look("db", Some(&link), awake, at(63_002));
        assert!(!judge.is_up(0));
    }

    #[test]
    fn changes_are_told_until_they_are_taken() {
        let (_, mut judge) = met();
        let mut told = Vec::new();
        judge.tell(|_, _| false);
        judge.tell(|lan, up| {
            told.push((lan, up));
            true
        });
        judge.tell(|_, _| unreachable!());
        assert_eq!(told, vec![(0, true)]);
    }
}
