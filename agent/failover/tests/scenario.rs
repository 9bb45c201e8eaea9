//! Scenario files: stories of two nodes, one verb per line, what happened recorded beneath and compared.
//!
//! `SAFED_REWRITE=1 cargo nextest run -p safe-failover scenario` writes the outcome into the files, to be reviewed as a diff.

#![allow(clippy::unwrap_used, reason = "in a test a wrong assumption is a failed test")]

#[path = "left_out/missed.rs"]
mod missed;

use std::fmt::Write as _;

use missed::{By, missed_by};
use safe_failover::left_out::LeftOut;
use safe_failover::story::{Played, Told, play, play_without};

#[test]
fn scenarios() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let only = std::env::var("SAFED_SCENARIO").ok();
    let rewrite = std::env::var_os("SAFED_REWRITE").is_some();
    let mut failures = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let played = play(&text);
        let outcome = recorded(&text, &played);
        if rewrite {
            std::fs::write(&file, &outcome).unwrap();
        } else if played.failure.is_none() && outcome != text {
            failures.push(format!("{name}: the outcome is not the one recorded:\n{outcome}"));
        }
        if let Some(failure) = played.failure {
            failures
                .push(format!("{name}: line {}: {}: {}\n{outcome}", failure.line, failure.text, failure.why));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Each rule of which a scenario is the proof is missed in it.
#[test]
fn a_rule_that_is_left_out_is_missed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    // A panic is what an invariant of the core says; here it is wanted.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut unnoticed = Vec::new();
    for rule in LeftOut::ALL {
        let By::Scenario(name) = missed_by(rule) else { continue };
        let text = std::fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
        let outcome = std::panic::catch_unwind(|| play_without(&text, Some(rule)).failure);
        if matches!(outcome, Ok(None)) {
            unnoticed.push((rule, name));
        }
    }
    std::panic::set_hook(quiet);
    assert!(unnoticed.is_empty(), "not missed: {unnoticed:?}");
}

/// The file with what happened beneath each line.
fn recorded(text: &str, played: &Played) -> String {
    let mut outcome = String::new();
    let mut told = played.told.iter().peekable();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with("| ")) {
        writeln!(outcome, "{line}").unwrap();
        if let Some(told) = told.next_if(|told| told.line == index + 1) {
            write_told(&mut outcome, told);
        }
    }
    outcome
}

fn write_told(outcome: &mut String, told: &Told) {
    for decision in &told.decisions {
        let alarm = if decision.alarm { "! " } else { "" };
        let node = decision.node.as_ref().map(|node| format!("  {node}: {alarm}")).unwrap_or_default();
        writeln!(outcome, "| {node}{}", decision.text).unwrap();
    }
    for node in ["n1", "n2"] {
        for state in told.states.iter().filter(|state| state.node == node) {
            writeln!(outcome, "| {state}").unwrap();
        }
        for answer in told.answers.iter().filter(|answer| answer.node == node) {
            writeln!(outcome, "| {node} answers: {}", answer.text).unwrap();
        }
    }
}
