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

/// What is wrong with one source.
type Rule = fn(&Source) -> Vec<String>;

const OF_EACH_SOURCE: [(&str, Rule); 5] = [
    ("files and functions keep their budgets", budget::check),
    ("pure crates stay pure", purity::check),
    ("system calls stay in files named for them", system_calls::check),
    ("names of files say what is in them", text::check_name),
    ("nothing is left for later", text::check_words),
];

/// All are read once: the rules of one test are those that read them.
#[test]
fn the_sources_keep_their_rules() {
    let sources = source::all();
    for line in budget::to_review(&sources) {
        use std::io::Write as _;
        writeln!(std::io::stderr(), "{line}").unwrap();
    }
    let each = |rule: Rule| sources.iter().flat_map(rule).collect();
    let mut found: Vec<(&str, Vec<String>)> =
        OF_EACH_SOURCE.into_iter().map(|(what, rule)| (what, each(rule))).collect();
    found.push(("no file is forgotten", module_tree::check(&sources)));
    found.push(("every promise of the mirrored directory has a test", semantics::check(&sources)));
    let findings = found.into_iter().filter(|(_, findings)| !findings.is_empty());
    none(findings.map(|(what, findings)| format!("{what}:\n{}", findings.join("\n"))).collect());
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    none(manifest::check_lints());
}

#[test]
fn pure_crates_depend_on_pure_ones() {
    none(manifest::check_pure());
}

#[test]
fn no_path_of_a_machine_is_in_a_file() {
    none(text::check_paths());
}

/// Fails with all findings at once, one a line.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
