//! Whether clients can reach this node over an interface of the module's addresses: the carrier of its cables.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Setup;
use super::netlink::Interface;

/// Interfaces are looked at this often, should the kernel's word be missed.
const AGAIN: Duration = Duration::from_secs(10);

/// Watches the interfaces.
#[derive(Debug)]
pub(super) struct Carrier {
    changes: watch::Receiver<u64>,
    again: Interval,
    /// The module has addresses: else nothing is watched.
    wanted: bool,
    /// Interfaces chosen last: one that went down may have taken along what it was chosen by.
    known: BTreeSet<u32>,
    /// What was said last.
    said: Option<bool>,
}

impl Carrier {
    pub(super) fn new(setup: &Setup) -> Self {
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let changes = setup.netlink.changes();
        Self { changes, again, wanted: !setup.addresses.is_empty(), known: BTreeSet::new(), said: None }
    }

    /// An interface may have changed. Safe to drop and to call again.
    pub(super) async fn changed(&mut self) {
        if !self.wanted {
            return std::future::pending().await;
        }
        tokio::select! {
            Ok(()) = self.changes.changed() => {}
            _ = self.again.tick() => {}
        }
    }

    /// Whether one of the interfaces chosen has a carrier, if that is news.
    pub(super) fn judge<'a>(
        &mut self,
        chosen: impl Iterator<Item = Option<&'a Interface>>,
        interfaces: &[Interface],
    ) -> Option<bool> {
        let found: BTreeSet<u32> = chosen.flatten().map(|interface| interface.index).collect();
        if !found.is_empty() {
            self.known = found;
        }
        if self.known.is_empty() {
            // Not known yet where the addresses belong.
            return None;
        }
        let carrier = interfaces.iter().any(|one| one.carrier && self.known.contains(&one.index));
        (self.said.replace(carrier) != Some(carrier)).then_some(carrier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, carrier: bool) -> Interface {
        Interface { index, name: format!("eth{index}"), mac: None, carrier }
    }

    #[tokio::test]
    async fn one_carrier_is_enough_and_only_news_are_told() {
        let (_told, changes) = watch::channel(0);
        let (known, again) = (BTreeSet::new(), interval(AGAIN));
        let mut carrier = Carrier { changes, again, wanted: true, known, said: None };
        let (up, down) =
            ([interface(1, true), interface(2, false)], [interface(1, false), interface(2, false)]);
        assert_eq!(carrier.judge([None].into_iter(), &up), None, "not known where the addresses belong");
        assert_eq!(carrier.judge(up.iter().map(Some), &up), Some(true));
        assert_eq!(carrier.judge(up.iter().map(Some), &up), None, "no news");
        assert_eq!(carrier.judge([None].into_iter(), &down), Some(false), "what was chosen before counts");
        assert_eq!(
            carrier.judge([None].into_iter(), &[]),
            None,
            "a cable that is gone has no carrier either"
        );
    }
}
