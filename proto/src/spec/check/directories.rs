//! Replicated directories.

use std::path::{Path, PathBuf};

use globset::GlobBuilder;

use super::super::Kind;
use super::Report;

/// Most replicated directories of a module.
const MAX_DIRECTORIES: usize = 8;
/// Longest path.
const MAX_PATH: usize = 1024;
/// Most globs of a directory, and the longest one.
const MAX_GLOBS: usize = 128;
const MAX_GLOB: usize = 512;
/// A system does not run with one of these covered.
const SYSTEM: [&str; 13] = [
    "/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/root", "/sbin", "/tmp", "/usr", "/var",
    "/var/lib",
];
/// Nothing below these is a file of an application.
const KERNEL: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

pub(super) fn check(report: &mut Report<'_>, own: &[PathBuf]) {
    let spec = report.spec;
    report.at_most("replicate", spec.replicate.len(), MAX_DIRECTORIES);
    if spec.module.kind != Kind::Mirror && !spec.replicate.is_empty() {
        let message = format!(
            "a {} module replicates nothing; directories need kind = \"mirror\"",
            spec.module.kind.as_str()
        );
        report.error("replicate", message);
    }
    if spec.module.kind == Kind::Mirror && spec.replicate.is_empty() {
        report.note("no directory is replicated: only the address and the application move");
    }
    for (index, directory) in spec.replicate.iter().enumerate() {
        let key = format!("replicate.{index}.path");
        match fault(&directory.path) {
            Some(message) => report.error(&key, message),
            None => against_others(report, index, &key, own),
        }
        globs(report, index, &directory.exclude);
    }
}

/// What is wrong with a path by itself.
fn fault(path: &str) -> Option<String> {
    let shown: String = path.chars().take(120).collect();
    if path.len() > MAX_PATH {
        return Some(format!("the path is longer than {MAX_PATH} bytes"));
    }
    if path.chars().any(char::is_control) {
        return Some(format!("{shown:?} holds a control character"));
    }
    if !path.starts_with('/') {
        return Some(format!("{shown:?} is not absolute; begin with /"));
    }
    let normal = normalised(path);
    if normal != path {
        return Some(format!("{shown:?} is not normalised; write {normal:?}"));
    }
    if SYSTEM.contains(&path) || KERNEL.iter().any(|kernel| Path::new(path).starts_with(kernel)) {
        return Some(format!(
            "{shown} belongs to the system; give the application a directory of its own below it"
        ));
    }
    None
}

/// The path without empty, `.` and `..` components.
fn normalised(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

fn against_others(report: &mut Report<'_>, index: usize, key: &str, own: &[PathBuf]) {
    let spec = report.spec;
    let path = Path::new(&spec.replicate[index].path);
    if let Some(other) = spec.replicate[..index].iter().find(|other| overlap(path, Path::new(&other.path))) {
        report.error(
            key,
            format!("{} overlaps {}, also replicated by this module", path.display(), other.path),
        );
    }
    if let Some(other) = own.iter().find(|other| overlap(path, other)) {
        report.error(
            key,
            format!("{} overlaps {}, which belongs to safed itself", path.display(), other.display()),
        );
    }
}

/// One is the other or holds it.
pub(in super::super) fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn globs(report: &mut Report<'_>, index: usize, globs: &[String]) {
    let key = format!("replicate.{index}.exclude");
    report.at_most(&key, globs.len(), MAX_GLOBS);
    for (nth, glob) in globs.iter().enumerate() {
        let key = format!("{key}.{nth}");
        let shown: String = glob.chars().take(120).collect();
        if glob.is_empty() || glob.len() > MAX_GLOB {
            report.error(&key, format!("a glob has 1 to {MAX_GLOB} bytes"));
        } else if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
            report.error(&key, format!("{shown:?} must be relative to the directory, without .."));
        } else if let Err(error) = GlobBuilder::new(glob).literal_separator(true).build() {
            report.error(&key, format!("{shown:?} is not a glob: {}", error.kind()));
        } else if matches!(glob.as_str(), "**" | "*" | "**/*") {
            report.error(&key, format!("{shown:?} leaves nothing to replicate"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_normalise() {
        assert_eq!(normalised("/a//b/./c/../d/"), "/a/b/d");
        assert_eq!(normalised("/../.."), "/");
        assert_eq!(fault("/srv/db"), None);
        for bad in ["srv", "/srv/", "/srv//db", "/srv/../etc", "/", "/etc", "/proc/1", "/run/x", "/a\nb", ""]
        {
            assert!(fault(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn overlaps_by_component() {
        assert!(overlap(Path::new("/a/b"), Path::new("/a")));
        assert!(overlap(Path::new("/a"), Path::new("/a/b")));
        assert!(!overlap(Path::new("/a/b"), Path::new("/a/bc")));
    }
}
