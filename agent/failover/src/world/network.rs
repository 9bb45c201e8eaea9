//! Lans, heartbeats, streams.

use std::time::Duration;

use crate::hard::Role;
use crate::view::{SessionId, View};
use crate::{Event, Time};

use super::host::Writes;
use super::{Happening, World};

/// One lan: each direction may be cut.
#[derive(Debug, Clone, Default, Hash)]
pub struct Lan {
    /// Packets of this host do not arrive.
    pub cut: [bool; 2],
}

/// One heartbeat.
#[derive(Debug, Clone, Hash)]
pub struct Packet {
    pub from: usize,
    /// Life of the sending agent.
    pub life: u64,
    pub view: Option<View>,
    pub sent: Time,
    /// When the receiver sent the newest packet that the sender had heard.
    pub echo: Option<Time>,
    /// The sender's agent is gone; its replicator says so, and whether it has fenced itself (then with a view).
    pub stand_in: bool,
}

/// What travels between replicators.
#[derive(Debug, Clone, Hash)]
pub enum StreamMessage {
    /// `done`: what is on both nodes by now.
    Op { session: SessionId, bit: Writes, sent: Time, done: Writes },
    /// `sent`: when the acknowledged operation was sent. Contact counts from there: a host that slept may find an
    /// old answer in its socket.
    Ack { session: SessionId, bit: Writes, sent: Time },
}

impl World {
    /// Some lan works in both directions.
    pub fn path(&self) -> bool {
        !self.stream_cut && self.lans.iter().any(|lan| lan.cut == [false, false])
    }

    /// No lan works in both directions.
    pub fn all_cut(&self) -> bool {
        self.lans.iter().all(|lan| lan.cut != [false, false])
    }

    pub fn send(&mut self, from: usize, packet: &Packet) {
        for index in 0..self.lans.len() {
            if self.lans[index].cut[from] || self.random.percent(self.chance.loss) {
                continue;
            }
            let copies = if self.random.percent(self.chance.twice) { 2 } else { 1 };
            for _ in 0..copies {
                let mut delay = self.upto(self.chance.packet);
                if self.random.percent(self.chance.late) {
                    delay += self.upto(Duration::from_millis(1500));
                }
                self.after(delay, Happening::Packet { to: 1 - from, packet: Box::new(packet.clone()) });
            }
        }
    }

    pub fn heartbeat(&mut self, host: usize, life: u64) {
        if self.hosts[host].agent_life != life || self.hosts[host].agent.is_none() {
            return;
        }
        self.send_view(host);
        let Some(agent) = &self.hosts[host].agent else { return };
        let interval = agent.core.beat();
        self.after(interval, Happening::Heartbeat { host, life });
    }

    pub fn send_view(&mut self, host: usize) {
        let machine = &self.hosts[host];
        let Some(agent) = &machine.agent else { return };
        let view = agent.told.clone();
        let packet = Packet {
            from: host,
            life: machine.agent_life,
            view,
            sent: self.now,
            echo: machine.peer_sent,
            stand_in: false,
        };
        self.send(host, &packet);
    }

    pub fn receive(&mut self, to: usize, packet: Packet) {
        let machine = &mut self.hosts[to];
        if !machine.up {
            return;
        }
        if let Some(replicator) = &mut machine.replicator {
            replicator.heard = self.now;
            replicator.echoed = replicator.echoed.max(packet.echo);
        }
        machine.peer_sent = machine.peer_sent.max(Some(packet.sent));
        if machine.agent.is_none() {
            return;
        }
        self.look_at_version(to);
        if let Some(echo) = packet.echo {
            self.handle(to, Event::Echoed(echo));
            if self.hosts[to].frozen {
                self.asleep.push(Happening::Packet { to, packet: Box::new(packet) });
                return;
            }
        }
        if packet.stand_in && packet.life < self.hosts[to].seen.0 {
            return;
        }
        if packet.stand_in && packet.view.is_none() {
            self.handle(to, Event::PeerAgentGone);
            return;
        }
        let newest = (packet.life, packet.view.as_ref().map_or(0, |view| view.serial));
        match packet.view {
            Some(view) if newest > self.hosts[to].seen => {
                self.hosts[to].seen = newest;
                self.handle(to, Event::Peer(Box::new(view)));
            }
            Some(_) | None if newest.0 >= self.hosts[to].seen.0 => self.handle(to, Event::Heard),
            Some(_) | None => {}
        }
    }

    pub fn stand_in(&mut self, host: usize, life: u64) {
        let machine = &self.hosts[host];
        if machine.replicator_life != life || machine.agent.is_some() {
            return;
        }
        let Some(replicator) = &machine.replicator else { return };
        let interval = machine.config.interval.min(replicator.limit / 4);
        let view = if replicator.fenced && !machine.addresses {
            replicator.stand_in.as_ref().map(|(_, fenced)| fenced.clone())
        } else {
            None
        };
        // The life of the agent it stands for: a newer agent's views win.
        let packet = Packet {
            from: host,
            life: machine.agent_life - 1,
            view,
            sent: self.now,
            echo: machine.peer_sent,
            stand_in: true,
        };
        self.send(host, &packet);
        self.fence_without_agent(host);
        self.after(interval, Happening::StandIn { host, life });
    }

    pub fn stream(&mut self, to: usize, message: StreamMessage) {
        let now = self.now;
        let Some(replicator) = &mut self.hosts[to].replicator else { return };
        let Some(stream) = &mut replicator.stream else { return };
        match message {
            StreamMessage::Op { session, bit, sent, done } => {
                if stream.id != session || !stream.up || stream.role != Role::Secondary {
                    return;
                }
                stream.contact = now;
                if self.hosts[to].disk_full {
                    self.refuse(to, session);
                    return;
                }
                let disk = &mut self.hosts[to].disk;
                disk.data |= bit;
                disk.since |= bit;
                disk.known = (disk.known & !done) | bit;
                let delay = self.upto(self.chance.packet);
                self.after(
                    delay,
                    Happening::Stream { to: 1 - to, message: StreamMessage::Ack { session, bit, sent } },
                );
            }
            StreamMessage::Ack { session, bit, sent } => {
                if stream.id != session || !stream.up {
                    return;
                }
                stream.contact = stream.contact.max(sent);
                for op in &mut replicator.ops {
                    if op.bit == bit {
                        op.acked = Some(session);
                    }
                }
                self.progress(to);
            }
        }
    }
}
