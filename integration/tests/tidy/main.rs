//! The repository tests itself: budgets, purity, and what must not be in it.

#![expect(clippy::unwrap_used, reason = "a test: what is not as expected ends it")]
#![expect(clippy::wildcard_enum_match_arm, reason = "of the many kinds of syntax a rule looks at one")]

mod budget;
mod manifest;
mod module_tree;
mod purity;
mod semantics;
mod source;
mod system_calls;
mod text;

use source::Source;

/// Fails with all findings at once, one a line.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), findings.join("\n"));
}

fn every(rule: impl Fn(&Source) -> Vec<String>) {
    none(source::all().iter().flat_map(rule).collect());
}

#[test]
fn files_and_functions_keep_their_budgets() {
    let sources = source::all();
    for line in budget::to_review(&sources) {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "{line}").unwrap();
    }
    none(sources.iter().flat_map(budget::check).collect());
}

#[test]
fn pure_crates_stay_pure() {
    every(purity::check);
    none(manifest::check_pure());
}

#[test]
fn system_calls_stay_in_files_named_for_them() {
    every(system_calls::check);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    none(manifest::check_lints());
}

#[test]
fn no_file_is_forgotten() {
    none(module_tree::check(&source::all()));
}

#[test]
fn names_of_files_say_what_is_in_them() {
    every(text::check_name);
}

#[test]
fn nothing_is_left_for_later() {
    every(text::check_words);
}

#[test]
fn no_path_of_a_machine_is_in_a_file() {
    none(text::check_paths());
}

#[test]
fn every_promise_of_the_mirrored_directory_has_a_test() {
    none(semantics::check(&source::all()));
}
