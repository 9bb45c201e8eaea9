//! `set` lines: the module's settings.

use std::time::Duration;

use super::words::{duration, number};
use crate::config::{ArbiterKind, Config, DefaultPrimary, Isolation, Side, SplitBrain};
use crate::left_out::LeftOut;
use crate::rule::{Origin, Reaction, Rule};
use crate::world::host;

/// All of them.
pub(crate) struct Settings {
    pub(crate) lans: usize,
    lines: Vec<Vec<String>>,
    left_out: Option<LeftOut>,
}

impl Settings {
    pub(crate) const fn without(left_out: Option<LeftOut>) -> Self {
        Self { lans: 2, lines: Vec::new(), left_out }
    }

    /// One line without its `set`.
    pub(crate) fn add(&mut self, words: &[&str]) -> Result<(), String> {
        const MOST_LANS: usize = 8;
        if let ["lans", count] = words {
            self.lans = number(count)?;
            if !(1..=MOST_LANS).contains(&self.lans) {
                return Err(format!("lans: 1 to {MOST_LANS}"));
            }
            return Ok(());
        }
        apply(words, &mut host::config(Side::First))?;
        self.lines.push(words.iter().map(|word| (*word).to_owned()).collect());
        Ok(())
    }

    pub(crate) fn apply(&self, config: &mut Config) {
        config.left_out = self.left_out;
        for line in &self.lines {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            // It was tried when it was added.
            apply(&words, config).unwrap_or_default();
        }
    }
}

fn apply(words: &[&str], config: &mut Config) -> Result<(), String> {
    match words {
        ["rule", label, after, action, "if", text @ ..] => {
            config.rules.push(rule(label, after, action, &text.join(" "))?);
        }
        ["arbiter", "lock"] => config.arbiter = ArbiterKind::Lock,
        ["arbiter", "reachability"] => config.arbiter = ArbiterKind::Reachability,
        ["isolation", "wait"] => config.isolation = Isolation::Wait,
        ["isolation", "alone"] => config.isolation = Isolation::Alone,
        ["split-brain", "manual"] => config.split_brain = SplitBrain::Manual,
        ["split-brain", "serving"] => config.split_brain = SplitBrain::Serving,
        ["failover", "off"] => config.failover = false,
        ["failover", "on"] => config.failover = true,
        ["default-primary", "none"] => config.default_primary = DefaultPrimary::None,
        ["default-primary", "n1"] => config.default_primary = DefaultPrimary::Node(Side::First),
        ["default-primary", "n2"] => config.default_primary = DefaultPrimary::Node(Side::Second),
        ["default-primary", "last"] => config.default_primary = DefaultPrimary::Last,
        ["max-loop", count] => {
            config.max_loop = count.parse().map_err(|_| format!("not a number: {count}"))?
        }
        [name, time] => *time_of(name, config)? = positive(name, time)?,
        [name, ..] => return Err(unknown(name)),
        [] => return Err("set what?".to_owned()),
    }
    Ok(())
}

fn time_of<'a>(name: &str, config: &'a mut Config) -> Result<&'a mut Duration, String> {
    Ok(match name {
        "interval" => &mut config.interval,
        "timeout" => &mut config.timeout,
        "agent-timeout" => &mut config.agent_timeout,
        "start-wait" => &mut config.start_wait,
        "stall-timeout" => &mut config.stall_timeout,
        "slow-timeout" => &mut config.slow_timeout,
        "sync-delta" => &mut config.sync_delta,
        "loop-interval" => &mut config.loop_interval,
        "retry-after" => &mut config.retry_after,
        "stop-timeout" => &mut config.stop_timeout,
        _ => return Err(unknown(name)),
    })
}

/// Times by which nodes decide are never nought.
fn positive(name: &str, time: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_millis(10);
    let may_be_none = matches!(name, "sync-delta" | "retry-after");
    let time = duration(time)?;
    if time < SHORTEST && !may_be_none { Err(format!("{name}: at least {SHORTEST:?}")) } else { Ok(time) }
}

fn unknown(name: &str) -> String {
    format!(
        "no such setting, or not a value of it: {name}; lans, arbiter, isolation, split-brain, failover, \
         default-primary, sync-delta, max-loop, loop-interval, retry-after, interval, timeout, agent-timeout, \
         start-wait, stall-timeout, slow-timeout, stop-timeout, rule LABEL AFTER ACTION if EXPRESSION"
    )
}

fn rule(label: &str, after: &str, action: &str, text: &str) -> Result<Rule, String> {
    let then = match action {
        "stop" => Reaction::Stop,
        "stopstart" => Reaction::StopStart,
        "restart" => Reaction::Restart,
        "swap" => Reaction::Swap,
        "wait" => Reaction::Wait,
        _ => return Err(format!("not an action: {action}; stop, stopstart, restart, swap or wait")),
    };
    Rule::new(label, text, then, duration(after)?, Origin::Module).map_err(|error| error.to_string())
}
