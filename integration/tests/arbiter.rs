//! S8: every lan between the nodes is cut, and a third machine is asked who shall serve.

use std::time::Duration;

use safe_integration::cluster::SOON;
use safe_integration::error::Result;
use safe_integration::eventually::{eventually, throughout};
use safe_integration::host::Host;
use safe_integration::lan::{DEFAULT, LANS};
use safe_integration::node::Node;
use safe_integration::{Cluster, Module, State, tree};

const FILES: &str = "/srv/data/files";

/// Number of the third machine on the production network.
const THIRD: u8 = 200;

/// Longer than the heartbeat timeout: begun when the first node serves alone, it ends after the second has had its turn.
const A_WHILE: Duration = Duration::from_millis(3500);

fn module(arbiter: &str) -> Module {
    Module::mirror("files").replicate(FILES).section(arbiter)
}

fn cut(c: &Cluster) -> Result<()> {
    LANS.into_iter().try_for_each(|lan| c.cut(lan))
}

fn heal(c: &Cluster) -> Result<()> {
    LANS.into_iter().try_for_each(|lan| c.heal(lan))
}

/// The third machine does not answer this node any more, or does again.
fn deaf(third: &Host, node: &Node, deaf: bool) -> Result<()> {
    let action = if deaf { "add" } else { "del" };
    third.shell(&format!("ip route {action} blackhole {}/32", DEFAULT.address(node.number))).map(drop)
}

/// The one serves alone, and the other does not serve for a while.
fn one_serves(c: &Cluster, winner: &Node) -> Result<()> {
    let loser = c.peer_of(winner);
    c.wait_state("files", &winner.name, State::Alone)?;
    c.wait_status("files", &loser.name, "does not serve", |status| !status.state.serves())?;
    winner.shell(&format!("hostname >{FILES}/who"))?;
    throughout(A_WHILE, &format!("{} alone serves", winner.name), || {
        let serves =
            |node: &Node| Ok::<_, safe_integration::error::Error>(node.status("files")?.state.serves());
        Ok(serves(winner)? && !serves(loser)?)
    })
}

/// What the arbiter is said to be by both nodes.
fn shown(c: &Cluster, state: &str) -> Result<()> {
    for node in c.nodes() {
        let what = format!("an arbiter is {state}");
        c.wait_status("files", &node.name, &what, |status| {
            status.arbiters.len() == 1 && status.arbiters[0].state == state
        })?;
    }
    Ok(())
}

/// Whom the gateway answers serves; the other waits, and follows when the lans are back. Both ways round.
#[test]
fn the_one_that_reaches_the_gateway_serves() -> Result<()> {
    let c = Cluster::two_nodes("s8-ping")?;
    let gateway = c.client("gateway", THIRD)?;
    let target = DEFAULT.address(THIRD);
    c.start_module(&module(&format!("[[arbiter]]\nkind = \"ping\"\ntarget = \"{target}\"")))?;
    shown(&c, "up")?;
    for (winner, loser) in [(1, 0), (0, 1)] {
        let (winner, loser) = (c.node(winner), c.node(loser));
        deaf(&gateway, loser, true)?;
        cut(&c)?;
        one_serves(&c, winner)?;
        deaf(&gateway, loser, false)?;
        heal(&c)?;
        c.wait_pair("files", &winner.name)?;
        tree::assert_equal(&c, FILES)?;
        assert_eq!(loser.shell(&format!("cat {FILES}/who"))?, winner.name);
    }
    c.finish()
}

/// A dead node is told from a cut lan by any arbiter that answers, of whatever kind.
#[test]
fn every_kind_of_arbiter_answers() -> Result<()> {
    let c = Cluster::two_nodes("s8-kinds")?;
    let third = c.client("third", THIRD)?;
    let target = DEFAULT.address(THIRD);
    let _web = third
        .program("python3")?
        .args(["-m", "http.server", "80", "--bind", &target])
        .spawn(&third.log("web"))?;
    let knock = format!("exec 3<>/dev/tcp/{target}/80");
    eventually(SOON, "the web server answers", || {
        c.node(0).program("bash")?.args(["-c", &knock]).run().map(Some)
    })?;
    let text = format!(
        "[[arbiter]]\nkind = \"tcp\"\ntarget = \"{target}:80\"\n\
         [[arbiter]]\nkind = \"http\"\ntarget = \"http://{target}/\"\n\
         [[arbiter]]\nkind = \"http\"\nname = \"missing\"\ntarget = \"http://{target}/missing\"\n\
         [[arbiter]]\nkind = \"command\"\ntarget = \"check_third {target}\""
    );
    let check = "test \"$SAFE_MODULE/$SAFE_NODE\" = \"files/$(hostname)\" && ping -c 1 -W 1 \"$1\"";
    c.start_module(&module(&text).script("check_third", check))?;
    for node in c.nodes() {
        c.wait_status("files", &node.name, "what answers is up, what does not is down", |status| {
            let states: Vec<&str> = status.arbiters.iter().map(|arbiter| arbiter.state.as_str()).collect();
            states == ["up", "up", "down", "up"]
        })?;
    }
    c.node(0).kill_host()?;
    c.wait_state("files", "n2", State::Alone)?;
    c.finish()
}
