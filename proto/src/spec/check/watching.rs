//! Processes, checkers and rules.

use safe_failover::rule::Expression;

use super::super::{CheckKind, Reaction, When, label};
use super::network::MAX_TARGET;
use super::{Report, repeated};

/// Most entries of each kind.
const MAX_ENTRIES: usize = 64;

pub(super) fn check(report: &mut Report<'_>) {
    let spec = report.spec;
    report.at_most("process", spec.process.len(), MAX_ENTRIES);
    report.at_most("check", spec.check.len(), MAX_ENTRIES);
    report.at_most("rule", spec.rule.len(), MAX_ENTRIES);
    for (index, process) in spec.process.iter().enumerate() {
        if process.name.is_empty() || process.name.len() > 255 || process.name.chars().any(char::is_control) {
            report.error(&format!("process.{index}.name"), "a process name has 1 to 255 bytes");
        }
    }
    checks(report);
    rules(report);
}

fn checks(report: &mut Report<'_>) {
    let spec = report.spec;
    for (index, check) in spec.check.iter().enumerate() {
        let key = format!("check.{index}");
        if let Err(message) = label::check("check", &check.name) {
            report.error(&format!("{key}.name"), message);
        }
        if check.target.len() > MAX_TARGET || (check.target.is_empty() && check.kind != CheckKind::Command) {
            report.error(
                &format!("{key}.target"),
                format!("the target of a check has 1 to {MAX_TARGET} bytes"),
            );
        }
        if check.timeout.is_zero() || check.interval.is_zero() {
            report.error(&key, "interval and timeout of a check are longer than 0s");
        }
        let waits = matches!(check.action, Reaction::Wait | Reaction::None);
        if check.when == When::Pre && !waits {
            report.error(
                &format!("{key}.action"),
                "a check with when = \"pre\" runs before the application: its action is \"wait\" or \"none\"",
            );
        }
    }
    let names: Vec<_> = spec.check.iter().map(|check| (check.kind, &check.name)).collect();
    if let Some(index) = repeated(&names) {
        report.error(
            &format!("check.{index}.name"),
            format!("two checks of one kind are named \"{}\"", names[index].1),
        );
    }
}

fn rules(report: &mut Report<'_>) {
    let spec = report.spec;
    for (index, rule) in spec.rule.iter().enumerate() {
        let key = format!("rule.{index}");
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if rule.label.is_empty() || rule.label.len() > 63 || !rule.label.chars().all(fits) {
            report.error(&format!("{key}.label"), "a label is 1 to 63 letters, digits, _ and -");
        }
        if let Err(error) = rule.condition.parse::<Expression>() {
            report.error(&format!("{key}.if"), format!("the expression is wrong {error}"));
        }
        if rule.then == Reaction::None {
            report.error(
                &format!("{key}.then"),
                "a rule does something: stop, stopstart, restart, swap or wait",
            );
        }
    }
    let labels: Vec<_> = spec.rule.iter().map(|rule| &rule.label).collect();
    if let Some(index) = repeated(&labels) {
        report.error(&format!("rule.{index}.label"), format!("two rules are named \"{}\"", labels[index]));
    }
}
