//! Comparing the two copies of a replicated directory.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually;
use crate::node::Node;
use crate::process;

/// The options of the comparison: everything that rsync can compare, by content.
pub(crate) const OPTIONS: [&str; 6] =
    ["-aHAXn", "--numeric-ids", "--checksum", "--delete", "--itemize-changes", "--filter=-x trusted.safed.*"];

/// Lines in which the copies differ, below any mount; none if they are equal.
pub fn differences(one: &Path, other: &Path) -> Result<Vec<String>> {
    let said = Command::new("rsync")
        .args(OPTIONS)
        .arg(format!("{}/", one.display()))
        .arg(format!("{}/", other.display()))
        .output()
        .context(|| "rsync".to_owned())?;
    if !said.status.success() {
        return Err(Error::new(format!("rsync: {}", String::from_utf8_lossy(&said.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect())
}

/// An error that names the differences, if there are any. Nobody may be writing.
pub fn assert_equal(cluster: &Cluster, path: &str) -> Result<()> {
    let [one, other] = [0, 1].map(|index| cluster.node(index).outside(path));
    let lines = differences(&one, &other)?;
    if lines.is_empty() {
        return Ok(());
    }
    let some: Vec<_> =
        lines.iter().take(20).map(|line| format!("{line} ({})", times(line, &one, &other))).collect();
    Err(Error::new(format!("{} differences of {path}: {}", lines.len(), some.join("; "))))
}

/// The same while every process of a program stands still where it runs; it goes on afterwards. What was on its way to the
/// other disk when it stopped may take `within` to arrive.
pub(crate) fn assert_equal_without(
    cluster: &Cluster,
    path: &str,
    (primary, program): (&Node, &str),
    within: Duration,
) -> Result<()> {
    let pids = primary.running(program)?;
    if pids.is_empty() {
        return Err(Error::new(format!("no server runs on {}", primary.name)));
    }
    let send = |signal| pids.iter().for_each(|pid| drop(process::signal(*pid, signal)));
    send(Signal::STOP);
    let equal = eventually(within, "both copies are equal", || assert_equal(cluster, path).map(Some));
    send(Signal::CONT);
    equal
}

/// The same for copies on disks of their own, which only their hosts see: names, types, owners, modes, times, links and
/// content. `below`: where each host sees its copy without the mount of the module.
pub fn assert_equal_inside(cluster: &Cluster, below: [&str; 2]) -> Result<()> {
    let list = |index: usize| {
        let lines = cluster.node(index).shell(&LIST.replace("DIRECTORY", below[index]))?;
        Ok::<_, Error>(lines.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>())
    };
    let (one, other) = (list(0)?, list(1)?);
    let lines: Vec<_> = one.symmetric_difference(&other).take(20).cloned().collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Error::new(format!("the copies differ: {}", lines.join("; "))))
    }
}

/// The size of a directory says nothing about what is in it.
const LIST: &str = r"
cd DIRECTORY
find . -mindepth 1 -type d -printf '%P %y %m %U %G %T@\n'
find . -mindepth 1 ! -type d -printf '%P %y %m %U %G %s %n %T@ %l\n'
find . -type f -exec sha256sum {} +
";

/// Size and mtime of the file on both sides, for who looks into it.
fn times(line: &str, one: &Path, other: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;

    let name = line.split_once(' ').map_or(line, |(_, name)| name.trim());
    let look = |root: &Path| {
        let found = std::fs::symlink_metadata(root.join(name));
        found.map_or_else(
            |error| error.to_string(),
            |it| format!("{} {}.{:09}", it.size(), it.mtime(), it.mtime_nsec()),
        )
    };
    format!("{} / {}{}", look(one), look(other), content(&one.join(name), &other.join(name)))
}

/// Where the content of two files differs, and what is there.
fn content(one: &Path, other: &Path) -> String {
    let (Ok(one), Ok(other)) = (std::fs::read(one), std::fs::read(other)) else { return String::new() };
    let differs = |at: &usize| one.get(*at) != other.get(*at);
    let longest = one.len().max(other.len());
    let (Some(from), Some(to)) = ((0..longest).find(differs), (0..longest).rev().find(differs)) else {
        return ", equal by now".to_owned();
    };
    let show = |file: &[u8]| {
        let part = file.get(from..(to + 1).min(from + 120).min(file.len())).unwrap_or_default();
        String::from_utf8_lossy(part).into_owned()
    };
    format!(", bytes {from} to {to}: {:?} / {:?}", show(&one), show(&other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_in_content_alone_is_found() {
        let [one, other] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        for (directory, text) in [(&one, "a"), (&other, "b")] {
            let file = directory.path().join("file");
            std::fs::write(&file, text).unwrap();
            let time = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            std::fs::File::options().write(true).open(file).unwrap().set_times(time).unwrap();
        }
        let lines = differences(one.path(), other.path()).unwrap();
        assert!(lines.iter().any(|line| line.ends_with(" file")), "{lines:?}");
    }
}
