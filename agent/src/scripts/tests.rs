use super::*;
use std::os::unix::fs::PermissionsExt;

struct Place {
    dir: tempfile::TempDir,
    scripts: Scripts,
}

fn place(text: &str) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let spec = dir.path().join("spec");
    std::fs::create_dir_all(spec.join("scripts")).unwrap();
    let script = spec.join("scripts/start_prim");
    std::fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let scripts = Scripts {
        module: "db".to_owned(),
        node: "n1".to_owned(),
        dir: spec,
        env: BTreeMap::from([("PGDATA".to_owned(), "/data".to_owned())]),
        log: dir.path().join("log"),
        children: Children::default(),
    };
    Place { dir, scripts }
}

fn run(deadline: Duration) -> ScriptRun {
    ScriptRun {
        run: 1,
        script: Script::StartPrim,
        force: false,
        state: State::Wait,
        next: State::Alone,
        action: "start",
        deadline,
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn arguments_environment_and_log() {
    let place = place(
        "echo \"$@\" / $SAFE_MODULE $SAFE_NODE $SAFE_STATE $SAFE_NEXT_STATE $SAFE_ACTION $PGDATA\necho oops >&2",
    );
    place.scripts.run(&run(LONG)).await.unwrap();
    let log = std::fs::read_to_string(&place.scripts.log).unwrap();
    assert!(log.contains("\nWAIT ALONE start / db n1 WAIT ALONE start /data\noops\n"), "{log}");
    place.scripts.run(&ScriptRun { force: true, ..run(LONG) }).await.unwrap();
    let log = std::fs::read_to_string(&place.scripts.log).unwrap();
    assert!(log.contains("\nforce WAIT ALONE start / db"), "{log}");
}

#[tokio::test]
async fn a_script_that_is_not_there_ends_well_and_one_that_fails_says_so() {
    let place = place("exit 3");
    place.scripts.run(&ScriptRun { script: Script::StopPrim, ..run(LONG) }).await.unwrap();
    let why = place.scripts.run(&run(LONG)).await.unwrap_err();
    assert!(why.contains("exit status: 3") && why.contains("safectl log db"), "{why}");
}

#[tokio::test]
async fn the_whole_group_dies_at_the_deadline() {
    let place = place("trap '' TERM\nsleep 1000 & echo $! > $SAFE_DIR/pid\nsleep 1000");
    let began = crate::clock::now();
    let why = place.scripts.run(&run(Duration::from_millis(300))).await.unwrap_err();
    assert!(why.contains("did not end within"), "{why}");
    assert!(crate::clock::now().since(began) < GRACE + LAST);
    let pid = std::fs::read_to_string(place.dir.path().join("spec/pid")).unwrap();
    for _ in 0..200 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("process {pid} outlived its group");
}

#[tokio::test]
async fn a_daemon_does_not_hold_up_its_script() {
    let place = place("setsid sleep 1000 & echo $! > $SAFE_DIR/pid");
    place.scripts.run(&run(LONG)).await.unwrap();
    let pid: i32 =
        std::fs::read_to_string(place.dir.path().join("spec/pid")).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}
