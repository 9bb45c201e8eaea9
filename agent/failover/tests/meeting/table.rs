//! Every meeting, as a table in `agent/failover/MEETINGS.md`: what each pair of copies comes to.
//!
//! `SAFED_REWRITE=1 cargo nextest run -p safe-failover every_meeting` writes it, to be reviewed as a diff.

use std::fmt::Write as _;

use super::*;

/// The copies, by what they went through since both were in step at lineage L.
fn copies() -> Vec<(&'static str, &'static str, View)> {
    let unsettled = edit(alone(2), |v| v.lineage.settled = false);
    let passed = Lineage { current: Some(id(2)), history: vec![id(1), id(100)], ..Lineage::default() };
    let later = Lineage {
        current: Some(id(4)),
        base: Some(id(3)),
        settled: true,
        wrote_alone: true,
        history: vec![id(3), id(2), id(1), id(100)],
        ..Lineage::default()
    };
    let stranger = Lineage { current: Some(id(50)), history: vec![id(51)], ..Lineage::default() };
    vec![
        ("empty", "no lineage, no files", fresh(Copy::Empty)),
        ("data", "no lineage, but files", fresh(Copy::Unlabelled)),
        ("L", "in step at L when last seen", view()),
        ("L?", "the same, recorded outdated by the other", edit(view(), |v| v.outdated = true)),
        ("L↺", "the same, another boot since", edit(view(), |v| v.rebooted = true)),
        ("A~", "began A on L, never settled", unsettled),
        (
            "A",
            "went on alone: A on L, settled; was primary",
            edit(alone(2), |v| v.lineage.prim_of_base = true),
        ),
        ("B", "went on alone: another lineage on L", alone(3)),
        ("A.", "was in step at A, which stands on L", View { lineage: passed, ..view() }),
        ("C", "went on alone later: C on B's, which knows A", View { lineage: later, ..alone(4) }),
        (
            "L→",
            "target of a resync at L, broken off",
            edit(view(), |v| {
                v.target = true;
                v.outdated = true;
                v.consistent = false;
            }),
        ),
        ("L✗", "at L, a sync failed: inconsistent", edit(view(), |v| v.consistent = false)),
        ("A✗", "A on L, a sync failed: inconsistent", edit(alone(2), |v| v.consistent = false)),
        ("?", "the root marker is not the expected one", edit(view(), |v| v.copy = Copy::Unknown)),
        ("edit", "edited while unlocked", edit(view(), |v| v.copy = Copy::Edited)),
        ("A edit", "A on L, edited while unlocked", edit(alone(2), |v| v.copy = Copy::Edited)),
        ("S", "of another history", View { lineage: stranger, ..view() }),
        ("full", "`second --full` or `--force` was typed on it", edit(view(), |v| v.yields = true)),
    ]
}

fn cell(outcome: Outcome) -> String {
    let arrow = |side| if side == Side::First { "→" } else { "←" };
    match outcome {
        Outcome::Pair(side) => format!("{} repair", arrow(side)),
        Outcome::Source { side, plan, split } => {
            let plan = format!("{plan:?}").to_lowercase();
            format!("{} {plan}{}", arrow(side), if split { ", split" } else { "" })
        }
        Outcome::Person(Question::WhichFirst(None)) => "person: which?".to_owned(),
        Outcome::Person(Question::WhichFirst(Some(side))) => format!("person: prim {}", arrow(side)),
        Outcome::Person(Question::Replace(side)) => format!("person: replace {}", arrow(side.other())),
        Outcome::Person(Question::Unknown(side)) => format!("person: full {}", arrow(side.other())),
        Outcome::Person(Question::NewestEdited(_)) => "person: newest edited".to_owned(),
        Outcome::Person(Question::NoGoodCopy) => "person: none is good".to_owned(),
        Outcome::Person(Question::NewestInconsistent(_)) => "person: newest ✗".to_owned(),
        Outcome::Person(Question::SplitBrain(_)) => "person: split".to_owned(),
        Outcome::Person(Question::Strangers) => "person: strangers".to_owned(),
        Outcome::NotYet => "not yet".to_owned(),
    }
}

/// Both went on alone: who survives, by what each did.
fn split_brains() -> Vec<(&'static str, View)> {
    let side = |change: fn(&mut View)| edit(alone(3), change);
    vec![
        ("served when they met", side(|v| v.mode = Mode::Alone)),
        (
            "the same, was primary of L",
            side(|v| {
                v.mode = Mode::Alone;
                v.lineage.prim_of_base = true;
            }),
        ),
        (
            "the same, forced",
            side(|v| {
                v.mode = Mode::Alone;
                v.lineage.forced = true;
            }),
        ),
        ("waits, wrote alone", side(|_| {})),
        ("waits, was primary of L, wrote alone", side(|v| v.lineage.prim_of_base = true)),
        ("waits, wrote nothing", side(|v| v.lineage.wrote_alone = false)),
        (
            "waits, was primary of L, wrote nothing",
            side(|v| {
                v.lineage.wrote_alone = false;
                v.lineage.prim_of_base = true;
            }),
        ),
    ]
}

fn table() -> String {
    let mut text = String::from(
        "# Meetings\n\nMade by `tests/meeting/table.rs` from the function that decides; the test fails when it differs.\n\n\
         Row: the module's first node; column: its second. `→`: the first is the source, `←`: the second. `repair`: equal, \
         what was in flight; `delta`: what changed;\n`full`: both trees are compared; `split`: the target gives up changes of \
         its own. `person`: `safectl status` says what to type.\n\n| | copy |\n| --- | --- |\n",
    );
    let copies = copies();
    for (name, what, _) in &copies {
        writeln!(text, "| {name} | {what} |").unwrap();
    }
    let mut matrix = |title: &str, columns: &[&str], rows: Vec<(&str, Vec<String>)>| {
        writeln!(
            text,
            "\n## {title}\n\n| | {} |\n|{}",
            columns.join(" | "),
            " --- |".repeat(columns.len() + 1)
        )
        .unwrap();
        for (name, cells) in rows {
            writeln!(text, "| **{name}** | {} |", cells.join(" | ")).unwrap();
        }
    };
    let names: Vec<&str> = copies.iter().map(|(name, ..)| *name).collect();
    let row = |first: &View| -> Vec<String> {
        copies.iter().map(|(.., second)| cell(meet(first, second, SplitBrain::Serving))).collect()
    };
    matrix("Nobody serves", &names, copies.iter().map(|(name, _, first)| (*name, row(first))).collect());
    let splits = split_brains();
    let names: Vec<&str> = splits.iter().map(|(name, _)| *name).collect();
    for (title, policy) in [
        ("Split brain, policy serving", SplitBrain::Serving),
        ("Split brain, policy manual", SplitBrain::Manual),
    ] {
        let row = |first: &View| -> Vec<String> {
            let first = edit(first.clone(), |v| v.lineage.current = Some(id(2)));
            splits.iter().map(|(_, second)| cell(meet(&first, second, policy))).collect()
        };
        matrix(title, &names, splits.iter().map(|(name, first)| (*name, row(first))).collect());
    }
    text
}

#[test]
fn every_meeting_is_in_the_table() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("MEETINGS.md");
    let table = table();
    if std::env::var_os("SAFED_REWRITE").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), table, "review, then SAFED_REWRITE=1");
}

/// Who is first decides only where nothing else does.
#[test]
fn a_meeting_comes_to_the_same_from_either_side() {
    let all: Vec<View> = copies().into_iter().map(|(.., view)| view).collect();
    for (row, first) in all.iter().enumerate() {
        for second in all.iter().skip(row + 1) {
            let outcome = meet(first, second, SplitBrain::Serving);
            let split = matches!(
                outcome,
                Outcome::Person(Question::SplitBrain(_)) | Outcome::Source { split: true, .. }
            );
            let same = first.lineage.prim_of_base == second.lineage.prim_of_base;
            if !(split && same) {
                check(first, second, outcome);
            }
        }
    }
}

/// Of no pair of copies does a meeting make one the source that is inconsistent, distrusted, or known to be passed over.
#[test]
fn no_meeting_makes_a_bad_copy_the_source() {
    for (_, _, first) in copies() {
        for (_, _, second) in copies() {
            let outcome = meet(&first, &second, SplitBrain::Serving);
            let (Outcome::Pair(side) | Outcome::Source { side, .. }) = outcome else { continue };
            let (source, target) = if side == Side::First { (&first, &second) } else { (&second, &first) };
            let labelled = source.lineage.current.is_some();
            assert!(source.consistent || !labelled, "{source:?}");
            assert!(!matches!(source.copy, Copy::Unknown | Copy::Edited), "{source:?}");
            // What the target settled after the source's lineage is given up only in a split brain or by a person.
            let newer = target.lineage.settled && target.lineage.base == source.lineage.current;
            assert!(!newer || target.yields, "{source:?} over {target:?}");
        }
    }
}
