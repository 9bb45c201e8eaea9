//! A short fault campaign; `make campaign MINUTES=60 SEED=1` is the long one.
#![expect(clippy::print_stdout, reason = "what happened, and the table, are wanted when it fails")]

use std::time::Duration;

use safe_integration::campaign::{Campaign, history};
use safe_integration::error::{Error, Result};
use safe_integration::eventually::{eventually, eventually_true};
use safe_integration::lan::{DEFAULT, LANS};
use safe_integration::ledger::client::Client;
use safe_integration::ledger::protected::endpoint;
use safe_integration::service::AGAIN;
use safe_integration::{Service, State};

/// A minute of faults, the same each time.
#[test]
fn a_minute_of_faults() -> Result<()> {
    let campaign = Campaign::begin("campaign", 1)?;
    let outcome = campaign.run(Duration::from_secs(60), |line| println!("{line}"))?;
    println!("{outcome}");
    assert!(outcome.rounds > 0 && outcome.acknowledged.iter().all(|count| *count > 0), "{outcome}");
    Ok(())
}

/// Without an arbiter both hosts serve when every lan is cut: what is checked must notice it.
#[test]
fn two_hosts_that_serve_at_once_are_noticed() -> Result<()> {
    let s = Service::start("campaign-both")?.without_referee();
    let outside = s.cluster.client("outside", 101)?;
    let own = |index: usize, first: u64| {
        let address = format!("{}:{}", DEFAULT.address(s.node(index).number), endpoint()?.port());
        Client::start_at(&outside, address.parse().map_err(|_| Error::new(address.clone()))?, first)
    };
    let (mut first, mut second) = (own(0, 1_000_000_000)?, own(1, 2_000_000_000)?);
    LANS.into_iter().try_for_each(|lan| s.cluster.cut(lan))?;
    s.wait(s.node(1), State::Alone)?;
    let enough = |client: &Client| client.count() >= 50;
    eventually_true(AGAIN, "both acknowledge", || enough(&first) && enough(&second))?;
    LANS.into_iter().try_for_each(|lan| s.cluster.heal(lan))?;
    s.wait_pair(s.node(0))?;
    first.stop()?;
    second.stop()?;
    assert!(history::overlap(&first.acknowledged(), &second.acknowledged()).is_some());
    let entries = eventually(AGAIN, "the ledger answers", || first.entries().map(Some))?;
    assert!(first.missing(&entries).is_empty(), "the survivor keeps its own");
    assert_eq!(second.missing(&entries).len(), second.count(), "what the other acknowledged is lost");
    drop((first, second, outside));
    s.end()
}
