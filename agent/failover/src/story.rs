//! Stories of two nodes: a file of settings and verbs, one a line, played on the real cores in a [`World`] without
//! chance. The scenario files of the proofs are stories, and so is what `safectl simulate` reads.
//!
//! ```text
//! set arbiter lock
//! start n1 n2
//! expect n2 SECOND/ready within 5s
//! crash n1
//! expect n2 ALONE/ready within 4s
//! ```
//!
//! Lines that begin with `#` are remarks, those that begin with `| ` what happened when the story was last played.

mod settings;
mod verb;
mod words;

use std::time::Duration;

use crate::Time;
use crate::action::{Phase, State};
use crate::left_out::LeftOut;
use crate::world::{Chance, Noted, World};

use settings::Settings;

/// Longest file that is read, in lines: a story is read by people.
pub const MOST_LINES: usize = 2000;

/// What came of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// Time of the story when it was done.
    pub at: Duration,
    /// What was decided, and why.
    pub decisions: Vec<Decision>,
    /// The nodes whose state is another than before.
    pub states: Vec<NodeState>,
    /// Answers to commands.
    pub answers: Vec<Answer>,
}

/// One line of the record of decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Time of the story.
    pub at: Duration,
    /// Whose; none: something to read that is no decision.
    pub node: Option<String>,
    /// Needs a person's attention.
    pub alarm: bool,
    /// The sentence.
    pub text: String,
}

/// A node as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its name.
    pub node: String,
    /// How it is: the module's state, or why there is none.
    pub condition: Condition,
    /// What of the module is active: `mounted`, `address`, `application`.
    pub active: Vec<&'static str>,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It has no power.
    Down,
    /// It stands still.
    Frozen,
    /// Its `safed` is gone.
    NoAgent,
    /// As its `safed` says.
    Module {
        /// State.
        state: State,
        /// Phase.
        phase: Phase,
        /// Why.
        reason: String,
        /// What to type.
        hint: Option<String>,
    },
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The node asked.
    pub node: String,
    /// `ok`, or why not.
    pub text: String,
}

/// A line that could not be played, or an expectation that was not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong, for people.
    pub why: String,
    /// The line is not one of the language; otherwise what happened is not what was expected.
    pub wrong: bool,
}

/// A story that was played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// Each line with a verb, in order, up to the one that failed.
    pub told: Vec<Told>,
    /// Why it ended early.
    pub failure: Option<Failure>,
}

/// Why a line ends the story.
pub(crate) enum Ended {
    /// It is not one of the language.
    Wrong(String),
    /// Something else happened than it expects.
    Otherwise(String),
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// No chance: what happens is the same each time.
const QUIET: Chance = Chance {
    local: Duration::from_millis(2),
    packet: Duration::from_millis(2),
    loss: 0,
    twice: 0,
    late: 0,
    mid_batch: 0,
    none: false,
};
/// When a story begins, in the time of its world.
const BEGIN: Time = Time(1_000_000_000);

/// Plays a story.
#[must_use]
pub fn play(text: &str) -> Played {
    play_without(text, None)
}

/// The same without one of the rules of the protocol, to see what it is for.
#[must_use]
pub fn play_without(text: &str, left_out: Option<LeftOut>) -> Played {
    let mut teller = Teller { settings: Settings::without(left_out), world: None, last: [None, None] };
    let mut told = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() || text.starts_with('#') || text.starts_with("| ") {
            continue;
        }
        let line = index + 1;
        let outcome = if line > MOST_LINES {
            Err(Ended::Wrong(format!("a story has at most {MOST_LINES} lines")))
        } else {
            teller.play(&words)
        };
        told.push(teller.tell(line, text));
        if let Err(ended) = outcome {
            let (why, wrong) = match ended {
                Ended::Wrong(why) => (why, true),
                Ended::Otherwise(why) => (why, false),
            };
            return Played { told, failure: Some(Failure { line, text: text.to_owned(), why, wrong }) };
        }
    }
    Played { told, failure: None }
}

/// Plays line by line.
struct Teller {
    settings: Settings,
    world: Option<World>,
    last: [Option<NodeState>; 2],
}

impl Teller {
    fn play(&mut self, words: &[&str]) -> Result<(), Ended> {
        if let ["set", setting @ ..] = words {
            if self.world.is_some() {
                return Err(Ended::Wrong("settings stand before the first verb".to_owned()));
            }
            return Ok(self.settings.add(setting)?);
        }
        let settings = &self.settings;
        let world = self.world.get_or_insert_with(|| {
            let mut world = World::new(7, settings.lans, QUIET, |config| settings.apply(config));
            world.now = BEGIN;
            world.records = true;
            world
        });
        verb::play(world, words)
    }

    /// What changed for people.
    fn tell(&mut self, line: usize, text: &str) -> Told {
        let text = text.to_owned();
        let mut told =
            Told { line, text, at: Duration::ZERO, decisions: vec![], states: vec![], answers: vec![] };
        let Some(world) = &mut self.world else { return told };
        told.at = world.now.since(BEGIN);
        let decision =
            |Noted { at, node, alarm, text }: Noted| Decision { at: at.since(BEGIN), node, alarm, text };
        told.decisions = world.trace.drain(..).map(decision).collect();
        for (host, last) in self.last.iter_mut().enumerate() {
            let now = state(world, host);
            if last.as_ref() != Some(&now) {
                told.states.push(now.clone());
                *last = Some(now);
            }
            if let Some(answer) = world.hosts[host].answer.take() {
                told.answers.push(Answer { node: world.hosts[host].config.node.clone(), text: answer });
            }
        }
        told
    }
}

/// A node as people see it.
fn state(world: &World, host: usize) -> NodeState {
    let machine = &world.hosts[host];
    let node = machine.config.node.clone();
    if !machine.up || machine.frozen {
        let condition = if machine.up { Condition::Frozen } else { Condition::Down };
        return NodeState { node, condition, active: Vec::new() };
    }
    let active = [
        (machine.mounted(), "mounted"),
        (machine.addresses, "address"),
        (machine.application, "application"),
    ];
    let active = active.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
    let condition = machine.agent.as_ref().map_or(Condition::NoAgent, |agent| {
        let status = agent.core.status();
        let (state, phase, reason, hint) = (status.state, status.phase, status.reason, status.hint);
        Condition::Module { state, phase, reason, hint }
    });
    NodeState { node, condition, active }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = &self.node;
        let active =
            if self.active.is_empty() { String::new() } else { format!(" [{}]", self.active.join(" ")) };
        match &self.condition {
            Condition::Down => write!(f, "{node} is down"),
            Condition::Frozen => write!(f, "{node} is frozen"),
            Condition::NoAgent => write!(f, "{node} has no agent{active}"),
            Condition::Module { state, phase, reason, hint } => {
                write!(f, "{node} {state:?}/{phase:?}{active}: {reason}")?;
                hint.iter().try_for_each(|hint| write!(f, "; type: {hint}"))
            }
        }
    }
}
