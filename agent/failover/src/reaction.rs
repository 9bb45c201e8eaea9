//! What rules make the module do.
//!
//! A rule acts once when its expression has held for its time, and again only after it was false. `wait` lasts as long
//! as the expression holds; while a resource that it looks at is still `init`, a module that starts waits as well.

use crate::action::State;
use crate::failover::Failover;
use crate::hard::Desired;
use crate::resource::Value;
use crate::rule::{Fact, Known, Place, Reaction, Rule};
use crate::start::{Blocked, Goal};
use crate::time::Time;
use crate::timer::Timer;
use crate::view::{Mode, View};

/// What is remembered of the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reactions {
    /// One for each rule of the configuration.
    watches: Vec<Watch>,
    /// Why a start waits for a first observation.
    pub(crate) hold: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Watch {
    /// Since when the expression holds.
    since: Option<Time>,
    /// The rule has acted on that.
    acted: bool,
}

/// A rule as it stands now, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The rule.
    pub rule: Rule,
    /// Its expression holds.
    pub holds: bool,
    /// What it looks at.
    pub facts: Vec<Fact>,
}

struct Seen<'a>(&'a Failover);

impl Known for Seen<'_> {
    fn value(&self, place: Place, name: &str) -> Value {
        match place {
            Place::Local => self.0.local_value(name),
            Place::Remote => self.0.remote_value(name),
        }
    }

    fn beginning(&self, place: Place, prefix: &str) -> Vec<(String, Value)> {
        match place {
            Place::Local => self
                .0
                .resources
                .iter()
                .filter(|(name, _)| name.starts_with(prefix))
                .map(|(name, resource)| (name.to_owned(), resource.value))
                .chain(
                    "data.uptodate"
                        .starts_with(prefix)
                        .then(|| ("data.uptodate".to_owned(), self.0.local_value("data.uptodate"))),
                )
                .collect(),
            Place::Remote => "data.uptodate"
                .starts_with(prefix)
                .then(|| ("data.uptodate".to_owned(), self.0.remote_value("data.uptodate")))
                .into_iter()
                .collect(),
        }
    }
}

impl Failover {
    /// The rules, what they look at, and whether they hold.
    #[must_use]
    pub fn rules(&self) -> Vec<Standing> {
        let seen = Seen(self);
        let standing = |rule: &Rule| Standing {
            rule: rule.clone(),
            holds: rule.expression.holds(&seen),
            facts: rule.expression.all_facts(&seen),
        };
        self.config.rules.iter().map(standing).collect()
    }

    /// What is known of resources; `state` and `data.uptodate` are the core's own and not among them.
    #[must_use]
    pub const fn resources(&self) -> &crate::resource::Resources {
        &self.resources
    }

    /// Values of `state` and `data.uptodate`, which are the core's own.
    #[must_use]
    pub fn own_resources(&self) -> [(&'static str, Value); 2] {
        ["state", "data.uptodate"].map(|name| (name, self.local_value(name)))
    }

    fn local_value(&self, name: &str) -> Value {
        match name {
            "state" => Value::State(self.status().state),
            "data.uptodate" => up(self.status().uptodate),
            name => self.resources.get(name).map_or(Value::Unknown, |resource| resource.value),
        }
    }

    /// Of the other node only its state, and whether its data are the newest, are known here.
    fn remote_value(&self, name: &str) -> Value {
        let Some(peer) = self.present() else { return Value::Unknown };
        match name {
            "state" => Value::State(peer_state(peer)),
            "data.uptodate" => up(matches!(peer.mode, Mode::Alone | Mode::Primary) || peer.paired.is_some()),
            _ => Value::Unknown,
        }
    }

    pub(crate) fn apply_resource(&mut self, name: &str, value: Value, reason: &str) {
        let name = name.strip_prefix("local.").unwrap_or(name);
        if self.resources.note(name, value, reason, self.wall) {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            self.record(false, format!("resource {name} is {value}{why}"));
        }
    }

    /// Sees which rules hold, and does what they say.
    pub(crate) fn rule_react(&mut self) -> bool {
        if self.config.rules.is_empty() {
            return false;
        }
        self.observe_rules();
        self.hold_start();
        if self.release_wait() {
            return true;
        }
        let due = (0..self.config.rules.len()).find(|index| self.may_act(*index));
        let Some(index) = due else { return false };
        self.act(index);
        true
    }

    fn observe_rules(&mut self) {
        let mut watches = std::mem::take(&mut self.reactions.watches);
        watches.resize(self.config.rules.len(), Watch::default());
        let seen = Seen(self);
        for (watch, rule) in watches.iter_mut().zip(&self.config.rules) {
            if !rule.expression.holds(&seen) {
                *watch = Watch::default();
            } else if watch.since.is_none() {
                watch.since = Some(self.now);
            }
        }
        let next = watches
            .iter()
            .zip(&self.config.rules)
            .filter(|(watch, _)| !watch.acted)
            .filter_map(|(watch, rule)| Some(watch.since? + rule.after))
            .filter(|at| *at > self.now)
            .min();
        match next {
            Some(at) => self.timers.set(Timer::Rule, at),
            None => self.timers.cancel(Timer::Rule),
        }
        self.reactions.watches = watches;
    }

    /// A start waits for the first observation of what a `wait` rule looks at.
    fn hold_start(&mut self) {
        let seen = Seen(self);
        let open = self
            .config
            .rules
            .iter()
            .filter(|rule| rule.then == Reaction::Wait)
            .flat_map(|rule| rule.expression.all_facts(&seen))
            .find(|fact| fact.value == Value::Init);
        self.reactions.hold = open
            .filter(|_| self.mode == Mode::Waiting)
            .map(|fact| format!("waits for {} to be known", fact.name));
    }

    /// The module waits because of a rule that holds no more.
    fn release_wait(&mut self) -> bool {
        let Some(label) = self.blocked.as_ref().and_then(|blocked| blocked.rule.clone()) else {
            return false;
        };
        let holds =
            self.config.rules.iter().zip(&self.reactions.watches).any(|(rule, watch)| {
                rule.label == label && rule.then == Reaction::Wait && watch.since.is_some()
            });
        if holds || self.closing.is_some() {
            return false;
        }
        self.record(false, format!("rule {label} holds no more: the module starts again"));
        self.blocked = None;
        if self.mode == Mode::Waiting {
            self.waiting_since = self.now;
        }
        true
    }

    fn may_act(&self, index: usize) -> bool {
        let (rule, watch) = (&self.config.rules[index], &self.reactions.watches[index]);
        let ripe = watch.since.is_some_and(|since| {
            // Before the start nothing is disturbed by waiting at once.
            let patience = if self.mode == Mode::Waiting { std::time::Duration::ZERO } else { rule.after };
            self.now >= since + patience
        });
        if !ripe || watch.acted || !self.wanted() || self.mode == Mode::Stopped || self.closing.is_some() {
            return false;
        }
        let active = self.service.posture.is_active() && !self.service.busy();
        match rule.then {
            Reaction::Stop => self.service.posture.is_active(),
            Reaction::StopStart | Reaction::Restart => active,
            Reaction::Swap => self.swap_obstacle().is_none(),
            Reaction::Wait => self.blocked.is_none(),
        }
    }

    fn act(&mut self, index: usize) {
        let rule = self.config.rules[index].clone();
        let facts = rule.expression.facts(&Seen(self));
        let because: Vec<String> = facts.iter().map(ToString::to_string).collect();
        let because = because.join(", ");
        self.record(true, format!("rule {}: {because}: {}", rule.label, rule.then.name()));
        // A module that waits is told so again when it waits anew.
        self.reactions.watches[index].acted = rule.then != Reaction::Wait;
        match rule.then {
            Reaction::Stop => {
                self.hard.desired = Desired::Stopped;
                self.persist();
                self.close(Goal::Stop);
            }
            Reaction::StopStart => {
                self.count_restart();
                self.resume_alone = self.mode == Mode::Alone;
                self.close(Goal::Again);
            }
            Reaction::Restart => {
                self.count_restart();
                if self.blocked.is_some() {
                    self.close(Goal::Again);
                } else {
                    self.begin_restart();
                }
            }
            Reaction::Swap => self.begin_swap(),
            Reaction::Wait => {
                let was_active = self.service.posture.is_active();
                if was_active {
                    self.count_restart();
                }
                if self.may_retry() {
                    let reason = format!("rule {}: {because}", rule.label);
                    let label = Some(rule.label);
                    self.blocked = Some(Blocked { reason, hint: None, exhausted: false, rule: label });
                }
                if was_active || self.mode != Mode::Waiting {
                    self.close(Goal::Again);
                }
            }
        }
    }
}

const fn up(is: bool) -> Value {
    if is { Value::Up } else { Value::Down }
}

fn peer_state(peer: &View) -> State {
    match peer.mode {
        Mode::Stopped => State::Stop,
        Mode::Waiting | Mode::Candidate => State::Wait,
        Mode::Target | Mode::Second => State::Second,
        Mode::Primary => State::Prim,
        Mode::Alone => State::Alone,
    }
}
