//! MariaDB from Debian on a replicated directory, with the settings that it comes with; the primary's host loses power in
//! mid-load, again and again.

use std::io::Write as _;

use safe_integration::error::Result;
use safe_integration::mariadb::Database;

/// `SAFED_KILLS` of them.
#[test]
#[ignore = "long: make proof"]
fn the_primary_loses_power_under_mariadb() -> Result<()> {
    let kills = std::env::var("SAFED_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let d = Database::start("mariadb")?;
    let mut committers = d.committers(4)?;
    let (mut serving, mut failovers) = (0, Vec::new());
    for kill in 0..kills {
        committers.more(200 + 61 * kill % 300)?;
        let moment = d.cluster.node(serving).kill_host()?;
        failovers.push(committers.after(moment)?);
        let victim = serving;
        serving = 1 - serving;
        committers.more(50)?;
        d.cluster.node(victim).restart_host()?;
        d.wait_pair(d.cluster.node(serving))?;
        d.check()?;
        assert_eq!(d.lost(&committers)?, 0, "acknowledged commits are lost");
        d.compare(d.cluster.node(serving))?;
    }
    committers.stop();
    d.check()?;
    assert_eq!(d.lost(&committers)?, 0, "acknowledged commits are lost");
    failovers.sort();
    let seconds = |index: usize| failovers.get(index).map_or(0.0, std::time::Duration::as_secs_f64);
    let table = format!(
        "| kills of the primary's host | commits of MariaDB | lost | failover median | failover max |\n\
         | --- | --- | --- | --- | --- |\n| {kills} | {} | 0 | {:.2} s | {:.2} s |\n",
        committers.count(),
        seconds(failovers.len() / 2),
        seconds(failovers.len().saturating_sub(1)),
    );
    // The runner may have closed it.
    drop(std::io::stderr().write_all(table.as_bytes()));
    d.cluster.finish()
}
