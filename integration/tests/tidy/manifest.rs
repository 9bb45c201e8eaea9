//! What the manifests must say.

use crate::source;

/// What a pure crate may depend on: computation, nothing that reaches outside.
const HARMLESS: [&str; 11] = [
    "serde",
    "serde_json",
    "bytes",
    "thiserror",
    "blake3",
    "crc32fast",
    "fastcdc",
    "strsim",
    "winnow",
    "safe-failover",
    "safe-replication",
];

/// Dependencies of the pure crates that could do more than compute.
pub(crate) fn check_pure() -> Vec<String> {
    let mut findings = Vec::new();
    for path in ["agent/failover/Cargo.toml", "replicator/core/Cargo.toml"] {
        for name in section(path, "[dependencies]") {
            if !HARMLESS.contains(&name.as_str()) {
                findings.push(format!("{path}: a pure crate depends on {name}"));
            }
        }
    }
    findings
}

/// Crates without the workspace's lints.
pub(crate) fn check_lints() -> Vec<String> {
    let manifests = source::files().into_iter().filter(|path| path.ends_with("/Cargo.toml"));
    manifests
        .filter(|path| !section(path, "[lints]").contains(&"workspace".to_owned()))
        .map(|path| format!("{path}: no `[lints] workspace = true`"))
        .collect()
}

/// Keys of a section.
fn section(path: &str, title: &str) -> Vec<String> {
    let text = std::fs::read_to_string(source::root().join(path)).unwrap();
    let lines = text.lines().skip_while(|line| line.trim() != title).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let keys =
        lines.filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| line.split_once('='));
    keys.map(|(key, _)| key.trim().trim_end_matches(".workspace").to_owned()).collect()
}
