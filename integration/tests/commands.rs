//! Announced changes: nobody waits for a timeout.

use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::ledger::protected::{ADDRESS, MODULE};
use safe_integration::module::CALLS;
use safe_integration::node::ROOT;
use safe_integration::{Cluster, Module, Phase, Service, State, clock, tree};

/// Less than the heartbeat timeout: an announced change does not wait for it.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn stopped_primary_hands_over_at_once() -> Result<()> {
    let s = Service::start("stop-primary")?;
    let begin = clock::now();
    s.node(1).safectl(&format!("stop {MODULE} --on n1"))?;
    s.wait(s.node(1), State::Alone)?;
    s.served_after(begin)?;
    let pause = s.client.longest_pause(begin, clock::now());
    assert!(pause < AT_ONCE, "writes paused for {pause:?}");
    s.wait(s.node(0), State::Stop)?;
    assert!(!s.node(0).has_address(ADDRESS));
    assert!(s.node(0).fuse_mounts()?.is_empty(), "the mount is gone");
    let events = s.node(0).safectl(&format!("events {MODULE} -o json"))?;
    assert!(events.contains("stop was ordered by "), "{events}");
    s.node(0).safectl(&format!("start {MODULE}"))?;
    s.wait_pair(s.node(1))?;
    s.finish()
}

#[test]
fn stopped_secondary_leaves_the_primary_alone() -> Result<()> {
    let s = Service::start("stop-secondary")?;
    let application = s.application(s.node(0))?;
    s.node(0).safectl(&format!("stop {MODULE} --on n2"))?;
    s.wait(s.node(0), State::Alone)?;
    s.writes(30)?;
    s.node(1).safectl(&format!("start {MODULE} --on n2"))?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

#[test]
fn shut_down_module_starts_with_the_same_roles() -> Result<()> {
    let s = Service::start("shutdown")?;
    s.node(0).safectl(&format!("shutdown {MODULE}"))?;
    for node in s.cluster.nodes() {
        s.wait(node, State::Stop)?;
        assert!(node.running("ledger")?.is_empty());
        assert!(node.fuse_mounts()?.is_empty());
    }
    s.node(1).safectl(&format!("start {MODULE}"))?;
    s.wait_pair(s.node(0))?;
    s.finish()
}

#[test]
fn restarted_application_keeps_its_node() -> Result<()> {
    let s = Service::start("restart")?;
    let application = s.application(s.node(0))?;
    s.node(1).safectl(&format!("restart {MODULE}"))?;
    s.wait_pair(s.node(0))?;
    s.served_after(clock::now())?;
    assert_ne!(s.application(s.node(0))?, application);
    s.finish()
}

#[test]
fn scripts_run_in_order_and_once() -> Result<()> {
    let c = Cluster::two_nodes("scripts")?;
    c.start_module(&Module::mirror("m").replicate("/srv/data/m").note_calls())?;
    let calls = |index: usize| -> Result<Vec<String>> {
        let text = c.node(index).shell(&format!("cat {CALLS}; : >{CALLS}"))?;
        Ok(text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect())
    };
    let first = calls(0)?;
    assert_eq!(first.iter().filter(|name| *name == "start_prim").count(), 1, "{first:?}");
    assert!(!calls(1)?.contains(&"start_prim".to_owned()));
    c.node(0).safectl("swap m")?;
    c.wait_pair("m", "n2")?;
    let (left, taken) = (calls(0)?, calls(1)?);
    assert!(left.contains(&"stop_prim".to_owned()), "{left:?}");
    assert!(taken.contains(&"start_prim".to_owned()), "{taken:?}");
    c.finish()
}

/// First start, DESIGN section 6.
#[test]
fn first_start_with_both_directories_empty() -> Result<()> {
    let c = Cluster::two_nodes("first-empty")?;
    c.start_module(&Module::mirror("m").replicate("/srv/data/m"))?;
    c.node(0).shell("echo text >/srv/data/m/file")?;
    tree::assert_equal(&c, "/srv/data/m")?;
    c.finish()
}

#[test]
fn first_start_with_data_on_one_node() -> Result<()> {
    let c = Cluster::two_nodes("first-one")?;
    c.node(1).shell("mkdir -p /srv/data/m; echo precious >/srv/data/m/file")?;
    c.node(0).shell("mkdir -p /srv/data/m")?;
    c.install_module(&Module::mirror("m").replicate("/srv/data/m"))?;
    c.node(0).safectl("start m --no-wait")?;
    let status = c.wait_blocked("m", "n2", State::Wait)?;
    let hint = status.hint.unwrap_or_default();
    assert!(hint.contains("safectl prim m --on n2"), "{hint}");
    let refused = c.node(0).try_safectl("prim m --on n1 --wait-timeout 10s")?;
    assert_ne!(refused.code, 0, "prim on the empty copy is refused");
    assert_eq!(c.node(1).shell("cat /srv/data/m/file")?, "precious");
    c.node(0).safectl("prim m --on n2")?;
    c.wait_pair("m", "n2")?;
    tree::assert_equal(&c, "/srv/data/m")?;
    assert_eq!(c.node(1).shell("cat /srv/data/m/file")?, "precious");
    c.finish()
}

#[test]
fn first_start_with_data_on_both_nodes() -> Result<()> {
    let c = Cluster::two_nodes("first-both")?;
    for node in c.nodes() {
        node.shell("mkdir -p /srv/data/m; hostname >/srv/data/m/file; hostname >/srv/data/m/of-$(hostname)")?;
    }
    c.install_module(&Module::mirror("m").replicate("/srv/data/m"))?;
    c.node(0).safectl("start m --no-wait")?;
    for node in c.nodes() {
        let status = c.wait_blocked("m", &node.name, State::Wait)?;
        assert!(
            status.hint.is_some_and(|hint| hint.contains("safectl prim m")),
            "the hint says what to type"
        );
    }
    c.node(0).safectl("prim m --on n1")?;
    c.wait_state("m", "n1", State::Alone)?;
    let status = c.wait_blocked("m", "n2", State::Wait)?;
    assert!(status.hint.is_some_and(|hint| hint.contains("safectl second m --on n2 --force")));
    let asked = c.node(1).try_safectl("second m --on n2 --force")?;
    assert_ne!(asked.code, 0, "without --yes it only says what is lost");
    c.node(1).safectl("second m --on n2 --force --yes")?;
    c.wait_pair("m", "n1")?;
    tree::assert_equal(&c, "/srv/data/m")?;
    assert_eq!(c.node(0).shell("cat /srv/data/m/file")?, "n1");
    c.finish()
}

/// As `safectl help security` says.
#[test]
fn node_leaves_its_cluster_and_makes_another() -> Result<()> {
    let c = Cluster::two_nodes("leave")?;
    let node = c.node(0);
    let again = format!("cluster init --name other --node n1 {}", node.address_options());
    let refused = node.try_safectl(&again)?;
    assert!(refused.err.contains("safectl help security"), "{}", refused.err);
    node.stop_agent()?;
    node.shell(&format!("rm -r {ROOT}/lib/cluster {ROOT}/lib/modules"))?;
    node.start_agent()?;
    node.safectl(&again)?;
    assert!(node.safectl("cluster status -o json")?.contains("\"cluster\": \"other\""));
    c.finish()
}

#[test]
fn status_of_a_dead_node_is_unknown() -> Result<()> {
    let c = Cluster::two_nodes("unknown")?;
    c.start_module(&Module::mirror("m"))?;
    c.node(1).kill_host()?;
    c.wait_state("m", "n1", State::Alone)?;
    let status = c.node(0).status_of("m", "n2")?;
    assert_eq!(status.state, State::Unknown);
    assert_eq!(c.node(0).status("m")?.phase, Some(Phase::Ready));
    c.finish()
}
