//! Every kind of operation at once, while the other node loses power and returns: what was durable is there, both copies are
//! equal. (Page caches survive here; `power_loss` is about those that do not.)

use safe_integration::error::{Error, Result};
use safe_integration::place::binary;
use safe_integration::vm::{Record, Stress};
use safe_integration::{Cluster, Module, State, tree};

const MODULE: &str = "files";
const DIRECTORY: &str = "/srv/data/files";

/// Durable operations between two events.
const SOME: usize = 400;

/// One load: the secondary goes, early or late enough to be missed, and returns.
fn one_load(c: &Cluster, run: u32, record: &Record) -> Result<()> {
    let primary = c.node(0);
    let guest = || primary.program(&binary("guest")?.to_string_lossy());
    let stress = Stress::start_by(&guest()?, &primary.log("stress"), DIRECTORY, run, record)?;
    stress.goes_on(SOME)?;
    c.node(1).kill_host()?;
    if run % 2 == 1 {
        c.wait_state(MODULE, "n1", State::Alone)?;
        stress.goes_on(3 * SOME)?;
    }
    c.node(1).restart_host()?;
    c.wait_pair(MODULE, "n1")?;
    stress.goes_on(SOME)?;
    stress.stop()?;
    tree::assert_equal(c, DIRECTORY)?;
    let verdict = record.check_by(guest()?, DIRECTORY)?;
    if verdict.lost == 0 { Ok(()) } else { Err(Error::new(verdict.findings)) }
}

fn loads(name: &str, count: u32) -> Result<()> {
    let c = Cluster::two_nodes(name)?;
    c.start_module(&Module::mirror(MODULE).replicate(DIRECTORY))?;
    let record = Record::default();
    for run in 1..=count {
        one_load(&c, run, &record)?;
    }
    c.finish()
}

#[test]
fn the_other_node_goes_and_returns_under_every_kind_of_operation() -> Result<()> {
    loads("stress", 2)
}

#[test]
#[ignore = "long: make proof"]
fn the_other_node_goes_and_returns_over_and_over() -> Result<()> {
    loads("stress-often", 20)
}
