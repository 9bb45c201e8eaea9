//! The failover rules of a module: those that follow from its settings, and its own, which replace them by label.

use std::time::Duration;

use safe_failover::rule::{self, ExpressionError, Origin, Rule};

use super::{CheckKind, ModuleSpec, Reaction, RuleSpec};

/// How long an interface must be down before a default rule acts: links flap when a switch restarts.
const LINK: Duration = Duration::from_secs(2);

/// What the core does by itself, whatever the rules: shown beside them, not to be replaced.
pub const BUILT_IN: [(&str, &str); 4] = [
    (
        "splitbrain_failure",
        "every lan is silent: waits if isolation is \"wait\", if its address interface has no carrier, or if an arbiter decides against it",
    ),
    ("notuptodate_server", "the copy may not be the newest: waits for the other node"),
    ("degraded_server", "the copy is inconsistent, or its directories cannot be used: waits"),
    ("implicit_wakeup", "what a wait rule waited for is over: starts again"),
];

impl ModuleSpec {
    /// All rules in the order in which they are looked at: the module's own, then the default ones.
    ///
    /// # Errors
    /// An expression of the module is none; the index of its rule.
    pub fn rules(&self) -> Result<Vec<Rule>, (usize, ExpressionError)> {
        let mut rules = Vec::new();
        for (index, spec) in self.rule.iter().enumerate() {
            rules.push(own(spec).map_err(|error| (index, error))?);
        }
        let defaults = self.default_rules();
        rules.extend(defaults.into_iter().filter(|rule| self.rule.iter().all(|own| own.label != rule.label)));
        Ok(rules)
    }

    fn default_rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut add = |label: &str, text: &str, action: Reaction, after| {
            let Some(then) = reaction(action) else { return };
            // A name that is no part of an expression was refused with the module.
            rules.extend(Rule::new(label, text, then, after, Origin::Default));
        };
        for check in &self.check {
            let kind = check.kind.as_str();
            let (label, text) =
                (format!("{kind}_{}", check.name), format!("check.{kind}.{} == down", check.name));
            if check.kind != CheckKind::Interface {
                add(&label, &text, check.action, Duration::ZERO);
            }
        }
        for process in &self.process {
            let name = plain(&process.name);
            let text = format!("process.{name} == down");
            add(&format!("process_{name}"), &text, process.action, Duration::ZERO);
        }
        if !self.address.is_empty() || self.check.iter().any(|check| check.kind == CheckKind::Interface) {
            add("interface_failure", "interface.? == down", Reaction::Wait, LINK);
        }
        if !self.address.is_empty() {
            add("ip_failure", "address.? == down", Reaction::Stopstart, Duration::ZERO);
        }
        rules
    }
}

/// A name as part of a resource's name: characters that mean something else become `_`.
#[must_use]
pub fn plain(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-:/".contains(c);
    name.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

fn own(spec: &RuleSpec) -> Result<Rule, ExpressionError> {
    // Validation refuses a rule that does nothing.
    let then = reaction(spec.then).unwrap_or(rule::Reaction::Wait);
    Rule::new(&spec.label, &spec.condition, then, spec.after, Origin::Module)
}

const fn reaction(reaction: Reaction) -> Option<rule::Reaction> {
    Some(match reaction {
        Reaction::None => return None,
        Reaction::Stop => rule::Reaction::Stop,
        Reaction::Stopstart => rule::Reaction::StopStart,
        Reaction::Restart => rule::Reaction::Restart,
        Reaction::Swap => rule::Reaction::Swap,
        Reaction::Wait => rule::Reaction::Wait,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
[module]
name = "db"
kind = "mirror"
[[address]]
ip = "192.168.1.50/24"
[[process]]
name = "my postgres"
class = "prim"
action = "restart"
[[check]]
kind = "tcp"
name = "db"
target = "127.0.0.1:5432"
action = "swap"
[[check]]
kind = "ping"
name = "gw"
target = "10.0.0.1"
action = "none"
[[rule]]
label = "ip_failure"
if = "address.192.168.1.50 == down"
then = "stop"
"#;

    #[test]
    fn default_rules_follow_from_the_settings_and_are_replaced_by_label() {
        let spec = ModuleSpec::parse(SPEC).unwrap();
        let rules = spec.rules().unwrap();
        let shown: Vec<String> = rules
            .iter()
            .map(|rule| format!("{}: if {} then {}", rule.label, rule.text, rule.then.name()))
            .collect();
        assert_eq!(
            shown,
            [
                "ip_failure: if address.192.168.1.50 == down then stop",
                "tcp_db: if check.tcp.db == down then swap",
                "process_my_postgres: if process.my_postgres == down then restart",
                "interface_failure: if interface.? == down then wait",
            ]
        );
        assert_eq!((rules[0].origin, rules[1].origin), (Origin::Module, Origin::Default));
    }

    #[test]
    fn an_expression_that_is_none_is_found_with_its_line() {
        let text = SPEC.replace("192.168.1.50 == down", "192.168.1.50 = down");
        let spec = ModuleSpec::parse(&text).unwrap();
        assert_eq!(spec.rules().unwrap_err().0, 0);
    }
}
