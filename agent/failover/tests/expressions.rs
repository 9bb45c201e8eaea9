//! The language of rules: what expressions are worth, and what is said about those that are none.

#![allow(clippy::unwrap_used, reason = "in a test a wrong assumption is a failed test")]

use safe_failover::action::State;
use safe_failover::resource::Value;
use safe_failover::rule::{Expression, Known, Place};

/// Two checkers, a heartbeat, a state here and there.
struct Fixture;

const LOCAL: [(&str, Value); 5] = [
    ("check.tcp.db", Value::Down),
    ("check.tcp.web", Value::Up),
    ("heartbeat.default", Value::Up),
    ("address.192.168.1.50", Value::Up),
    ("state", Value::State(State::Prim)),
];

impl Known for Fixture {
    fn value(&self, place: Place, name: &str) -> Value {
        match (place, name) {
            (Place::Remote, "state") => Value::State(State::Second),
            (Place::Remote, _) => Value::Unknown,
            (Place::Local, name) => {
                LOCAL.iter().find(|(known, _)| *known == name).map_or(Value::Unknown, |(_, value)| *value)
            }
        }
    }

    fn beginning(&self, place: Place, prefix: &str) -> Vec<(String, Value)> {
        let local = LOCAL.iter().filter(|(name, _)| place == Place::Local && name.starts_with(prefix));
        local.map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }
}

#[test]
fn what_holds() {
    let cases = [
        ("check.tcp.db == down", true),
        ("local.check.tcp.db != down", false),
        ("check.tcp.* == up", false),
        ("check.tcp.? == up", true),
        ("check.* != init", true),
        ("check.ping.* == up", false),
        ("check.ping.* != up", false),
        ("!check.ping.? == up", true),
        ("check.custom.none == unknown", true),
        ("address.192.168.1.50 == up", true),
        ("state == PRIM && remote.state == SECOND", true),
        ("state == ALONE || remote.state == WAIT", false),
        ("remote.check.tcp.db == up", false),
        // && binds tighter than ||, ! tightest.
        ("check.tcp.web == up || check.tcp.db == up && state == WAIT", true),
        ("(check.tcp.web == up || check.tcp.db == up) && state == WAIT", false),
        ("!(check.tcp.db == up) && !state == WAIT", true),
        ("  heartbeat.default==up  ", true),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<Expression>().unwrap().holds(&Fixture), expected, "{text}");
    }
}

#[test]
fn the_values_that_made_it_true() {
    let facts = |text: &str| {
        let facts = text.parse::<Expression>().unwrap().facts(&Fixture);
        facts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        facts("(check.tcp.? == down || check.tcp.web == down) && remote.state == SECOND"),
        "check.tcp.db is down, remote.state is SECOND"
    );
    assert_eq!(facts("!check.tcp.web == down"), "check.tcp.web is up");
}

#[test]
fn errors_say_where_and_what_was_meant() {
    let cases = [
        (
            "",
            "at character 1: the expression ends, where the name of a resource was expected, as in check.tcp.db",
        ),
        (
            "chek.tcp.db == down",
            "at character 1: there are no resources of class \"chek\"; did you mean check?",
        ),
        (
            "xyz.a == down",
            "at character 1: there are no resources of class \"xyz\"; there are: state, heartbeat, check, process, interface, address, arbiter, data",
        ),
        (
            "check.tcp.db",
            "at character 13: a comparison is missing: write check.tcp.db == up, or check.tcp.db == down",
        ),
        (
            "check.tcp.db = down",
            "at character 14: a comparison is missing: write check.tcp.db == up, or check.tcp.db == down",
        ),
        (
            "check.tcp.db == Down",
            "at character 17: Down is not one of the values of this resource: init, up, down or unknown; did you mean down?",
        ),
        (
            "check.tcp.db == \"down\"",
            "at character 17: a value was expected: init, up, down or unknown; values are written without quotes",
        ),
        (
            "state == up",
            "at character 10: up is not one of the values of this resource: STOP, WAIT, ALONE, PRIM, SECOND or unknown",
        ),
        (
            "state == prim",
            "at character 10: prim is not one of the values of this resource: STOP, WAIT, ALONE, PRIM, SECOND or unknown; did you mean PRIM?",
        ),
        ("check == up", "at character 1: check has parts: write check.NAME, check.* (all) or check.? (any)"),
        (
            "check.*.db == up",
            "at character 1: * and ? stand only for the end of a name, as in check.tcp.*, not in check.*.db",
        ),
        ("(state == PRIM", "at character 15: a ) is missing"),
        ("state == PRIM)", "at character 14: this ) closes nothing"),
        (
            "state == PRIM and remote.state == SECOND",
            "at character 15: found and, where && or || was expected; did you mean &&?",
        ),
        (
            "state == PRIM & remote.state == SECOND",
            "at character 15: found &, where && or || was expected; did you mean &&?",
        ),
        (
            "état == up",
            "at character 1: found é, where the name of a resource was expected, as in check.tcp.db",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<Expression>().unwrap_err().to_string(), expected, "{text}");
    }
}

/// Whatever is written, reading it ends, and so does what was read.
#[test]
fn total() {
    let deep = format!("{}state == PRIM{}", "(".repeat(1000), ")".repeat(1000));
    assert!(deep.parse::<Expression>().unwrap_err().what.contains("deeper"));
    assert!("!".repeat(4000).parse::<Expression>().is_err());
    assert!("a".repeat(5000).parse::<Expression>().is_err());
    let wide = vec!["state == PRIM"; 200].join(" || ");
    assert!(wide.parse::<Expression>().unwrap().holds(&Fixture));
    let words = ["(", ")", "!", "&&", "||", "==", "!=", "state", "PRIM", "check.?", "up", "é", "=", "&"];
    let mut seed = 7_usize;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(words[(seed >> 33) % words.len()]);
            text.push(' ');
        }
        match text.parse::<Expression>() {
            Ok(expression) => drop(expression.holds(&Fixture)),
            Err(error) => assert!(error.at >= 1 && error.at <= text.chars().count() + 1, "{text}: {error}"),
        }
    }
}
