//! `safe-replicator`: replicates the directories of one module. Started by `safed`, which it outlives.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use rustix::fs::{FlockOperation, Mode, OFlags};
use safe_replicator::control::{COMMANDS, Ordered, serve};
use safe_replicator::fds::{Listener, Outbox};
use safe_replicator::fuse::courier;
use safe_replicator::legacy::inherited::Inherited;
use safe_replicator::replica::Replica;
use safe_replicator::{linux, watch};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// Replicates the directories of one module of safed.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Directory for the sockets control.sock and fds.sock.
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// What to log to standard error: error, warn, info, debug or trace, or filters of tracing.
    #[arg(long, default_value = "info")]
    log: String,
}

/// Connections of the other node that may wait for a session.
const ARRIVALS: usize = 4;
/// For the last report to leave.
const FAREWELL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == courier::ARGUMENT) {
        courier::serve();
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log);
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match run(&arguments.run_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "cannot run");
            ExitCode::from(2)
        }
    }
}

fn run(run_dir: &Path) -> Result<(), String> {
    let lock = lock(run_dir)?;
    linux::process::prepare();
    let (control, fds) = (run_dir.join("control.sock"), run_dir.join("fds.sock"));
    let failed = |error: std::io::Error| format!("cannot listen in {}: {error}", run_dir.display());
    for path in [&control, &fds] {
        // Left by an earlier process; the lock says that it is gone.
        let _absent = std::fs::remove_file(path);
    }
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let fds = Listener::bind(&fds).map_err(failed)?;
    let agents = std::os::unix::net::UnixListener::bind(&control).map_err(failed)?;
    std::fs::set_permissions(&control, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    agents.set_nonblocking(true).map_err(failed)?;
    // Modes of replicated files are set as they are to be.
    rustix::process::umask(Mode::empty());

    let plane = start_plane()?;
    let (arrivals, receiver) = mpsc::channel(ARRIVALS);
    let outbox = Arc::new(Outbox::default());
    let inherited = Arc::new(Inherited::default());
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let replica = Replica::new(run_dir, Arc::clone(&outbox), Arc::clone(&inherited), receiver, plane);
    let (commands, ordered) = mpsc::channel(COMMANDS);

    let replaced = Arc::clone(&replica);
    start("fds", move || {
        fds.serve(&outbox, &inherited, &arrivals, &replaced.agent, || replaced.greet());
    })?;
    let watched = Arc::clone(&replica);
    start("watch", move || watch::watch(&watched))?;
    let disk = Arc::clone(&replica);
    start("disk", move || watch::watch_disk(&disk))?;
    let served = Arc::clone(&replica);
    start("control", move || listen(agents, served, commands))?;
    obey(&replica, ordered);
    replica.reports.end();
    // The agent closes the stream when it has read the last report.
    std::thread::sleep(FAREWELL / 10);
    drop(lock);
    Ok(())
}

/// One process for a run directory.
fn lock(run_dir: &Path) -> Result<rustix::fd::OwnedFd, String> {
    let path = run_dir.join("replicator.lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("another replicator runs in {}", run_dir.display()))?;
    Ok(file)
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

/// The data plane: one thread, one runtime, nothing on it waits for a disk.
fn start_plane() -> Result<tokio::runtime::Handle, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("plane-disk")
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    let handle = runtime.handle().clone();
    start("plane", move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

fn listen(agents: std::os::unix::net::UnixListener, replica: Arc<Replica>, commands: mpsc::Sender<Ordered>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start a runtime");
            return;
        }
    };
    let outcome = runtime.block_on(async {
        let listener = UnixListener::from_std(agents).map_err(|error| error.to_string())?;
        serve(listener, replica, commands).await.map_err(|error| error.to_string())
    });
    if let Err(error) = outcome {
        tracing::error!(error, "the agent cannot be served any more");
    }
}

/// Carries out commands until told to stop.
fn obey(replica: &Replica, mut ordered: mpsc::Receiver<Ordered>) {
    while let Some(ordered) = ordered.blocking_recv() {
        if !replica.execute(ordered) {
            return;
        }
    }
}
