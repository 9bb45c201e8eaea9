//! The daemon as a whole: what it refuses, that it runs before any cluster, how it ends. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn safed(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_safed"));
    command.arg("--root").arg(root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The one line of a refusal; the exit code must be 2.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    text
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let step = Duration::from_millis(10);
    let mut left = PATIENCE;
    while !there() {
        assert!(!left.is_zero(), "no {what} within {} s", PATIENCE.as_secs());
        std::thread::sleep(step);
        left = left.saturating_sub(step);
    }
}

struct Running(Child);

impl Running {
    fn start(place: &Path) -> Self {
        let running = Self(safed(place).spawn().unwrap());
        // The file may be left over from another one.
        wait_for("socket", || std::os::unix::net::UnixStream::connect(place.join("run/safed.sock")).is_ok());
        running
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already if the test went well.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn it_runs_without_a_cluster_and_ends_when_told() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let running = Running::start(place.path());
    let second = refusal(&safed(place.path()).output().unwrap());
    assert!(second.contains("another safed (process") && second.contains("--root"), "{second}");
    assert_eq!(running.terminate(), Some(0));
    // The lock of a dead one does not count.
    let mut killed = Running::start(place.path());
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert_eq!(Running::start(place.path()).terminate(), Some(0));
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_file() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("etc")).unwrap();
    std::fs::write(place.path().join("etc/safed.toml"), "port_apy = 1\n").unwrap();
    let why = refusal(&safed(place.path()).output().unwrap());
    assert!(why.contains("etc/safed.toml") && why.contains("port_apy"), "{why}");
    std::fs::write(place.path().join("etc/safed.toml"), "").unwrap();
    let why = refusal(&safed(place.path()).env("SAFED_PORT_API", "9402").output().unwrap());
    assert!(why.contains("choose two"), "{why}");
    let why = refusal(&safed(place.path()).env("SAFED_LOG", "=,=").output().unwrap());
    assert!(why.contains("log"), "{why}");
}

#[test]
fn missing_privileges_are_named() {
    if !root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-net_raw", "--"]).arg(env!("CARGO_BIN_EXE_safed")).arg("--root");
    let why = refusal(&command.arg(place.path()).output().unwrap());
    assert!(why.contains("CAP_NET_RAW") && why.contains("root"), "{why}");
    assert!(!place.path().join("lib").exists());
}
