//! Brings an installed module to life: reads what is durable, adopts its replicator, starts its workers.
//!
//! Runs beside the owner loop: a replicator that hangs delays nobody but its own module.

use std::collections::BTreeSet;
use std::sync::Arc;

use safe_failover::event::Adopted;
use safe_failover::failover::Failover;
use safe_failover::hard::HardState;
use tokio::sync::{mpsc, watch};

use super::boot::{self, Start};
use super::{Context, Membership, Network, Report, Reporter};
use crate::address::{self, Addresses, Netlink};
use crate::children::Children;
use crate::execute::{self, Executor};
use crate::module::{Module, Pair};
use crate::processes::Hunt;
use crate::random;
use crate::replica::{self, Replica};
use crate::scripts::Scripts;
use crate::store::Store;

/// What every module needs.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) context: Context,
    pub(super) network: Arc<dyn Network>,
    pub(super) membership: watch::Receiver<Option<Arc<Membership>>>,
    pub(super) netlink: Netlink,
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
    let module = match Module::load(&ground.context.paths, name, node) {
        Ok(module) => Arc::new(module),
        Err(reason) => return Loaded::Idle { module: None, reason },
    };
    let idle = |reason| Loaded::Idle { module: Some(Arc::clone(&module)), reason };
    if let Some(reason) = module.unsupported() {
        return idle(reason);
    }
    let Some(pair) = module.pair() else { return idle("this node is not one of its nodes".to_owned()) };
    // A module whose first installation was cut short between its files and its state.
    let opened = Store::create(&module.paths.state(), &HardState::default())
        .and_then(|()| Store::open(&module.paths.state()));
    match opened {
        Ok((store, hard)) => {
            Loaded::Mirror(Box::new(assemble(ground, module, pair, store, hard, runtime).await))
        }
        Err(error) => idle(error.to_string()),
    }
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
    let (replica, adopted) = Replica::keep(replica_setup(ground, &module, &pair, &reporter)).await;
    let addresses = Addresses::keep(address_setup(ground, &module, &reporter));
    let executor = Executor::start(execute::Setup {
        module: module.name.clone(),
        store,
        network: Arc::clone(&ground.network),
        replica: replica.clone(),
        addresses: addresses.clone(),
        scripts: Arc::new(scripts(ground, &module)),
        hunt: Hunt {
            module: module.name.clone(),
            dir: module.paths.spec(),
            directories: module.directories(),
            spare: BTreeSet::new(),
        },
        events: ground.context.events.clone(),
        reporter,
    });
    let entropy = u128::from_le_bytes(random::bytes());
    let core = Failover::new(module.core_config(&pair, entropy, ground.boot_id), hard.clone());
    let start = boot::decide(&module.paths.boot(), ground.boot_id, module.spec.module.boot, hard.desired);
    Mirror { module, pair, core, hard, executor, replica, addresses, adopted, start }
}

fn replica_setup(ground: &Ground, module: &Arc<Module>, pair: &Pair, reporter: &Reporter) -> replica::Setup {
    replica::Setup {
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
        record: module.paths.addresses(),
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
