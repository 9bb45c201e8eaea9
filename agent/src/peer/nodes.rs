//! Calls to the other nodes: one connection to each, made when needed, greeted before it is used.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use safe_proto::module::module_service_client::ModuleServiceClient;
use safe_proto::peer::peer_service_client::PeerServiceClient;
use safe_proto::peer::{GreetRequest, GreetResponse};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{dial, versions};
use crate::cluster::{Cluster, Joined};

/// For one address of a node.
const CONNECT: Duration = Duration::from_secs(2);
/// For a greeting.
const GREET: Duration = Duration::from_secs(5);
/// Largest answer: a module with all its files.
pub const MAX_MESSAGE: usize = 20 * 1024 * 1024;

/// One lan towards a node: from this node's address on it, so that it is that lan and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    from: IpAddr,
    to: SocketAddr,
}

/// A node that was greeted.
#[derive(Debug, Clone)]
struct Greeted {
    channel: Channel,
    addresses: Vec<Way>,
    release: String,
}

/// The other nodes.
#[derive(Debug)]
pub struct Nodes {
    cluster: Arc<Cluster>,
    greeted: Mutex<BTreeMap<String, Greeted>>,
}

impl Nodes {
    /// No connection is made yet.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self { cluster, greeted: Mutex::default() })
    }

    /// Calls between agents.
    ///
    /// # Errors
    /// UNAVAILABLE with a sentence for people, FAILED_PRECONDITION if no protocol version is common.
    pub async fn peer(&self, node: &str) -> Result<PeerServiceClient<Channel>, Status> {
        let channel = self.channel(node).await?;
        Ok(PeerServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }

    /// Calls that are passed on.
    ///
    /// # Errors
    /// As [`Self::peer`].
    pub async fn modules(&self, node: &str) -> Result<ModuleServiceClient<Channel>, Status> {
        let channel = self.channel(node).await?;
        Ok(ModuleServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }

    /// Release the node was running when it was greeted last; empty: not known.
    pub async fn release(&self, node: &str) -> String {
        self.greeted.lock().await.get(node).map(|greeted| greeted.release.clone()).unwrap_or_default()
    }

    /// Greets the node, whether it was greeted before or not.
    ///
    /// # Errors
    /// As [`Self::peer`].
    pub async fn greet(&self, node: &str, greeting: GreetRequest) -> Result<GreetResponse, Status> {
        let joined = self.joined()?;
        let addresses = self.addresses(&joined, node)?;
        let known = self.greeted.lock().await.get(node).filter(|known| known.addresses == addresses).cloned();
        let channel = match known {
            Some(known) => known.channel,
            None => open(&joined, node, addresses.clone())?,
        };
        let mut request = Request::new(greeting);
        request.set_timeout(GREET);
        let client = PeerServiceClient::new(channel.clone());
        let answer = bounded(node, GREET, async move { client.clone().greet(request).await }).await?;
        versions::common(&[answer.protocol]).map_err(Status::failed_precondition)?;
        let greeted = Greeted { channel, addresses, release: answer.release.chars().take(64).collect() };
        self.greeted.lock().await.insert(node.to_owned(), greeted);
        Ok(answer)
    }

    async fn channel(&self, node: &str) -> Result<Channel, Status> {
        let joined = self.joined()?;
        let addresses = self.addresses(&joined, node)?;
        if let Some(known) = self.greeted.lock().await.get(node)
            && known.addresses == addresses
        {
            return Ok(known.channel.clone());
        }
        self.greet(node, greeting(&joined)).await?;
        let known = self.greeted.lock().await.get(node).cloned();
        known
            .map(|known| known.channel)
            .ok_or_else(|| Status::unavailable(format!("node {node} does not answer")))
    }

    fn joined(&self) -> Result<Arc<Joined>, Status> {
        self.cluster.joined().ok_or_else(|| crate::cluster::ClusterError::NoCluster.into())
    }

    fn addresses(&self, joined: &Joined, node: &str) -> Result<Vec<Way>, Status> {
        let settings = &joined.held.settings;
        let Some(found) = settings.node(node) else {
            let names: Vec<&str> = settings.nodes.iter().map(|node| node.name.as_str()).collect();
            return Err(Status::not_found(format!("no node {node}; the nodes are {}", names.join(", "))));
        };
        let own = settings.node(&joined.held.node).map(|node| &node.addresses);
        let report = self.cluster.heart().reports().remove(node).unwrap_or_default();
        let way = |(index, lan): (usize, &String)| {
            let to = SocketAddr::new(*found.addresses.get(lan)?, settings.ports.api);
            let up = report.lans.get(index).is_some_and(|(up, _)| *up);
            Some((up, Way { from: *own?.get(lan)?, to }))
        };
        Ok(live_first(settings.lans.iter().enumerate().filter_map(way).collect()))
    }
}

/// What a greeting says when nothing is to be compared.
fn greeting(joined: &Joined) -> GreetRequest {
    GreetRequest {
        protocols: versions::SPOKEN.to_vec(),
        node: joined.held.node.clone(),
        settings_version: joined.held.settings.version,
        release: env!("CARGO_PKG_VERSION").to_owned(),
        modules: Vec::new(),
    }
}

/// Runs a call with a deadline; what goes wrong on the way becomes one sentence that names the node.
///
/// # Errors
/// The node's own refusal, or UNAVAILABLE.
pub async fn bounded<T>(
    node: &str,
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(patience, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(explain(node, status)),
        Err(_) => Err(Status::unavailable(format!(
            "node {node} does not answer within {} s",
            patience.as_secs_f32()
        ))),
    }
}

fn explain(node: &str, status: Status) -> Status {
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(&status);
    let mut root = None;
    while let Some(error) = next {
        root = Some(error.to_string());
        next = error.source();
    }
    match root {
        // Only a failure on this side of the wire has a source; the other node's words come without.
        Some(root) => Status::unavailable(format!("node {node} does not answer: {root}")),
        None => status,
    }
}

fn open(joined: &Joined, node: &str, addresses: Vec<Way>) -> Result<Channel, Status> {
    let config = joined.credentials.client(node).map_err(|error| Status::internal(error.to_string()))?;
    let config = Arc::new(config);
    let connector = tower::service_fn(move |_: http::Uri| {
        let (addresses, config) = (addresses.clone(), Arc::clone(&config));
        async move { first(&addresses, config).await.map(TokioIo::new) }
    });
    Ok(dial::endpoint().connect_with_connector_lazy(connector))
}

/// Lans that are up before those that are not, each in the order of the settings. A connection belongs to its order, so
/// that one over a lan that went silent is not used, and waited for, any longer.
fn live_first(mut ways: Vec<(bool, Way)>) -> Vec<Way> {
    ways.sort_by_key(|(up, _)| !up);
    ways.into_iter().map(|(_, way)| way).collect()
}

/// The first way that leads there.
async fn first(addresses: &[Way], config: Arc<ClientConfig>) -> std::io::Result<dial::Stream> {
    let mut last = std::io::Error::other("no lan is common");
    for Way { from, to } in addresses {
        match dial::connect(*to, Some(*from), Arc::clone(&config), CONNECT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = std::io::Error::new(error.kind(), format!("{to}: {error}")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_lan_is_tried_last() {
        let way = |net: u8| Way {
            from: IpAddr::from([10, net, 0, 1]),
            to: SocketAddr::from(([10, net, 0, 2], 9400)),
        };
        let order = |up: [bool; 3]| live_first(vec![(up[0], way(1)), (up[1], way(2)), (up[2], way(3))]);
        assert_eq!(order([true, true, true]), [way(1), way(2), way(3)]);
        assert_eq!(order([false, true, true]), [way(2), way(3), way(1)]);
        assert_eq!(order([false, false, false]), [way(1), way(2), way(3)]);
    }
}
