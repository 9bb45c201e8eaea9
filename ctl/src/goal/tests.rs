use safe_proto::module::{ModuleStatus, Phase as WirePhase, State as WireState};

use super::*;

fn entry(node: &str, state: WireState, phase: WirePhase, since: i64) -> Entry {
    Entry::from(ModuleStatus {
        module: "db".to_owned(),
        node: node.to_owned(),
        state: state.into(),
        phase: phase.into(),
        since_ms: since,
        ..ModuleStatus::default()
    })
}

fn with(entry: Entry, reason: &str, hint: &str) -> Entry {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Entry { reason: some(reason), hint: some(hint), ..entry }
}

use WirePhase::{Blocked, Ready, Transient};
use WireState::{Alone, Prim, Second, Stop, Unknown, Wait};

fn both() -> Vec<String> {
    vec!["n1".to_owned(), "n2".to_owned()]
}

fn stopped() -> Vec<Entry> {
    vec![entry("n1", Stop, Ready, 1), entry("n2", Stop, Ready, 1)]
}

#[test]
fn a_start_is_reached_with_a_second_that_synchronises() {
    let mut pursuit = Pursuit::new(Goal::Runs(both()), false, &stopped());
    assert_eq!(pursuit.judge(&stopped()), Verdict::Pending);
    let now = [entry("n1", Alone, Ready, 5), entry("n2", Wait, Transient, 5)];
    assert_eq!(pursuit.judge(&now), Verdict::Pending);
    let now = [entry("n1", Alone, Ready, 5), entry("n2", Second, Transient, 6)];
    assert_eq!(pursuit.judge(&now), Verdict::Reached);
}

#[test]
fn synced_waits_for_the_resync() {
    let mut pursuit = Pursuit::new(Goal::Runs(both()), true, &stopped());
    let now = [entry("n1", Alone, Ready, 5), entry("n2", Second, Transient, 6)];
    assert_eq!(pursuit.judge(&now), Verdict::Pending);
    let now = [entry("n1", Prim, Ready, 7), entry("n2", Second, Ready, 7)];
    assert_eq!(pursuit.judge(&now), Verdict::Reached);
}

#[test]
fn synced_with_a_stopped_node_awaits_a_person() {
    let mut pursuit = Pursuit::new(Goal::Runs(vec!["n1".to_owned()]), true, &stopped());
    let now = [entry("n1", Alone, Ready, 5), entry("n2", Stop, Ready, 1)];
    let Verdict::Person { hint, .. } = pursuit.judge(&now) else { panic!("a person is awaited") };
    assert_eq!(hint, "safectl start db --on n2");
}

#[test]
fn a_person_is_awaited_only_if_no_node_gets_on() {
    let mut pursuit = Pursuit::new(Goal::Runs(both()), false, &stopped());
    let waits = with(entry("n1", Wait, Blocked, 5), "both have data", "safectl prim db --on n1");
    assert_eq!(pursuit.judge(&[waits.clone(), entry("n2", Wait, Transient, 5)]), Verdict::Pending);
    let verdict = pursuit.judge(&[waits, entry("n2", Unknown, WirePhase::Unspecified, 0)]);
    assert!(matches!(verdict, Verdict::Person { hint, .. } if hint == "safectl prim db --on n1"));
}

#[test]
fn a_node_that_waits_for_a_blocked_one_waits_for_its_person() {
    let blocked =
        with(entry("n1", Wait, Blocked, 5), "/srv/db does not exist", "safectl stopstart db --on n1");
    let judge = |reason: &str| {
        let mut pursuit = Pursuit::new(Goal::Runs(both()), false, &stopped());
        pursuit.judge(&[blocked.clone(), with(entry("n2", Wait, Transient, 5), reason, "")])
    };
    for reason in ["waits for n1", "waits for n1, to follow it"] {
        assert!(matches!(judge(reason), Verdict::Person { node, .. } if node == "n1"), "{reason}");
    }
    for reason in ["starting", "waits for n1 for 10s", "waits for n11", "meeting n1"] {
        assert_eq!(judge(reason), Verdict::Pending, "{reason}");
    }
}

#[test]
fn a_start_that_ends_in_stop_has_failed() {
    let mut pursuit = Pursuit::new(Goal::Runs(both()), false, &stopped());
    let now = [entry("n1", Wait, Transient, 5), entry("n2", Stop, Ready, 1)];
    assert_eq!(pursuit.judge(&now), Verdict::Pending);
    let now = [entry("n1", Stop, Transient, 6), entry("n2", Stop, Ready, 1)];
    assert_eq!(pursuit.judge(&now), Verdict::Pending);
    let now = [with(entry("n1", Stop, Ready, 6), "start_prim failed", ""), entry("n2", Stop, Ready, 1)];
    assert_eq!(pursuit.judge(&now), Verdict::Failed("n1 did not start: start_prim failed".to_owned()));
}

#[test]
fn a_start_refused_in_stop_has_failed() {
    let mut pursuit = Pursuit::new(Goal::Runs(both()), false, &stopped());
    let now = [with(entry("n1", Stop, Blocked, 1), "/srv/db is missing", ""), entry("n2", Stop, Ready, 1)];
    assert_eq!(pursuit.judge(&now), Verdict::Failed("n1 did not start: /srv/db is missing".to_owned()));
}

#[test]
fn stopstart_must_leave_and_return() {
    let before = [entry("n1", Prim, Ready, 1), entry("n2", Second, Ready, 1)];
    let mut pursuit = Pursuit::new(Goal::RunsAgain(vec!["n1".to_owned()]), false, &before);
    assert_eq!(pursuit.judge(&before), Verdict::Pending);
    assert_eq!(
        pursuit.judge(&[entry("n1", Stop, Transient, 4), entry("n2", Alone, Ready, 4)]),
        Verdict::Pending
    );
    assert_eq!(
        pursuit.judge(&[entry("n1", Wait, Transient, 5), entry("n2", Alone, Ready, 4)]),
        Verdict::Pending
    );
    assert_eq!(
        pursuit.judge(&[entry("n1", Second, Ready, 6), entry("n2", Prim, Ready, 6)]),
        Verdict::Reached
    );
}

#[test]
fn a_swap_is_done_or_undone() {
    let before = [entry("n1", Prim, Ready, 1), entry("n2", Second, Ready, 1)];
    let goal = Goal::Swapped { from: "n1".to_owned(), to: "n2".to_owned() };
    let mut pursuit = Pursuit::new(goal.clone(), false, &before);
    assert_eq!(pursuit.judge(&before), Verdict::Pending);
    assert_eq!(
        pursuit.judge(&[entry("n1", Second, Ready, 5), entry("n2", Prim, Transient, 5)]),
        Verdict::Pending
    );
    assert_eq!(
        pursuit.judge(&[entry("n1", Second, Ready, 5), entry("n2", Prim, Ready, 5)]),
        Verdict::Reached
    );

    let mut pursuit = Pursuit::new(goal, false, &before);
    assert_eq!(
        pursuit.judge(&[entry("n1", Prim, Transient, 1), entry("n2", Second, Ready, 1)]),
        Verdict::Pending
    );
    let verdict = pursuit.judge(&before);
    assert!(matches!(verdict, Verdict::Failed(reason) if reason.contains("n1 serves again")));
}

#[test]
fn prim_on_a_node_that_follows_has_failed() {
    let mut pursuit = Pursuit::new(Goal::Serves("n1".to_owned()), false, &stopped());
    let now = [entry("n1", Second, Ready, 5), entry("n2", Prim, Ready, 5)];
    assert!(matches!(pursuit.judge(&now), Verdict::Failed(_)));
    assert_eq!(pursuit.judge(&[entry("n1", Alone, Ready, 5), entry("n2", Stop, Ready, 5)]), Verdict::Reached);
}

#[test]
fn wait_takes_the_states_named() {
    let is = |states: Vec<(State, Option<Phase>)>, synced| {
        Pursuit::new(Goal::Is { states, nodes: both() }, synced, &[])
    };
    let now = [entry("n1", Alone, Ready, 5), entry("n2", Second, Transient, 5)];
    assert_eq!(is(vec![(State::Second, None)], false).judge(&now), Verdict::Reached);
    assert_eq!(is(vec![(State::Second, None)], true).judge(&now), Verdict::Pending);
    assert_eq!(is(vec![(State::Second, Some(Phase::Ready))], false).judge(&now), Verdict::Pending);
    assert_eq!(is(vec![(State::Prim, None), (State::Alone, None)], false).judge(&now), Verdict::Reached);
}
