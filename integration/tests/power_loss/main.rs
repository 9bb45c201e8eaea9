//! Real loss of power: virtual machines whose page cache is gone with them.
//!
//! All are long: `make test-vm`, and `make smoke-vm` for the first two.

mod database;
mod files;

use std::io::Write as _;

use safe_integration::error::Result;
use safe_integration::vm::{Machine, Pair};

use database::Database;
use files::Campaign;

/// Machines on emulated processors, which the host serves when it has time: what starts takes long to answer, too.
const PATIENT: &str = "[heartbeat]\ninterval = \"500ms\"\ntimeout = \"10s\"\nstart_wait = \"45s\"\n\n\
                       [replication]\nstall_timeout = \"8s\"";

/// The tables are wanted; the runner may have closed its end.
fn print(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// The machines themselves: they see each other, and a disk keeps what was flushed and nothing else.
#[test]
#[ignore = "long: make smoke-vm"]
fn smoke_a_machine_without_power_loses_what_it_did_not_flush() -> Result<()> {
    let pair = Pair::boot("vm-smoke")?;
    let [one, other] = [pair.machine(0), pair.machine(1)];
    one.shell("ping -c 1 -W 5 10.99.0.2 && ping -c 1 -W 5 10.98.0.2")?;
    let before = [one.boot_id()?, other.boot_id()?];
    for machine in pair.machines() {
        machine.shell("cd /srv && echo flushed >kept && sync kept . && echo not >lost")?;
    }
    for machine in pair.machines() {
        machine.power_off()?;
        machine.power_on()?;
    }
    pair.machines().iter().try_for_each(Machine::wait_up)?;
    for (machine, before) in pair.machines().iter().zip(before) {
        assert_ne!(machine.boot_id()?, before);
        assert_eq!(machine.shell("cat /srv/kept")?, "flushed");
        assert_eq!(machine.shell("cat /srv/lost 2>/dev/null || true")?, "");
    }
    one.shell("ping -c 1 -W 5 10.99.0.2")?;
    pair.finish()
}

#[test]
#[ignore = "long: make smoke-vm"]
fn smoke_primary_loses_power_under_load() -> Result<()> {
    let mut campaign = Campaign::start("vm-smoke-loss")?;
    let outcome = campaign.primary_lost();
    campaign.end(outcome)
}

/// Eight losses of power a round; `SAFE_VM_ROUNDS` says how many rounds, three by default.
fn rounds(campaign: &mut Campaign, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        campaign.secondary_lost()?;
        campaign.primary_lost()?;
        campaign.both_lost(round % 2)?;
        campaign.alone_lost()?;
        campaign.stale_returns_first()?;
    }
    Ok(())
}

#[test]
#[ignore = "long: make test-vm"]
fn machines_lose_power_under_load_over_and_over() -> Result<()> {
    let wanted = std::env::var("SAFE_VM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut campaign = Campaign::start("vm-losses")?;
    let outcome = rounds(&mut campaign, wanted);
    assert!(outcome.is_err() || campaign.losses.powers() >= 8 * wanted, "{}", campaign.losses);
    campaign.end(outcome)
}

fn of_the_database(database: &mut Database) -> Result<()> {
    database.primary_lost()?;
    database.both_lost()?;
    database.primary_lost()
}

#[test]
#[ignore = "long: make test-vm"]
fn machines_of_a_database_lose_power_in_mid_load() -> Result<()> {
    let mut database = Database::start("vm-postgres")?;
    let outcome = of_the_database(&mut database);
    database.end(outcome)
}
