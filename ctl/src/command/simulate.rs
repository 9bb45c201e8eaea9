//! `safectl simulate`

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use safe_failover::action::Phase;
use safe_failover::story::{self, Condition, Decision, NodeState, Played, Told};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Exit, Failure};

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// File with the story; its language: safectl help simulate
    file: PathBuf,
}

/// Longest file that is read.
const MAX_BYTES: u64 = 256 << 10;

/// The documented JSON.
#[derive(Debug, Serialize)]
struct Story {
    steps: Vec<Step>,
    failure: Option<Broken>,
}

#[derive(Debug, Serialize)]
struct Step {
    line: usize,
    text: String,
    at: f64,
    decisions: Vec<Decided>,
    states: Vec<State>,
    answers: Vec<Answer>,
}

#[derive(Debug, Serialize)]
struct Decided {
    at: f64,
    node: Option<String>,
    alarm: bool,
    text: String,
}

#[derive(Debug, Serialize)]
struct State {
    node: String,
    state: String,
    phase: Option<&'static str>,
    active: Vec<&'static str>,
    reason: Option<String>,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    node: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct Broken {
    line: usize,
    text: String,
    why: String,
}

/// Plays the file.
pub(crate) fn run(context: &Context, args: &SimulateArgs) -> Result<Exit, Failure> {
    let text = read(&args.file)?;
    let played = story::play(&text);
    let story = Story::from(&played);
    context.printer.text(&story, for_people(&story).trim_end())?;
    let Some(failure) = played.failure else { return Ok(Exit::Done) };
    let place = format!("{}, line {}: {}", args.file.display(), failure.line, failure.text.trim());
    if failure.wrong {
        let hint = "the language of these files: safectl help simulate";
        return Err(Failure::failed(place).cause(failure.why).hint(hint));
    }
    Err(Failure::condition(place).cause(failure.why))
}

fn read(file: &Path) -> Result<String, Failure> {
    let unreadable = |error| Failure::failed(format!("{} cannot be read", file.display())).cause(error);
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(Failure::failed(format!("{} is larger than {} KiB", file.display(), MAX_BYTES >> 10)));
    }
    fs::read_to_string(file).map_err(unreadable)
}

impl From<&Played> for Story {
    fn from(played: &Played) -> Self {
        let broken = |failure: &story::Failure| Broken {
            line: failure.line,
            text: failure.text.clone(),
            why: failure.why.clone(),
        };
        Self {
            steps: played.told.iter().map(Step::from).collect(),
            failure: played.failure.as_ref().map(broken),
        }
    }
}

impl From<&Told> for Step {
    fn from(told: &Told) -> Self {
        let answer = |answer: &story::Answer| Answer { node: answer.node.clone(), text: answer.text.clone() };
        Self {
            line: told.line,
            text: told.text.trim().to_owned(),
            at: told.at.as_secs_f64(),
            decisions: told.decisions.iter().map(Decided::from).collect(),
            states: told.states.iter().map(State::from).collect(),
            answers: told.answers.iter().map(answer).collect(),
        }
    }
}

impl From<&Decision> for Decided {
    fn from(decision: &Decision) -> Self {
        Self {
            at: decision.at.as_secs_f64(),
            node: decision.node.clone(),
            alarm: decision.alarm,
            text: decision.text.trim().to_owned(),
        }
    }
}

impl From<&NodeState> for State {
    fn from(node: &NodeState) -> Self {
        let without = |state: &str| Self {
            node: node.node.clone(),
            state: state.to_owned(),
            phase: None,
            active: node.active.clone(),
            reason: None,
            hint: None,
        };
        match &node.condition {
            Condition::Down => without("DOWN"),
            Condition::Frozen => without("FROZEN"),
            Condition::NoAgent => without("NO SAFED"),
            Condition::Module { state, phase, reason, hint } => Self {
                state: format!("{state:?}").to_uppercase(),
                phase: Some(phase_name(*phase)),
                reason: Some(reason.clone()),
                hint: hint.clone(),
                ..without("")
            },
        }
    }
}

const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "ready",
        Phase::Transient => "transient",
        Phase::Blocked => "blocked",
    }
}

/// Each line of the file, and beneath it what came of it.
fn for_people(story: &Story) -> String {
    let mut text = String::new();
    for step in &story.steps {
        let _infallible = writeln!(text, "{}", step.text);
        for decision in &step.decisions {
            let alarm = if decision.alarm { "! " } else { "" };
            let node = decision.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
            let _infallible = writeln!(text, "{:>10.3} s  {alarm}{node}{}", decision.at, decision.text);
        }
        for state in &step.states {
            let _infallible = writeln!(text, "{:>10.3} s  {}", step.at, state.for_people());
        }
        for answer in &step.answers {
            let _infallible = writeln!(text, "{:>10.3} s  {} answers: {}", step.at, answer.node, answer.text);
        }
    }
    text
}

impl State {
    fn for_people(&self) -> String {
        let phase = self.phase.map(|phase| format!(" {phase}")).unwrap_or_default();
        let active =
            if self.active.is_empty() { String::new() } else { format!(" [{}]", self.active.join(", ")) };
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!("; type: {hint}")).unwrap_or_default();
        format!("{} {}{phase}{active}{reason}{hint}", self.node, self.state)
    }
}
