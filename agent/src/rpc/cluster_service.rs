//! ClusterService: nodes, lans and invitations.

use std::sync::Arc;

use futures_util::future::join_all;
use safe_proto::cluster::cluster_service_server::ClusterService;
use safe_proto::cluster::{
    GetClusterRequest, GetClusterResponse, InviteRequest, InviteResponse, JoinRequest, JoinResponse, Lan,
    Node,
};
use safe_proto::settings::NodeSettings;
use tonic::{Request, Response, Status};

use super::node_service::caller;
use super::validate;
use crate::clock;
use crate::cluster::ClusterError;
use crate::heartbeat::PeerReport;

/// The service.
pub(super) struct Desk(pub(super) Arc<super::Desk>);

#[tonic::async_trait]
impl ClusterService for Desk {
    async fn invite(&self, request: Request<InviteRequest>) -> Result<Response<InviteResponse>, Status> {
        let caller = caller(&request);
        let outcome = self.make_token(request.into_inner()).await;
        self.0.audit(&caller, "invite a node", &outcome);
        outcome.map(Response::new)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let (caller, desk, request) = (caller(&request), Arc::clone(&self.0), request.into_inner());
        let work = async move {
            let what = format!("join as node {:.63}", request.node);
            let outcome = admit(&desk, request).await;
            desk.audit(&caller, &what, &outcome);
            outcome
        };
        super::whole(work).await.map(Response::new)
    }

    async fn get_cluster(
        &self,
        _: Request<GetClusterRequest>,
    ) -> Result<Response<GetClusterResponse>, Status> {
        let joined = self.0.cluster.joined().ok_or(ClusterError::NoCluster)?;
        let reports = self.0.cluster.heart().reports();
        let own = &joined.held.node;
        let settings = &joined.held.settings;
        let node = |node: &NodeSettings| {
            let (is_own, name) = (node.name == *own, node.name.clone());
            let report = reports.get(&name).cloned().unwrap_or_default();
            let lans: Vec<Lan> = settings
                .lans
                .iter()
                .enumerate()
                .filter_map(|(index, lan)| {
                    let address = node.addresses.get(lan)?.to_string();
                    let (up, silent_ms) = if is_own { (true, 0) } else { heard(&report, index) };
                    Some(Lan { name: lan.clone(), address, up, silent_ms })
                })
                .collect();
            async move {
                let version = if is_own {
                    env!("CARGO_PKG_VERSION").to_owned()
                } else {
                    self.0.nodes.release(&name).await
                };
                Node { name, reachable: lans.iter().any(|lan| lan.up), lans, version }
            }
        };
        Ok(Response::new(GetClusterResponse {
            cluster: settings.cluster.clone(),
            node: own.clone(),
            settings_version: settings.version,
            nodes: join_all(settings.nodes.iter().map(node)).await,
        }))
    }
}

impl Desk {
    async fn make_token(&self, request: InviteRequest) -> Result<InviteResponse, Status> {
        let ttl = validate::invite(request)?;
        let cluster = Arc::clone(&self.0.cluster);
        let (token, expires) = super::blocking(move || cluster.invite(ttl).map_err(Status::from)).await?;
        Ok(InviteResponse { token, expires: i64::try_from(expires).unwrap_or(i64::MAX) })
    }
}

async fn admit(desk: &super::Desk, request: JoinRequest) -> Result<JoinResponse, Status> {
    validate::join(&request)?;
    let cluster = Arc::clone(&desk.cluster);
    super::blocking(move || Ok(cluster.admit(&request)?)).await
}

/// Up in both directions, and milliseconds of silence; a node never heard was silent for ever.
fn heard(report: &PeerReport, lan: usize) -> (bool, u64) {
    let (up, heard) = report.lans.get(lan).copied().unwrap_or_default();
    let silent = heard.map(|heard| clock::now().since(heard).as_millis());
    (up, silent.and_then(|silent| u64::try_from(silent).ok()).unwrap_or(u64::MAX))
}
