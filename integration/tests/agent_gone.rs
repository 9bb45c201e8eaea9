//! S17: a dead daemon is not a dead node. And the replicator, killed.

use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::eventually::{eventually_true, throughout};
use safe_integration::ledger::protected::{ADDRESS, MODULE};
use safe_integration::node::Node;
use safe_integration::{Service, State, clock};

/// `agent_timeout` by default, after which a replicator without agent fences itself.
const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

fn stays(s: &Service, node: &Node, state: State, time: Duration) -> Result<()> {
    throughout(time, state.name(), || Ok(node.status(MODULE)?.state == state && s.client.count() > 0))
}

#[test]
fn killed_agent_of_the_primary_returns_at_once() -> Result<()> {
    let s = Service::start("s17-moment")?;
    let application = s.application(s.node(0))?;
    let begin = clock::now();
    s.node(0).kill_agent()?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(0))?;
    stays(&s, s.node(1), State::Second, Duration::from_secs(4))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    let pause = s.client.longest_pause(begin, clock::now());
    assert!(pause < Duration::from_secs(3), "writes paused for {pause:?}");
    s.finish()
}

#[test]
fn agent_of_the_primary_is_gone_for_ever() -> Result<()> {
    let s = Service::start("s17-primary")?;
    let moment = clock::now();
    s.node(0).kill_agent()?;
    stays(&s, s.node(1), State::Second, AGENT_TIMEOUT / 2)?;
    says_that_safed_is_gone(s.node(1))?;
    eventually_true(AGENT_TIMEOUT * 3, "n1 has fenced itself", || !s.node(0).has_address(ADDRESS))?;
    s.wait(s.node(1), State::Alone)?;
    assert!(clock::now().duration_since(moment) >= AGENT_TIMEOUT.mul_f64(0.9), "not before agent_timeout");
    assert!(s.node(0).running("ledger")?.is_empty(), "the module's processes on n1 are gone");
    s.served_after(clock::now())?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(1))?;
    s.finish()
}

/// Who looks at the other node learns what is to be started there.
fn says_that_safed_is_gone(node: &Node) -> Result<()> {
    let reason = node.status(MODULE)?.reason.unwrap_or_default();
    assert!(reason.contains("safed") && reason.contains("is gone: start it there"), "{reason}");
    Ok(())
}

#[test]
fn agent_of_the_secondary_is_gone_for_ever() -> Result<()> {
    let s = Service::start("s17-secondary")?;
    let application = s.application(s.node(0))?;
    s.node(1).kill_agent()?;
    s.wait(s.node(0), State::Alone)?;
    s.writes(50)?;
    s.node(1).start_agent()?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

#[test]
fn agent_is_stopped_and_started_again() -> Result<()> {
    let s = Service::start("s17-term")?;
    let application = s.application(s.node(0))?;
    s.node(0).stop_agent()?;
    s.writes(5)?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

#[test]
fn both_agents_are_killed_and_return() -> Result<()> {
    let s = Service::start("s17-both")?;
    let application = s.application(s.node(0))?;
    s.node(0).kill_agent()?;
    s.node(1).kill_agent()?;
    s.node(1).start_agent()?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

#[test]
fn replicator_of_the_primary_is_killed() -> Result<()> {
    let s = Service::start("replicator-primary")?;
    let moment = clock::now();
    s.node(0).kill_replicator()?;
    s.served_after(moment)?;
    eventually_true(Duration::from_secs(60), "one is PRIM, the other SECOND", || {
        let state = |index: usize| s.node(index).status(MODULE).map(|status| status.state);
        matches!(
            (state(0), state(1)),
            (Ok(State::Prim), Ok(State::Second)) | (Ok(State::Second), Ok(State::Prim))
        )
    })?;
    s.finish()
}

#[test]
fn replicator_of_the_secondary_is_killed() -> Result<()> {
    let s = Service::start("replicator-secondary")?;
    let application = s.application(s.node(0))?;
    s.node(1).kill_replicator()?;
    s.writes(20)?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// Nothing of safed is left on the primary but its mount, which answers nobody: the next start clears it away.
#[test]
fn stale_mount_is_recovered_without_a_person() -> Result<()> {
    // Nobody is left there who could take the address away.
    let s = Service::start("stale-mount")?.without_referee();
    let moment = clock::now();
    s.node(0).kill_agent()?;
    s.node(0).kill_replicator()?;
    s.served_after(moment)?;
    s.wait(s.node(1), State::Alone)?;
    s.node(0).start_agent()?;
    s.wait_pair(s.node(1))?;
    assert!(!s.node(0).has_address(ADDRESS), "left-overs are removed at start");
    s.finish()
}
