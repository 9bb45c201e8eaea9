//! The Rust files of the repository, parsed.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that people write.
pub(crate) struct Source {
    /// Relative to the repository.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

impl Source {
    pub(crate) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// `path:line: what`.
    pub(crate) fn finding(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file of the repository, also those not committed yet, relative to it.
pub(crate) fn files() -> Vec<String> {
    let said = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(said.status.success(), "git: {}", String::from_utf8_lossy(&said.stderr));
    let names = String::from_utf8(said.stdout).unwrap();
    names.lines().filter(|name| root().join(name).is_file()).map(str::to_owned).collect()
}

/// Every Rust file but generated ones.
pub(crate) fn all() -> Vec<Source> {
    let mut found = Vec::new();
    for path in files() {
        if !path.ends_with(".rs") || path.contains("/gen/") {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        found.push(Source { path, text, syntax });
    }
    assert!(found.len() > 20, "only {} sources found", found.len());
    found
}
