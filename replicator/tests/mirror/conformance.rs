//! pjdfstest on the mirrored mount and on the filesystem below, in the same run. `.ci/tools test` installs it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use safe_proto::replication::Plan;

use crate::pair::Pair;

/// Tests that pass below and may fail on the mount, and why.
const JUSTIFIED: [(&str, &str); 1] = [(
    "link::link_count_max",
    "pathconf(3) takes the limit from a list of filesystem types that FUSE is not in, and answers 127; more are possible",
)];

/// Two unprivileged users, each with a group of its own, that every Debian has.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.02
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

fn program() -> PathBuf {
    let installed = "../target/tools/pjdfstest/bin/pjdfstest";
    std::env::var_os("PJDFSTEST")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(installed), PathBuf::from)
}

/// How each test ended: `ok`, `FAILED` or `skipped`; and all that was printed.
fn run(configuration: &Path, place: &Path) -> (BTreeMap<String, String>, String) {
    std::os::unix::fs::chown(place, Some(0), Some(0)).unwrap();
    let output = Command::new(program())
        .arg("-c")
        .arg(configuration)
        .arg("-p")
        .arg(place)
        .output()
        .expect("pjdfstest is installed by: .ci/tools test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tests = text
        .lines()
        .filter_map(|line| {
            let (name, outcome) = line.rsplit_once(char::is_whitespace)?;
            matches!(outcome, "ok" | "FAILED" | "skipped").then(|| (name.trim().into(), outcome.into()))
        })
        .collect();
    (tests, text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn as_the_filesystem_below() {
    conforms(&Pair::paired(Plan::Repair));
}

#[test]
fn as_the_filesystem_below_where_the_kernel_keeps_what_is_written() {
    conforms(&Pair::writing_back());
}

fn conforms(pair: &Pair) {
    let configuration = pair.a.place.join("pjdfstest.toml");
    std::fs::write(&configuration, CONFIGURATION).unwrap();
    // Unprivileged users come by here.
    let above = pair.a.place.parent().unwrap();
    std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o755)).unwrap();
    // On the same filesystem as the files below the mount.
    let plain = pair.a.place.join("plain");
    std::fs::create_dir(&plain).unwrap();
    let (below, said) = run(&configuration, &plain);
    let passed = below.values().filter(|outcome| *outcome == "ok").count();
    assert!(passed > 380, "only {passed} tests passed on the filesystem below:\n{said}");
    let (mirrored, said) = run(&configuration, &pair.a.data);
    let mut differences = String::new();
    for (name, outcome) in &below {
        let here = mirrored.get(name).map_or("not run", String::as_str);
        if here != outcome && !JUSTIFIED.iter().any(|(justified, _)| justified == name) {
            writeln!(differences, "{name}: {outcome} below, {here} on the mount").unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}\n{said}");
    println!("{} tests, {passed} pass on the filesystem below and on the mount", below.len());
    pair.assert_equal();
}
