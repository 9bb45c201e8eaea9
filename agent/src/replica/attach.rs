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
        Ok(Ok((requests, responses, fds, adopted))) => {
            let attached = Attached { requests, responses, fds, process, sockets_sent: false, unreported: 0 };
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

type Opened = (mpsc::Sender<AttachRequest>, Streaming<AttachResponse>, FdsSocket, Adopted);

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
    let first = responses
        .message()
        .await
        .map_err(|status| format!("safe-replicator refuses: {}", status.message()))?;
    match first.and_then(|first| first.report) {
        Some(Report::Adopted(adopted)) if adopted.protocol == safe_proto::PROTOCOL => {
            Ok((requests, responses, fds, adopted))
        }
        Some(Report::Adopted(adopted)) => Err(format!(
            "safe-replicator speaks protocol {}, this safed {}",
            adopted.protocol,
            safe_proto::PROTOCOL
        )),
        _ => Err("safe-replicator answers out of order".to_owned()),
    }
}
