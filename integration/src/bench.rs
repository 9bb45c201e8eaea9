//! `make bench`: the same workloads, in the same run, on a plain directory and on everything that promises to keep a
//! second copy of it.

mod contestant;
mod gluster;
mod result;
mod resync;
pub mod small;
mod workload;

use std::path::Path;
use std::time::Duration;

use crate::Cluster;
use crate::error::{Context as _, Result};
use crate::interrupt;
use crate::timeline::{Timeline, Tone};

use contestant::{Contestant, DISK};
use result::Results;
pub use result::title;
use workload::{Workload, workloads};

/// What is measured, and how thoroughly.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Each workload runs so often on each directory, in turn.
    pub rounds: u32,
    /// Those of fio and pgbench run for so long.
    pub time: Duration,
    /// Backing directories in memory instead of on loop devices with ext4.
    pub memory: bool,
    /// Only workloads whose name contains this.
    pub only: Option<String>,
    /// Compare with GlusterFS.
    pub gluster: bool,
    /// Measure resynchronisation too.
    pub resync: bool,
}

/// Measures and writes `results.md`, `.json` and `.svg` below `directory`.
///
/// # Errors
/// A program that cannot be run, a cluster that does not come up.
pub fn run(plan: &Plan, directory: &Path) -> Result<()> {
    interrupt::listen()?;
    let timeline = Timeline::new();
    let c = Cluster::two_nodes("bench")?;
    for node in c.nodes() {
        contestant::disk(node, plan.memory)?;
    }
    timeline.event(Tone::Step, "two hosts, a disk each");
    let mut contestants =
        vec![Contestant::Plain, Contestant::Both, Contestant::PassThrough, Contestant::Mirrored];
    contestant::modules(&c)?;
    if plan.gluster {
        gluster::start(&c)?;
        contestants.push(Contestant::Gluster);
    }
    timeline.event(Tone::Step, "directories ready: plain, pass-through, mirrored, glusterfs");
    let mut results = Results::new(plan)?;
    let chosen: Vec<Workload> = workloads()
        .into_iter()
        .filter(|workload| plan.only.as_ref().is_none_or(|only| workload.name.contains(&only[..])))
        .collect();
    for round in 1..=plan.rounds {
        for workload in &chosen {
            for contestant in &contestants {
                let directory = contestant.directory();
                let figures = if *contestant == Contestant::Both {
                    workload.run_on(c.nodes(), directory, plan.time).map(Option::unwrap_or_default)
                } else {
                    workload.run(c.node(0), directory, plan.time)
                };
                let figures = figures.context(|| format!("{} on {}", workload.name, contestant.name()))?;
                for (what, figure) in figures {
                    let line = format!("{round}/{}  {what}: {} {figure:.0}", plan.rounds, contestant.name());
                    timeline.event(Tone::Figure, &line);
                    results.add(&what, workload.unit, *contestant, figure);
                }
            }
        }
    }
    if plan.resync {
        resync::measure(&c, &timeline, plan, &mut results)?;
    }
    c.finish()?;
    results.write(directory)?;
    timeline.event(Tone::Step, &format!("written to {}", directory.display()));
    Ok(())
}

/// Where the disk of each host is.
pub(crate) const fn disk() -> &'static str {
    DISK
}
