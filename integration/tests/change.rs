//! A module changes while it runs: nothing stops, nobody takes over, and what was changed is in force.

use std::time::Duration;

use safe_integration::cluster::SOON;
use safe_integration::error::{Error, Result};
use safe_integration::eventually::{eventually, eventually_true};
use safe_integration::ledger::protected::{ADDRESS, DIRECTORY, MODULE, module};
use safe_integration::node::Node;
use safe_integration::{Module, Service, State};

const OTHER: &str = "10.99.0.51";

/// The versions that the nodes hold, and the files of the module, as they say.
fn listed(node: &Node) -> Result<String> {
    node.safectl("module list -o json")
}

/// Both nodes hold the same version, another one than before, and serve on with it; what it is.
fn converged(s: &Service, before: &str) -> Result<String> {
    s.wait_pair(s.node(0))?;
    eventually(SOON, "both nodes hold the same other version", || {
        let (one, other) = (listed(s.node(0))?, listed(s.node(1))?);
        Ok((one == other && one != before).then_some(one))
    })
}

/// Both nodes hold the same version, whichever that is, and are a pair with it.
fn settled(s: &Service, primary: &Node) -> Result<()> {
    s.wait_pair(primary)?;
    eventually_true(
        SOON,
        "both nodes hold the same version",
        || matches!((listed(s.node(0)), listed(s.node(1))), (Ok(one), Ok(other)) if one == other),
    )?;
    s.wait_pair(primary)
}

/// Writes the version beside the others and answers the line to type.
fn install(s: &Service, name: &str, module: &Module) -> Result<String> {
    let directory = s.cluster.directory().join("versions").join(name);
    module.write(&directory)?;
    Ok(format!("module install {} -o json", directory.display()))
}

fn says(node: &Node, text: &str) -> Result<()> {
    eventually_true(SOON, &format!("{} says: {text}", node.name), || {
        node.safectl("events -n 1000")
            .is_ok_and(|events| events.split_whitespace().collect::<Vec<_>>().join(" ").contains(text))
    })
}

#[test]
fn a_running_module_takes_another_version() -> Result<()> {
    let s = Service::start("change")?;
    let (application, before) = (s.application(s.node(0))?, listed(s.node(0))?);
    let rule = "[[rule]]\nlabel = \"gone\"\nif = \"check.tcp.none == down\"\nthen = \"stopstart\"";
    let quick = module()?
        .section("[heartbeat]\ninterval = \"100ms\"\ntimeout = \"1s\"")
        .section(rule)
        .address(&format!("{OTHER}/24"));
    let said = s.node(0).safectl(&install(&s, "quick", &quick)?)?;
    for changed in
        ["heartbeat.timeout: 3s -> 1s", "[[rule]]: none -> gone", &format!("{ADDRESS}/24, {OTHER}/24")]
    {
        assert!(said.contains(changed), "{changed} is not in {said}");
    }
    let quick_version = converged(&s, &before)?;
    for node in s.cluster.nodes() {
        says(node, "the timeout is 1s now, it was 3s")?;
        assert!(node.safectl(&format!("explain {MODULE}"))?.contains("1s"));
        assert!(node.safectl(&format!("rules {MODULE}"))?.contains("gone"));
    }
    eventually_true(SOON, "the new address is there", || s.node(0).has_address(OTHER))?;
    assert!(s.node(0).has_address(ADDRESS) && !s.node(1).has_address(OTHER));

    // What cannot be taken says so, and changes nothing.
    let wider = module()?.replicate("/srv/data/more");
    let said = s.node(1).try_safectl(&install(&s, "wider", &wider)?)?;
    assert!(said.code != 0 && said.err.contains("safectl shutdown ledger"), "{said:?}");
    assert_eq!(listed(s.node(0))?, quick_version);

    // Back again, from the other node.
    s.node(1).safectl(&install(&s, "slow", &module()?)?)?;
    converged(&s, &quick_version)?;
    for node in s.cluster.nodes() {
        says(node, "the timeout is 3s now, it was 1s")?;
    }
    eventually_true(SOON, "the address is gone", || !s.node(0).has_address(OTHER))?;
    s.node(0).safectl(&install(&s, "quick-again", &quick)?)?;
    for node in s.cluster.nodes() {
        eventually_true(SOON, "both count on the short timeout", || {
            node.safectl(&format!("explain {MODULE}")).is_ok_and(|text| text.contains("1s"))
        })?;
    }
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");

    // And it does what it is for.
    s.wait_pair(s.node(0))?;
    let moment = s.node(0).kill_host()?;
    s.served_after(moment)?;
    s.wait(s.node(1), State::Alone)?;
    assert!(s.node(1).has_address(ADDRESS) && s.node(1).has_address(OTHER));
    // Who serves alone can be changed as well; the other one catches up.
    let alone = module()?.section("[heartbeat]\ntimeout = \"2s\"").address(&format!("{OTHER}/24"));
    let line = install(&s, "alone", &alone)?;
    s.node(1).safectl(&format!("{line} --allow-missing"))?;
    s.writes(20)?;
    s.node(0).restart_host()?;
    settled(&s, s.node(1))?;
    s.finish()
}

/// Whoever coordinates, or is told, dies at any moment of it: both nodes come to the same version, and serve on.
#[test]
fn crashes_while_a_version_is_put_in_force() -> Result<()> {
    let s = Service::start("change-crash")?;
    let application = s.application(s.node(0))?;
    for (round, after) in [0, 20, 40, 60, 80, 100, 150, 250].into_iter().enumerate() {
        let timeout = if round % 2 == 0 { "1s" } else { "4s" };
        let next = module()?
            .section(&format!("[heartbeat]\ninterval = \"200ms\"\ntimeout = \"{timeout}\""))
            .section(&format!("[env]\nROUND = \"{round}\""));
        let line = install(&s, &format!("round-{round}"), &next)?;
        let victim = s.node(usize::from(round % 4 >= 2));
        std::thread::scope(|scope| {
            let installing = scope.spawn(|| s.node(0).try_safectl(&line));
            // Not a condition: whatever moment this is, all must be well afterwards.
            std::thread::sleep(Duration::from_millis(after));
            victim.kill_agent()?;
            victim.start_agent()?;
            installing.join().map_err(|_| Error::new("the installing thread panicked"))?.map(drop)
        })?;
        settled(&s, s.node(0))?;
    }
    let before = listed(s.node(0))?;
    s.node(1).safectl(&install(&s, "last", &module()?)?)?;
    converged(&s, &before)?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    assert!(s.node(0).has_address(ADDRESS), "{DIRECTORY} is served");
    s.finish()
}

/// Two people at two nodes: both nodes come to one of the two versions, and whoever was not first knows.
#[test]
fn two_people_install_at_once() -> Result<()> {
    let s = Service::start("change-two")?;
    let application = s.application(s.node(0))?;
    for round in 0..4 {
        let line = |who: &str| {
            let next = module()?.section(&format!("[env]\nWHO = \"{who}-{round}\""));
            install(&s, &format!("{who}-{round}"), &next)
        };
        let (one, other) = (line("one")?, line("other")?);
        let done = std::thread::scope(|scope| {
            let one = scope.spawn(|| s.node(0).try_safectl(&one));
            let other = scope.spawn(|| s.node(1).try_safectl(&other));
            [one, other]
                .map(|running| running.join().map_err(|_| Error::new("an installing thread panicked")))
        });
        for done in done {
            let done = done??;
            let refused =
                ["meanwhile", "try again", "at the same time"].iter().any(|why| done.err.contains(why));
            assert!(done.code == 0 || refused, "{done:?}");
        }
        settled(&s, s.node(0))?;
    }
    // Both may be told that the other was there, over and over; who tries again alone gets through.
    let next = module()?.section("[env]\nWHO = \"alone\"");
    s.node(0).safectl(&install(&s, "alone", &next)?)?;
    s.wait_pair(s.node(0))?;
    assert_eq!(s.application(s.node(0))?, application, "the application was not disturbed");
    s.finish()
}
