//! `safectl witness`

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use safe_proto::spec::{label, quantity};
use safe_proto::witness::{
    AddWitnessRequest, ExpelClusterRequest, GetWitnessRequest, GetWitnessResponse, InitWitnessRequest,
    InviteClusterRequest, RemoveWitnessRequest,
};
use serde::Serialize;

use crate::cli;
use crate::client::Client;
use crate::context::Context;
use crate::error::{Exit, Failure};
use crate::moment::Moment;
use crate::output::{self, Cell, Table, Tone};

/// Port of a witness if none is named.
const PORT: u16 = 9403;

/// Commands about witnesses.
#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// On a third machine: make a witness of its safed; prints a token for the first cluster
    Init(InitArgs),
    /// On the witness: print a token for one more cluster
    Invite(InviteArgs),
    /// On the witness: forget a cluster with its records
    Expel(ExpelArgs),
    /// On a node: register its cluster at a witness, for arbiters of kind "witness"
    Add(AddArgs),
    /// On a node: make the cluster forget a witness
    Remove(RemoveArgs),
    /// What this safed keeps as a witness, and which witnesses its cluster knows
    Status,
}

/// Arguments of `witness init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Address of this machine at which the nodes reach it; may be given more than once
    #[arg(long, value_name = "IP", required = true)]
    address: Vec<IpAddr>,
    /// Port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Name of the witness
    #[arg(long, default_value = "witness", value_parser = witness_name)]
    name: String,
}

/// Arguments of `witness invite`.
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// How long the token is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = quantity::parse_duration)]
    ttl: Duration,
}

/// Arguments of `witness expel`.
#[derive(Debug, Args)]
pub(crate) struct ExpelArgs {
    /// Name of the cluster
    cluster: String,
}

/// Arguments of `witness add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Token of `witness init` or `witness invite`
    token: String,
    /// Where the nodes reach the witness, if not at the address in the token
    #[arg(long, value_name = "HOST:PORT")]
    target: Option<String>,
}

/// Arguments of `witness remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The witness, as `witness status` shows it
    #[arg(value_name = "HOST:PORT")]
    target: String,
}

/// The documented JSON of `init` and `invite`.
#[derive(Debug, Serialize)]
struct Token {
    token: String,
    expires: Moment,
}

/// The documented JSON of `add`, and of a witness in `status`.
#[derive(Debug, Serialize)]
struct Known {
    name: String,
    target: String,
    ca: String,
}

impl From<safe_proto::witness::KnownWitness> for Known {
    fn from(known: safe_proto::witness::KnownWitness) -> Self {
        Self { name: known.name, target: known.target, ca: known.ca }
    }
}

/// The documented JSON of `expel` and `remove`.
#[derive(Debug, Serialize)]
struct Gone {
    removed: String,
}

/// Runs one.
pub(crate) async fn run(context: &Context, command: WitnessCommand) -> Result<Exit, Failure> {
    match command {
        WitnessCommand::Init(args) => init(context, args).await,
        WitnessCommand::Invite(args) => invite(context, args).await,
        WitnessCommand::Expel(args) => expel(context, args).await,
        WitnessCommand::Add(args) => add(context, args).await,
        WitnessCommand::Remove(args) => remove(context, args).await,
        WitnessCommand::Status => status(context).await,
    }
}

async fn init(context: &Context, args: InitArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let addresses = args.address.iter().map(ToString::to_string).collect();
    let request = InitWitnessRequest { name: args.name.clone(), addresses, port: args.port.into() };
    let answer = client.call(client.witness().init_witness(request)).await?;
    output::note(&format!("this safed is a witness now, {}, on port {}/tcp", args.name, args.port));
    tell_token(context, answer.token, answer.expires)
}

async fn invite(context: &Context, args: InviteArgs) -> Result<Exit, Failure> {
    let ttl_s = cli::within_a_week(args.ttl, 60, "--ttl is 1m to 7d")?;
    let client = Client::connect(context).await?;
    let answer = client.call(client.witness().invite_cluster(InviteClusterRequest { ttl_s })).await?;
    tell_token(context, answer.token, answer.expires)
}

/// The token alone on stdout; how to use it on stderr.
fn tell_token(context: &Context, token: String, expires: i64) -> Result<Exit, Failure> {
    let token = Token { token, expires: Moment::from_seconds(expires) };
    output::note(&format!(
        "on a node of the cluster, type (the token is good for one cluster, until {} UTC):\n  \
         safectl witness add TOKEN",
        token.expires.short()
    ));
    context.printer.text(&token, &token.token)?;
    Ok(Exit::Done)
}

async fn expel(context: &Context, args: ExpelArgs) -> Result<Exit, Failure> {
    if !context.yes {
        return Err(Failure::usage(format!("the records of cluster {} would be lost", args.cluster))
            .cause("its modules that name this witness then have no arbiter")
            .hint(format!("safectl witness expel {} --yes", args.cluster)));
    }
    let client = Client::connect(context).await?;
    let request = ExpelClusterRequest { cluster: args.cluster.clone() };
    client.call(client.witness().expel_cluster(request)).await?;
    gone(context, args.cluster)
}

async fn add(context: &Context, args: AddArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let request =
        AddWitnessRequest { token: args.token.trim().to_owned(), target: args.target.unwrap_or_default() };
    let answer = client.call(client.witness().add_witness(request)).await?;
    let known = Known::from(answer.witness.unwrap_or_default());
    output::note(&format!(
        "the cluster knows the witness {} now; in module.toml:\n  [[arbiter]]\n  kind = \"witness\"\n  target = \"{}\"",
        known.name, known.target
    ));
    context.printer.text(&known, &known.target)?;
    Ok(Exit::Done)
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let request = RemoveWitnessRequest { target: args.target.clone() };
    client.call(client.witness().remove_witness(request)).await?;
    gone(context, args.target)
}

fn gone(context: &Context, removed: String) -> Result<Exit, Failure> {
    let text = format!("{removed} is removed");
    context.printer.text(&Gone { removed }, &text)?;
    Ok(Exit::Done)
}

/// The documented JSON of `witness status`.
#[derive(Debug, Serialize)]
struct View {
    /// Null: this safed is no witness.
    name: Option<String>,
    addresses: Vec<String>,
    clusters: Vec<Cluster>,
    known: Vec<Known>,
}

#[derive(Debug, Serialize)]
struct Cluster {
    cluster: String,
    ca: String,
    modules: Vec<Module>,
}

#[derive(Debug, Serialize)]
struct Module {
    module: String,
    lineage: Option<String>,
    owner: Option<String>,
    serial: u64,
    fault: Option<String>,
}

impl From<GetWitnessResponse> for View {
    fn from(answer: GetWitnessResponse) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let module = |module: safe_proto::witness::WitnessedModule| Module {
            module: module.module,
            lineage: some(module.lineage),
            owner: some(module.owner),
            serial: module.serial,
            fault: some(module.fault),
        };
        let cluster = |cluster: safe_proto::witness::WitnessedCluster| Cluster {
            cluster: cluster.cluster,
            ca: cluster.ca,
            modules: cluster.modules.into_iter().map(module).collect(),
        };
        Self {
            name: some(answer.name),
            addresses: answer.addresses,
            clusters: answer.clusters.into_iter().map(cluster).collect(),
            known: answer.known.into_iter().map(Into::into).collect(),
        }
    }
}

async fn status(context: &Context) -> Result<Exit, Failure> {
    let client = Client::connect(context).await?;
    let view = View::from(client.call(client.witness().get_witness(GetWitnessRequest {})).await?);
    context.printer.data(&view, || view.table())?;
    Ok(Exit::Done)
}

impl View {
    fn table(&self) -> Table {
        let mut table = Table::new(["CLUSTER", "MODULE", "RECORD OF", "LINEAGE", "CHANGES"]);
        for cluster in &self.clusters {
            if cluster.modules.is_empty() {
                table.row([
                    Cell::plain(&cluster.cluster),
                    Cell::new("no record yet", Tone::Faint),
                    Cell::plain("-"),
                    Cell::plain("-"),
                    Cell::plain("-"),
                ]);
            }
            for module in &cluster.modules {
                let lineage: String =
                    module.lineage.as_deref().unwrap_or("✖ not trusted").chars().take(8).collect();
                table.row([
                    Cell::plain(&cluster.cluster),
                    Cell::plain(&module.module),
                    Cell::plain(module.owner.as_deref().unwrap_or("-")),
                    Cell::plain(lineage),
                    Cell::plain(module.serial.to_string()),
                ]);
                if let Some(fault) = &module.fault {
                    table.remark("FAULT", fault.clone());
                }
            }
        }
        match &self.name {
            Some(name) => {
                table.below(format!("This safed is the witness {name}, at {}.", self.addresses.join(", ")));
            }
            None => table.below("This safed is no witness."),
        }
        for known in &self.known {
            table.below(format!("Its cluster knows the witness {} at {}.", known.name, known.target));
        }
        table
    }
}

fn witness_name(text: &str) -> Result<String, String> {
    label::check("the name of the witness", text).map(|()| text.to_owned())
}
