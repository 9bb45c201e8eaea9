//! Sending: regular beats, new views at once, and answers to processes that are not proven yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::Time;
use safe_proto::datagram::{Header, Origin, seal};
use safe_proto::peer::{Echo, Heartbeat, View};

use super::thread::Beater;
use super::{IDLE_INTERVAL, packet};

/// Between two answers to the same node.
const ANSWER_PAUSE: Duration = Duration::from_millis(50);

impl Beater<'_> {
    /// Sends what is due to every node.
    pub(super) fn send(&mut self, now: Time) {
        let names: Vec<String> = self.peers.keys().cloned().collect();
        for name in names {
            let due = self.peers.get(&name).is_some_and(|peer| now >= peer.next);
            let modules = self.modules.iter_mut().filter(|(_, module)| module.peer == name);
            let mut interval = IDLE_INTERVAL;
            let mut views: Vec<(String, Arc<View>)> = Vec::new();
            for (module_name, module) in modules {
                interval = interval.min(module.pace());
                let Some(view) = &module.view else { continue };
                if due || module.sent != module.number {
                    module.sent = module.number;
                    views.push((module_name.clone(), Arc::clone(view)));
                }
            }
            if due && let Some(peer) = self.peers.get_mut(&name) {
                let regular = peer.next + interval;
                peer.next = if regular > now { regular } else { now + interval };
            }
            if due || !views.is_empty() {
                let echo = self.peers.get(&name).and_then(|peer| peer.link.echo(now));
                self.beat(&name, None, echo, &views, now);
            }
        }
    }

    /// Answers a process that cannot be believed yet, so that it can prove itself.
    pub(super) fn answer(&mut self, name: &str, lan: usize, now: Time) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        if now.since(peer.answered) < ANSWER_PAUSE {
            return;
        }
        peer.answered = now;
        let echo = peer.link.answer();
        self.beat(name, Some(lan), echo, &[], now);
    }

    fn beat(
        &mut self,
        name: &str,
        only: Option<usize>,
        echo: Option<Echo>,
        views: &[(String, Arc<View>)],
        now: Time,
    ) {
        let Some(cluster) = self.cluster.clone() else { return };
        let head = Heartbeat {
            from: cluster.node.clone(),
            to: name.to_owned(),
            settings_version: cluster.version,
            echo,
            modules: self.digests.get(name).copied().unwrap_or(0),
            ..Heartbeat::default()
        };
        let borrowed: Vec<_> = views.iter().map(|(module, view)| (module.as_str(), view)).collect();
        let (bodies, oversized) = packet::bodies(&head, &borrowed);
        for module in oversized {
            let why =
                format!("the view of module {module} does not fit a datagram: node {name} does not hear it");
            self.shared.audit.refused("heartbeat sender", &why);
        }
        if let Some(peer) = self.peers.get_mut(name) {
            peer.link.note_sent(self.counter + 1, now);
        }
        let Some(addresses) = cluster.peers.get(name) else { return };
        for (lan, address) in addresses.iter().enumerate() {
            if only.is_some_and(|only| only != lan) {
                continue;
            }
            if let Some(address) = address {
                bodies.iter().for_each(|body| self.send_body(lan, *address, body));
            }
        }
    }

    fn send_body(&mut self, lan: usize, address: SocketAddr, body: &[u8]) {
        let Some(cluster) = &self.cluster else { return };
        let Some(Some(socket)) = cluster.sockets.get(lan) else { return };
        self.counter += 1;
        let header = Header {
            origin: Origin::Agent,
            lan: u8::try_from(lan).unwrap_or(u8::MAX),
            incarnation: self.shared.incarnation,
            counter: self.counter,
        };
        if let Some(datagram) = seal(&cluster.key, header, body) {
            // No buffer, no route, interface down: the silence tells the other side.
            drop(socket.send_to(&datagram, address));
        }
    }
}
