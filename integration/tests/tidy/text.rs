//! What must not be in a file, or in its name.

use crate::source::{self, Source};

/// Names that say nothing about a file.
const EMPTY_NAMES: [&str; 6] = ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "manager.rs"];

/// Words of unfinished work; in halves, so that this file passes.
const LATER: [[&str; 2]; 6] =
    [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["dbg", "!("], ["todo", "!("], ["unimplemented", "!("]];

/// Where only one machine has something; in halves as well.
const MACHINES: [[&str; 2]; 4] = [["/ho", "me/"], ["/ro", "ot/"], ["/wo", "rk/"], ["/Use", "rs/"]];

/// A name that says nothing.
pub(crate) fn check_name(source: &Source) -> Vec<String> {
    let empty = EMPTY_NAMES.contains(&source.file_name());
    empty.then(|| source.finding(1, "name it for the one noun in it")).into_iter().collect()
}

/// Unfinished work.
pub(crate) fn check_words(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for word in LATER.map(|halves| halves.concat()) {
            if line.contains(&word) {
                findings.push(
                    source
                        .finding(index + 1, format!("{word}: do it now, or say what is missing in the docs")),
                );
            }
        }
    }
    findings
}

/// Paths of somebody's machine, in any text file.
pub(crate) fn check_paths() -> Vec<String> {
    let mut findings = Vec::new();
    for path in source::files() {
        // Packages of the console name their sources; nobody writes those files.
        let generated =
            path.ends_with(".lock") || path.ends_with("package-lock.json") || path.contains("/dist/");
        let Ok(text) = std::fs::read_to_string(source::root().join(&path)) else { continue };
        if generated {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            for place in MACHINES.map(|halves| halves.concat()) {
                if names_place(line, &place) {
                    findings.push(format!("{path}:{}: names {place}", index + 1));
                }
            }
        }
    }
    findings
}

/// `place` as the beginning of an absolute path, not inside a longer one.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "./_-}*)".contains(letter))
    })
}

#[test]
fn a_place_is_told_from_a_part_of_a_path() {
    let [place, ..] = MACHINES.map(|halves| halves.concat());
    assert!(names_place(&format!("cd {place}me"), &place));
    assert!(!names_place(&format!("cd /srv{place}me"), &place));
}
