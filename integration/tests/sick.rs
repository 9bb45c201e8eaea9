//! S13: the other node's disk or replicator is sick; the application goes on.

use std::io::Write as _;
use std::time::{Duration, Instant};

use safe_integration::disk::{Disk, Kind};
use safe_integration::error::{Context as _, Result};
use safe_integration::eventually::eventually_true;
use safe_integration::ledger::protected::{DIRECTORY, MODULE, module};
use safe_integration::{Service, State, clock};

/// A ledger on n1's own disk and, on n2, on a disk of this kind.
fn with_disk(name: &str, kind: Kind) -> Result<(Service, Disk)> {
    let s = Service::start_on(name, module()?, |cluster| {
        Ok([None, Some(Disk::attach(cluster.node(1), kind, 64, DIRECTORY)?)])
    })?;
    let disk = s.disks[1].clone();
    Ok((s, disk.context(|| "no disk".to_owned())?))
}

/// The application went on without the other node, soon; answers how long it waited.
fn went_on(s: &Service, begin: Instant) -> Result<Duration> {
    s.wait(s.node(0), State::Alone)?;
    s.writes(50)?;
    // The last write before it began is where the pause begins.
    let pause =
        s.client.longest_pause(begin.checked_sub(Duration::from_secs(1)).unwrap_or(begin), clock::now());
    writeln!(std::io::stdout(), "longest pause of the application: {:.2} s", pause.as_secs_f64())?;
    // It stands on an answer of the other node's safed, on no timeout; the rest is for a busy machine.
    assert!(pause < Duration::from_secs(8), "the application waited for {pause:?}");
    Ok(pause)
}

#[test]
fn s13_disk_of_the_other_node_is_full() -> Result<()> {
    let (s, disk) = with_disk("s13-full", Kind::Memory)?;
    let application = s.application(s.node(0))?;
    let begin = clock::now();
    disk.fill(s.node(1))?;
    went_on(&s, begin)?;
    // It is tried again and again, and a person is told.
    eventually_true(Duration::from_secs(60), "a person is told why and what to type", || {
        s.node(0).status(MODULE).is_ok_and(|status| {
            status.reason.is_some_and(|reason| reason.contains("lacks space"))
                && status.hint.is_some_and(|hint| hint.contains("safectl"))
        })
    })?;
    let alarm = s.node(0).safectl("events -n 1000 -o json")?;
    assert!(alarm.contains("third time within an hour"), "{alarm}");
    let pause = s.client.longest_pause(begin, clock::now());
    assert!(pause < Duration::from_secs(8), "the application waited for {pause:?}");
    disk.empty(s.node(1))?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// The disk of n2 refuses everything in this way: n1 goes on; n2 is brought back in full once it was put right.
fn broken(name: &str, breaks: fn(&Disk, &Service) -> Result<()>) -> Result<()> {
    let (s, disk) = with_disk(name, Kind::Ext4)?;
    let application = s.application(s.node(0))?;
    let begin = clock::now();
    breaks(&disk, &s)?;
    went_on(&s, begin)?;
    eventually_true(Duration::from_secs(60), "n2 knows that its copy is not to be relied on", || {
        let status = s.node(1).status(MODULE);
        status.is_ok_and(|status| status.data.is_some_and(|data| data.consistent == Some(false)))
    })?;
    s.node(1).safectl(&format!("stop {MODULE} --on n2"))?;
    disk.repair(s.node(1))?;
    s.node(1).safectl(&format!("start {MODULE} --on n2"))?;
    s.wait_pair(s.node(0))?;
    let pause = s.client.longest_pause(begin, clock::now());
    assert!(pause < Duration::from_secs(8), "the application waited for {pause:?}");
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

#[test]
fn s13_disk_of_the_other_node_is_read_only() -> Result<()> {
    broken("s13-read-only", |disk, s| disk.read_only(s.node(1)))
}

#[test]
fn s13_disk_of_the_other_node_fails() -> Result<()> {
    broken("s13-eio", |disk, s| disk.fail(s.node(1)))
}
