//! What two clients were told by two hosts, put side by side.

use std::fmt;
use std::time::{Duration, Instant};

use crate::ledger::client::Acknowledged;

/// A host that acknowledges again within this time has served meanwhile: no service moves there and back so fast.
const GAP: Duration = Duration::from_millis(150);

/// A time in which a host certainly served: from its first answer to the last request that it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: Instant,
    to: Instant,
}

/// Both hosts served at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// How long, at least.
    pub time: Duration,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {:?} at least", self.time)
    }
}

/// The longest time at which both served, if there is one.
pub fn overlap(one: &[Acknowledged], other: &[Acknowledged]) -> Option<Overlap> {
    let (one, other) = (windows(one), windows(other));
    let both = one.iter().flat_map(|a| other.iter().map(move |b| (a.from.max(b.from), a.to.min(b.to))));
    both.filter(|(from, to)| from < to)
        .map(|(from, to)| Overlap { time: to.duration_since(from) })
        .max_by_key(|overlap| overlap.time)
}

fn windows(acknowledged: &[Acknowledged]) -> Vec<Window> {
    let mut windows: Vec<(Window, Instant)> = Vec::new();
    for one in acknowledged {
        match windows.last_mut() {
            Some((window, heard)) if one.heard.saturating_duration_since(*heard) <= GAP => {
                window.to = one.sent;
                *heard = one.heard;
            }
            Some(_) | None => windows.push((Window { from: one.heard, to: one.sent }, one.heard)),
        }
    }
    windows.into_iter().map(|(window, _)| window).filter(|window| window.from < window.to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Answers every 10 ms from one time to another, in milliseconds.
    fn answers(begin: Instant, from: u64, to: u64) -> Vec<Acknowledged> {
        let at = |millis| begin + Duration::from_millis(millis);
        (from..to).step_by(10).map(|ms| Acknowledged { id: ms, sent: at(ms), heard: at(ms + 5) }).collect()
    }

    #[test]
    fn two_hosts_that_answer_at_once_are_found() {
        let begin = clock::now();
        let found = overlap(&answers(begin, 0, 1000), &answers(begin, 900, 2000));
        assert!(found.is_some_and(|found| found.time >= Duration::from_millis(80)));
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let begin = clock::now();
        let mut first = answers(begin, 0, 1000);
        first.extend(answers(begin, 3000, 4000));
        assert_eq!(overlap(&first, &answers(begin, 1010, 2900)), None);
        assert_eq!(overlap(&first, &[]), None);
    }
}
