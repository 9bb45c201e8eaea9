//! The cluster as the owner loop sees it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use safe_failover::Time;
use safe_failover::view::View;
use tokio::sync::watch;

use super::Cluster;
use crate::node::{Heartbeats, Membership, Network, StandIn};

impl Network for Cluster {
    fn membership(&self) -> watch::Receiver<Option<Arc<Membership>>> {
        self.membership.subscribe()
    }

    fn watch_module(&self, module: &str, heartbeats: Heartbeats) {
        self.heart.watch_module(module, heartbeats);
    }

    fn listen_anew(&self, module: &str) {
        self.heart.listen_anew(module);
    }

    fn forget_module(&self, module: &str) {
        self.heart.forget_module(module);
    }

    fn publish(&self, module: &str, view: View) {
        self.heart.publish(module, &view);
    }

    fn contact(&self, peer: &str) -> watch::Receiver<Option<Time>> {
        self.heart.contact(peer)
    }

    fn sockets(&self, module: &str) -> Vec<(u8, OwnedFd)> {
        self.heart.sockets(module)
    }

    fn stand_in(&self, module: &str, gone: View, fenced: View) -> Option<StandIn> {
        self.heart.stand_in(module, &gone, &fenced)
    }
}
