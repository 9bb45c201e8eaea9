//! A `safed` that says what a test tells it to.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use safe_proto::cluster::cluster_service_server::{ClusterService, ClusterServiceServer};
use safe_proto::cluster::{
    GetClusterRequest, GetClusterResponse, InviteRequest, InviteResponse, JoinRequest, JoinResponse,
};
use safe_proto::module::module_service_server::{ModuleService, ModuleServiceServer};
use safe_proto::module::{
    ControlModuleRequest, ControlModuleResponse, ExplainModuleRequest, ExplainModuleResponse,
    GetStatusRequest, GetStatusResponse, InstallModuleRequest, InstallModuleResponse, ListEventsRequest,
    ListEventsResponse, ListModulesRequest, ListModulesResponse, ListRulesRequest, ListRulesResponse,
    ModuleStatus, Outcome, ReadLogRequest, ReadLogResponse, RemoveModuleRequest, RemoveModuleResponse,
    SetResourceRequest, SetResourceResponse, ValidateModuleRequest, ValidateModuleResponse,
    WatchStatusRequest, WatchStatusResponse,
};
use safe_proto::node::node_service_server::{NodeService, NodeServiceServer};
use safe_proto::node::{
    GetVersionRequest, GetVersionResponse, InitClusterRequest, InitClusterResponse, JoinClusterRequest,
    JoinClusterResponse,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What it answers, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Answer of GetStatus, and the first of WatchStatus.
    pub(crate) status: Vec<ModuleStatus>,
    /// What WatchStatus says after a command was given, one after the other; then it is silent.
    pub(crate) after: Vec<Vec<ModuleStatus>>,
    /// Answer of ControlModule; none: every node addressed accepts.
    pub(crate) refusal: Option<Status>,
    /// Outcomes of ControlModule in place of acceptance by all.
    pub(crate) outcomes: Vec<Outcome>,
    /// Answer of InstallModule and RemoveModule in place of success.
    pub(crate) install_refusal: Option<Status>,
    /// Answer of GetCluster.
    pub(crate) cluster: GetClusterResponse,
    /// Answer of ListEvents.
    pub(crate) events: ListEventsResponse,
    /// Answer of ListRules.
    pub(crate) rules: ListRulesResponse,
    /// Answer of ExplainModule.
    pub(crate) explanation: ExplainModuleResponse,
    /// Answer of ReadLog.
    pub(crate) log: Vec<String>,
    /// Answer of ListModules.
    pub(crate) modules: ListModulesResponse,
    /// Commands received.
    pub(crate) commands: Vec<ControlModuleRequest>,
    /// Modules received.
    pub(crate) installed: Vec<InstallModuleRequest>,
}

/// The server; it ends with this value.
pub(crate) struct Fake {
    root: TempDir,
    script: Arc<Mutex<Script>>,
    runtime: Runtime,
}

impl Fake {
    pub(crate) fn start(script: Script) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        let script = Arc::new(Mutex::new(script));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let socket: PathBuf = root.path().join("run/safed.sock");
        let listener = runtime.block_on(async { UnixListener::bind(socket) }).unwrap();
        let service = Service { script: Arc::clone(&script) };
        let router = Server::builder()
            .add_service(ModuleServiceServer::new(service.clone()))
            .add_service(ClusterServiceServer::new(service.clone()))
            .add_service(NodeServiceServer::new(service));
        runtime.spawn(router.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { root, script, runtime }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

#[derive(Debug, Clone)]
struct Service {
    script: Arc<Mutex<Script>>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ModuleService for Service {
    async fn validate_module(
        &self,
        _: Request<ValidateModuleRequest>,
    ) -> Result<Response<ValidateModuleResponse>, Status> {
        Ok(Response::new(ValidateModuleResponse { findings: Vec::new() }))
    }

    async fn install_module(
        &self,
        request: Request<InstallModuleRequest>,
    ) -> Result<Response<InstallModuleResponse>, Status> {
        let mut script = self.script.lock().unwrap();
        if let Some(refusal) = &script.install_refusal {
            return Err(refusal.clone());
        }
        script.installed.push(request.into_inner());
        Ok(Response::new(InstallModuleResponse {
            name: "db".to_owned(),
            version: "ab".repeat(32),
            nodes: vec!["n1".to_owned(), "n2".to_owned()],
            ..InstallModuleResponse::default()
        }))
    }

    async fn list_modules(
        &self,
        _: Request<ListModulesRequest>,
    ) -> Result<Response<ListModulesResponse>, Status> {
        Ok(Response::new(self.script.lock().unwrap().modules.clone()))
    }

    async fn remove_module(
        &self,
        _: Request<RemoveModuleRequest>,
    ) -> Result<Response<RemoveModuleResponse>, Status> {
        match &self.script.lock().unwrap().install_refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(Response::new(RemoveModuleResponse {})),
        }
    }

    async fn control_module(
        &self,
        request: Request<ControlModuleRequest>,
    ) -> Result<Response<ControlModuleResponse>, Status> {
        let mut script = self.script.lock().unwrap();
        let request = request.into_inner();
        if let Some(refusal) = &script.refusal {
            return Err(refusal.clone());
        }
        let mut nodes = request.nodes.clone();
        if nodes.is_empty() {
            nodes = script.status.iter().map(|status| status.node.clone()).collect();
        }
        let accept = |node| Outcome { node, accepted: true, message: String::new() };
        let mut outcomes = script.outcomes.clone();
        if outcomes.is_empty() {
            outcomes = nodes.into_iter().map(accept).collect();
        }
        script.commands.push(request);
        Ok(Response::new(ControlModuleResponse { outcomes }))
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let name = request.into_inner().name;
        let mut modules = self.script.lock().unwrap().status.clone();
        modules.retain(|status| name.is_empty() || status.module == name);
        Ok(Response::new(GetStatusResponse { modules }))
    }

    type WatchStatusStream = Boxed<WatchStatusResponse>;

    async fn watch_status(
        &self,
        _: Request<WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let script = self.script.lock().unwrap();
        let mut all = vec![script.status.clone()];
        all.extend(script.after.clone());
        let said = tokio_stream::iter(all).map(|modules| Ok(WatchStatusResponse { modules }));
        Ok(Response::new(Box::pin(said.chain(tokio_stream::pending()))))
    }

    async fn list_events(
        &self,
        _: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        Ok(Response::new(self.script.lock().unwrap().events.clone()))
    }

    async fn list_rules(&self, _: Request<ListRulesRequest>) -> Result<Response<ListRulesResponse>, Status> {
        Ok(Response::new(self.script.lock().unwrap().rules.clone()))
    }

    async fn set_resource(
        &self,
        request: Request<SetResourceRequest>,
    ) -> Result<Response<SetResourceResponse>, Status> {
        let request = request.into_inner();
        let known = request.resource.starts_with("check.") && request.up;
        known
            .then(|| Response::new(SetResourceResponse {}))
            .ok_or_else(|| Status::invalid_argument("no such resource"))
    }

    async fn list_conflicts(
        &self,
        _: Request<safe_proto::module::ListConflictsRequest>,
    ) -> Result<Response<safe_proto::module::ListConflictsResponse>, Status> {
        let conflict = |id: &str, at_s| safe_proto::module::Conflict {
            id: id.to_owned(),
            node: "n2".to_owned(),
            peer: "n1".to_owned(),
            at_s,
            files: 3,
            bytes: 12_345,
            removed: 1,
        };
        let conflicts = vec![
            conflict("0123456789abcdef0123456789abcdef", 1_795_358_520),
            conflict("0123ffffffffffffffffffffffffffff", 1_795_368_520),
        ];
        Ok(Response::new(safe_proto::module::ListConflictsResponse { conflicts, missing: Vec::new() }))
    }

    async fn show_conflict(
        &self,
        request: Request<safe_proto::module::ShowConflictRequest>,
    ) -> Result<Response<safe_proto::module::ShowConflictResponse>, Status> {
        let entry = |path: &str, what: &str, ranges| safe_proto::module::ConflictEntry {
            path: path.to_owned(),
            what: what.to_owned(),
            size: 4096,
            modified_s: 1_795_358_520,
            ranges,
        };
        let all = [
            entry("/srv/data/a", "content", Vec::new()),
            entry("/srv/data/image", "ranges", vec![0, 4096, 65_536, 131_072]),
            entry("/srv/data/gone", "removed", Vec::new()),
        ];
        // In pages of two.
        let from = usize::try_from(request.into_inner().from).unwrap();
        let entries: Vec<_> = all[from..].iter().take(2).cloned().collect();
        let more = from + entries.len() < all.len();
        Ok(Response::new(safe_proto::module::ShowConflictResponse { conflict: None, entries, more }))
    }

    type RestoreConflictStream = Boxed<safe_proto::module::RestoreConflictResponse>;

    async fn restore_conflict(
        &self,
        request: Request<safe_proto::module::RestoreConflictRequest>,
    ) -> Result<Response<Self::RestoreConflictStream>, Status> {
        if request.into_inner().directory == "/exists" {
            return Err(Status::failed_precondition("/exists cannot be restored to: it exists"));
        }
        let step = |bytes, done| {
            Ok(safe_proto::module::RestoreConflictResponse {
                files: bytes / 4115,
                bytes,
                incomplete: 0,
                done,
            })
        };
        let steps = vec![step(4115, false), step(12_345, true)];
        Ok(Response::new(Box::pin(tokio_stream::iter(steps))))
    }

    async fn discard_conflict(
        &self,
        _: Request<safe_proto::module::DiscardConflictRequest>,
    ) -> Result<Response<safe_proto::module::DiscardConflictResponse>, Status> {
        Ok(Response::new(safe_proto::module::DiscardConflictResponse {}))
    }

    async fn explain_module(
        &self,
        _: Request<ExplainModuleRequest>,
    ) -> Result<Response<ExplainModuleResponse>, Status> {
        Ok(Response::new(self.script.lock().unwrap().explanation.clone()))
    }

    type ReadLogStream = Boxed<ReadLogResponse>;

    async fn read_log(&self, _: Request<ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        let lines = self.script.lock().unwrap().log.clone();
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(ReadLogResponse { lines })))))
    }
}

#[tonic::async_trait]
impl ClusterService for Service {
    async fn invite(&self, request: Request<InviteRequest>) -> Result<Response<InviteResponse>, Status> {
        let expires = 1_795_358_520 + i64::from(request.into_inner().ttl_s);
        Ok(Response::new(InviteResponse { token: "dG9rZW4".to_owned(), expires }))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_cluster(
        &self,
        _: Request<GetClusterRequest>,
    ) -> Result<Response<GetClusterResponse>, Status> {
        Ok(Response::new(self.script.lock().unwrap().cluster.clone()))
    }
}

#[tonic::async_trait]
impl NodeService for Service {
    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(GetVersionResponse {
            version: "0.1.0".to_owned(),
            protocols: vec![1],
            node: "n1".to_owned(),
            cluster: "demo".to_owned(),
        }))
    }

    async fn init_cluster(
        &self,
        _: Request<InitClusterRequest>,
    ) -> Result<Response<InitClusterResponse>, Status> {
        Ok(Response::new(InitClusterResponse { token: "dG9rZW4".to_owned(), expires: 1_795_358_520 }))
    }

    async fn join_cluster(
        &self,
        request: Request<JoinClusterRequest>,
    ) -> Result<Response<JoinClusterResponse>, Status> {
        match request.into_inner().token.as_str() {
            "used" => Err(Status::unauthenticated(
                "the token was used already; on a node of the cluster type: safectl cluster invite",
            )),
            _ => Ok(Response::new(JoinClusterResponse {
                cluster: "demo".to_owned(),
                nodes: vec!["n1".to_owned(), "n2".to_owned()],
            })),
        }
    }
}
