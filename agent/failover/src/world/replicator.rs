//! The replicator with abstract data: sets of writes, in flight, in page cache, on disk.

use std::time::Duration;

use crate::Time;
use crate::action::ReplicatorCommand;
use crate::event::{Loss, ReplicatorEvent};
use crate::hard::Role;
use crate::left_out::LeftOut;
use crate::lineage::LineageId;
use crate::view::{Copy, Plan, SessionId};

use super::host::{Op, Replicator, Stream, Writes};
use super::network::StreamMessage;
use super::{Happening, World};

/// As a replicator says it.
const NO_ROOM: &str = "/srv/db lacks space: 2.0 GiB more are needed, 1.0 GiB is free";

impl World {
    pub fn begin_replicator(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        machine.replicator_life += 1;
        machine.command_at = Time::default();
        let knows = machine.disk.clean && !machine.disk.lost;
        machine.disk.clean = false;
        machine.replicator = Some(Replicator {
            knows,
            heard: self.now,
            limit: machine.config.timeout,
            ..Replicator::default()
        });
    }

    pub fn end_replicator(&mut self, host: usize, clean: bool) {
        let machine = &mut self.hosts[host];
        let Some(replicator) = machine.replicator.take() else { return };
        machine.disk.clean = clean && replicator.ops.is_empty();
        if !machine.disk.clean {
            machine.disk.lost = true;
            machine.disk.known = 0;
        }
        machine.replicator_life += 1;
    }

    pub fn command(&mut self, host: usize, command: ReplicatorCommand) {
        if self.hosts[host].replicator.is_none() {
            return;
        }
        self.deeds += 1;
        match command {
            ReplicatorCommand::Start { accept } => self.examine(host, &accept),
            ReplicatorCommand::OpenJournal(lineage) => self.open_journal(host, lineage),
            ReplicatorCommand::Mark(lineage) => {
                self.hosts[host].disk.marker = Some(lineage);
                self.edit(host, |replicator| replicator.copy = Some(Copy::Known));
                self.report(host, ReplicatorEvent::Marked(lineage));
            }
            ReplicatorCommand::Join { session, role, plan, room } => {
                self.join(host, session, role, plan, !room);
            }
            ReplicatorCommand::Receive(session) => self.edit(host, |replicator| {
                if let Some(stream) = replicator.stream.as_mut().filter(|stream| stream.id == session) {
                    stream.open = true;
                }
            }),
            ReplicatorCommand::Leave(session) => {
                self.drop_stream(host, session);
                self.report(host, ReplicatorEvent::SessionEnded(session));
            }
            ReplicatorCommand::Turn(session, role) => self.turn(host, session, role),
            ReplicatorCommand::Mount => self.mount(host),
            ReplicatorCommand::Settle(lineage) => {
                self.edit(host, |replicator| replicator.settled = Some(lineage));
                self.check_settle(host);
                self.progress(host);
            }
            ReplicatorCommand::Unsettle => self.edit(host, |replicator| replicator.settled = None),
            // Nothing is changed by it.
            ReplicatorCommand::Verify { .. } => {}
            ReplicatorCommand::Limit(limit) => {
                self.edit(host, |replicator| replicator.limit = limit);
                self.report(host, ReplicatorEvent::Limited(limit));
            }
            ReplicatorCommand::Archive(lineage) => self.archive(host, lineage),
            ReplicatorCommand::ClearJournal => {
                self.hosts[host].disk.dirty = 0;
                self.edit(host, |replicator| replicator.journal = None);
                self.report(host, ReplicatorEvent::Cleared);
            }
            ReplicatorCommand::Unmount(deadline) => self.unmount(host, deadline),
            ReplicatorCommand::Fence => {
                self.fence_now(host);
                self.report(host, ReplicatorEvent::Fenced);
            }
            ReplicatorCommand::Stop => {
                self.end_replicator(host, true);
                self.report(host, ReplicatorEvent::Stopped);
            }
            ReplicatorCommand::Uncover | ReplicatorCommand::Kill => {}
        }
    }

    pub fn edit(&mut self, host: usize, change: impl FnOnce(&mut Replicator)) {
        if let Some(replicator) = &mut self.hosts[host].replicator {
            change(replicator);
        }
    }

    fn examine(&mut self, host: usize, accept: &[LineageId]) {
        let machine = &mut self.hosts[host];
        if machine.refuses {
            self.report(host, ReplicatorEvent::Refused("the directory is missing".to_owned()));
            return;
        }
        let copy = match machine.disk.marker {
            Some(marker) if accept.contains(&marker) => Copy::Known,
            None if accept.is_empty() && machine.disk.data == 0 => Copy::Empty,
            None if accept.is_empty() => Copy::Unlabelled,
            Some(_) | None => Copy::Unknown,
        };
        let Some(replicator) = &mut machine.replicator else { return };
        replicator.copy = Some(copy);
        let knows_inflight = replicator.knows;
        self.report(host, ReplicatorEvent::Ready { copy, knows_inflight });
    }

    fn open_journal(&mut self, host: usize, lineage: LineageId) {
        let machine = &mut self.hosts[host];
        let Some(replicator) = &mut machine.replicator else { return };
        let ops: Writes = replicator.ops.iter().map(|op| op.bit).fold(0, |all, bit| all | bit);
        replicator.journal = Some(lineage);
        machine.disk.dirty |= machine.disk.known | ops;
        self.report(host, ReplicatorEvent::JournalOpen(lineage));
    }

    /// Keeps what the journal says; where its knowledge was lost, everything.
    fn archive(&mut self, host: usize, lineage: LineageId) {
        let machine = &mut self.hosts[host];
        let outcome = if machine.archive_full {
            Err("it takes 3 GiB, of which 1 GiB are left".to_owned())
        } else {
            let marked =
                if machine.disk.lost { Writes::MAX } else { machine.disk.dirty | machine.disk.known };
            let kept = machine.disk.data & marked;
            machine.disk.archived |= kept;
            Ok((kept != 0).then(|| "what this copy alone holds is kept".to_owned()))
        };
        self.report(host, ReplicatorEvent::Archived { lineage, outcome });
    }

    fn join(&mut self, host: usize, id: SessionId, role: Role, plan: Plan, open: bool) {
        let contact = self.now;
        self.edit(host, |replicator| {
            replicator.overslept = false;
            replicator.stream = Some(Stream { id, role, plan, open, up: false, copied: false, contact });
            replicator.in_step = false;
            replicator.unquiet = false;
        });
    }

    fn drop_stream(&mut self, host: usize, id: SessionId) {
        self.edit(host, |replicator| {
            if replicator.stream.as_ref().is_some_and(|stream| stream.id == id) {
                replicator.stream = None;
                replicator.in_step = false;
            }
        });
        self.progress(host);
    }

    fn turn(&mut self, host: usize, id: SessionId, role: Role) {
        let unquiet = self.hosts[host].replicator.as_ref().is_some_and(|replicator| replicator.unquiet);
        if unquiet && self.stream_of(host) == Some(id) {
            // Operations are under way whose end it does not know.
            self.lose_stream(host, id, Loss::Here);
            return;
        }
        self.edit(host, |replicator| {
            if let Some(stream) = replicator.stream.as_mut().filter(|stream| stream.id == id) {
                stream.role = role;
            }
        });
    }

    fn mount(&mut self, host: usize) {
        if self.hosts[host].mount_fails {
            self.report(host, ReplicatorEvent::MountFailed("device is busy".to_owned()));
            return;
        }
        self.edit(host, |replicator| {
            replicator.mounted = true;
            replicator.fenced = false;
        });
        self.report(host, ReplicatorEvent::Mounted);
    }

    fn unmount(&mut self, host: usize, deadline: Duration) {
        let life = self.hosts[host].replicator_life;
        let pending =
            self.hosts[host].replicator.as_ref().is_some_and(|replicator| !replicator.ops.is_empty());
        if pending {
            self.after(deadline.min(Duration::from_millis(500)), Happening::UnmountDeadline { host, life });
            return;
        }
        self.edit(host, |replicator| replicator.mounted = false);
        self.report(host, ReplicatorEvent::Unmounted);
    }

    pub fn unmount_deadline(&mut self, host: usize, life: u64) {
        if self.hosts[host].replicator_life != life || !self.hosts[host].mounted() {
            return;
        }
        let aborted =
            self.hosts[host].replicator.as_ref().is_some_and(|replicator| !replicator.ops.is_empty());
        self.drop_ops(host);
        self.edit(host, |replicator| replicator.mounted = false);
        self.report(host, if aborted { ReplicatorEvent::Aborted } else { ReplicatorEvent::Unmounted });
    }

    /// Operations that end in an error may have reached the other node.
    fn drop_ops(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        let Some(replicator) = &mut machine.replicator else { return };
        for op in std::mem::take(&mut replicator.ops) {
            machine.disk.known |= op.bit;
            replicator.unquiet = true;
        }
    }

    fn fence_now(&mut self, host: usize) {
        self.drop_ops(host);
        self.edit(host, |replicator| {
            replicator.mounted = false;
            replicator.settled = None;
            replicator.fenced = true;
        });
    }

    /// A replicator without an agent: unsettled it fences itself at 0.9 of the timeout of silence, in every case at
    /// `agent_timeout`.
    pub fn fence_without_agent(&mut self, host: usize) {
        let machine = &self.hosts[host];
        let (Some(gone), Some(replicator)) = (machine.agent_gone, &machine.replicator) else { return };
        let silent = self.now.since(replicator.contact()) >= replicator.limit * 9 / 10;
        let late = self.now.since(gone) >= machine.config.agent_timeout;
        let silent =
            (silent || replicator.overslept) && !machine.config.lacks(LeftOut::AgentlessFencesInSilence);
        let late = late && !machine.config.lacks(LeftOut::AgentlessFencesInTime);
        if replicator.fenced {
            // By the agent's order: it may have died before it did the rest.
            self.hosts[host].application = false;
            self.hosts[host].addresses = false;
            return;
        }
        if !(late || (silent && replicator.settled.is_none())) {
            return;
        }
        self.note(host, "replicator fences itself");
        self.deeds += 1;
        self.fence_now(host);
        self.edit(host, |replicator| {
            replicator.stream = None;
            replicator.in_step = false;
        });
        self.hosts[host].application = false;
        self.hosts[host].addresses = false;
    }

    // Operations.

    pub fn application_writes(&mut self, host: usize) {
        let Some(every) = self.write_every else { return };
        let machine = &mut self.hosts[host];
        if !machine.up || !machine.application {
            return;
        }
        let Some(replicator) = machine.replicator.as_mut().filter(|replicator| replicator.mounted) else {
            return;
        };
        if replicator.ops.len() < 3
            && let Some(bit) = self.oracle.next_write()
        {
            replicator.ops.push(Op { bit, sent: None, sent_at: Time::default(), acked: None });
            self.progress(host);
        }
        let delay = self.upto(every * 2);
        self.after(delay, Happening::Write { host });
    }

    /// Carries every operation as far as it may go.
    pub fn progress(&mut self, host: usize) {
        let Some(replicator) = &self.hosts[host].replicator else { return };
        let ops = replicator.ops.clone();
        for op in ops {
            self.carry(host, &op);
        }
    }

    fn carry(&mut self, host: usize, op: &Op) {
        let now = self.now;
        let machine = &mut self.hosts[host];
        let Some(replicator) = &mut machine.replicator else { return };
        let timeout = replicator.limit;
        if !replicator.mounted || replicator.fenced {
            return;
        }
        let synchronous = replicator
            .stream
            .as_ref()
            .filter(|stream| stream.up && stream.copied && stream.role == Role::Primary)
            .cloned();
        if let Some(stream) = synchronous {
            let again = op.acked != Some(stream.id) && now.since(op.sent_at) > Duration::from_millis(300);
            if op.sent != Some(stream.id) || again {
                machine.disk.since |= op.bit;
                machine.disk.known |= op.bit;
                if replicator.journal.is_some() {
                    machine.disk.dirty |= op.bit;
                }
                for own in &mut replicator.ops {
                    if own.bit == op.bit {
                        own.sent = Some(stream.id);
                        own.sent_at = now;
                    }
                }
                let delay = self.upto(self.chance.packet);
                self.deeds += 1;
                let done = !self.hosts[host].disk.known;
                let message = StreamMessage::Op { session: stream.id, bit: op.bit, sent: now, done };
                if self.path() {
                    self.after(delay, Happening::Stream { to: 1 - host, message });
                }
                return;
            }
            let fresh = now.since(stream.contact) < timeout * 9 / 10
                || machine.config.lacks(LeftOut::ReplyNeedsContact);
            if op.acked == Some(stream.id) && (fresh || replicator.settled.is_some()) {
                self.reply(host, op.bit, false);
            }
            return;
        }
        let held = replicator.stream.as_ref().is_some_and(|stream| stream.up && stream.copied);
        if replicator.settled.is_some() && !held {
            machine.disk.since |= op.bit;
            machine.disk.dirty |= op.bit;
            self.reply(host, op.bit, true);
        }
    }

    fn reply(&mut self, host: usize, bit: Writes, alone: bool) {
        self.deeds += 1;
        let machine = &mut self.hosts[host];
        machine.disk.data |= bit;
        if !alone {
            machine.disk.known &= !bit;
        }
        let Some(replicator) = &mut machine.replicator else { return };
        replicator.ops.retain(|op| op.bit != bit);
        let first = alone && replicator.wrote_alone != replicator.settled;
        if first {
            replicator.wrote_alone = replicator.settled;
        }
        let lineage = replicator.settled;
        if let (true, Some(lineage)) = (first, lineage) {
            self.report(host, ReplicatorEvent::WroteAlone(lineage));
        }
        self.acknowledged(host, bit, alone);
    }

    // Streams.

    /// Streams come up, live, break.
    pub fn pump(&mut self) {
        let path = self.path() && self.hosts[0].alive() && self.hosts[1].alive();
        let ids = [self.stream_of(0), self.stream_of(1)];
        let same = ids[0].is_some() && ids[0] == ids[1];
        for host in 0..2 {
            if !self.hosts[host].alive() {
                continue;
            }
            let now = self.now;
            let stall = self.hosts[host].config.stall_timeout;
            let Some(replicator) = &mut self.hosts[host].replicator else { continue };
            let Some(stream) = &mut replicator.stream else { continue };
            let (id, role, open) = (stream.id, stream.role, stream.open);
            if path && same {
                stream.contact = now;
                if stream.up {
                    self.progress(host);
                } else {
                    stream.up = true;
                    self.report(host, ReplicatorEvent::SessionUp(id));
                    if role == Role::Primary {
                        self.begin_copy(host, id);
                    } else if !open {
                        self.look_for_room(host, id);
                    }
                }
            } else if stream.up && now.since(stream.contact) >= stall * 6 / 10 {
                self.lose_stream(host, id, Loss::Silence);
            } else if now.since(stream.contact) >= stall || (stream.up && !same && path) {
                self.lose_stream(host, id, Loss::Stream);
            }
        }
        let pause = if self.chance.none { 100 } else { 50 };
        self.after(Duration::from_millis(pause), Happening::Pump);
    }

    fn stream_of(&self, host: usize) -> Option<SessionId> {
        self.hosts[host].replicator.as_ref()?.stream.as_ref().map(|stream| stream.id)
    }

    /// The connection is reset: both ends see it, each in its own time.
    pub fn break_stream(&mut self) {
        for host in 0..2 {
            if let Some(id) = self.stream_of(host) {
                self.lose_stream(host, id, Loss::Stream);
            }
        }
    }

    /// Before anything is changed on the target.
    fn look_for_room(&mut self, target: usize, session: SessionId) {
        let outcome = if self.hosts[target].too_small { Err(NO_ROOM.to_owned()) } else { Ok(()) };
        let fits = outcome.is_ok();
        self.report(target, ReplicatorEvent::Room { session, outcome });
        if !fits {
            self.lose_stream(target, session, Loss::Stream);
            self.lose_stream_because(1 - target, session, Loss::Failed, NO_ROOM);
        }
    }

    fn lose_stream(&mut self, host: usize, session: SessionId, loss: Loss) {
        let reason = match loss {
            Loss::Failed => "the other node could not carry out an operation: no space left on device",
            Loss::Stream | Loss::Silence | Loss::Here | Loss::Left => "the stream ended",
        };
        self.lose_stream_because(host, session, loss, reason);
    }

    fn lose_stream_because(&mut self, host: usize, session: SessionId, loss: Loss, reason: &str) {
        self.deeds += 1;
        self.drop_stream(host, session);
        self.report(host, ReplicatorEvent::SessionLost { session, loss, reason: reason.to_owned() });
    }

    /// The target cannot do what the source sent: both end the session, and only the source knows why.
    pub fn refuse(&mut self, target: usize, session: SessionId) {
        self.lose_stream(target, session, Loss::Stream);
        self.lose_stream(1 - target, session, Loss::Failed);
    }

    fn begin_copy(&mut self, source: usize, session: SessionId) {
        let life = self.hosts[source].replicator_life;
        let half = self.upto(self.chance.local * 20);
        self.after(half, Happening::Copy { source, life, session, last: false });
        let end = half + self.upto(self.chance.local * 20);
        self.after(end, Happening::Copy { source, life, session, last: true });
    }

    pub fn copy(&mut self, source: usize, life: u64, session: SessionId, last: bool) {
        let target = 1 - source;
        let live = |world: &Self, host: usize| {
            let stream =
                world.hosts[host].replicator.as_ref().and_then(|replicator| replicator.stream.as_ref());
            world.hosts[host].alive()
                && stream.is_some_and(|stream| stream.id == session && stream.up && stream.open)
        };
        if self.hosts[source].replicator_life != life || !live(self, source) {
            return;
        }
        if !live(self, target) || !self.path() {
            // The target's end is not up yet or may not be changed yet, or the stream is stuck.
            self.after(Duration::from_millis(50), Happening::Copy { source, life, session, last });
            return;
        }
        let done = self.hosts[source].replicator.as_ref().and_then(|replicator| replicator.stream.as_ref());
        if done.is_some_and(|stream| stream.copied) {
            return;
        }
        if self.hosts[target].disk_full {
            self.refuse(target, session);
            return;
        }
        let some = match (last, self.chance.none) {
            (true, _) => Writes::MAX,
            // Every other one.
            (false, true) => 0x5555_5555_5555_5555_5555_5555_5555_5555,
            (false, false) => self.random.bits(),
        };
        self.deeds += 1;
        let changed = self.repair(source, target, some);
        if !last {
            return;
        }
        self.check_copied(source, changed);
        for host in [source, target] {
            self.hosts[host].disk.lost = false;
            self.hosts[host].disk.known = 0;
            let now = self.now;
            self.edit(host, |replicator| {
                replicator.in_step = true;
                replicator.knows = true;
                if let Some(stream) = &mut replicator.stream {
                    stream.copied = true;
                    stream.contact = now;
                }
            });
            self.report(host, ReplicatorEvent::InStep(session));
        }
        self.hosts[target].disk.synced = self.hosts[target].disk.data;
        self.progress(source);
    }

    /// Brings part of what may differ to the target; answers what the plan covers.
    fn repair(&mut self, source: usize, target: usize, some: Writes) -> Writes {
        let plan = self.hosts[source]
            .replicator
            .as_ref()
            .and_then(|replicator| replicator.stream.as_ref())
            .map(|s| s.plan);
        let ops: Writes = self.hosts[source]
            .replicator
            .as_ref()
            .map_or(0, |replicator| replicator.ops.iter().map(|op| op.bit).fold(0, |all, bit| all | bit));
        let since = self.hosts[source].disk.known | self.hosts[target].disk.known | ops;
        let covers = match plan {
            Some(Plan::Repair) => since,
            Some(Plan::Delta) => self.hosts[source].disk.dirty | since,
            Some(Plan::Full) | None => Writes::MAX,
        };
        let from = self.hosts[source].disk.data;
        let disk = &mut self.hosts[target].disk;
        let before = disk.data;
        disk.data = (disk.data & !(covers & some)) | (from & covers & some);
        disk.since |= before ^ disk.data;
        self.check_replaced(target, before);
        if plan != Some(Plan::Repair) {
            self.check_received(target);
        }
        covers
    }

    /// Everything is on both disks: a new epoch begins.
    pub fn close_epoch(&mut self) {
        let in_step = |host: usize| {
            self.hosts[host].alive()
                && self.hosts[host]
                    .replicator
                    .as_ref()
                    .is_some_and(|replicator| replicator.in_step && replicator.ops.is_empty())
        };
        let paired =
            in_step(0) && in_step(1) && self.hosts.iter().all(|host| host.disk.hard.lineage.base.is_none());
        let same = self.stream_of(0).is_some() && self.stream_of(0) == self.stream_of(1);
        if paired && same && self.hosts[0].disk.data == self.hosts[1].disk.data {
            for host in &mut self.hosts {
                host.disk.since = 0;
                host.disk.synced = host.disk.data;
                host.disk.rebooted = false;
            }
        }
        if self.chance.none {
            self.reuse_writes();
        }
        // Without chance as often as the application writes, so that a pair at rest comes back to where it was.
        let longest = if self.chance.none { Duration::from_millis(600) } else { Duration::from_secs(4) };
        let delay = self.upto(longest);
        self.after(delay, Happening::Epoch);
    }
}
