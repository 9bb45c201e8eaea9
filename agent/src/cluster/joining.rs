//! `cluster join`: this node asks to be let in. Nothing is written before the answer is complete and checked.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use safe_proto::PROTOCOL;
use safe_proto::cluster::cluster_service_client::ClusterServiceClient;
use safe_proto::cluster::{Address, JoinRequest, JoinResponse};
use safe_proto::node::LanAddress;
use safe_proto::settings::{ClusterSettings, label};
use tonic::Code;

use super::founding::parse_addresses;
use super::ports::Bound;
use super::{Cluster, ClusterError, Joined};
use crate::peer::dial;
use crate::pki::authority::fingerprint;
use crate::pki::{NodeKey, tls};
use crate::settings_store::Held;
use crate::token::{Token, TokenError};

/// For one endpoint: connecting and the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Everything an answer holds.
const MAX_ANSWER: usize = 1024 * 1024;

impl Cluster {
    /// Joins by token; answers with the cluster's settings.
    ///
    /// # Errors
    /// It is a member already, the token is refused (the error says why), nobody answers, or the disk refuses.
    pub async fn join(
        self: &Arc<Self>,
        token: &str,
        node: &str,
        addresses: &[LanAddress],
    ) -> Result<ClusterSettings, ClusterError> {
        self.must_be_free()?;
        let token = Token::decode(token)?;
        label("node", node)?;
        parse_addresses(addresses)?;
        self.store.probe()?;
        let key = NodeKey::generate(node)?;
        let request = JoinRequest {
            protocol: PROTOCOL,
            secret: token.secret.to_vec(),
            node: node.to_owned(),
            addresses: addresses
                .iter()
                .map(|one| Address { lan: one.lan.clone(), address: one.address.clone() })
                .collect(),
            certificate_request: key.request.clone(),
        };
        let answer = ask(&token, request).await?;
        let held = check(&token, node, key.key, answer)?;
        let (cluster, settings) = (Arc::clone(self), held.settings.clone());
        tokio::task::spawn_blocking(move || cluster.settle(held))
            .await
            .map_err(|error| ClusterError::Failed(format!("the join was interrupted: {error}")))??;
        Ok(settings)
    }

    fn settle(&self, held: Held) -> Result<(), ClusterError> {
        let _changing = self.changing.lock();
        self.must_be_free()?;
        let bound = Bound::first(&held.settings, &held.node)?;
        let joined = Joined::new(held)?;
        self.store.create(&joined.held)?;
        let text = format!("joined cluster {} as node {}", joined.held.settings.cluster, joined.held.node);
        self.open(joined, bound)?;
        self.context.events.record("", false, &text);
        Ok(())
    }
}

/// Asks one endpoint after the other until one answers, whatever it says.
async fn ask(token: &Token, request: JoinRequest) -> Result<JoinResponse, ClusterError> {
    let mut failures = Vec::new();
    for endpoint in &token.endpoints {
        let attempt = async {
            let config = tls::joining(&token.cluster, token.ca)?;
            let stream = match dial::connect(*endpoint, None, Arc::new(config), PATIENCE).await {
                Ok(stream) => stream,
                Err(error) if tls::is_foreign(&error) => {
                    return Err(ClusterError::Token(TokenError::Foreign));
                }
                Err(error) => return Err(ClusterError::Unreachable(format!("{endpoint}: {error}"))),
            };
            let channel = dial::channel_over(stream)
                .await
                .map_err(|error| ClusterError::Unreachable(format!("{endpoint}: {error}")))?;
            let mut client = ClusterServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            let mut request = tonic::Request::new(request.clone());
            request.set_timeout(PATIENCE);
            client.join(request).await.map(tonic::Response::into_inner).map_err(|status| refusal(&status))
        };
        match tokio::time::timeout(PATIENCE * 2, attempt).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(ClusterError::Unreachable(why))) => failures.push(why),
            Ok(Err(error)) => return Err(error),
            Err(_) => failures.push(format!("{endpoint}: no answer within {} s", (PATIENCE * 2).as_secs())),
        }
    }
    let expired = if token.expires <= crate::clock::unix_s() {
        " By this machine's clock the token has expired."
    } else {
        ""
    };
    Err(ClusterError::Unreachable(format!(
        "no node of cluster {} answers ({}): is safed running there, and is port 9400/tcp open?{expired}",
        token.cluster,
        failures.join("; ")
    )))
}

/// The other node's words count; its code becomes the same kind of error here.
fn refusal(status: &tonic::Status) -> ClusterError {
    let message = status.message().to_owned();
    match status.code() {
        Code::Unauthenticated if message.contains("expired") => ClusterError::Token(TokenError::Expired),
        Code::Unauthenticated if message.contains("was used by node") => {
            let node = message.split("was used by node ").nth(1).and_then(|rest| rest.split(':').next());
            ClusterError::Token(TokenError::Used(node.unwrap_or("another").to_owned()))
        }
        Code::Unauthenticated => ClusterError::Token(TokenError::Foreign),
        Code::AlreadyExists => ClusterError::Taken(message),
        Code::InvalidArgument => ClusterError::Invalid(message),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ClusterError::Unreachable(message),
        Code::Ok
        | Code::Unknown
        | Code::NotFound
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => ClusterError::Failed(format!("the other node refuses: {message}")),
    }
}

fn check(token: &Token, node: &str, key: String, answer: JoinResponse) -> Result<Held, ClusterError> {
    let odd = |what: &str| ClusterError::Failed(format!("the answer to the join is not usable: {what}"));
    let settings = ClusterSettings::parse(&answer.settings).map_err(|error| odd(&error.0))?;
    let ca =
        CertificateDer::from_pem_slice(answer.ca.as_bytes()).map_err(|_| odd("its CA is not readable"))?;
    if fingerprint(&ca) != token.ca || settings.cluster != token.cluster {
        return Err(ClusterError::Token(TokenError::Foreign));
    }
    let secret = answer.secret.as_slice().try_into().map_err(|_| odd("its secret has a wrong length"))?;
    let held = Held {
        node: node.to_owned(),
        settings,
        ca: answer.ca,
        ca_key: answer.ca_key,
        certificate: answer.certificate,
        key,
        secret,
    };
    let joined = Joined::new(held)?;
    // Key and certificate belong together, and the CA key is readable.
    joined.credentials.server()?;
    joined.authority()?;
    Ok(joined.held)
}
