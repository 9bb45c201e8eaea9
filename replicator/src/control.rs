//! The agent's side: commands in, reports out.

use std::pin::Pin;
use std::sync::Arc;

use safe_proto::replication as proto;
use safe_proto::replication::attach_request::Command;
use safe_proto::replication::control_service_server::{ControlService, ControlServiceServer};
use safe_proto::replication::{AttachRequest, AttachResponse};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::member::Role;
use crate::replica::Replica;
use crate::report::QUEUE;
use crate::session::SessionName;

/// Commands that may wait to be carried out.
pub const COMMANDS: usize = 256;

/// A command, and what there was when it came.
#[derive(Debug)]
pub struct Ordered {
    /// The attachment that it came by; see [`crate::agent::Agent::attach`].
    pub generation: u64,
    /// How often this replicator had been fenced, this command included.
    pub fences: u64,
    /// The command.
    pub command: Command,
}

struct Service {
    replica: Arc<Replica>,
    commands: mpsc::Sender<Ordered>,
}

#[tonic::async_trait]
impl ControlService for Service {
    type AttachStream = Pin<Box<dyn futures_util::Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (replica, commands) = (Arc::clone(&self.replica), self.commands.clone());
        tokio::spawn(follow(replica, commands, request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Takes an agent's commands until its stream ends, or another agent comes.
async fn follow(
    replica: Arc<Replica>,
    commands: mpsc::Sender<Ordered>,
    mut incoming: Streaming<AttachRequest>,
    reports: mpsc::Sender<Result<AttachResponse, Status>>,
) {
    let mut generation = None;
    loop {
        let command = match incoming.message().await {
            Ok(Some(AttachRequest { command: Some(command) })) => command,
            Ok(Some(AttachRequest { command: None })) => {
                let _gone = reports.send(Err(Status::invalid_argument("an empty command"))).await;
                break;
            }
            Ok(None) | Err(_) => break,
        };
        if generation.is_none() {
            if !matches!(command, Command::Configure(_)) {
                let _gone =
                    reports.send(Err(Status::invalid_argument("the first command must be Configure"))).await;
                break;
            }
            replica.reports.attach(reports.clone());
            generation = Some(replica.agent.attach());
        }
        if matches!(command, Command::Fence(_)) {
            // Before whatever is being done: no answer leaves from now on.
            replica.freeze();
        }
        let ordered = Ordered { generation: generation.unwrap_or(0), fences: replica.fences(), command };
        if commands.send(ordered).await.is_err() || !replica.reports.is(&reports) {
            break;
        }
    }
    replica.reports.detach(&reports);
    if let Some(generation) = generation {
        replica.agent.detach(generation);
    }
}

/// Serves the agent, for ever.
///
/// # Errors
/// The socket fails.
pub async fn serve(
    listener: UnixListener,
    replica: Arc<Replica>,
    commands: mpsc::Sender<Ordered>,
) -> Result<(), tonic::transport::Error> {
    let service = ControlServiceServer::new(Service { replica, commands }).max_decoding_message_size(1 << 20);
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
}

/// A lineage id as a message.
#[must_use]
pub fn lineage(id: u128) -> proto::LineageId {
    proto::LineageId { value: id.to_be_bytes().to_vec().into() }
}

/// The lineage id of a message.
///
/// # Errors
/// It is not 16 bytes, or all zero.
pub fn parse_lineage(id: &proto::LineageId) -> Result<u128, String> {
    let bytes: [u8; 16] =
        id.value.as_ref().try_into().map_err(|_| "a lineage id must have 16 bytes".to_owned())?;
    match u128::from_be_bytes(bytes) {
        0 => Err("a lineage id is never zero".into()),
        id => Ok(id),
    }
}

/// A session id as a message.
#[must_use]
pub const fn session_id(name: SessionName) -> proto::SessionId {
    proto::SessionId { first: name.first, second: name.second }
}

/// The name of a session.
#[must_use]
pub const fn session_name(id: &proto::SessionId) -> SessionName {
    SessionName { first: id.first, second: id.second }
}

/// A role.
///
/// # Errors
/// It is not set.
pub fn parse_role(role: i32) -> Result<Role, String> {
    match proto::Role::try_from(role) {
        Ok(proto::Role::Primary) => Ok(Role::Primary),
        Ok(proto::Role::Secondary) => Ok(Role::Secondary),
        Ok(proto::Role::Unspecified) | Err(_) => Err("a role must be primary or secondary".into()),
    }
}
