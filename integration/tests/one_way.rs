//! S20: what one node sends does not arrive, what the other one sends does.

use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::eventually::throughout;
use safe_integration::lan::{DEFAULT, LANS, Lan};
use safe_integration::ledger::protected::{MODULE, module};
use safe_integration::node::Node;
use safe_integration::{Service, State, clock};

/// Longer than the heartbeat timeout.
const A_WHILE: Duration = Duration::from_secs(4);

/// Number of the third machine on the production network.
const THIRD: u8 = 200;

fn mute(s: &Service, node: &Node, lans: &[Lan]) -> Result<()> {
    lans.iter().try_for_each(|lan| s.cluster.mute(node, *lan))
}

fn unmute(s: &Service, node: &Node, lans: &[Lan]) -> Result<()> {
    lans.iter().try_for_each(|lan| s.cluster.unmute(node, *lan))
}

fn state(s: &Service, index: usize) -> Result<State> {
    s.node(index).status(MODULE).map(|status| status.state)
}

/// One lan of two, either direction: nobody loses a role, and the application waits no longer than for another lan.
#[test]
fn s20_one_way_cut_of_one_lan_changes_nothing() -> Result<()> {
    let s = Service::start("s20-one-lan")?;
    let application = s.application(s.node(0))?;
    for lan in LANS {
        for from in [0, 1] {
            let begin = clock::now();
            mute(&s, s.node(from), &[lan])?;
            throughout(A_WHILE, "PRIM and SECOND", || {
                Ok((state(&s, 0)?, state(&s, 1)?) == (State::Prim, State::Second))
            })?;
            s.served_after(begin)?;
            unmute(&s, s.node(from), &[lan])?;
            s.wait_pair(s.node(0))?;
        }
    }
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// Every lan, nobody to ask: who is not heard steps aside for the one that cannot hear it.
#[test]
fn s20_one_way_cut_of_every_lan_without_arbiter() -> Result<()> {
    let s = Service::start("s20-no-arbiter")?;
    // Who serves is not heard: the other one takes over. Who follows is not heard: nothing moves.
    for (muted, next) in [(0, 1), (0, 1)] {
        let begin = clock::now();
        mute(&s, s.node(muted), &LANS)?;
        s.wait(s.node(next), State::Alone)?;
        s.cluster
            .wait_status(MODULE, &s.node(1 - next).name, "does not serve", |status| !status.state.serves())?;
        s.served_after(begin)?;
        throughout(A_WHILE, "one alone serves", || {
            Ok(state(&s, next)? == State::Alone && !state(&s, 1 - next)?.serves())
        })?;
        unmute(&s, s.node(muted), &LANS)?;
        s.wait_pair(s.node(next))?;
        s.writes(20)?;
    }
    s.finish()
}

/// Every lan, a witness that both reach: exactly one serves, also while the witness is restarted, whoever is not heard.
#[test]
fn s20_one_way_cut_of_every_lan_with_a_witness() -> Result<()> {
    let mut third = None;
    let s = Service::start_prepared("s20-witness", |cluster| {
        let node = Node::new(cluster.client("third", THIRD)?);
        node.start_agent()?;
        let token = node.safectl(&format!("witness init --address {}", DEFAULT.address(THIRD)))?;
        let target = cluster.node(0).safectl(&format!("witness add {token}"))?;
        third = Some(node);
        Ok(module()?.section(&format!("[[arbiter]]\nkind = \"witness\"\ntarget = \"{target}\"")))
    })?;
    let third = third.expect("made above");
    let mut serving = 0;
    for muted in [0, 1] {
        let begin = clock::now();
        mute(&s, s.node(muted), &LANS)?;
        // Whoever has the record: the one that served asks first.
        s.wait(s.node(serving), State::Alone)?;
        s.served_after(begin)?;
        third.kill_agent()?;
        throughout(A_WHILE, "one alone serves, without its witness", || {
            Ok(state(&s, serving)? == State::Alone && !state(&s, 1 - serving)?.serves())
        })?;
        third.start_agent()?;
        throughout(A_WHILE, "one alone serves, its witness is back", || {
            Ok(state(&s, serving)? == State::Alone && !state(&s, 1 - serving)?.serves())
        })?;
        unmute(&s, s.node(muted), &LANS)?;
        s.wait_pair(s.node(serving))?;
        s.writes(20)?;
        // The other way round.
        s.node(0).safectl(&format!("swap {MODULE}"))?;
        serving = 1 - serving;
        s.wait_pair(s.node(serving))?;
    }
    s.finish()
}
