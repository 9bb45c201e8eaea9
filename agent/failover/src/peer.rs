//! What this node knows of the other one: its last view and when it was heard.

use std::time::Duration;

use crate::time::Time;
use crate::view::{Mode, View};

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// The newest view.
    pub(crate) view: Option<Box<View>>,
    /// Its agent is gone; the view is what it last said.
    pub(crate) agent_gone: bool,
    /// Last authenticated packet.
    pub(crate) heard: Option<Time>,
    /// When we sent the newest packet of ours that it is known to have heard.
    echoed: Option<Time>,
    /// Last contact of an earlier agent process.
    before: Option<Time>,
    /// Since when this node has been awake without a pause: who slept cannot say that the other was silent.
    pub(crate) awake: Time,
    /// Which process speaks, what it does, and since when it has been so.
    pub(crate) standing: Option<(u64, Mode, bool)>,
    pub(crate) standing_since: Time,
    /// Lans that are up, one bit each; for people.
    pub(crate) lans: u64,
}

impl Peer {
    pub(crate) fn hear(&mut self, now: Time) {
        self.heard = self.heard.max(Some(now));
    }

    /// Another process of this node was in contact before; when, only its replicator can say. Where it cannot, little
    /// is left of the time in which to find the peer or the arbiter.
    pub(crate) fn adopt(&mut self, contact: Option<Time>, now: Time, timeout: Duration) {
        let spent = u64::try_from((timeout * 8 / 10).as_nanos()).unwrap_or(u64::MAX);
        self.before = Some(contact.unwrap_or(Time(now.0.saturating_sub(spent))));
    }

    pub(crate) fn echo(&mut self, sent: Time) {
        self.echoed = self.echoed.max(Some(sent));
    }

    pub(crate) fn lan(&mut self, lan: u8, up: bool, now: Time) {
        let bit = 1_u64.checked_shl(u32::from(lan)).unwrap_or(0);
        if up {
            self.lans |= bit;
            self.hear(now);
        } else {
            self.lans &= !bit;
        }
    }

    /// Last proof of life in this direction; while this node was not awake it proves nothing.
    pub(crate) fn contact(&self) -> Time {
        self.heard.map_or(self.awake, |heard| heard.max(self.awake))
    }

    /// Last proof of life in both directions.
    pub(crate) fn mutual(&self) -> Time {
        let contact = self.contact();
        self.echoed.map_or(contact, |echoed| contact.min(echoed.max(self.awake)))
    }

    /// The same without regard to pauses of this node: who slept through the timeout is the one that is lost.
    pub(crate) fn raw_mutual(&self) -> Time {
        let heard = self.heard.or(self.before).unwrap_or(self.awake);
        self.echoed.map_or(heard, |echoed| heard.min(echoed))
    }

    /// How long nothing was heard.
    pub(crate) fn silence(&self, now: Time) -> Duration {
        now.since(self.contact())
    }

    /// The peer has been heard within the timeout and its agent speaks.
    pub(crate) fn present(&self, now: Time, timeout: Duration) -> Option<&View> {
        let silent = self.heard.is_none_or(|heard| now.since(heard) >= timeout);
        if self.agent_gone || silent { None } else { self.view.as_deref() }
    }
}
