//! The witness: this safed as the third machine of other clusters. It keeps one record for each of their modules, and
//! decides nothing: it compares and sets.
//!
//! Any machine will do, also a node of another cluster; it needs neither FUSE nor addresses of its own. Reading order:
//! [`records`] (what is compared), `keep` (what is durable besides), `service` and `port` (who may ask).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use safe_proto::settings::{label, usable};
use safe_proto::witness::{WitnessedCluster, WitnessedModule};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::node::Startup;
use crate::pki::PkiError;
use crate::settings_store::{StoreError, hex};
use crate::token::TokenError;

mod keep;
mod port;
pub mod records;
mod service;

use keep::{Identity, Keep};

/// Port of a witness, if nothing else is said.
pub const PORT: u16 = 9403;
/// What a witness's token begins with, to be told from one of a cluster.
pub const TOKEN: &str = "witness-";
/// Seconds a token is good for, if nothing else is said.
const TTL: u64 = 3600;
/// Most addresses.
const MAX_ADDRESSES: usize = 8;

/// Why something about a witness is not done, in the words people see.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// It is one already.
    #[error("this safed is a witness already, {0}: for one more cluster type `safectl witness invite`")]
    Already(String),
    /// It is none.
    #[error("this safed is no witness: type `safectl witness init --address IP`")]
    None,
    /// Something given is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The token does not let the cluster in.
    #[error("{}", token_sentence(.0))]
    Token(#[from] TokenError),
    /// Another cluster has the name.
    #[error(
        "the witness knows another cluster by the name {0}: `safectl witness expel {0}` there, if it is gone"
    )]
    Taken(String),
    /// Too many clusters.
    #[error("the witness keeps {0} clusters already")]
    Full(usize),
    /// No such cluster.
    #[error("the witness knows no cluster {0}: `safectl witness status` lists them")]
    Unknown(String),
    /// Address not here, or port in use.
    #[error("{0}")]
    Port(String),
    /// The disk or the system refuses.
    #[error("{0}")]
    Failed(String),
}

/// A token's refusal, in words that fit a witness.
fn token_sentence(error: &TokenError) -> String {
    let why = match error {
        TokenError::Altered(what) => format!("is altered or incomplete ({what})"),
        TokenError::Version(version) => format!("is of version {version}, which this safed does not know"),
        TokenError::Expired => "has expired".to_owned(),
        TokenError::Used(cluster) => format!("was used by cluster {cluster}"),
        TokenError::Foreign => "is not of this witness".to_owned(),
    };
    format!("the token {why}: make another with `safectl witness invite` on the witness")
}

impl From<PkiError> for WitnessError {
    fn from(error: PkiError) -> Self {
        Self::Failed(error.0)
    }
}

impl From<StoreError> for WitnessError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<WitnessError> for tonic::Status {
    fn from(error: WitnessError) -> Self {
        let message = error.to_string();
        match error {
            WitnessError::Already(_) | WitnessError::Taken(_) => Self::already_exists(message),
            WitnessError::None | WitnessError::Port(_) => Self::failed_precondition(message),
            WitnessError::Invalid(_) => Self::invalid_argument(message),
            WitnessError::Token(_) => Self::unauthenticated(message),
            WitnessError::Full(_) => Self::resource_exhausted(message),
            WitnessError::Unknown(_) => Self::not_found(message),
            WitnessError::Failed(_) => Self::internal(message),
        }
    }
}

/// This safed's part as a witness; it may have none.
#[derive(Debug)]
pub struct Witness {
    directory: PathBuf,
    audit: Audit,
    shutdown: CancellationToken,
    keep: Mutex<Option<Arc<Keep>>>,
    /// One `init` at a time.
    changing: Mutex<()>,
}

/// What a witness has, for people.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Its clusters.
    pub clusters: Vec<WitnessedCluster>,
}

impl Witness {
    /// Reads what is in `directory`, and serves it. Must be called within the runtime.
    ///
    /// # Errors
    /// Its files are damaged, or its port is in use: one line.
    pub fn start(
        directory: PathBuf,
        audit: Audit,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, Startup> {
        let witness = Self { directory, audit, shutdown, keep: Mutex::default(), changing: Mutex::default() };
        let said = |error: WitnessError| Startup(format!("the witness cannot be resumed: {error}"));
        if let Some(keep) = Keep::load(&witness.directory).map_err(said)? {
            let settings = &keep.identity.settings;
            let listeners = port::again(&settings.addresses, settings.port).map_err(said)?;
            witness.serve(Arc::new(keep), listeners).map_err(said)?;
        }
        Ok(Arc::new(witness))
    }

    /// Makes a witness of this safed, and a token for the first cluster with its expiry. Waits for the disk.
    ///
    /// # Errors
    /// It is one already, something given is wrong, a port is in use, or the disk refuses; nothing is left.
    pub fn init(&self, name: &str, addresses: &[String], port: u16) -> Result<(String, u64), WitnessError> {
        let _changing = self.changing.lock();
        if let Some(keep) = self.keep.lock().clone() {
            return Err(WitnessError::Already(keep.identity.settings.name.clone()));
        }
        label("witness", name).map_err(|error| WitnessError::Invalid(error.0))?;
        let addresses = parse(addresses)?;
        let port = if port == 0 { PORT } else { port };
        let listeners = port::first(&addresses, port)?;
        let keep = Keep::create(&self.directory, Identity::create(name, addresses, port)?)?;
        let keep = Arc::new(keep);
        self.serve(Arc::clone(&keep), listeners)?;
        keep.invite(TTL)
    }

    /// A token for one more cluster, and its expiry. Waits for the disk.
    ///
    /// # Errors
    /// It is no witness, or the disk refuses.
    pub fn invite(&self, ttl: u32) -> Result<(String, u64), WitnessError> {
        self.present()?.invite(if ttl == 0 { TTL } else { u64::from(ttl) })
    }

    /// Forgets a cluster. Waits for the disk.
    ///
    /// # Errors
    /// It is no witness, knows no such cluster, or the disk refuses.
    pub fn expel(&self, cluster: &str) -> Result<(), WitnessError> {
        self.present()?.expel(cluster)
    }

    /// What it has; none: it is no witness. May wait for a record that is being written.
    #[must_use]
    pub fn show(&self) -> Option<Shown> {
        let keep = self.keep.lock().clone()?;
        let settings = &keep.identity.settings;
        let at = |ip: &IpAddr| std::net::SocketAddr::new(*ip, settings.port).to_string();
        Some(Shown {
            name: settings.name.clone(),
            addresses: settings.addresses.iter().map(at).collect(),
            clusters: keep.clusters().iter().map(|known| shown(known)).collect(),
        })
    }

    fn present(&self) -> Result<Arc<Keep>, WitnessError> {
        self.keep.lock().clone().ok_or(WitnessError::None)
    }

    fn serve(&self, keep: Arc<Keep>, listeners: Vec<std::net::TcpListener>) -> Result<(), WitnessError> {
        port::serve(&keep, listeners, self.audit.clone(), self.shutdown.clone())?;
        *self.keep.lock() = Some(keep);
        Ok(())
    }
}

fn shown(known: &keep::Known) -> WitnessedCluster {
    let module = |(module, record): (String, Result<records::Record, String>)| match record {
        Ok(record) => WitnessedModule {
            module,
            lineage: format!("{:032x}", record.lineage.0),
            owner: record.owner,
            serial: record.serial,
            fault: String::new(),
        },
        Err(fault) => WitnessedModule { module, fault, ..WitnessedModule::default() },
    };
    WitnessedCluster {
        cluster: known.name.clone(),
        ca: hex(&known.ca),
        modules: known.records.all().into_iter().map(module).collect(),
    }
}

fn parse(addresses: &[String]) -> Result<Vec<IpAddr>, WitnessError> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(WitnessError::Invalid(format!(
            "1 to {MAX_ADDRESSES} addresses are needed: --address IP"
        )));
    }
    let one = |text: &String| {
        let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
        let ip: IpAddr =
            text.parse().map_err(|_| WitnessError::Invalid(format!("'{shown}' is not an IP address")))?;
        usable(&ip).map_err(|error| WitnessError::Invalid(error.0))?;
        Ok(ip)
    };
    addresses.iter().map(one).collect()
}
