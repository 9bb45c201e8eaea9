//! NodeService: this node by itself.

use std::sync::Arc;

use safe_proto::node::node_service_server::NodeService;
use safe_proto::node::{
    GetVersionRequest, GetVersionResponse, InitClusterRequest, InitClusterResponse, JoinClusterRequest,
    JoinClusterResponse,
};
use tonic::{Request, Response, Status};

use super::{Caller, validate};
use crate::peer::versions::SPOKEN;
use crate::pki::Identity;

/// The service.
pub(super) struct Desk(pub(super) Arc<super::Desk>);

#[tonic::async_trait]
impl NodeService for Desk {
    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        let joined = self.0.cluster.joined();
        let held = joined.as_ref().map(|joined| &joined.held);
        Ok(Response::new(GetVersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocols: SPOKEN.to_vec(),
            node: held.map(|held| held.node.clone()).unwrap_or_default(),
            cluster: held.map(|held| held.settings.cluster.clone()).unwrap_or_default(),
        }))
    }

    async fn init_cluster(
        &self,
        request: Request<InitClusterRequest>,
    ) -> Result<Response<InitClusterResponse>, Status> {
        let (caller, desk, request) = (caller(&request), Arc::clone(&self.0), request.into_inner());
        let work = async move {
            let what = format!("init cluster {:.63} node {:.63}", request.cluster, request.node);
            let outcome = init(&desk, request).await;
            desk.audit(&caller, &what, &outcome);
            outcome
        };
        super::whole(work).await.map(Response::new)
    }

    async fn join_cluster(
        &self,
        request: Request<JoinClusterRequest>,
    ) -> Result<Response<JoinClusterResponse>, Status> {
        let (caller, desk, request) = (caller(&request), Arc::clone(&self.0), request.into_inner());
        let work = async move {
            let what = format!("join a cluster as node {:.63}", request.node);
            let outcome = join(&desk, request).await;
            desk.audit(&caller, &what, &outcome);
            outcome
        };
        super::whole(work).await.map(Response::new)
    }
}

async fn init(desk: &super::Desk, request: InitClusterRequest) -> Result<InitClusterResponse, Status> {
    validate::init(&request)?;
    let cluster = Arc::clone(&desk.cluster);
    let init = move || Ok(cluster.init(&request.cluster, &request.node, &request.addresses)?);
    let (token, expires) = super::blocking(init).await?;
    Ok(InitClusterResponse { token, expires: i64::try_from(expires).unwrap_or(i64::MAX) })
}

async fn join(desk: &super::Desk, request: JoinClusterRequest) -> Result<JoinClusterResponse, Status> {
    validate::join_cluster(&request)?;
    let settings = desk.cluster.join(&request.token, &request.node, &request.addresses).await?;
    Ok(JoinClusterResponse {
        cluster: settings.cluster.clone(),
        nodes: settings.nodes.into_iter().map(|node| node.name).collect(),
    })
}

/// Metadata of a call that a node passes on: who asked it.
const ON_BEHALF: &str = "safed-on-behalf";

/// A call that is passed on.
pub(super) fn on_behalf<T>(caller: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(caller) = caller.parse() {
        request.metadata_mut().insert(ON_BEHALF, caller);
    }
    request
}

/// Who calls; from a node also for whom.
pub(super) fn caller<T>(request: &Request<T>) -> String {
    let Some(caller) = request.extensions().get::<Caller>() else { return "unknown".to_owned() };
    let of_node = matches!(caller, Caller::Remote { identity: Some(Identity::Node(_)), .. });
    match request.metadata().get(ON_BEHALF).and_then(|value| value.to_str().ok()) {
        Some(behalf) if of_node => format!("{caller} for {behalf:.200}"),
        Some(_) | None => caller.to_string(),
    }
}
