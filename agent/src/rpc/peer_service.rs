//! PeerService: what other nodes of the cluster may ask.

use std::sync::Arc;

use safe_proto::peer::peer_service_server::PeerService;
use safe_proto::peer::{
    AbortModuleRequest, AbortModuleResponse, CommitModuleRequest, CommitModuleResponse, FetchModuleRequest,
    FetchModuleResponse, GreetRequest, GreetResponse, PrepareModuleRequest, PrepareModuleResponse,
    PrepareRemoveRequest, PrepareRemoveResponse, RemoveLocalRequest, RemoveLocalResponse,
    SyncSettingsRequest, SyncSettingsResponse,
};
use tonic::{Request, Response, Status};

use super::node_service::caller;
use super::{install, refuse, validate};
use crate::cluster::ClusterError;
use crate::node::Install;
use crate::peer::catch_up::{files_from_wire, files_to_wire, heads};
use crate::peer::versions;
use crate::spec_store;

/// The service.
pub(super) struct Desk(pub(super) Arc<super::Desk>);

#[tonic::async_trait]
impl PeerService for Desk {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let protocol = versions::common(&request.get_ref().protocols).map_err(Status::failed_precondition)?;
        let joined = self.0.cluster.joined().ok_or(ClusterError::NoCluster)?;
        let modules = self.0.context.node.list().await.map_err(refuse)?;
        let context = self.0.context.clone();
        let modules = super::blocking(move || Ok(heads(&context, &modules))).await?;
        Ok(Response::new(GreetResponse {
            protocol,
            node: joined.held.node.clone(),
            settings_version: joined.held.settings.version,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            modules,
        }))
    }

    async fn sync_settings(
        &self,
        request: Request<SyncSettingsRequest>,
    ) -> Result<Response<SyncSettingsResponse>, Status> {
        let cluster = Arc::clone(&self.0.cluster);
        let theirs = request.into_inner().settings;
        let merged = super::blocking(move || cluster.merge_settings(&theirs).map_err(Status::from)).await?;
        Ok(Response::new(SyncSettingsResponse { settings: merged.to_json() }))
    }

    async fn prepare_module(
        &self,
        request: Request<PrepareModuleRequest>,
    ) -> Result<Response<PrepareModuleResponse>, Status> {
        let caller = caller(&request);
        let what = format!("prepare module {:.63}", request.get_ref().name);
        let outcome = self.prepare(request.into_inner()).await;
        self.0.audit(&caller, &what, &outcome);
        outcome.map(Response::new)
    }

    async fn commit_module(
        &self,
        request: Request<CommitModuleRequest>,
    ) -> Result<Response<CommitModuleResponse>, Status> {
        let caller = caller(&request);
        let CommitModuleRequest { name, version } = request.into_inner();
        validate::module(&name)?;
        validate::version(&version)?;
        let outcome = self.0.context.node.commit_install(&name, &version).await.map_err(refuse);
        self.0.audit(&caller, &format!("commit module {name} version {version:.12}"), &outcome);
        outcome.map(|()| Response::new(CommitModuleResponse {}))
    }

    async fn abort_module(
        &self,
        request: Request<AbortModuleRequest>,
    ) -> Result<Response<AbortModuleResponse>, Status> {
        let AbortModuleRequest { name, version } = request.into_inner();
        validate::module(&name)?;
        validate::version(&version)?;
        self.0.context.node.abort_install(&name, &version).await.map_err(refuse)?;
        Ok(Response::new(AbortModuleResponse {}))
    }

    async fn prepare_remove(
        &self,
        request: Request<PrepareRemoveRequest>,
    ) -> Result<Response<PrepareRemoveResponse>, Status> {
        let name = request.into_inner().name;
        super::conflicts::must_be_none(&self.0, validate::module(&name)?).await?;
        self.0.context.node.prepare_remove(&name).await.map_err(refuse)?;
        Ok(Response::new(PrepareRemoveResponse {}))
    }

    async fn remove_local(
        &self,
        request: Request<RemoveLocalRequest>,
    ) -> Result<Response<RemoveLocalResponse>, Status> {
        let caller = caller(&request);
        let name = request.into_inner().name;
        let outcome = self.0.context.node.remove(validate::module(&name)?).await.map_err(refuse);
        self.0.audit(&caller, &format!("remove module {name}"), &outcome);
        outcome.map(|()| Response::new(RemoveLocalResponse {}))
    }

    async fn fetch_module(
        &self,
        request: Request<FetchModuleRequest>,
    ) -> Result<Response<FetchModuleResponse>, Status> {
        let name = request.into_inner().name;
        validate::module(&name)?;
        let paths = self.0.context.paths.clone();
        let answer = super::blocking(move || {
            let version = spec_store::head(&paths, &name)
                .ok_or_else(|| Status::not_found(format!("module {name} is not on this node")))?;
            let parent = spec_store::before(&paths, &name).into_iter().next().unwrap_or_default();
            let files = spec_store::files(&paths, &name).map_err(|error| {
                Status::internal(format!("the files of module {name} cannot be read: {error}"))
            })?;
            let (spec, files) = files_to_wire(&files);
            Ok(FetchModuleResponse { name, spec, files, parent, version })
        });
        Ok(Response::new(answer.await?))
    }
}

impl Desk {
    async fn prepare(&self, request: PrepareModuleRequest) -> Result<PrepareModuleResponse, Status> {
        validate::module(&request.name)?;
        validate::version(&request.version)?;
        let parent = Some(request.parent).filter(|parent| !parent.is_empty());
        if let Some(parent) = &parent {
            validate::version(parent)?;
        }
        let files = files_from_wire(request.spec, request.files);
        validate::content(Some(&files), &request.name)?;
        let install = Install { name: request.name, files, parent, version: request.version, follows: true };
        install::check_here(&self.0, &install).await?;
        self.0.context.node.prepare_install(install).await.map_err(refuse)?;
        Ok(PrepareModuleResponse {})
    }
}
