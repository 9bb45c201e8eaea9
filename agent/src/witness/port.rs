//! The port of a witness: who connects shows which cluster it is of, or gets no further.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use safe_proto::witness::witness_service_server::WitnessServiceServer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::WitnessError;
use super::keep::Keep;
use super::service::Service;
use crate::audit::Audit;
use crate::pki::Credentials;
use crate::pki::authority::fingerprint;
use crate::rpc::Connection;
use crate::{clock, heartbeat};

/// Connections at the same time, handshakes included.
const CONNECTIONS: usize = 1024;
/// Connections of clusters that are not registered at the same time.
const STRANGERS: usize = 16;
/// How long such a connection may last.
const STRANGER: Duration = Duration::from_secs(30);
/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After a failed accept.
const BREATH: Duration = Duration::from_millis(200);
/// Connections that wait to be served.
const WAITING: usize = 32;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;
/// Calls at the same time on one connection.
const CALLS: u32 = 256;
/// For one call.
const CALL: Duration = Duration::from_secs(30);
/// Largest request.
const MAX_MESSAGE: usize = 4096;
/// How long a killed predecessor may take to let go of its port.
const DYING: Duration = Duration::from_secs(2);
/// Between two attempts meanwhile.
const GLANCE: Duration = Duration::from_millis(20);

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// Fingerprint of its cluster's CA.
    pub(super) ca: [u8; 32],
    /// Its certificate, signed by that CA.
    pub(super) certificate: Arc<CertificateDer<'static>>,
    pub(super) address: SocketAddr,
}

type Link = Connection<TlsStream<TcpStream>, Client>;

/// Binds for a new witness.
pub(super) fn first(addresses: &[IpAddr], port: u16) -> Result<Vec<std::net::TcpListener>, WitnessError> {
    addresses.iter().map(|ip| listen(*ip, port, false).map_err(|error| explain(*ip, port, &error))).collect()
}

/// Binds for one that starts again: an interface may come up later, and a predecessor may not be quite dead.
pub(super) fn again(addresses: &[IpAddr], port: u16) -> Result<Vec<std::net::TcpListener>, WitnessError> {
    let deadline = clock::now() + DYING;
    let patient = |ip: IpAddr| loop {
        match listen(ip, port, true) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && clock::now() < deadline => {
                std::thread::sleep(GLANCE);
            }
            outcome => return outcome.map_err(|error| explain(ip, port, &error)),
        }
    };
    addresses.iter().copied().map(patient).collect()
}

fn listen(ip: IpAddr, port: u16, later: bool) -> std::io::Result<std::net::TcpListener> {
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    heartbeat::free(&socket, ip, later)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain(ip: IpAddr, port: u16, error: &std::io::Error) -> WitnessError {
    let kind = error.kind();
    WitnessError::Port(if kind == ErrorKind::AddrNotAvailable {
        format!("address {ip} is not on this machine: give one that `ip address` shows")
    } else if kind == ErrorKind::AddrInUse {
        format!(
            "port {port}/tcp is in use on {ip}: choose another with --port, or end the program that has it"
        )
    } else {
        format!("cannot listen on {ip} port {port}/tcp: {error}")
    })
}

/// Takes and serves connections until `shutdown`.
pub(super) fn serve(
    keep: &Arc<Keep>,
    listeners: Vec<std::net::TcpListener>,
    audit: Audit,
    shutdown: CancellationToken,
) -> Result<(), WitnessError> {
    let identity = &keep.identity;
    let credentials =
        Credentials::new(&identity.settings.name, &identity.ca, &identity.certificate, &identity.key)?;
    let (connections, incoming) = mpsc::channel(WAITING);
    let door = Door {
        acceptor: TlsAcceptor::from(Arc::new(credentials.as_witness()?)),
        keep: Arc::clone(keep),
        audit: audit.clone(),
        connections,
        limit: Arc::new(Semaphore::new(CONNECTIONS)),
        strangers: Arc::new(Semaphore::new(STRANGERS)),
    };
    for listener in listeners {
        let listener =
            TcpListener::from_std(listener).map_err(|error| WitnessError::Failed(error.to_string()))?;
        let (door, end) = (door.clone(), shutdown.clone());
        tokio::spawn(async move { end.run_until_cancelled(door.listen(listener)).await });
    }
    let service = WitnessServiceServer::new(Service::new(Arc::clone(keep), audit));
    let server = Server::builder()
        .timeout(CALL)
        .max_concurrent_streams(CALLS)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 * 1024)
        .add_service(service.max_decoding_message_size(MAX_MESSAGE))
        .serve_with_incoming(ReceiverStream::new(incoming));
    tokio::spawn(async move {
        if let Some(Err(error)) = shutdown.run_until_cancelled(server).await {
            tracing::error!(%error, "the witness's port ended");
        }
    });
    Ok(())
}

#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    keep: Arc<Keep>,
    audit: Audit,
    connections: mpsc::Sender<std::io::Result<Link>>,
    limit: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Door {
    async fn listen(self, listener: TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.limit).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, address)) => drop(tokio::spawn(self.clone().greet(stream, address, permit))),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    async fn greet(self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let refused = |why: &str| self.audit.refused("the witness's port", &format!("{address}: {why}"));
        drop(stream.set_nodelay(true));
        let stream = match tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return refused(&error.to_string()),
            Err(_) => return refused("no handshake in time"),
        };
        // Of which the second signed the first: the handshake saw to that.
        let Some([leaf, ca]) = stream.get_ref().1.peer_certificates() else {
            return refused("no certificate with its CA");
        };
        let client = Client { ca: fingerprint(ca), certificate: Arc::new(leaf.clone()), address };
        let known = self.keep.cluster(&client.ca);
        let places = known.as_ref().map_or(&self.strangers, |known| &known.connections);
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return refused("too many connections of its cluster, or of clusters not known");
        };
        drop(permit);
        let link = Connection::new(stream, client, place);
        let link = if known.is_some() { link } else { link.bounded(STRANGER) };
        drop(self.connections.send(Ok(link)).await);
    }
}
