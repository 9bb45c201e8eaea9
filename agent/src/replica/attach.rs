//! Takes hold of a replicator that runs: the control stream, the descriptors, the process.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use safe_proto::replication::attach_request::Command;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::control_service_client::ControlServiceClient;
use safe_proto::replication::{Adopted, AttachRequest, AttachResponse, Configure};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Endpoint, Uri};

use super::fds::FdsSocket;
use super::process::Process;
use crate::paths::ModulePaths;

/// Commands that may wait for the replicator.
const QUEUE: usize = 64;

/// Longest wait for the first answer of a replicator that has accepted the connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reports that it may make before it introduces itself.
const EARLY: usize = 1024;

/// A replicator that does not answer for this long is hung: it is killed, and what it held is failed over.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(8);

/// Everything that connects the daemon with one replicator.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) requests: mpsc::Sender<AttachRequest>,
    pub(super) responses: Streaming<AttachResponse>,
    pub(super) fds: FdsSocket,
    pub(super) process: Process,
    /// What must not be lost of what it said before it introduced itself.
    pub(super) early: Vec<AttachResponse>,
    /// Heartbeat sockets were handed over.
    pub(super) sockets_sent: bool,
    /// Fences that were ordered out of turn and not confirmed yet: their confirmations are nobody's business.
    pub(super) unreported: usize,
}

/// Connects to a replicator; an error of kind `NotFound` or `ConnectionRefused` means that none runs.
pub(super) async fn connect(paths: &ModulePaths) -> io::Result<(UnixStream, i32)> {
    let stream = UnixStream::connect(paths.control_socket()).await?;
    let pid =
        stream.peer_cred()?.pid().ok_or_else(|| io::Error::other("the replicator has no process id"))?;
    Ok((stream, pid))
}

/// Opens the control stream and configures the replicator.
///
/// # Errors
/// One sentence. The process may still run.
pub(super) async fn attach(
    stream: UnixStream,
    process: Process,
    paths: &ModulePaths,
    configure: Configure,
) -> Result<(Attached, Adopted), (Process, String)> {
    let opened = tokio::time::timeout(PATIENCE, open(stream, paths, configure)).await;
    match opened {
        Ok(Ok((requests, responses, fds, adopted, early))) => {
            let (sockets_sent, unreported) = (false, 0);
            let attached = Attached { requests, responses, fds, process, early, sockets_sent, unreported };
            Ok((attached, adopted))
        }
        Ok(Err(error)) => Err((process, error)),
        Err(_) => Err((process, format!("safe-replicator does not answer within {} s", PATIENCE.as_secs()))),
    }
}

/// A new replicator may listen on its other socket first.
async fn connect_fds(paths: &ModulePaths) -> io::Result<FdsSocket> {
    let mut attempts = 0;
    loop {
        match FdsSocket::connect(&paths.fds_socket()) {
            Err(_) if attempts < 100 => attempts += 1,
            done => return done,
        }
        tokio::time::sleep(super::RETRY).await;
    }
}

type Opened =
    (mpsc::Sender<AttachRequest>, Streaming<AttachResponse>, FdsSocket, Adopted, Vec<AttachResponse>);

async fn open(stream: UnixStream, paths: &ModulePaths, configure: Configure) -> Result<Opened, String> {
    let fds = connect_fds(paths).await.map_err(|error| format!("cannot pass descriptors: {error}"))?;
    let mut stream = Some(TokioIo::new(stream));
    // One connection for one stream: a new connection would be another attachment.
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    let channel = Endpoint::from_static("http://replicator.invalid")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|error| format!("cannot talk to safe-replicator: {error}"))?;
    let (requests, outgoing) = mpsc::channel(QUEUE);
    let first = AttachRequest { command: Some(Command::Configure(configure)) };
    requests.send(first).await.map_err(|_| "safe-replicator hung up".to_owned())?;
    let mut responses = ControlServiceClient::new(channel)
        .attach(ReceiverStream::new(outgoing))
        .await
        .map_err(|status| format!("safe-replicator refuses: {}", status.message()))?
        .into_inner();
    let (adopted, early) = introduced(&mut responses).await?;
    if adopted.protocol == safe_proto::PROTOCOL {
        return Ok((requests, responses, fds, adopted, early));
    }
    let (theirs, ours) = (adopted.protocol, safe_proto::PROTOCOL);
    Err(format!("safe-replicator speaks protocol {theirs}, this safed {ours}"))
}

/// Waits until it introduces itself. What happens in it at that moment it may tell before: its introduction says what
/// came of that, but for a disk that failed.
async fn introduced(
    responses: &mut Streaming<AttachResponse>,
) -> Result<(Adopted, Vec<AttachResponse>), String> {
    let mut early = Vec::new();
    for _ in 0..EARLY {
        let response = responses
            .message()
            .await
            .map_err(|status| format!("safe-replicator refuses: {}", status.message()))?;
        let Some(AttachResponse { report: Some(report) }) = response else { break };
        if let Report::Adopted(adopted) = report {
            return Ok((adopted, early));
        }
        tracing::debug!(?report, "said before the introduction");
        if matches!(report, Report::DiskFailed(_)) {
            early.push(AttachResponse { report: Some(report) });
        }
    }
    Err("safe-replicator does not introduce itself".to_owned())
}
