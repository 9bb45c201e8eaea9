//! What a failed cluster leaves to read.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::place;

/// Lines of each log that are printed; the whole files are kept.
const TAIL: usize = 40;

/// Prints the end of every log and keeps the files. Nothing here may fail the test a second time.
pub(crate) fn failure(name: &str, directory: &Path) {
    let kept = keep(name, directory);
    let mut text = String::new();
    for log in logs(directory) {
        let content = read(&log);
        let lines: Vec<_> = content.lines().collect();
        let from = lines.len().saturating_sub(TAIL);
        let short = log.strip_prefix(directory).unwrap_or(&log).display();
        text.push_str(&format!("---- {name}: {short}\n{}\n", lines[from..].join("\n")));
    }
    match kept {
        Ok(place) => text.push_str(&format!("---- logs of {name} are kept in {}\n", place.display())),
        Err(error) => text.push_str(&format!("---- logs of {name} could not be kept: {error}\n")),
    }
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// Lines by which a process of the cluster said that it panicked.
pub(crate) fn panics(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for log in logs(directory) {
        let content = read(&log);
        found.extend(content.lines().filter(|line| line.contains("panicked at")).map(str::to_owned));
    }
    found
}

fn keep(name: &str, directory: &Path) -> Result<PathBuf> {
    let place = place::for_failed(name)?;
    for log in logs(directory) {
        let short = log.strip_prefix(directory).unwrap_or(&log).display().to_string();
        fs::copy(&log, place.join(short.replace('/', "_")))?;
    }
    Ok(place)
}

/// Logs of the hosts' programs, and of modules and replicators on the hosts' disks.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_path_buf()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_log = path.extension().is_some_and(|kind| kind == "log") || path.ends_with("log");
            match entry.file_type() {
                // A replicated directory may hold a whole database.
                Ok(kind) if kind.is_dir() && !path.ends_with("disk/data") => todo.push(path),
                Ok(kind) if kind.is_file() && is_log => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}
