//! One node with a loop that answers and records, and ways to talk to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use safe_proto::cluster::cluster_service_client::ClusterServiceClient;
use safe_proto::cluster::{GetClusterRequest, GetClusterResponse, InviteRequest};
use safe_proto::module::module_service_client::ModuleServiceClient;
use safe_proto::module::{ModuleInfo, ModuleStatus, Phase, State};
use safe_proto::node::node_service_client::NodeServiceClient;
use safe_proto::node::{InitClusterRequest, JoinClusterRequest, JoinClusterResponse, LanAddress};
use safed::cluster::Cluster;
use safed::config::Config;
use safed::events::Events;
use safed::node::{Context, Install, NodeEvent, NodeHandle, Refusal, Statuses};
use safed::paths::{ModulePaths, Paths};
use safed::spec_store;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// What the loop was told.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) lans: BTreeMap<(String, u8), bool>,
    pub(crate) views: Vec<(String, String, u64)>,
    pub(crate) gone: Vec<(String, String)>,
    pub(crate) heard: u64,
    pub(crate) echoed: u64,
    pub(crate) streams: Vec<String>,
    pub(crate) commands: Vec<String>,
    pub(crate) prepared: BTreeMap<String, Install>,
    pub(crate) installed: BTreeMap<String, Install>,
    pub(crate) refuse_prepare: bool,
}

pub(crate) struct Host {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) context: Context,
    pub(crate) told: Arc<Mutex<Told>>,
    pub(crate) root: PathBuf,
    address: String,
    served: tokio::task::JoinHandle<()>,
    _directory: Option<tempfile::TempDir>,
}

/// A node whose process has ended.
pub(crate) struct Paused {
    root: PathBuf,
    address: String,
    directory: Option<tempfile::TempDir>,
}

impl Paused {
    pub(crate) fn resume(self) -> Host {
        let mut host = Host::at(self.root, &self.address);
        host._directory = self.directory;
        host
    }
}

impl Host {
    /// A node that belongs to no cluster; `address` is its own on the one lan.
    pub(crate) fn new(address: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut host = Self::at(directory.path().to_owned(), address);
        host._directory = Some(directory);
        host
    }

    fn at(root: PathBuf, address: &str) -> Self {
        // Seen when a test fails; only the first node begins it.
        drop(safed::logging::start(&std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned())));
        let paths = Paths::new(Some(&root));
        for directory in [paths.lib(), paths.run()] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let (node, inbox, publish) = NodeHandle::new();
        let events = Events::start(&paths).unwrap();
        let shutdown = CancellationToken::new();
        let context = Context { paths, config: Config::default(), node, events, shutdown };
        let told = Arc::new(Mutex::new(Told::default()));
        tokio::spawn(answer(context.paths.clone(), inbox, Arc::clone(&told), publish));
        let cluster = safed::cluster::start(&context).unwrap();
        let served = tokio::spawn(safed::rpc::serve(&context, Arc::clone(&cluster)).unwrap());
        Self { cluster, context, told, root, address: address.to_owned(), served, _directory: None }
    }

    /// Ends the process, so to speak, and starts another one on the same files.
    pub(crate) async fn restart(self) -> Self {
        self.pause().await.resume()
    }

    /// Ends the process; its files stay.
    pub(crate) async fn pause(mut self) -> Paused {
        let paused = Paused {
            root: self.root.clone(),
            address: self.address.clone(),
            directory: self._directory.take(),
        };
        self.stop().await;
        paused
    }

    pub(crate) async fn stop(self) {
        self.context.shutdown.cancel();
        self.cluster.heart().stop();
        self.served.await.unwrap();
        drop(self.context);
        let mut cluster = self.cluster;
        // The sockets are closed when the last task has let go of them.
        for _ in 0..500 {
            match Arc::try_unwrap(cluster) {
                Ok(last) => return drop(last),
                Err(shared) => cluster = shared,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("somebody still holds the cluster");
    }

    pub(crate) fn addresses(&self) -> Vec<LanAddress> {
        vec![LanAddress { lan: "default".to_owned(), address: self.address.clone() }]
    }

    pub(crate) async fn channel(&self) -> Channel {
        let path = self.context.paths.socket();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://local").connect_with_connector(connector).await.unwrap()
    }

    pub(crate) async fn node(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel().await)
    }

    pub(crate) async fn modules(&self) -> ModuleServiceClient<Channel> {
        ModuleServiceClient::new(self.channel().await)
    }

    pub(crate) async fn init(&self, cluster: &str, node: &str) -> Result<String, Status> {
        let request = InitClusterRequest {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            addresses: self.addresses(),
        };
        Ok(self.node().await.init_cluster(request).await?.into_inner().token)
    }

    pub(crate) async fn join(&self, token: &str, node: &str) -> Result<JoinClusterResponse, Status> {
        let request = JoinClusterRequest {
            token: token.to_owned(),
            node: node.to_owned(),
            addresses: self.addresses(),
        };
        Ok(self.node().await.join_cluster(request).await?.into_inner())
    }

    pub(crate) async fn invite(&self) -> String {
        let mut client = ClusterServiceClient::new(self.channel().await);
        client.invite(InviteRequest { ttl_s: 0 }).await.unwrap().into_inner().token
    }

    pub(crate) async fn cluster_status(&self) -> GetClusterResponse {
        let mut client = ClusterServiceClient::new(self.channel().await);
        client.get_cluster(GetClusterRequest {}).await.unwrap().into_inner()
    }

    /// Waits until all these nodes are reachable from this one.
    pub(crate) async fn reaches(&self, nodes: &[&str]) {
        for _ in 0..1000 {
            let status = self.cluster_status().await;
            let up: Vec<&str> =
                status.nodes.iter().filter(|node| node.reachable).map(|node| node.name.as_str()).collect();
            if nodes.iter().all(|node| up.contains(node)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not reached: {nodes:?}: {:?}", self.cluster_status().await);
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Told) -> bool) {
        for _ in 0..1000 {
            if condition(&self.told.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    /// Waits for a line in the audit log.
    pub(crate) async fn audited(&self, words: &str) {
        let path = self.context.paths.lib().join("audit.log");
        for _ in 0..1000 {
            if std::fs::read_to_string(&path).unwrap_or_default().contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not audited: {words}: {:?}", std::fs::read_to_string(path));
    }

    pub(crate) fn is_member(&self) -> bool {
        self.context.paths.cluster().exists()
    }
}

/// A loop that does as it is told.
async fn answer(
    paths: Paths,
    mut inbox: tokio::sync::mpsc::Receiver<NodeEvent>,
    told: Arc<Mutex<Told>>,
    publish: watch::Sender<Statuses>,
) {
    while let Some(event) = inbox.recv().await {
        let mut told = told.lock();
        match event {
            NodeEvent::View { module, from, view } => told.views.push((module, from, view.serial)),
            NodeEvent::Heard { .. } => told.heard += 1,
            NodeEvent::Echoed { .. } => told.echoed += 1,
            NodeEvent::Lan { module, lan, up } => drop(told.lans.insert((module, lan), up)),
            NodeEvent::AgentGone { module, from } => told.gone.push((module, from)),
            NodeEvent::Stream { module, .. } => told.streams.push(module),
            NodeEvent::Control { module, command, reply } => {
                told.commands.push(format!("{module} {command:?}"));
                drop(reply.send(Ok("as you wish".to_owned())));
            }
            NodeEvent::PauseResync { module, seconds, reply } => {
                told.commands.push(format!("{module} resync paused for {seconds} s"));
                drop(reply.send(Ok("as you wish".to_owned())));
            }
            NodeEvent::PrepareInstall { install, reply } => {
                let outcome = if told.refuse_prepare {
                    Err(Refusal::State("it runs here".to_owned()))
                } else {
                    let module = paths.module(&install.name);
                    spec_store::prepare(&module, &label(&module, &install), &install.files).unwrap();
                    told.prepared.insert(install.name.clone(), *install);
                    Ok(())
                };
                drop(reply.send(outcome));
            }
            NodeEvent::CommitInstall { module, version, reply } => {
                let prepared = told.prepared.remove(&module).filter(|install| install.version == version);
                let outcome = match prepared {
                    Some(install) => {
                        spec_store::commit(&paths.module(&module), &version).unwrap();
                        told.installed.insert(module, install);
                        Ok(())
                    }
                    None => Err(Refusal::State("nothing was prepared".to_owned())),
                };
                drop(reply.send(outcome));
            }
            NodeEvent::AbortInstall { module, version, reply } => {
                told.prepared.remove(&module);
                spec_store::abort(&paths.module(&module), &version).unwrap();
                drop(reply.send(Ok(())));
            }
            NodeEvent::PrepareRemove { reply, .. } => drop(reply.send(Ok(()))),
            NodeEvent::Remove { module, reply } => {
                told.installed.remove(&module);
                spec_store::remove(&paths.module(&module)).unwrap();
                drop(reply.send(Ok(())));
            }
            NodeEvent::Inspect { module, reply } => {
                drop(reply.send(Err(Refusal::NotFound(format!("there is no module {module}")))));
            }
            NodeEvent::SetResource { reply, .. } => drop(reply.send(Ok(()))),
            NodeEvent::List { reply } => drop(reply.send(Ok(told.installed.values().map(info).collect()))),
        }
        let statuses = told.installed.values().map(|install| (install.name.clone(), status(install)));
        publish.send_replace(Arc::new(statuses.collect()));
    }
}

fn label(module: &ModulePaths, install: &Install) -> spec_store::Label {
    let nodes = vec!["n1".to_owned(), "n2".to_owned()];
    let present = spec_store::label(module).ok();
    spec_store::next_label(
        present.as_ref(),
        &install.name,
        &install.version,
        install.parent.as_deref(),
        nodes,
    )
}

fn info(install: &Install) -> ModuleInfo {
    ModuleInfo {
        name: install.name.clone(),
        kind: "mirror".to_owned(),
        nodes: vec!["n1".to_owned(), "n2".to_owned()],
        version: install.version.clone(),
    }
}

fn status(install: &Install) -> ModuleStatus {
    ModuleStatus {
        module: install.name.clone(),
        kind: "mirror".to_owned(),
        state: State::Stop.into(),
        phase: Phase::Ready.into(),
        version: install.version.clone(),
        ..ModuleStatus::default()
    }
}

/// A cluster of two nodes that hear each other.
pub(crate) async fn pair(net: u8) -> (Host, Host) {
    let (first, second) = (Host::new(&format!("127.77.{net}.1")), Host::new(&format!("127.77.{net}.2")));
    let token = first.init("demo", "n1").await.unwrap();
    second.join(&token, "n2").await.unwrap();
    first.reaches(&["n1", "n2"]).await;
    second.reaches(&["n1", "n2"]).await;
    (first, second)
}
