//! `safectl cluster`

use std::io::Read;
use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use safe_proto::cluster::{GetClusterRequest, GetClusterResponse, InviteRequest};
use safe_proto::node::{InitClusterRequest, JoinClusterRequest, LanAddress};
use safe_proto::spec::{label, quantity};
use serde::Serialize;

use crate::cli;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure, timed_out};
use crate::moment::Moment;
use crate::output::{self, Cell, Table, Tone};

/// Longest token: anything longer is not one.
const MAX_TOKEN: usize = 16 * 1024;

/// Commands about the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster of this node; prints a token with which one more node can join
    Init(InitArgs),
    /// Print a token with which one more node can join once
    Invite(InviteArgs),
    /// Join this node to a cluster
    Join(JoinArgs),
    /// Nodes and lans, as this node sees them
    Status,
}

/// Arguments of `cluster init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the cluster
    #[arg(long, value_parser = cluster_name)]
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// What a node says of itself.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Name of this node
    #[arg(long, value_parser = node_name)]
    node: String,
    /// Address of this node on a lan, once for each lan; the first lan is the default one
    #[arg(long, value_name = "LAN=ADDRESS", required = true, value_parser = lan_address)]
    address: Vec<LanAddress>,
}

/// Arguments of `cluster invite`.
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// How long the token is good for: 1m to 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = quantity::parse_duration)]
    ttl: Duration,
}

/// Arguments of `cluster join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Token of `cluster init` or `cluster invite`; - reads it from stdin
    token: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// The documented JSON of `init` and `invite`.
#[derive(Debug, Serialize)]
struct Token {
    token: String,
    expires: Moment,
}

/// The documented JSON of `join`.
#[derive(Debug, Serialize)]
struct Joined {
    cluster: String,
    node: String,
    nodes: Vec<String>,
}

/// Runs one.
pub(crate) async fn run(context: &Context, command: ClusterCommand) -> Result<Exit, Failure> {
    match command {
        ClusterCommand::Init(args) => init(context, args).await,
        ClusterCommand::Invite(args) => invite(context, args).await,
        ClusterCommand::Join(args) => join(context, args).await,
        ClusterCommand::Status => status(context).await,
    }
}

async fn init(context: &Context, args: InitArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let (cluster, node) = (args.name, args.node.node);
    let lans: Vec<String> = args.node.address.iter().map(|address| address.lan.clone()).collect();
    let request =
        InitClusterRequest { cluster: cluster.clone(), node: node.clone(), addresses: args.node.address };
    let answer = client.call(client.node().init_cluster(request)).await?;
    output::note(&format!("cluster {cluster} is made; this is its node {node}"));
    tell_token(context, answer.token, answer.expires, &lans)
}

async fn invite(context: &Context, args: InviteArgs) -> Result<Exit, Failure> {
    let ttl_s = cli::within_a_week(args.ttl, 60, "--ttl is 1m to 7d")?;
    let client = Client::connect(context).await?;
    let answer = client.call(client.cluster().invite(InviteRequest { ttl_s })).await?;
    let cluster = client.call(client.cluster().get_cluster(GetClusterRequest {})).await?;
    let first = cluster.nodes.into_iter().next().unwrap_or_default();
    let lans: Vec<String> = first.lans.into_iter().map(|lan| lan.name).collect();
    tell_token(context, answer.token, answer.expires, &lans)
}

/// The token alone on stdout; how to use it on stderr.
fn tell_token(context: &Context, token: String, expires: i64, lans: &[String]) -> Result<Exit, Failure> {
    let token = Token { token, expires: Moment::from_seconds(expires) };
    let addresses: Vec<String> = lans.iter().map(|lan| format!("--address {lan}=ADDRESS")).collect();
    output::note(&format!(
        "on the node that is to join, type (the token is good once, until {} UTC):\n  \
         safectl cluster join TOKEN --node NAME {}",
        token.expires.short(),
        addresses.join(" ")
    ));
    context.printer.text(&token, &token.token)?;
    Ok(Exit::Done)
}

async fn join(context: &Context, args: JoinArgs) -> Result<Exit, Failure> {
    let token = token(args.token)?;
    let client = Client::connect(context).await?;
    let node = args.node.node;
    let request = JoinClusterRequest { token, node: node.clone(), addresses: args.node.address };
    let answer = client.call(client.node().join_cluster(request)).await.map_err(|failure| {
        // This safed answers; it is the others that it waits for.
        if failure == timed_out(&client.place) { nobody_in_time() } else { failure }
    })?;
    let joined = Joined { cluster: answer.cluster, node, nodes: answer.nodes };
    if context.is_table() {
        output::note(&format!(
            "{} joined cluster {}; its nodes: {}\nnext: safectl cluster status, then safectl module install DIR",
            joined.node,
            joined.cluster,
            joined.nodes.join(", ")
        ));
    } else {
        context.printer.text(&joined, "")?;
    }
    Ok(Exit::Done)
}

fn nobody_in_time() -> Failure {
    Failure::failed("this safed got no answer in time from the cluster it is to join")
        .cause("the token names the nodes and their addresses; none of them may be reachable from here")
        .hint("does safed run there, and are 9400/tcp, 9401/udp and 9402/tcp open? Then try again, or with a longer --timeout")
}

fn token(given: String) -> Result<String, Failure> {
    let mut token = given;
    if token == "-" {
        token.clear();
        let mut input = std::io::stdin().lock().take(MAX_TOKEN as u64 + 1);
        input
            .read_to_string(&mut token)
            .map_err(|error| Failure::failed("cannot read the token from stdin").cause(error))?;
    }
    let token = token.trim().to_owned();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=');
    if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(fits) {
        return Err(Failure::usage("that is not a token")
            .cause("a token is one word of letters, digits, - and _")
            .hint("on a node of the cluster: safectl cluster invite"));
    }
    Ok(token)
}

async fn status(context: &Context) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let answer = client.call(client.cluster().get_cluster(GetClusterRequest {})).await?;
    let view = View::from(answer);
    context.printer.data(&view, || view.table())?;
    Ok(Exit::Done)
}

/// The documented JSON of `cluster status`.
#[derive(Debug, Serialize)]
struct View {
    cluster: String,
    node: String,
    settings_version: u64,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    name: String,
    reachable: bool,
    version: Option<String>,
    lans: Vec<LanView>,
}

#[derive(Debug, Serialize)]
struct LanView {
    name: String,
    address: String,
    up: bool,
    silent_ms: u64,
}

impl From<GetClusterResponse> for View {
    fn from(answer: GetClusterResponse) -> Self {
        let lan = |lan: safe_proto::cluster::Lan| LanView {
            name: lan.name,
            address: lan.address,
            up: lan.up,
            silent_ms: lan.silent_ms,
        };
        let node = |node: safe_proto::cluster::Node| NodeView {
            name: node.name,
            reachable: node.reachable,
            version: Some(node.version).filter(|version| !version.is_empty()),
            lans: node.lans.into_iter().map(lan).collect(),
        };
        Self {
            cluster: answer.cluster,
            node: answer.node,
            settings_version: answer.settings_version,
            nodes: answer.nodes.into_iter().map(node).collect(),
        }
    }
}

impl View {
    fn table(&self) -> Table {
        let mut table = Table::new(["NODE", "LAN", "ADDRESS", "STATE", "SAFED"]);
        for node in &self.nodes {
            let here = node.name == self.node;
            for lan in &node.lans {
                let state = match (here, lan.up) {
                    (true, _) => Cell::new("● this node", Tone::Good),
                    (false, true) => Cell::new("● up", Tone::Good),
                    (false, false) => {
                        Cell::new(format!("✖ silent for {} s", lan.silent_ms / 1000), Tone::Bad)
                    }
                };
                table.row([
                    Cell::plain(&node.name),
                    Cell::plain(&lan.name),
                    Cell::plain(&lan.address),
                    state,
                    Cell::plain(node.version.as_deref().unwrap_or("-")),
                ]);
            }
        }
        for node in self.nodes.iter().filter(|node| !node.reachable && node.name != self.node) {
            table.below(format!("{0} does not answer on any lan. On {0}: safectl version", node.name));
            table.below("(safed needs 9400/tcp, 9401/udp and 9402/tcp open between the nodes)");
        }
        table
    }
}

fn cluster_name(text: &str) -> Result<String, String> {
    label::check("the cluster name", text).map(|()| text.to_owned())
}

fn node_name(text: &str) -> Result<String, String> {
    label::check("the node name", text).map(|()| text.to_owned())
}

fn lan_address(text: &str) -> Result<LanAddress, String> {
    let (lan, address) = text
        .split_once('=')
        .ok_or_else(|| "write it as LAN=ADDRESS, such as default=10.99.0.1".to_owned())?;
    label::check("the lan", lan)?;
    let ip: IpAddr = address
        .parse()
        .map_err(|_| format!("{address:?} is not an IPv4 or IPv6 address (no name, no prefix length)"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Err(format!("{ip} cannot be the address of a node: the other nodes could not reach it"));
    }
    Ok(LanAddress { lan: lan.to_owned(), address: ip.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_node() {
        assert_eq!(
            lan_address("default=10.0.0.1").map(|a| (a.lan, a.address)),
            Ok(("default".to_owned(), "10.0.0.1".to_owned()))
        );
        for bad in [
            "10.0.0.1",
            "default=",
            "default=n1",
            "De=10.0.0.1",
            "default=10.0.0.1/24",
            "a=0.0.0.0",
            "a=127.0.0.1",
            "a=::1",
        ] {
            assert!(lan_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tokens_are_words() {
        assert_eq!(token(" abc-_= \n".to_owned()), Ok("abc-_=".to_owned()));
        for bad in ["", "a b", "ä"] {
            assert!(token(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
