//! Witnesses of this cluster: made known to one, and what the cluster knows of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use safe_proto::PROTOCOL;
use safe_proto::settings::WitnessSettings;
use safe_proto::witness::RegisterRequest;
use safe_proto::witness::witness_service_client::WitnessServiceClient;
use tonic::{Code, Status};

use super::{Cluster, ClusterError, Joined};
use crate::peer::dial;
use crate::settings_store::hex;
use crate::token::{Token, TokenError};
use crate::witness;

/// For one endpoint: connecting and the answer, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most endpoints tried.
const MAX_ENDPOINTS: usize = 16;

impl Cluster {
    /// Registers this cluster at a witness, which then is known to all its nodes.
    ///
    /// # Errors
    /// No cluster, the token is not readable or refused (the error says why), nobody answers, or the disk refuses.
    pub async fn add_witness(
        self: &Arc<Self>,
        token: &str,
        target: &str,
    ) -> Result<WitnessSettings, ClusterError> {
        let joined = self.member()?;
        let text = token.trim().strip_prefix(witness::TOKEN).ok_or_else(|| {
            ClusterError::Invalid(
                "that is not the token of a witness: `safectl witness init` or `invite` on the witness prints one"
                    .to_owned(),
            )
        })?;
        let token = Token::decode(text).map_err(in_words)?;
        let endpoints = endpoints(&token, target).await?;
        let endpoint = register(&joined, &token, &endpoints).await?;
        let target = if target.is_empty() { endpoint.to_string() } else { target.to_owned() };
        let witness = WitnessSettings {
            target,
            name: token.cluster.clone(),
            ca: hex(&token.ca),
            changed: 0,
            removed: false,
        };
        let (cluster, added) = (Arc::clone(self), witness.clone());
        tokio::task::spawn_blocking(move || cluster.know_witness(added))
            .await
            .map_err(|error| ClusterError::Failed(format!("interrupted: {error}")))??;
        Ok(witness)
    }

    /// Makes the cluster forget a witness. Waits for the disk.
    ///
    /// # Errors
    /// No cluster, no such witness, or the disk refuses.
    pub fn remove_witness(&self, target: &str) -> Result<(), ClusterError> {
        let _changing = self.changing.lock();
        let joined = self.member()?;
        let next = joined.held.settings.without_witness(target)?;
        self.change_settings(&joined, next)?;
        self.context.events.record("", false, &format!("witness {target} was removed from the cluster"));
        Ok(())
    }

    fn know_witness(&self, witness: WitnessSettings) -> Result<(), ClusterError> {
        let _changing = self.changing.lock();
        let joined = self.member()?;
        let text = format!("witness {} at {} was added to the cluster", witness.name, witness.target);
        let next = joined.held.settings.with_witness(witness)?;
        if next == joined.held.settings {
            return Ok(());
        }
        self.change_settings(&joined, next)?;
        self.context.events.record("", false, &text);
        Ok(())
    }
}

async fn endpoints(token: &Token, target: &str) -> Result<Vec<SocketAddr>, ClusterError> {
    if target.is_empty() {
        return Ok(token.endpoints.clone());
    }
    let looked = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(target)).await;
    let found: Vec<SocketAddr> = match looked {
        Ok(Ok(found)) => found.take(MAX_ENDPOINTS).collect(),
        Ok(Err(error)) => {
            let message = format!("{target:?} cannot be used: {error}; write it as HOST:PORT");
            return Err(ClusterError::Invalid(message));
        }
        Err(_) => Vec::new(),
    };
    if found.is_empty() {
        Err(ClusterError::Invalid(format!("no address is known of {target:?}")))
    } else {
        Ok(found)
    }
}

/// Asks one endpoint after the other until one answers, whatever it says; the one that agreed.
async fn register(
    joined: &Joined,
    token: &Token,
    endpoints: &[SocketAddr],
) -> Result<SocketAddr, ClusterError> {
    let config = Arc::new(joined.credentials.towards_witness(&token.cluster, token.ca)?);
    let mut failures = Vec::new();
    for endpoint in endpoints {
        let attempt = async {
            let unreachable = |error: String| ClusterError::Unreachable(format!("{endpoint}: {error}"));
            let stream = dial::connect(*endpoint, None, Arc::clone(&config), PATIENCE)
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            let channel = dial::channel_over(stream).await.map_err(|error| unreachable(error.to_string()))?;
            let mut request = tonic::Request::new(RegisterRequest {
                protocol: PROTOCOL,
                secret: token.secret.to_vec(),
                cluster: joined.held.settings.cluster.clone(),
            });
            request.set_timeout(PATIENCE);
            WitnessServiceClient::new(channel).register(request).await.map_err(|status| refusal(&status))
        };
        match attempt.await {
            Ok(_) => return Ok(*endpoint),
            Err(ClusterError::Unreachable(why)) => failures.push(why),
            Err(error) => return Err(error),
        }
    }
    Err(ClusterError::Unreachable(format!(
        "the witness {} does not answer ({}): is safed running there, and is its port open?",
        token.cluster,
        failures.join("; ")
    )))
}

/// The witness's words count; its code becomes the same kind of error here.
fn refusal(status: &Status) -> ClusterError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated | Code::InvalidArgument => ClusterError::Invalid(message),
        Code::AlreadyExists => ClusterError::Taken(message),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            ClusterError::Unreachable(message)
        }
        Code::Ok
        | Code::NotFound
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => ClusterError::Failed(format!("the witness refuses: {message}")),
    }
}

/// A token's fault, in words that fit a witness.
fn in_words(error: TokenError) -> ClusterError {
    ClusterError::Invalid(witness::WitnessError::Token(error).to_string())
}
