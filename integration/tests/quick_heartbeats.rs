//! Heartbeats every 50 ms and a timeout of 250 ms: who lives is not declared lost, however busy the machine is, and who dies is
//! replaced.

use std::time::Duration;

use safe_integration::cluster::SOON;
use safe_integration::error::{Context as _, Result};
use safe_integration::eventually::{eventually_true, throughout};
use safe_integration::ledger::protected::{ADDRESS, MODULE, module};
use safe_integration::node::Node;
use safe_integration::program::Running;
use safe_integration::{Service, State};

const QUICK: &str = "[heartbeat]\ninterval = \"50ms\"\ntimeout = \"250ms\"";

/// Processes that never rest, for each processor.
const BUSY: usize = 2;

fn quick(name: &str) -> Result<Service> {
    Service::start_with(name, module()?.section(QUICK))
}

/// Lines of the record of decisions that say such a thing.
fn said(node: &Node, what: &[&str]) -> Result<Vec<String>> {
    let events = node.safectl("events -n 1000 -o json")?;
    let lines = events.split('{').filter(|line| what.iter().any(|what| line.contains(what)));
    Ok(lines.map(str::to_owned).collect())
}

#[test]
fn a_dead_primary_is_replaced() -> Result<()> {
    let s = quick("quick")?;
    let moment = s.node(0).kill_host()?;
    s.wait(s.node(1), State::Alone)?;
    s.served_after(moment)?;
    assert!(s.node(1).safectl(&format!("explain {MODULE}")).is_ok());
    eventually_true(SOON, "it says why", || {
        said(s.node(1), &["n1 is lost: this node takes over"]).is_ok_and(|lines| lines.len() == 1)
    })?;
    s.node(0).restart_host()?;
    s.wait_pair(s.node(1))?;
    s.finish()
}

/// How the kernel ranks each thread of a process: by its name, its priority in real time and its niceness.
fn ranks(process: u32) -> Result<Vec<(String, i32, i32)>> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        let (name, rest) = stat.rsplit_once(") ").context(|| stat.clone())?;
        let name = name.split_once('(').map_or(name, |(_, name)| name).to_owned();
        // Fields 40 and 19 of proc_pid_stat(5); the first one behind the name is the third.
        let field = |number: usize| rest.split(' ').nth(number - 3).and_then(|field| field.parse().ok());
        let (real_time, nice) = field(40).zip(field(19)).context(|| stat.clone())?;
        all.push((name, real_time, nice));
    }
    Ok(all)
}

#[test]
fn what_decides_goes_first_and_the_application_does_not() -> Result<()> {
    let s = Service::start("goes-first")?;
    let agent = s.node(0).running("safed")?;
    let threads = ranks(*agent.first().context(|| "no safed".to_owned())?)?;
    let real_time: Vec<_> =
        threads.iter().filter(|(_, real_time, _)| *real_time > 0).map(|(name, ..)| name).collect();
    assert_eq!(real_time.len(), 2, "{threads:?}");
    assert!(real_time.iter().any(|name| *name == "owner"), "{threads:?}");
    let programs = s.node(0).running("ledger")?.into_iter().chain(s.node(0).running("safe-replicator")?);
    for process in programs {
        for (name, real_time, nice) in ranks(process)? {
            assert_eq!((real_time, nice), (0, 0), "the thread {name} of the process {process}");
        }
    }
    s.finish()
}

/// `SAFED_MINUTES=10` is the bar.
#[test]
#[ignore = "long: make proof"]
fn nobody_is_lost_on_a_busy_machine() -> Result<()> {
    let minutes: u64 = std::env::var("SAFED_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let s = quick("quick-busy")?;
    let application = s.application(s.node(0))?;
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let busy: Vec<Running> = (0..processors * BUSY)
        .map(|index| {
            let node = s.node(index % 2);
            node.program("sh")?.args(["-c", "while :; do :; done"]).spawn(&node.log("busy"))
        })
        .collect::<Result<_>>()
        .context(|| "what keeps the machine busy".to_owned())?;
    throughout(Duration::from_secs(60 * minutes), "n1 serves, n2 does not", || {
        Ok(s.node(0).has_address(ADDRESS) && !s.node(1).has_address(ADDRESS))
    })?;
    drop(busy);
    for node in s.cluster.nodes() {
        let lost = said(node, &["is lost: this node takes over", "fences itself"])?;
        assert!(lost.is_empty(), "{}: {lost:?}", node.name);
    }
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}
