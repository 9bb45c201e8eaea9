//! S13 and S14: what stands still on the other node holds the application for a known time only.

use std::io::Write as _;
use std::time::{Duration, Instant};

use safe_integration::error::Result;
use safe_integration::eventually::{eventually_true, throughout};
use safe_integration::ledger::protected::MODULE;
use safe_integration::{Phase, Service, State, clock};

/// `stall_timeout` and `heartbeat.timeout` as by default.
const STALL: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(3);

/// For a busy machine. What is measured is printed: the bar is 0.3 s.
const BUSY: Duration = Duration::from_secs(6);

fn pause(s: &Service, what: &str, begin: Instant, limit: Duration) -> Result<()> {
    s.wait(s.node(0), State::Alone)?;
    s.writes(50)?;
    // The last write before it began is where the pause begins.
    let pause =
        s.client.longest_pause(begin.checked_sub(Duration::from_secs(1)).unwrap_or(begin), clock::now());
    writeln!(
        std::io::stdout(),
        "| {what} | {:.2} s | bar {:.1} s |",
        pause.as_secs_f64(),
        limit.as_secs_f64() + 0.3
    )?;
    assert!(pause < limit + BUSY, "the application waited for {pause:?}");
    Ok(())
}

#[test]
fn s13_replicator_of_the_other_node_stands_still() -> Result<()> {
    let s = Service::start("s13-frozen")?;
    let application = s.application(s.node(0))?;
    let begin = s.node(1).freeze_replicator()?;
    pause(&s, "replicator frozen on the peer", begin, STALL)?;
    // It is not met again while it stands still, and the application does not wait for it.
    s.writes(200)?;
    s.node(1).thaw_replicator()?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

#[test]
fn s13_whole_host_stands_still() -> Result<()> {
    let s = Service::start("s13-host")?.without_referee();
    let application = s.application(s.node(0))?;
    let begin = clock::now();
    s.node(1).freeze()?;
    pause(&s, "whole peer host frozen", begin, HEARTBEAT)?;
    s.node(1).thaw()?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// S14: what it missed is recorded there, so that it never serves without it.
#[test]
fn s14_stalled_node_does_not_serve() -> Result<()> {
    let s = Service::start("s14")?;
    let begin = s.node(1).freeze_replicator()?;
    pause(&s, "replicator frozen on the peer, S14", begin, STALL)?;
    s.node(0).kill_host()?;
    let serves = || s.node(1).status(MODULE).map(|status| status.state.serves());
    throughout(HEARTBEAT * 2, "the stalled node does not serve", || Ok(!serves()?))?;
    // Nor once it is well again, nor after a restart of everything on it.
    s.node(1).thaw_replicator()?;
    let waits = || {
        s.node(1)
            .status(MODULE)
            .is_ok_and(|status| status.state == State::Wait && status.phase == Some(Phase::Blocked))
    };
    eventually_true(Duration::from_secs(30), "it waits for the other node", waits)?;
    throughout(HEARTBEAT, "the node that was stalled does not serve", || Ok(!serves()?))?;
    s.node(0).restart_host()?;
    s.wait_pair(s.node(0))?;
    s.finish()
}
