//! Port 9400: TLS 1.3. Whoever shows a certificate must have it from the cluster CA; the handshake ends otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{Caller, Connection};
use crate::audit::Audit;
use crate::cluster::{Cluster, Joined};
use crate::pki::Identity;

/// Connections at the same time, handshakes included.
const CONNECTIONS: usize = 256;
/// Connections of callers without a certificate at the same time: they can only join.
const STRANGERS: usize = 16;
/// How long such a connection may last.
const STRANGER: Duration = Duration::from_secs(30);
/// For a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// After a failed accept.
const BREATH: Duration = Duration::from_millis(200);

type Connections = mpsc::Sender<std::io::Result<Connection<TlsStream<TcpStream>>>>;

#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    cluster: String,
    audit: Audit,
    connections: Connections,
    limit: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

/// Waits for a membership, then takes connections until `shutdown`.
pub(super) async fn accept(cluster: Arc<Cluster>, connections: Connections, shutdown: CancellationToken) {
    let mut membership = cluster.follow();
    let joined = tokio::select! {
        joined = membership.wait_for(Option::is_some) => joined.ok().and_then(|joined| joined.clone()),
        () = shutdown.cancelled() => None,
    };
    let (Some(joined), Some(listeners)) = (joined, cluster.take_api_listeners()) else { return };
    let door = match Door::new(&joined, cluster.audit().clone(), connections) {
        Ok(door) => door,
        Err(error) => return tracing::error!(%error, "port 9400 cannot be served"),
    };
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => drop(tasks.spawn(door.clone().listen(listener))),
            Err(error) => tracing::error!(%error, "port 9400 cannot be served"),
        }
    }
    drop(door);
    shutdown.cancelled().await;
}

impl Door {
    fn new(joined: &Joined, audit: Audit, connections: Connections) -> Result<Self, crate::pki::PkiError> {
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(joined.credentials.server()?)),
            cluster: joined.credentials.cluster().to_owned(),
            audit,
            connections,
            limit: Arc::new(Semaphore::new(CONNECTIONS)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
        })
    }

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
        drop(stream.set_nodelay(true));
        let stream = match tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.audit.refused("port 9400", &format!("{address}: {error}")),
            Err(_) => return self.audit.refused("port 9400", &format!("{address}: no handshake in time")),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let identity = match certificate.map(|der| Identity::of_certificate(der, &self.cluster)).transpose() {
            Ok(identity) => identity,
            Err(error) => return self.audit.refused("port 9400", &format!("{address}: {error}")),
        };
        let connection = if identity.is_some() {
            Connection::new(stream, Caller::Remote { address, identity }, permit)
        } else {
            let Ok(place) = Arc::clone(&self.strangers).try_acquire_owned() else {
                return self
                    .audit
                    .refused("port 9400", &format!("{address}: too many callers without a certificate"));
            };
            drop(permit);
            Connection::new(stream, Caller::Remote { address, identity }, place).bounded(STRANGER)
        };
        drop(self.connections.send(Ok(connection)).await);
    }
}
