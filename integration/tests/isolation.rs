//! Cut networks and frozen hosts.

use std::time::Duration;

use safe_integration::error::Result;
use safe_integration::eventually::{eventually, throughout};
use safe_integration::lan::{DEFAULT, LANS, REPL};
use safe_integration::ledger::protected::{ADDRESS, MODULE, module};
use safe_integration::{Cluster, Module, Service, State, clock, tree};

/// Longer than the heartbeat timeout.
const A_WHILE: Duration = Duration::from_secs(6);

/// S6 and S6b: one lan is enough.
#[test]
fn one_lan_cut_changes_nothing() -> Result<()> {
    let s = Service::start("s6")?;
    for lan in [DEFAULT, REPL] {
        s.cluster.cut(lan)?;
        throughout(A_WHILE, "PRIM and SECOND", || {
            let state = |index: usize| s.node(index).status(MODULE).map(|status| status.state);
            Ok((state(0)?, state(1)?) == (State::Prim, State::Second))
        })?;
        // Commands and their status take the other lan, too.
        assert_eq!(s.node(0).status_of(MODULE, "n2")?.state, State::Second, "{} is cut", lan.name);
        assert_eq!(s.node(1).status_of(MODULE, "n1")?.state, State::Prim, "{} is cut", lan.name);
        s.served_after(clock::now())?;
        s.cluster.heal(lan)?;
    }
    s.wait_pair(s.node(0))?;
    s.finish()
}

/// S7: both go on alone, one survives the repair, the trees are equal in the end.
#[test]
fn all_lans_cut_without_arbiter() -> Result<()> {
    let c = Cluster::two_nodes("s7")?;
    c.start_module(&Module::mirror("files").replicate("/srv/data/files"))?;
    c.node(0).shell("echo before >/srv/data/files/before")?;
    for lan in LANS {
        c.cut(lan)?;
    }
    for node in c.nodes() {
        c.wait_state("files", &node.name, State::Alone)?;
        node.shell("hostname >/srv/data/files/who; hostname >/srv/data/files/$(hostname)")?;
    }
    for lan in LANS {
        c.heal(lan)?;
    }
    // Both served: who was primary of the base survives.
    c.wait_pair("files", "n1")?;
    assert_eq!(c.node(0).shell("cat /srv/data/files/who /srv/data/files/before")?, "n1\nbefore");
    tree::assert_equal(&c, "/srv/data/files")?;
    c.finish()
}

/// A split brain that safed may not decide ends with the command that the status shows.
#[test]
fn split_brain_left_to_a_person() -> Result<()> {
    let c = Cluster::two_nodes("split-manual")?;
    let manual = "[split_brain]\npolicy = \"manual\"";
    c.start_module(&Module::mirror("files").replicate("/srv/data/files").section(manual))?;
    for lan in LANS {
        c.cut(lan)?;
    }
    for node in c.nodes() {
        c.wait_state("files", &node.name, State::Alone)?;
        node.shell("hostname >/srv/data/files/who")?;
    }
    for lan in LANS {
        c.heal(lan)?;
    }
    let hint = eventually(A_WHILE * 2, "the status says what to type", || {
        Ok(c.node(0).status_of("files", "n1")?.hint)
    })?;
    assert_eq!(hint, "safectl stop files --on n2 && safectl second files --on n2 --force");
    eventually(A_WHILE * 2, "n1 sees that n2 serves", || {
        Ok((c.node(0).status_of("files", "n2")?.state == State::Alone).then_some(()))
    })?;
    let refused = c.node(0).try_safectl("second files --on n2 --force --yes")?;
    assert_eq!(refused.code, 1, "n2 serves");
    for command in hint.split(" && ").filter_map(|command| command.strip_prefix("safectl ")) {
        c.node(0).safectl(&format!("{command} --yes"))?;
    }
    c.wait_pair("files", "n1")?;
    assert_eq!(c.node(0).shell("cat /srv/data/files/who")?, "n1");
    tree::assert_equal(&c, "/srv/data/files")?;
    c.finish()
}

/// S18: who went alone for a moment, without a write, and died, does not win against who served since.
#[test]
fn serving_node_survives_one_that_died_alone() -> Result<()> {
    let c = Cluster::two_nodes("s18")?;
    c.start_module(&Module::mirror("files").replicate("/srv/data/files"))?;
    for lan in LANS {
        c.cut(lan)?;
    }
    c.wait_state("files", "n1", State::Alone)?;
    c.node(0).kill_host()?;
    c.wait_state("files", "n2", State::Alone)?;
    c.node(1).shell("echo kept >/srv/data/files/file")?;
    for lan in LANS {
        c.heal(lan)?;
    }
    c.node(0).restart_host()?;
    c.wait_pair("files", "n2")?;
    tree::assert_equal(&c, "/srv/data/files")?;
    assert_eq!(c.node(1).shell("cat /srv/data/files/file")?, "kept");
    c.finish()
}

/// S7b: told to wait, nobody serves what may be old.
#[test]
fn all_lans_cut_and_told_to_wait() -> Result<()> {
    let s = Service::start_with("s7-wait", module()?.key("isolation", "\"wait\""))?;
    for lan in LANS {
        s.cluster.cut(lan)?;
    }
    for node in s.cluster.nodes() {
        s.cluster.wait_status(MODULE, &node.name, "WAIT", |status| status.state == State::Wait)?;
    }
    for lan in LANS {
        s.cluster.heal(lan)?;
    }
    s.wait_pair(s.node(0))?;
    s.finish()
}

/// S7b: of two isolated nodes the one whose address interface lost its carrier waits, the other one serves.
#[test]
fn all_lans_cut_and_one_without_carrier() -> Result<()> {
    let s = Service::start("s7-carrier")?;
    let moment = clock::now();
    for lan in LANS {
        s.cluster.plug(s.node(0), lan, false)?;
    }
    s.cluster.wait_status(MODULE, "n1", "WAIT", |status| status.state == State::Wait)?;
    s.wait(s.node(1), State::Alone)?;
    s.served_after(moment)?;
    for lan in LANS {
        s.cluster.plug(s.node(0), lan, true)?;
    }
    s.wait_pair(s.node(1))?;
    s.finish()
}

/// A lan that is cut for less than the timeout costs nobody a role.
#[test]
fn all_lans_cut_for_a_moment() -> Result<()> {
    let s = Service::start("s7-moment")?;
    let application = s.application(s.node(0))?;
    for lan in LANS {
        s.cluster.cut(lan)?;
    }
    for lan in LANS {
        s.cluster.heal(lan)?;
    }
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}

/// A frozen host is a lost peer; when it wakes it does not serve.
#[test]
fn frozen_primary_is_replaced_and_follows_when_it_wakes() -> Result<()> {
    // A frozen host cannot take its address away.
    let s = Service::start("frozen-primary")?.without_referee();
    s.node(0).freeze()?;
    s.wait(s.node(1), State::Alone)?;
    s.node(0).thaw()?;
    s.wait_pair(s.node(1))?;
    assert!(!s.node(0).has_address(ADDRESS));
    s.finish()
}

/// A frozen secondary holds writes up for the timeout, not for ever.
#[test]
fn frozen_secondary_is_left_behind() -> Result<()> {
    let s = Service::start("frozen-secondary")?;
    let application = s.application(s.node(0))?;
    let moment = clock::now();
    s.node(1).freeze()?;
    s.served_after(moment)?;
    s.wait(s.node(0), State::Alone)?;
    s.node(1).thaw()?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}
