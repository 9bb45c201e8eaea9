//! The table of meetings (DESIGN section 6), rule by rule.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

#[path = "meeting/table.rs"]
mod table;

use safe_failover::config::{Side, SplitBrain};
use safe_failover::hard::Role;
use safe_failover::lineage::{Lineage, LineageId};
use safe_failover::meeting::{Outcome, Question, meet};
use safe_failover::view::{Copy, Mode, Plan, SessionId, View};

const fn id(number: u128) -> LineageId {
    LineageId(number)
}

/// A node that waits, with a good copy of lineage 1.
fn view() -> View {
    View {
        incarnation: 1,
        serial: 1,
        link: 1,
        heard_link: 1,
        mode: Mode::Waiting,
        meetable: true,
        serving: false,
        role: Role::Secondary,
        term: 1,
        lineage: Lineage { current: Some(id(1)), history: vec![id(100)], ..Lineage::default() },
        copy: Copy::Known,
        consistent: true,
        outdated: false,
        target: false,
        rebooted: false,
        knows_inflight: true,
        entered: None,
        paired: None,
        demand: None,
        conceded: None,
        fenced: None,
        wish: None,
        grant: None,
        offer: None,
        yields: false,
        timeout: std::time::Duration::ZERO,
        grace: std::time::Duration::ZERO,
        heard: 0,
        locks: Vec::new(),
    }
}

/// One that went on alone: base 1, current as given.
fn alone(current: u128) -> View {
    let lineage = Lineage {
        current: Some(id(current)),
        base: Some(id(1)),
        settled: true,
        history: vec![id(1), id(100)],
        wrote_alone: true,
        ..Lineage::default()
    };
    View { lineage, role: Role::Primary, ..view() }
}

fn fresh(copy: Copy) -> View {
    View { lineage: Lineage::default(), copy, consistent: false, role: Role::None, term: 0, ..view() }
}

fn edit(mut view: View, change: impl Fn(&mut View)) -> View {
    change(&mut view);
    view
}

/// The outcome, and the same with the nodes exchanged: who is first matters only where nothing else decides.
#[track_caller]
fn check(first: &View, second: &View, expected: Outcome) {
    assert_eq!(meet(first, second, SplitBrain::Serving), expected);
    let mirrored = match expected {
        Outcome::Pair(side) => Outcome::Pair(side.other()),
        Outcome::Source { side, plan, split } => Outcome::Source { side: side.other(), plan, split },
        Outcome::Person(question) => Outcome::Person(mirror(question)),
        Outcome::NotYet => Outcome::NotYet,
    };
    assert_eq!(meet(second, first, SplitBrain::Serving), mirrored, "with the nodes exchanged");
}

fn mirror(question: Question) -> Question {
    match question {
        Question::WhichFirst(side) => Question::WhichFirst(side.map(Side::other)),
        Question::Replace(side) => Question::Replace(side.other()),
        Question::Unknown(side) => Question::Unknown(side.other()),
        Question::NewestInconsistent(side) => Question::NewestInconsistent(side.other()),
        Question::NewestEdited(side) => Question::NewestEdited(side.other()),
        Question::SplitBrain(side) => Question::SplitBrain(side.other()),
        Question::NoGoodCopy | Question::Strangers => question,
    }
}

const fn source(side: Side, plan: Plan) -> Outcome {
    Outcome::Source { side, plan, split: false }
}

#[test]
fn unexamined_copies_do_not_meet() {
    check(&edit(view(), |view| view.copy = Copy::Unexamined), &view(), Outcome::NotYet);
}

#[test]
fn rule_1_without_lineage() {
    let (empty, data) = (fresh(Copy::Empty), fresh(Copy::Unlabelled));
    assert_eq!(meet(&empty, &empty, SplitBrain::Serving), source(Side::First, Plan::Full));
    check(&data, &empty, Outcome::Person(Question::WhichFirst(Some(Side::First))));
    check(&data, &data, Outcome::Person(Question::WhichFirst(None)));
    check(&empty, &view(), source(Side::Second, Plan::Full));
    check(&data, &view(), Outcome::Person(Question::Replace(Side::First)));
    let broken_off = edit(data, |view| view.target = true);
    check(&broken_off, &view(), source(Side::Second, Plan::Full));
}

#[test]
fn rule_1_distrusted_copies_are_no_source() {
    let (unknown, edited) =
        (edit(view(), |v| v.copy = Copy::Unknown), edit(view(), |v| v.copy = Copy::Edited));
    check(&unknown, &view(), Outcome::Person(Question::Unknown(Side::First)));
    check(&unknown, &unknown, Outcome::Person(Question::NoGoodCopy));
    check(&edited, &view(), source(Side::Second, Plan::Full));
    check(&edited, &edited, Outcome::Person(Question::NoGoodCopy));
    check(&edit(unknown, |v| v.yields = true), &view(), source(Side::Second, Plan::Full));
    check(&fresh(Copy::Empty), &edited, Outcome::Person(Question::NoGoodCopy));
}

#[test]
fn who_yields_is_target_whatever_its_lineage() {
    check(&edit(alone(2), |v| v.yields = true), &view(), source(Side::Second, Plan::Full));
    let data = edit(fresh(Copy::Unlabelled), |v| v.yields = true);
    check(&data, &alone(2), source(Side::Second, Plan::Full));
    check(&data, &fresh(Copy::Unlabelled), Outcome::Person(Question::WhichFirst(Some(Side::Second))));
}

#[test]
fn rule_2_inconsistent() {
    let bad = edit(view(), |v| v.consistent = false);
    check(&bad, &view(), source(Side::Second, Plan::Full));
    check(&bad, &alone(2), source(Side::Second, Plan::Full));
    check(&bad, &bad, Outcome::Person(Question::NoGoodCopy));
    // It went on alone, and only it has what it wrote.
    let newest = edit(alone(2), |v| v.consistent = false);
    check(&newest, &view(), Outcome::Person(Question::NewestInconsistent(Side::First)));
    // ... unless it was recorded outdated since.
    check(&edit(newest.clone(), |v| v.outdated = true), &view(), source(Side::Second, Plan::Full));
    // ... or the other took its writes over before.
    let later = edit(view(), |v| {
        v.lineage = Lineage { current: Some(id(3)), history: vec![id(2), id(1)], ..Lineage::default() }
    });
    check(&newest, &later, source(Side::Second, Plan::Full));
    // A stranger's copy is no reason to replace it.
    let stranger = edit(view(), |v| v.lineage = Lineage { current: Some(id(9)), ..Lineage::default() });
    check(&bad, &stranger, Outcome::Person(Question::NewestInconsistent(Side::First)));
}

#[test]
fn rule_2_a_broken_off_resync_goes_on() {
    let target = edit(view(), |v| (v.target, v.outdated, v.consistent) = (true, true, false));
    check(&target, &alone(2), source(Side::Second, Plan::Delta));
    // The source does not know any more in what the copies differ.
    check(&target, &edit(alone(2), |v| v.knows_inflight = false), source(Side::Second, Plan::Full));
    // It had persisted the source's lineage already.
    let paired = edit(target.clone(), |v| v.lineage.current = Some(id(2)));
    check(&paired, &alone(2), source(Side::Second, Plan::Delta));
    check(&target, &edit(view(), |v| v.lineage.current = Some(id(1))), source(Side::Second, Plan::Full));
}

#[test]
fn rule_2_a_target_whose_source_never_settled_agreed_in_vain() {
    // It agreed to be replaced, but the source lost power before it settled: nothing was copied.
    let target = edit(view(), |v| (v.target, v.outdated) = (true, true));
    let lost = edit(view(), |v| (v.rebooted, v.role) = (true, Role::Primary));
    check(&target, &lost, Outcome::Pair(Side::First));
}

#[test]
fn rule_3_equal_copies_take_roles_by_term() {
    let primary = edit(view(), |v| v.role = Role::Primary);
    check(&primary, &view(), Outcome::Pair(Side::First));
    // The higher term's primary holds.
    check(&edit(primary.clone(), |v| v.term = 2), &primary, Outcome::Pair(Side::First));
    // Two secondaries resume with the one that offered its role.
    let session = SessionId { first: 1, second: 1 };
    let offers = edit(view(), |v| v.offer = Some(session));
    check(&offers, &view(), Outcome::Pair(Side::First));
    // Who serves goes on.
    let serves = edit(view(), |v| v.mode = Mode::Primary);
    check(&serves, &primary, Outcome::Pair(Side::First));
}

#[test]
fn rule_3_who_lost_its_page_cache_follows() {
    let rebooted = edit(view(), |v| (v.rebooted, v.role) = (true, Role::Primary));
    check(&view(), &rebooted, Outcome::Pair(Side::First));
    let both = edit(view(), |v| v.rebooted = true);
    check(&rebooted, &both, Outcome::Pair(Side::First));
    let lost = edit(rebooted, |v| v.knows_inflight = false);
    check(&view(), &lost, source(Side::First, Plan::Full));
}

#[test]
fn rule_3_who_is_outdated_follows() {
    let outdated = edit(view(), |v| (v.outdated, v.role) = (true, Role::Primary));
    check(&view(), &outdated, Outcome::Pair(Side::First));
}

#[test]
fn rule_3_without_knowledge_everything_is_compared() {
    let crashed = edit(view(), |v| v.knows_inflight = false);
    check(&edit(view(), |v| v.role = Role::Primary), &crashed, source(Side::First, Plan::Full));
}

#[test]
fn an_unsettled_lineage_counts_as_its_base() {
    let candidate = edit(alone(2), |v| v.lineage.settled = false);
    check(&candidate, &view(), Outcome::Pair(Side::First));
    check(&candidate, &alone(3), source(Side::Second, Plan::Delta));
}

#[test]
fn rule_4_the_holder_of_the_base_is_source() {
    let paired = edit(view(), |v| v.lineage.current = Some(id(2)));
    check(&alone(2), &paired, source(Side::First, Plan::Delta));
}

#[test]
fn rule_5_the_other_is_at_my_base() {
    check(&alone(2), &view(), source(Side::First, Plan::Delta));
    check(&edit(alone(2), |v| v.rebooted = true), &view(), source(Side::First, Plan::Delta));
    check(&edit(alone(2), |v| v.knows_inflight = false), &view(), source(Side::First, Plan::Full));
    // It holds a base itself: it went on as well.
    let both = edit(view(), |v| {
        v.lineage = Lineage { base: Some(id(50)), settled: true, wrote_alone: false, ..v.lineage.clone() };
    });
    check(&alone(2), &both, Outcome::Source { side: Side::First, plan: Plan::Full, split: true });
}

#[test]
fn rule_6_history() {
    let older = edit(view(), |v| v.lineage = Lineage { current: Some(id(100)), ..Lineage::default() });
    check(&view(), &older, source(Side::First, Plan::Full));
}

#[test]
fn rule_7_split_brain() {
    let split = |side| Outcome::Source { side, plan: Plan::Full, split: true };
    let (a, b) = (edit(alone(2), |v| v.lineage.prim_of_base = true), alone(3));
    let serving = |view: &View| edit(view.clone(), |v| v.mode = Mode::Alone);
    let idle = |view: &View| edit(view.clone(), |v| v.lineage.wrote_alone = false);
    check(&a, &serving(&b), split(Side::Second));
    check(&serving(&a), &serving(&b), split(Side::First));
    check(&serving(&a), &edit(serving(&b), |v| v.lineage.forced = true), split(Side::Second));
    check(&idle(&a), &b, split(Side::Second));
    check(&idle(&a), &idle(&b), split(Side::First));
    check(&a, &b, Outcome::Person(Question::SplitBrain(Side::First)));
    let manual = meet(&serving(&a), &b, SplitBrain::Manual);
    assert_eq!(manual, Outcome::Person(Question::SplitBrain(Side::First)));
}

#[test]
fn rule_8_strangers() {
    let stranger = edit(view(), |v| v.lineage = Lineage { current: Some(id(9)), ..Lineage::default() });
    check(&view(), &stranger, Outcome::Person(Question::Strangers));
}

#[test]
fn an_outdated_copy_is_no_source() {
    let older = edit(view(), |v| v.lineage = Lineage { current: Some(id(100)), ..Lineage::default() });
    check(&edit(view(), |v| v.outdated = true), &older, Outcome::Person(Question::NoGoodCopy));
}
