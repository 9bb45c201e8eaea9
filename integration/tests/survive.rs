//! S12: the replicator of a serving node is killed, and the application sees a pause.

use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::eventually::eventually_true;
use safe_integration::ledger::protected::{DIRECTORY, MODULE};
use safe_integration::postgres::Database;
use safe_integration::program::Running;
use safe_integration::{Service, State, clock};

/// Every step would fail, or leave a trace, if it were carried out twice or not at all.
const LOAD: &str = r#"
set -eu
cd DIRECTORY
mkdir work; cd work
i=0; : >log
while [ ! -e /srv/enough ]; do
    (set -C; echo $i >new)
    mv new moved
    ln moved linked
    test "$(cat linked)" = $i
    rm moved
    mkdir directory
    mv linked directory/kept
    rm directory/kept
    rmdir directory
    echo $i >>log
    i=$((i + 1))
done
test "$(wc -l <log)" = $i
test "$(ls)" = log
cd ..; rm -r work
"#;

/// A program on the serving node that ends with its first error.
fn load(s: &Service) -> Result<Running> {
    let node = s.node(0);
    node.shell("rm -f /srv/enough")?;
    node.program("sh")?.args(["-c", &LOAD.replace("DIRECTORY", DIRECTORY)]).spawn(&node.log("load"))
}

fn unload(s: &Service, mut load: Running) -> Result<()> {
    s.node(0).shell("touch /srv/enough")?;
    let code = load.wait(Duration::from_secs(60))?;
    assert_eq!(code, 0, "the application saw an error: {}", s.node(0).log("load").display());
    Ok(())
}

/// Number of the replicator that serves on n1.
fn replicator(s: &Service) -> Result<Vec<u32>> {
    s.node(0).running("safe-replicator")
}

fn killed_under_load(name: &str, kills: usize) -> Result<()> {
    let s = Service::start(name)?;
    let application = s.application(s.node(0))?;
    let mut running = load(&s)?;
    let begin = clock::now();
    for kill in 0..kills {
        s.writes(1 + (kill * 37) % 113)?;
        let moment = clock::now();
        s.node(0).kill_replicator()?;
        s.served_after(moment)?;
        s.wait_pair(s.node(0))?;
        assert_eq!(running.ended()?, None, "the application saw an error");
    }
    let pause = s.client.longest_pause(begin, clock::now());
    unload(&s, running)?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    assert!(pause < Duration::from_secs(5), "writes paused for {pause:?}");
    s.finish()
}

#[test]
fn s12_killed_replicator_is_a_pause() -> Result<()> {
    killed_under_load("s12", 3)
}

#[test]
#[ignore = "long: make proof"]
fn s12_killed_replicator_is_a_pause_twenty_times() -> Result<()> {
    killed_under_load("s12-often", 20)
}

/// The agent's own duplicates do not outlive it: the replicator gives them to the next one.
#[test]
fn s12_after_another_agent_came() -> Result<()> {
    let s = Service::start("s12-agent")?;
    let application = s.application(s.node(0))?;
    let running = load(&s)?;
    s.node(0).kill_agent()?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(0))?;
    let before = replicator(&s)?;
    s.node(0).kill_replicator()?;
    s.writes(20)?;
    s.wait_pair(s.node(0))?;
    assert_ne!(replicator(&s)?, before);
    unload(&s, running)?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// While the other node is away, and while it is brought in step.
#[test]
fn s12_while_alone_and_during_a_resync() -> Result<()> {
    let s = Service::start("s12-alone")?;
    let application = s.application(s.node(0))?;
    let running = load(&s)?;
    s.node(1).kill_host()?;
    s.wait(s.node(0), State::Alone)?;
    s.node(0).shell(&format!("head -c 200000000 /dev/urandom >{DIRECTORY}/big"))?;
    s.node(0).kill_replicator()?;
    s.writes(20)?;
    s.node(1).restart_host()?;
    eventually_true(Duration::from_secs(60), "a resync has begun", || {
        s.node(1).status(MODULE).is_ok_and(|status| status.state == State::Second)
    })?;
    s.node(0).kill_replicator()?;
    s.writes(20)?;
    s.wait_pair(s.node(0))?;
    unload(&s, running)?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

#[test]
fn s12_under_a_database() -> Result<()> {
    let d = Database::start("s12-postgres")?;
    let primary = d.cluster.node(0);
    let mut committers = d.committers(4)?;
    let bench = d.bench()?;
    // Not the least number of its processes: numbers begin anew.
    let server = |node: &safe_integration::node::Node| {
        node.shell(&format!("head -n 1 {}/data/postmaster.pid", safe_integration::postgres::DIRECTORY))
    };
    let before = server(primary)?;
    for _ in 0..3 {
        committers.more(200)?;
        primary.kill_replicator()?;
        committers.more(50)?;
        d.wait_pair(primary)?;
    }
    assert_eq!(server(primary)?, before, "the server was not disturbed");
    d.compare(primary)?;
    committers.stop();
    drop(bench);
    assert_eq!(d.lost(&committers)?, 0);
    d.check()?;
    d.cluster.finish()
}
