//! The daemon of safed: one per node.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use safed::children::Children;
use safed::config::Config;
use safed::events::Events;
use safed::linux::precedence::{self, Priority};
use safed::node::{Context, NodeHandle, Owner, Startup};
use safed::paths::Paths;
use safed::{cluster, log, logging, preflight, rpc, shutdown};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Keeps applications running on this node and its partners. Commands are given with safectl.
#[derive(Debug, Parser)]
#[command(name = "safed", version)]
struct Arguments {
    /// Keep settings, state and sockets below DIR instead of in /etc/safed, /var/lib/safed and /run/safed
    #[arg(long, value_name = "DIR", env = "SAFED_ROOT")]
    root: Option<PathBuf>,
}

/// The daemon cannot start, or had to give up.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Startup(why)) => {
            complain(&why);
            ExitCode::from(FAILED)
        }
    }
}

#[expect(clippy::print_stderr, reason = "before logging begins there is no other way")]
fn complain(why: &str) {
    eprintln!("safed: {why}");
}

fn start(arguments: &Arguments) -> Result<(), Startup> {
    let root = arguments.root.as_ref().map(std::path::absolute).transpose();
    let root = root.map_err(|error| Startup(format!("cannot use --root: {error}")))?;
    let paths = Paths::new(root.as_deref());
    let config = Config::load(&paths)?;
    preflight::check()?;
    let _lock = preflight::lock(&paths)?;
    let log = logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(|error| Startup(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(run(paths, config));
    // What still waits for a disk must not hold up the end.
    runtime.shutdown_background();
    log.flush();
    ended
}

async fn run(paths: Paths, config: Config) -> Result<(), Startup> {
    let end = CancellationToken::new();
    shutdown::watch(end.clone())?;
    let events = Events::start(&paths)?;
    let children = Children::default();
    children.adopt_orphans(end.clone())?;
    tokio::spawn(log::keep_bounded(paths.modules(), end.clone()));
    let (node, inbox, statuses) = NodeHandle::new();
    let context = Context { paths, config, node, events, shutdown: end.clone() };
    let cluster = cluster::start(&context)?;
    let network = Arc::clone(&cluster);
    let owner = Owner::new(context.clone(), network, children, inbox, statuses)?;
    let owner = start_owner(owner)?;
    let served = rpc::serve(&context, cluster)?;
    context.events.record("", false, concat!("safed ", env!("CARGO_PKG_VERSION"), " runs"));
    let outcome = tokio::select! {
        () = end.cancelled() => Ok(()),
        () = served => give_up(&end, "the API ended"),
        done = owner => match done {
            Ok(()) => give_up(&end, "the owner loop ended"),
            Err(_) => give_up(&end, "the owner loop failed"),
        },
    };
    end.cancel();
    outcome
}

/// The loop that decides has a thread of its own, which is served before everything ordinary. Answers when it has ended; an
/// error: it panicked.
fn start_owner(owner: Owner) -> Result<oneshot::Receiver<()>, Startup> {
    let (ended, end) = oneshot::channel();
    let runtime = Handle::current();
    let run = move || {
        if let Err(error) = precedence::real_time(Priority::Decision) {
            tracing::warn!("safed decides without real-time priority ({error}): give it CAP_SYS_NICE");
        }
        owner.run(&runtime);
        let _gone = ended.send(());
    };
    let thread = std::thread::Builder::new().name("owner".to_owned()).spawn(run);
    thread.map_err(|error| Startup(format!("cannot start a thread: {error}")))?;
    Ok(end)
}

/// A daemon that lost a part is ended as a whole: modules go on under their replicators, and the service manager
/// starts it again.
fn give_up(end: &CancellationToken, why: &str) -> Result<(), Startup> {
    if end.is_cancelled() { Ok(()) } else { Err(Startup(why.to_owned())) }
}
