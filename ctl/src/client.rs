//! The way to a `safed`: its Unix socket, or TLS.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use safe_proto::cluster::cluster_service_client::ClusterServiceClient;
use safe_proto::module::module_service_client::ModuleServiceClient;
use safe_proto::node::node_service_client::NodeServiceClient;
use safe_proto::witness::witness_admin_service_client::WitnessAdminServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::context::{Context, Target};
use crate::error::{Failure, timed_out};

mod socket;
mod tls;

/// Largest answer: the log lines of a module.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    timeout: Duration,
    over_tls: bool,
    /// Which `safed` this is, for messages.
    pub(crate) place: String,
}

impl Client {
    /// Connects, or says why that is impossible and what to do.
    pub(crate) async fn connect(context: &Context) -> Result<Self, Failure> {
        let place = match &context.target {
            Target::Socket { path, .. } => path.display().to_string(),
            Target::Tls(endpoint) => format!("{}:{}", endpoint.host, endpoint.port),
        };
        let dial = async {
            match &context.target {
                Target::Socket { path, root } => socket::connect(path, root.as_deref()).await,
                Target::Tls(endpoint) => tls::connect(endpoint).await,
            }
        };
        let channel = match (bounded(context.timeout, &place, dial).await, &context.target) {
            (Err(_), Target::Tls(endpoint)) => return Err(tls::silent(endpoint, context.timeout)),
            (outcome, _) => outcome??,
        };
        let over_tls = matches!(context.target, Target::Tls(_));
        Ok(Self { channel, timeout: context.timeout, over_tls, place })
    }

    pub(crate) fn modules(&self) -> ModuleServiceClient<Channel> {
        ModuleServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub(crate) fn witness(&self) -> WitnessAdminServiceClient<Channel> {
        WitnessAdminServiceClient::new(self.channel.clone())
    }

    pub(crate) fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Waits for an answer, no longer than `--timeout`.
    pub(crate) async fn call<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match bounded(self.timeout, &self.place, answer).await? {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(self.refusal(&status)),
        }
    }

    /// What a refusal means.
    pub(crate) fn refusal(&self, status: &Status) -> Failure {
        let failure = Failure::from_status(status, &self.place);
        // In TLS 1.3 the server looks at the client's certificate when the client is ready already.
        if self.over_tls && status.source().is_some() {
            return failure.hint(
                "if that happens at once, safed did not accept your certificate: --cert must be of that cluster, and in date",
            );
        }
        failure
    }
}

async fn bounded<T>(timeout: Duration, place: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(timeout, work).await.map_err(|_| timed_out(place))
}

/// The part of tonic's endpoint that both ways share. TLS is ours, so that the scheme is plain to tonic.
fn endpoint(authority: &str) -> Result<Endpoint, Failure> {
    Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| Failure::usage(format!("{authority:?} is not a host")).cause(error))
}
