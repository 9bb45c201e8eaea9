//! pjdfstest on the mirrored mount and on the filesystem below, on demand: it must be installed (`cargo install
//! pjdfstest`) and named by `PJDFSTEST`; `PJDFSTEST_CONFIG` names its configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use safe_proto::replication::Plan;

use crate::pair::Pair;

/// pathconf(3) takes the type of the filesystem from a list that FUSE is not in, and answers 127; more links are possible.
const JUSTIFIED: [&str; 1] = ["link::link_count_max"];

/// Name of each test and whether it passed.
fn run(program: &str, place: &Path) -> BTreeMap<String, bool> {
    std::os::unix::fs::chown(place, Some(0), Some(0)).unwrap();
    let mut command = Command::new(program);
    if let Ok(configuration) = std::env::var("PJDFSTEST_CONFIG") {
        command.args(["-c", &configuration]);
    }
    let output = command.arg("-p").arg(place).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| {
            let (name, outcome) = line.rsplit_once(char::is_whitespace)?;
            match outcome {
                "ok" | "success" | "passed" => Some((name.trim().to_owned(), true)),
                "FAILED" | "failed" => Some((name.trim().to_owned(), false)),
                _ => None,
            }
        })
        .collect()
}

#[test]
#[ignore = "needs pjdfstest"]
fn as_the_filesystem_below() {
    let program = std::env::var("PJDFSTEST").expect("PJDFSTEST names the program");
    let plain = tempfile::tempdir().unwrap();
    let below = run(&program, plain.path());
    let pair = Pair::paired(Plan::Repair);
    let mirrored = run(&program, &pair.a.data);
    let differences: Vec<&String> = below
        .iter()
        .filter(|(name, passed)| **passed && mirrored.get(*name) != Some(&true))
        .map(|(name, _)| name)
        .filter(|name| !JUSTIFIED.contains(&name.as_str()))
        .collect();
    assert!(below.len() > 100, "only {} tests ran", below.len());
    assert!(differences.is_empty(), "{} of {} differ: {differences:#?}", differences.len(), below.len());
    pair.assert_equal();
}
