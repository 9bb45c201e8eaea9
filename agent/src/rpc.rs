//! The gRPC servers: the Unix socket for this machine, port 9400 with mutual TLS for everybody else.
//!
//! Reading order: [`caller`] (who calls), `access` (what each may do), `validate` (what may be said), the services.

use std::sync::Arc;
use std::time::Duration;

use safe_proto::cluster::cluster_service_server::ClusterServiceServer;
use safe_proto::module::module_service_server::ModuleServiceServer;
use safe_proto::node::node_service_server::NodeServiceServer;
use safe_proto::peer::peer_service_server::PeerServiceServer;
use safe_proto::witness::witness_admin_service_server::WitnessAdminServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::cluster::{Cluster, ClusterError};
use crate::node::{Context, Refusal, Startup};
use crate::peer::Nodes;
use crate::peer::catch_up::CatchUp;
use crate::witness::Witness;

mod access;
mod caller;
mod cluster_service;
mod conflicts;
mod control;
mod install;
mod module_service;
mod node_service;
mod peer_service;
mod remove;
mod rules;
mod status;
mod tls_port;
mod unix_port;
mod validate;
mod witness_service;

pub use caller::{Caller, Connection};

/// For one call; streams may go on longer once they have begun.
const CALL: Duration = Duration::from_secs(150);
/// Calls at the same time on one connection.
const CALLS: usize = 64;
/// Largest request: a module with all its files.
const MAX_MESSAGE: usize = 20 * 1024 * 1024;
/// Largest request of the services that carry no files.
const MAX_SMALL: usize = 512 * 1024;
/// Connections that wait to be served.
const WAITING: usize = 32;
/// Once the process is to end, calls that run have this long.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all services share.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) context: Context,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) witness: Arc<Witness>,
    /// One installation or removal at a time is coordinated here.
    pub(crate) installing: tokio::sync::Mutex<()>,
}

/// Opens the Unix socket; the future serves it, and port 9400 as soon as there is a cluster, until shutdown.
///
/// # Errors
/// The socket cannot be made, or a witness cannot be resumed: one line.
pub fn serve(
    context: &Context,
    cluster: Arc<Cluster>,
) -> Result<impl Future<Output = ()> + Send + use<>, Startup> {
    let listener = unix_port::bind(&context.paths.socket(), &context.config.socket_group)?;
    let nodes = Nodes::new(Arc::clone(&cluster));
    let (directory, audit) = (context.paths.witness(), cluster.audit().clone());
    let witness = Witness::start(directory, audit, context.shutdown.clone())?;
    let desk = Arc::new(Desk {
        context: context.clone(),
        cluster: Arc::clone(&cluster),
        nodes: Arc::clone(&nodes),
        witness,
        installing: tokio::sync::Mutex::new(()),
    });
    let catch_up = CatchUp::new(context.clone(), cluster, nodes);
    Ok(async move {
        let local = tokio::spawn(catch_up.run());
        let (sender, incoming) = mpsc::channel(WAITING);
        let unix = tokio::spawn(unix_port::accept(listener, sender, desk.context.shutdown.clone()));
        let (sender, encrypted) = mpsc::channel(WAITING);
        let tls =
            tokio::spawn(tls_port::accept(Arc::clone(&desk.cluster), sender, desk.context.shutdown.clone()));
        tokio::join!(run(&desk, incoming), run(&desk, encrypted));
        for task in [local, unix, tls] {
            task.abort();
        }
    })
}

async fn run<S>(desk: &Arc<Desk>, incoming: mpsc::Receiver<std::io::Result<Connection<S>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shutdown = desk.context.shutdown.clone();
    let served = router(desk)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), shutdown.clone().cancelled_owned());
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        outcome = served => if let Err(error) = outcome {
            tracing::error!(%error, "a server ended");
        },
        () = late => {}
    }
}

fn router(
    desk: &Arc<Desk>,
) -> Router<tower::layer::util::Stack<access::AccessLayer, tower::layer::util::Identity>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        health.set_serving::<NodeServiceServer<node_service::Desk>>().await;
        health.set_serving::<ClusterServiceServer<cluster_service::Desk>>().await;
        health.set_serving::<ModuleServiceServer<module_service::Desk>>().await;
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(safe_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let node = NodeServiceServer::new(node_service::Desk(Arc::clone(desk)));
    let cluster = ClusterServiceServer::new(cluster_service::Desk(Arc::clone(desk)));
    let module = ModuleServiceServer::new(module_service::Desk(Arc::clone(desk)));
    let peer = PeerServiceServer::new(peer_service::Desk(Arc::clone(desk)));
    let witness = WitnessAdminServiceServer::new(witness_service::Desk(Arc::clone(desk)));
    Server::builder()
        .timeout(CALL)
        .concurrency_limit_per_connection(CALLS)
        .max_concurrent_streams(u32::try_from(CALLS).unwrap_or(u32::MAX))
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 * 1024)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .layer(access::AccessLayer::new(desk.cluster.audit().clone()))
        .add_service(node.max_decoding_message_size(MAX_SMALL))
        .add_service(cluster.max_decoding_message_size(MAX_SMALL))
        .add_service(module.max_decoding_message_size(MAX_MESSAGE))
        .add_service(peer.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
        .add_service(witness.max_decoding_message_size(MAX_SMALL))
        .add_service(health_service)
        .add_optional_service(reflection().build_v1().ok())
        .add_optional_service(reflection().build_v1alpha().ok())
}

impl Desk {
    /// Notes a change in the audit log, whatever came of it.
    fn audit<T>(&self, caller: &str, what: &str, outcome: &Result<T, Status>) {
        match outcome {
            Ok(_) => self.cluster.audit().changed(caller, what, "done"),
            Err(status) => {
                let outcome = format!("{:?}: {}", status.code(), status.message());
                self.cluster.audit().changed(caller, what, &outcome);
            }
        }
    }

    /// Name of this node.
    fn own(&self) -> Result<String, Status> {
        Ok(self.cluster.joined().ok_or(ClusterError::NoCluster)?.held.node.clone())
    }
}

/// The node's refusal as a status.
fn refuse(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NotFound(why) => Status::not_found(why),
        Refusal::Invalid(why) => Status::invalid_argument(why),
        Refusal::State(why) => Status::failed_precondition(why),
        Refusal::Failed(why) => Status::internal(why),
    }
}

/// Runs work to its end also when the caller hangs up half-way: what has several steps must not stop between them.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.map_err(|error| Status::internal(format!("interrupted: {error}")))?
}

/// Runs what waits for the disk where that disturbs nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(format!("interrupted: {error}")))?
}
