//! Brings an installed module to life: reads what is durable, adopts its replicator, starts its workers.
//!
//! Runs beside the owner loop: a replicator that hangs delays nobody but its own module.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use safe_failover::event::Adopted;
use safe_failover::failover::Failover;
use safe_failover::hard::HardState;
use safe_proto::spec::Kind;
use tokio::sync::{mpsc, watch};

use super::boot::{self, Start};
use super::{Context, Membership, Network, Report, Reporter};
use crate::address::{self, Addresses, Netlink};
use crate::arbiter::{self, Arbiters, Witnesses};
use crate::children::Children;
use crate::cover::Cover;
use crate::execute::{self, Executor};
use crate::module::{Module, Pair};
use crate::paths::Paths;
use crate::processes::Hunt;
use crate::random;
use crate::replica::{self, Replica};
use crate::scripts::Scripts;
use crate::store::Store;

/// Longest hunt for processes of a module that cannot run.
const SWEEP: Duration = Duration::from_secs(15);

/// What every module needs.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) context: Context,
    pub(super) network: Arc<dyn Network>,
    pub(super) membership: watch::Receiver<Option<Arc<Membership>>>,
    pub(super) netlink: Netlink,
    pub(super) witnesses: Witnesses,
    pub(super) children: Children,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) boot_id: u128,
}

/// A module that has come to life, or why it has not.
pub(super) enum Loaded {
    /// It runs.
    Mirror(Box<Mirror>),
    /// It is installed, but cannot run.
    Idle {
        /// The module, if its spec could be read.
        module: Option<Arc<Module>>,
        /// Why.
        reason: String,
    },
}

/// A mirror module with its workers.
pub(super) struct Mirror {
    pub(super) module: Arc<Module>,
    pub(super) pair: Pair,
    pub(super) core: Failover,
    pub(super) hard: HardState,
    pub(super) executor: Executor,
    pub(super) replica: Replica,
    pub(super) addresses: Addresses,
    pub(super) adopted: Option<Adopted>,
    pub(super) start: Start,
}

/// Loads the module; `runtime` marks all its reports.
pub(super) async fn load(ground: &Ground, name: &str, node: &str, runtime: u64) -> Loaded {
    let (paths, module, own) = (ground.context.paths.clone(), name.to_owned(), node.to_owned());
    let read = tokio::task::spawn_blocking(move || read(&paths, &module, &own)).await;
    match read.unwrap_or_else(|error| Err((None, error.to_string()))) {
        Ok((module, pair, store, hard)) => {
            Loaded::Mirror(Box::new(assemble(ground, module, pair, store, hard, runtime).await))
        }
        Err((module, reason)) => {
            if let Some(module) = &module {
                sweep(ground, module, runtime).await;
            }
            Loaded::Idle { module, reason }
        }
    }
}

/// A module that cannot run must not go on serving either. A replicator that lives fences itself without an agent; one
/// that died left what has to be cleared away here.
async fn sweep(ground: &Ground, module: &Module, runtime: u64) {
    if module.spec.module.kind != Kind::Mirror || replica::lives(&module.paths).await {
        return;
    }
    let reporter = Reporter { module: module.name.clone(), runtime, reports: ground.reports.clone() };
    Addresses::keep(address_setup(ground, module, &reporter)).order(address::Order::Drop).await;
    let hunt = hunt(module);
    let hunted = tokio::task::spawn_blocking(move || hunt.kill(SWEEP)).await;
    let cleared = replica::clear(module).await;
    if let (Ok(Err(_)) | Err(_), _) | (_, Err(_)) = (&hunted, &cleared) {
        let text = format!("what an earlier run left cannot be cleared away: {hunted:?} {cleared:?}");
        ground.context.events.record(&module.name, true, &text);
    }
}

fn hunt(module: &Module) -> Hunt {
    Hunt {
        module: module.name.clone(),
        dir: module.paths.spec(),
        directories: module.directories(),
        spare: BTreeSet::new(),
    }
}

type Durable = (Arc<Module>, Pair, Store, HardState);

/// Everything durable of the module; or why it cannot run, with its spec if that can be read.
fn read(paths: &Paths, name: &str, node: &str) -> Result<Durable, (Option<Arc<Module>>, String)> {
    let module = Module::load(paths, name, node).map_err(|reason| (None, reason))?;
    let module = Arc::new(module);
    let idle = |reason| (Some(Arc::clone(&module)), reason);
    if let Some(reason) = module.unsupported() {
        return Err(idle(reason));
    }
    let pair = module.pair().ok_or_else(|| idle("this node is not one of its nodes".to_owned()))?;
    // A module whose first installation was cut short between its files and its state.
    let opened = Store::create(&module.paths.state(), &HardState::default())
        .and_then(|()| Store::open(&module.paths.state()));
    let (store, hard) = opened.map_err(|error| idle(error.to_string()))?;
    Ok((module, pair, store, hard))
}

async fn assemble(
    ground: &Ground,
    module: Arc<Module>,
    pair: Pair,
    store: Store,
    hard: HardState,
    runtime: u64,
) -> Mirror {
    let reporter = Reporter { module: module.name.clone(), runtime, reports: ground.reports.clone() };
    let addresses = address_setup(ground, &module, &reporter);
    addresses.shed().await;
    let (replica, adopted) = Replica::keep(replica_setup(ground, &module, &pair, &hard, &reporter)).await;
    let addresses = Addresses::keep(addresses);
    let executor = Executor::start(execute::Setup {
        module: module.name.clone(),
        store: Box::new(store),
        write_limit: module.spec.replication.local_timeout,
        network: Arc::clone(&ground.network),
        replica: replica.clone(),
        addresses: addresses.clone(),
        arbiters: Arbiters::keep(arbiter::Setup {
            module: Arc::clone(&module),
            before: hard.lock.iter().chain(&hard.former_locks).cloned().collect(),
            children: ground.children.clone(),
            witnesses: ground.witnesses.clone(),
            events: ground.context.events.clone(),
            reporter: reporter.clone(),
        }),
        scripts: Arc::new(scripts(ground, &module)),
        hunt: hunt(&module),
        events: ground.context.events.clone(),
        reporter,
    });
    let entropy = u128::from_le_bytes(random::bytes());
    let core = Failover::new(module.core_config(&pair, entropy, ground.boot_id), hard.clone());
    let start = boot::decide(&module.paths.boot(), ground.boot_id, module.spec.module.boot, hard.desired);
    Mirror { module, pair, core, hard, executor, replica, addresses, adopted, start }
}

fn replica_setup(
    ground: &Ground,
    module: &Arc<Module>,
    pair: &Pair,
    hard: &HardState,
    reporter: &Reporter,
) -> replica::Setup {
    replica::Setup {
        cover: Cover::new(&module.name, module.directories(), &module.paths.cover(), ground.boot_id),
        unlocked: hard.unlocked,
        module: Arc::clone(module),
        pair: pair.clone(),
        membership: ground.membership.clone(),
        network: Arc::clone(&ground.network),
        children: ground.children.clone(),
        program: replica::program(),
        events: ground.context.events.clone(),
        reporter: reporter.clone(),
    }
}

fn address_setup(ground: &Ground, module: &Module, reporter: &Reporter) -> address::Setup {
    address::Setup {
        module: module.name.clone(),
        node: module.node.clone(),
        addresses: module.spec.address.clone(),
        record: address::Record::at(module.paths.addresses()),
        membership: ground.membership.clone(),
        netlink: ground.netlink.clone(),
        events: ground.context.events.clone(),
        reporter: reporter.clone(),
    }
}

fn scripts(ground: &Ground, module: &Module) -> Scripts {
    Scripts {
        module: module.name.clone(),
        node: module.node.clone(),
        dir: module.paths.spec(),
        env: module.spec.env.clone(),
        log: module.paths.log(),
        children: ground.children.clone(),
    }
}
