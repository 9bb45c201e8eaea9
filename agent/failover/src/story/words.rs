//! The words of a line: nodes, numbers, times, states.

use std::time::Duration;

use crate::event::Command;

/// Longest time in a story: what takes longer is not played.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) fn host(name: &str) -> Result<usize, String> {
    match name {
        "n1" => Ok(0),
        "n2" => Ok(1),
        _ => Err(format!("no such node: {name}; the nodes of a story are n1 and n2")),
    }
}

pub(crate) fn hosts(names: &[&str]) -> Result<Vec<usize>, String> {
    if names.is_empty() {
        return Err("which node? n1, n2 or both".to_owned());
    }
    names.iter().map(|name| host(name)).collect()
}

/// `1` or `lan1`.
pub(crate) fn number(word: &str) -> Result<usize, String> {
    word.trim_start_matches("lan").parse().map_err(|_| format!("not a number: {word}"))
}

/// As in `module.toml`: `300ms`, `10s`, `5m`, `24h`.
pub(crate) fn duration(word: &str) -> Result<Duration, String> {
    let unit =
        word.find(char::is_alphabetic).ok_or_else(|| format!("no unit: {word}; as in 300ms, 10s, 5m"))?;
    let (digits, unit) = word.split_at(unit);
    let count: u64 = digits.parse().map_err(|_| format!("not a number: {digits}"))?;
    let duration = match unit {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(count.saturating_mul(60)),
        "h" => Duration::from_secs(count.saturating_mul(3600)),
        _ => return Err(format!("unknown unit: {unit}; ms, s, m or h")),
    };
    if duration > LONGEST {
        return Err(format!("longer than a story lasts: {word}"));
    }
    Ok(duration)
}

pub(crate) fn command(words: &[&str]) -> Result<Command, String> {
    let flag = |name: &str| words.contains(&name);
    Ok(match words.first() {
        Some(&"start") => Command::Start,
        Some(&"stop") => Command::Stop,
        Some(&"stopstart") => Command::StopStart,
        Some(&"restart") => Command::Restart,
        Some(&"swap") => Command::Swap,
        Some(&"verify") => Command::Verify { repair: flag("--repair") },
        Some(&"unlock") => Command::Unlock,
        Some(&"prim") => Command::Prim { force: flag("--force") },
        Some(&"second") => {
            Command::Second { full: flag("--full"), force: flag("--force"), discard: flag("--discard") }
        }
        _ => {
            return Err(
                "unknown command: start, stop, stopstart, restart, swap, verify [--repair], unlock, prim [--force], second [--full] [--force] [--discard]"
                    .to_owned(),
            );
        }
    })
}
