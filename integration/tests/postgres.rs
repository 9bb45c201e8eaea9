//! PostgreSQL from Debian on a replicated directory, its host losing power in mid-load, again and again.

use std::io::Write as _;
use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::postgres::Database;

/// What came of all the kills.
#[derive(Default)]
struct Figures {
    acknowledged: usize,
    lost: usize,
    failovers: Vec<Duration>,
}

impl Figures {
    fn print(&mut self) {
        self.failovers.sort();
        let seconds = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64);
        let table = format!(
            "| host kills | commits acknowledged | commits lost | failover median | failover max |\n\
             | --- | --- | --- | --- | --- |\n| {} | {} | {} | {:.2} s | {:.2} s |\n",
            self.failovers.len(),
            self.acknowledged,
            self.lost,
            seconds(self.failovers.get(self.failovers.len() / 2)),
            seconds(self.failovers.last())
        );
        // The runner may have closed it.
        drop(std::io::stderr().write_all(table.as_bytes()));
    }
}

fn kill_in_mid_load(name: &str, kills: usize) -> Result<()> {
    let d = Database::start(name)?;
    let mut committers = d.committers(4)?;
    let bench = d.bench()?;
    let mut figures = Figures::default();
    for kill in 0..kills {
        let (primary, other) = (d.cluster.node(kill % 2), d.cluster.node(1 - kill % 2));
        d.commits(&committers, 200 + 61 * kill % 300)?;
        let moment = primary.kill_host()?;
        figures.failovers.push(d.commits_after(&committers, moment)?);
        d.check()?;
        figures.lost += d.lost(&committers)?;
        primary.restart_host()?;
        d.wait_pair(other)?;
        d.compare(other)?;
        figures.acknowledged = committers.count();
        assert_eq!(figures.lost, 0, "acknowledged commits are lost");
    }
    committers.stop();
    drop(bench);
    assert_eq!(d.lost(&committers)?, 0);
    d.check()?;
    figures.print();
    d.cluster.finish()
}

#[test]
fn host_of_the_database_loses_power_in_mid_load() -> Result<()> {
    kill_in_mid_load("postgres", 4)
}

#[test]
#[ignore = "long: make proof"]
fn host_of_the_database_loses_power_in_mid_load_over_and_over() -> Result<()> {
    kill_in_mid_load("postgres-often", 30)
}

/// The checks can fail: a commit is taken back and a page is damaged behind their back.
#[test]
fn the_checks_see_what_is_lost() -> Result<()> {
    let d = Database::by_hand("postgres-checks")?;
    let mut committers = d.committers(2)?;
    let bench = d.bench()?;
    d.commits(&committers, 100)?;
    drop(bench);
    committers.stop();
    d.check()?;
    assert_eq!(d.lost(&committers)?, 0);
    d.sql("DELETE FROM commits WHERE worker = 0 AND serial = 7")?;
    assert_eq!(d.lost(&committers)?, 1);
    d.sql(
        "DELETE FROM pgbench_history WHERE ctid = (SELECT min(ctid) FROM pgbench_history WHERE delta <> 0)",
    )?;
    assert!(d.check().is_err(), "the books do not balance");
    d.cluster.finish()
}
