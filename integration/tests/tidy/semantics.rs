//! replicator/SEMANTICS.md: each line of its tables names tests, and they exist.

use std::collections::BTreeSet;

use crate::source::{self, Source};

const DOCUMENT: &str = "replicator/SEMANTICS.md";
/// Where its tests are.
const TESTS: &str = "replicator/tests/";

pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let exist = tests(sources);
    let text = std::fs::read_to_string(source::root().join(DOCUMENT)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let head = lines.get(number + 1).is_some_and(|next| next.starts_with("| ---"));
        if !line.starts_with('|') || line.starts_with("| ---") || head {
            continue;
        }
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            findings.push(format!("{DOCUMENT}:{}: a line without a test", number + 1));
        }
        for name in named.into_iter().filter(|name| !exist.contains(*name)) {
            findings.push(format!("{DOCUMENT}:{}: there is no test `{name}`", number + 1));
        }
    }
    assert!(lines.len() > 20, "{DOCUMENT} is not what it was");
    findings
}

/// `file::function` of every test.
fn tests(sources: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path.starts_with(TESTS)) {
        let file = source.file_name().trim_end_matches(".rs");
        for item in &source.syntax.items {
            if let syn::Item::Fn(function) = item
                && function.attrs.iter().any(|attribute| attribute.path().is_ident("test"))
            {
                found.insert(format!("{file}::{}", function.sig.ident));
            }
        }
    }
    found
}
