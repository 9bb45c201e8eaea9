//! What people see.

use crate::action::{Phase, State, Status};
use crate::archive::Archive;
use crate::config::{ArbiterKind, Side};
use crate::failover::Failover;
use crate::meeting::{Outcome, Question};
use crate::posture::Posture;
use crate::replicator::Process;
use crate::stale::Age;
use crate::start::Goal;
use crate::view::{Copy, Mode, Plan};

type Sentence = (Phase, String, Option<String>);

impl Failover {
    /// State, reason, and the command to type where a person is awaited.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.state();
        let (phase, reason, hint) = self.sentence(state);
        Status {
            state,
            phase,
            reason,
            hint,
            uptodate: self.uptodate(),
            consistent: self.hard.consistent,
            lineage: self.hard.lineage.current,
        }
    }

    fn state(&self) -> State {
        match self.mode {
            Mode::Stopped => {
                if self.service.busy() && !self.service.cleaning() {
                    State::Wait
                } else {
                    State::Stop
                }
            }
            Mode::Waiting => State::Wait,
            Mode::Target | Mode::Second => State::Second,
            Mode::Candidate => match self.service.posture {
                Posture::Second => State::Second,
                Posture::Down | Posture::Idle | Posture::Prim | Posture::Alone => State::Wait,
            },
            Mode::Primary => {
                if self.session.as_ref().is_some_and(|session| session.paired)
                    || self.service.posture == Posture::Prim
                {
                    State::Prim
                } else if self.service.posture == Posture::Alone {
                    State::Alone
                } else {
                    State::Wait
                }
            }
            Mode::Alone => State::Alone,
        }
    }

    fn uptodate(&self) -> bool {
        match self.mode {
            Mode::Alone | Mode::Primary => true,
            Mode::Second => {
                self.session.as_ref().is_some_and(|session| session.paired) || self.rights.promote
            }
            Mode::Candidate => self.hard.consistent && !self.hard.outdated,
            Mode::Stopped | Mode::Waiting | Mode::Target => {
                self.hard.consistent
                    && !self.hard.outdated
                    && self.hard.lineage.base.is_some()
                    && self.hard.lineage.settled
            }
        }
    }

    fn sentence(&self, state: State) -> Sentence {
        let peer = &self.config.peer;
        if let Some(closing) = self.closing {
            let reason = match closing.goal {
                Goal::Stop => "stopping".to_owned(),
                Goal::Again => "restarting".to_owned(),
                Goal::Meet => format!("leaves service: {peer} keeps its data"),
                Goal::Swap => format!("hands over to {peer}"),
            };
            return (Phase::Transient, reason, None);
        }
        let running = self.service.busy();
        match state {
            State::Stop if self.service.cleaning() => {
                (Phase::Transient, "removing what an earlier run left".to_owned(), None)
            }
            State::Stop if self.hard.edited => {
                let reason = "stopped; its files count as edited until they are compared".to_owned();
                (Phase::Ready, reason, Some(self.type_("start")))
            }
            State::Stop => (Phase::Ready, "stopped".to_owned(), Some(self.type_("start"))),
            State::Wait => self.waiting(),
            State::Alone if running => (Phase::Transient, "entering service".to_owned(), None),
            State::Alone => self.alone(),
            State::Prim if running => (Phase::Transient, "entering service".to_owned(), None),
            State::Prim if self.session.as_ref().is_none_or(|session| !session.paired) => {
                (Phase::Transient, format!("operations wait: the session with {peer} is interrupted"), None)
            }
            State::Prim => (
                Phase::Ready,
                self.service.failure.clone().unwrap_or_else(|| format!("{peer} is in step")),
                None,
            ),
            State::Second => self.second(),
        }
    }

    fn alone(&self) -> Sentence {
        let peer = &self.config.peer;
        if self.hard.disputed && self.present().is_some() {
            let (reason, hint) = self.disputed();
            return (Phase::Ready, reason, Some(hint));
        }
        if self.session.is_none()
            && let Some(view) = self.present().filter(|view| view.mode != Mode::Stopped)
            && let Outcome::Person(question) = self.outcome(view)
        {
            let (_, reason, hint) = self.question(question);
            return (Phase::Ready, reason, hint);
        }
        let reason = if let Some(failure) = &self.service.failure {
            failure.clone()
        } else if self.session.is_some() {
            format!("{peer} is being resynchronised")
        } else if let Some(view) = self.present() {
            match view.mode {
                _ if self.keeps_peer_away() && self.dropped.reason.is_some() => return self.keeping_away(),
                Mode::Stopped => format!("{peer} is stopped"),
                Mode::Waiting
                | Mode::Target
                | Mode::Second
                | Mode::Candidate
                | Mode::Primary
                | Mode::Alone => {
                    format!("{peer} is not ready to be resynchronised")
                }
            }
        } else if self.peer.agent_gone {
            format!("the safed of {peer} is gone: start it there")
        } else {
            format!("{peer} is not heard")
        };
        (Phase::Ready, reason, None)
    }

    /// The peer fell out of step and is not met yet.
    fn keeping_away(&self) -> Sentence {
        let peer = &self.config.peer;
        let why = self.dropped.reason.as_deref().unwrap_or_default();
        if !self.dropped.alarmed {
            return (
                Phase::Ready,
                format!("{peer} fell out of step ({why}); it is resynchronised soon"),
                None,
            );
        }
        let hint = format!(
            "put that right on {peer}; it is tried again by itself, or at once: safectl stopstart {} --on {peer}",
            self.config.module
        );
        (Phase::Ready, format!("{peer} fell out of step again and again: {why}"), Some(hint))
    }

    fn second(&self) -> Sentence {
        let peer = &self.config.peer;
        if self.mode == Mode::Candidate {
            return (Phase::Transient, format!("{peer} is lost: taking over"), None);
        }
        if let Some(session) = &self.session {
            if self.mode == Mode::Target {
                let what = match session.plan {
                    Plan::Repair => "operations in flight are being repaired",
                    Plan::Delta => "resynchronising what changed",
                    Plan::Full => "resynchronising in full",
                };
                return (Phase::Transient, format!("{what} from {peer}"), None);
            }
            if self.service.busy() {
                return (Phase::Transient, "starting".to_owned(), None);
            }
            let right = if self.rights.promote { "" } else { ", not yet confirmed as ready to take over" };
            let phase = if self.rights.promote { Phase::Ready } else { Phase::Transient };
            let gone = if self.peer.agent_gone { ", whose safed is gone: start it there" } else { right };
            return (phase, format!("in step with {peer}{gone}"), None);
        }
        if self.rights.promote && !self.config.failover && (self.peer_silent() || self.peer_fenced()) {
            return (
                Phase::Blocked,
                format!("{peer} is lost and automatic failover is off"),
                Some(self.type_("prim")),
            );
        }
        (Phase::Transient, format!("the session with {peer} is interrupted"), None)
    }

    fn waiting(&self) -> Sentence {
        if let Some(blocked) = &self.blocked {
            return (Phase::Blocked, blocked.reason.clone(), blocked.hint.clone());
        }
        if self.service.busy() || !matches!(self.replicator.process, Process::Ready) {
            let reason = self.fenced_because.clone().unwrap_or_else(|| "starting".to_owned());
            return (Phase::Transient, reason, None);
        }
        if let Some(hold) = &self.reactions.hold {
            return (Phase::Transient, hold.clone(), None);
        }
        if self.settling.is_some() {
            return (Phase::Transient, self.settling_sentence(), None);
        }
        if let Some(peer) = self.present() {
            return self.waiting_with(&peer.clone());
        }
        self.waiting_alone()
    }

    /// The copy was not begun to be replaced, since that could not have been completed.
    fn without_room(&self) -> Option<Sentence> {
        let why = self.replicator.no_room.as_ref()?;
        let hint = format!(
            "make room on {node}; it is tried again by itself, or at once: safectl stopstart {} --on {node}",
            self.config.module,
            node = self.config.node
        );
        let reason =
            format!("cannot be resynchronised from {}, and stays as it was: {why}", self.config.peer);
        Some((Phase::Blocked, reason, Some(hint)))
    }

    fn settling_sentence(&self) -> String {
        if self.arbiter_kind() == ArbiterKind::Lock && self.arbiter.unreachable() {
            return self.silent_arbiter();
        }
        "about to serve".to_owned()
    }

    /// The peer is heard, but there is no session.
    fn waiting_with(&self, peer: &crate::view::View) -> Sentence {
        let name = &self.config.peer;
        if self.hard.disputed && peer.mode != Mode::Stopped {
            let (reason, hint) = self.disputed();
            return (Phase::Blocked, reason, Some(hint));
        }
        match self.outcome(peer) {
            Outcome::Person(question) => self.question(question),
            Outcome::Pair(_) | Outcome::Source { .. } if self.conceded.is_some() && peer.demand.is_some() => {
                (Phase::Transient, format!("{name} goes on without this copy"), None)
            }
            Outcome::Source { .. } if peer.mode == Mode::Alone && self.replicator.no_room.is_some() => {
                self.without_room().unwrap_or_else(|| (Phase::Transient, format!("waits for {name}"), None))
            }
            Outcome::Pair(_) | Outcome::Source { .. } if peer.meetable => {
                if let Some(sentence) = self.archiving() {
                    return sentence;
                }
                (Phase::Transient, format!("meeting {name}"), None)
            }
            Outcome::Pair(_) | Outcome::Source { .. } | Outcome::NotYet => {
                if peer.mode == Mode::Stopped {
                    let hint = format!("safectl start {} --on {name}", self.config.module);
                    return (
                        Phase::Blocked,
                        format!(
                            "{name} is stopped, and this copy alone cannot tell whether it is the newest"
                        ),
                        Some(hint),
                    );
                }
                (Phase::Transient, format!("waits for {name}"), None)
            }
        }
    }

    /// What this copy alone holds is being kept, or cannot be.
    fn archiving(&self) -> Option<Sentence> {
        let peer = &self.config.peer;
        match &self.replicator.archive {
            Archive::Asked(_) => Some((
                Phase::Transient,
                format!("keeps what only this copy holds, before that of {peer} takes its place"),
                None,
            )),
            Archive::Refused(_, why) => Some((
                Phase::Blocked,
                format!("{peer} serves; what only this copy holds would be lost, and cannot be kept: {why}"),
                Some(format!(
                    "make room, it is tried again by itself; only to lose it for good: {} --force --discard",
                    self.type_("second")
                )),
            )),
            Archive::Nothing | Archive::Kept(_) => None,
        }
    }

    fn waiting_alone(&self) -> Sentence {
        let name = &self.config.peer;
        let lineage = &self.hard.lineage;
        // The better way first: the other node has what this copy may lack.
        let forced =
            format!("bring {name} back; only if it is lost for good: {} --force", self.type_("prim"));
        if lineage.current.is_none() {
            if self.yields || self.only_second {
                return (Phase::Blocked, format!("waits for {name}, to follow it"), None);
            }
            return (Phase::Blocked, format!("first start: {name} is not heard"), Some(self.type_("prim")));
        }
        if self.replicator.copy == Copy::Unknown {
            return self.question(Question::Unknown(self.config.side));
        }
        if self.hard.edited {
            let reason = format!("the files of this copy were edited while it was stopped: waits for {name}");
            return (Phase::Blocked, reason, Some(forced));
        }
        if !self.good_copy() {
            return (Phase::Blocked, format!("this copy is not the newest: waits for {name}"), Some(forced));
        }
        if self.only_second || self.yields {
            return (Phase::Blocked, format!("waits for {name}, to follow it"), None);
        }
        if lineage.base.is_some() && lineage.settled {
            if self.arbiter_kind() == ArbiterKind::Lock && self.arbiter.unreachable() {
                return (Phase::Blocked, self.silent_arbiter(), Some(forced));
            }
            if self.arbiter.foreign {
                return (
                    Phase::Blocked,
                    format!("the arbiter's record says that {name} went on"),
                    Some(forced),
                );
            }
            return (Phase::Transient, format!("waits for {name} for {:?}", self.config.start_wait), None);
        }
        match self.age().filter(|_| self.fenced_because.is_none()) {
            Some(Age::Within) if self.isolation_waits().is_none() => {
                let wait = self.config.start_wait;
                return (
                    Phase::Transient,
                    format!("waits for {name} for {wait:?}, then serves (sync_delta)"),
                    None,
                );
            }
            Some(Age::Future) => {
                let reason = format!("waits for {name}: the clock went backwards, sync_delta does not count");
                return (Phase::Blocked, reason, Some(forced));
            }
            Some(Age::Within | Age::Beyond) | None => {}
        }
        let reason = self.fenced_because.clone().map_or_else(
            || format!("cannot know whether {name} went on without this copy: waits for it"),
            |why| format!("left service, {why}: waits for {name}"),
        );
        (Phase::Blocked, reason, Some(forced))
    }

    fn question(&self, question: Question) -> Sentence {
        let module = &self.config.module;
        let on = |verb: &str, side, flag: &str| {
            format!("safectl {verb} {module} --on {}{flag}", self.name_of(side))
        };
        let other = &self.config.peer;
        let (reason, hint) = match question {
            Question::WhichFirst(Some(side)) => {
                (format!("first start: {} has the data", self.name_of(side)), on("prim", side, ""))
            }
            Question::WhichFirst(None) => (
                "first start: both nodes have data; which one counts?".to_owned(),
                format!(
                    "{}, then on the other node: safectl second {module} --on {other} --force",
                    self.type_("prim")
                ),
            ),
            Question::Replace(side) => (
                format!("the data of {} would be replaced", self.name_of(side)),
                on("second", side, " --force"),
            ),
            Question::Unknown(side) => (
                format!(
                    "the directories of {} are not those that it knew (disk not mounted, replaced or reverted?)",
                    self.name_of(side)
                ),
                format!(
                    "mount its disk, then: {} && {}; only to fill what is there now: {}",
                    on("stop", side, ""),
                    on("start", side, ""),
                    on("second", side, " --full")
                ),
            ),
            Question::NewestEdited(side) => self.newest_edited(side),
            Question::NoGoodCopy => (
                "neither copy can be trusted by itself".to_owned(),
                format!("{} --force (the other node loses what only it has)", self.type_("prim")),
            ),
            Question::NewestInconsistent(side) => (
                format!("the newest writes are on {}, whose copy is inconsistent", self.name_of(side)),
                if self.side_serves(side.other()) {
                    on("second", side, " --force")
                } else {
                    on("prim", side, " --force")
                },
            ),
            Question::SplitBrain(before) => {
                let (keep, lose) = (self.name_of(before), self.name_of(before.other()));
                let reason = format!(
                    "both nodes went on alone: one must give up its changes; the command keeps those of {keep}, on \
                     {keep} it would keep those of {lose}"
                );
                let second = on("second", before.other(), " --force");
                // Who serves must stop first: it cannot become SECOND under its application.
                let stop = on("stop", before.other(), "");
                (
                    reason,
                    if self.side_serves(before.other()) { format!("{stop} && {second}") } else { second },
                )
            }
            Question::Strangers => {
                let reason = format!(
                    "the copies have no history in common: one must be replaced; the command replaces that of {}",
                    self.name_of(Side::Second)
                );
                let second = on("second", Side::Second, " --force");
                let stop = on("stop", Side::Second, "");
                (reason, if self.side_serves(Side::Second) { format!("{stop} && {second}") } else { second })
            }
        };
        (Phase::Blocked, reason, Some(hint))
    }

    fn newest_edited(&self, side: Side) -> (String, String) {
        let (module, node) = (&self.config.module, self.name_of(side));
        let lose = format!("safectl second {module} --on {node} --force");
        let hint = if self.side_serves(side.other()) {
            lose
        } else {
            format!(
                "to keep what is there now: safectl prim {module} --on {node} --force; to give it up: {lose}"
            )
        };
        (format!("the newest writes are on {node}, whose files were edited while it was stopped"), hint)
    }

    fn side_serves(&self, side: Side) -> bool {
        let serves =
            if side == self.config.side { Some(self.mode) } else { self.present().map(|peer| peer.mode) };
        matches!(serves, Some(Mode::Alone | Mode::Primary))
    }

    fn type_(&self, verb: &str) -> String {
        format!("safectl {verb} {} --on {}", self.config.module, self.config.node)
    }
}
