//! S3 and S5: both nodes lose power.

use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::eventually::throughout;
use safe_integration::ledger::protected::MODULE;
use safe_integration::{Service, State, clock};

/// Longer than `start_wait`, after which a node that may goes on alone.
const LONGER_THAN_START_WAIT: Duration = Duration::from_secs(14);

/// S3: who was paired cannot know whether the other went on.
#[test]
fn one_of_a_pair_returns_and_waits_for_the_other() -> Result<()> {
    for (name, first) in [("s3-primary-first", 0), ("s3-secondary-first", 1)] {
        let s = Service::start(name)?;
        s.node(0).kill_host()?;
        s.node(1).kill_host()?;
        s.node(first).restart_host()?;
        throughout(LONGER_THAN_START_WAIT, "it waits", || {
            Ok(matches!(s.node(first).status(MODULE), Ok(status) if status.state == State::Wait))
        })?;
        s.node(1 - first).restart_host()?;
        s.wait_pair(s.node(0))?;
        s.served_after(clock::now())?;
        s.finish()?;
    }
    Ok(())
}

/// S5: who was alone and settled goes on alone.
#[test]
fn the_one_that_was_alone_returns_and_serves() -> Result<()> {
    let s = Service::start("s5-alone-first")?;
    s.node(0).kill_host()?;
    s.wait(s.node(1), State::Alone)?;
    s.writes(30)?;
    s.node(1).kill_host()?;
    s.node(1).restart_host()?;
    s.wait(s.node(1), State::Alone)?;
    s.writes(30)?;
    s.node(0).restart_host()?;
    s.wait_pair(s.node(1))?;
    s.finish()
}

/// S5: the other one returns first and must not serve its old data.
#[test]
fn the_stale_one_returns_first_and_waits() -> Result<()> {
    let s = Service::start("s5-stale-first")?;
    s.node(0).kill_host()?;
    s.wait(s.node(1), State::Alone)?;
    s.writes(30)?;
    s.node(1).kill_host()?;
    s.node(0).restart_host()?;
    throughout(LONGER_THAN_START_WAIT, "the stale one waits", || {
        Ok(matches!(s.node(0).status(MODULE), Ok(status) if !status.state.serves()))
    })?;
    s.node(1).restart_host()?;
    s.wait_pair(s.node(1))?;
    s.finish()
}
