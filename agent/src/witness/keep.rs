//! What a witness durably has: `DIR/lib/witness/`, every file 0600.
//!
//! Its own certificate and CA, the tokens it gave, and a directory for each cluster, named by the fingerprint of the
//! cluster's CA. Directories come into being whole, by a rename.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::WitnessError;
use super::records::Records;
use crate::clock;
use crate::pki::authority::Request;
use crate::pki::{Authority, NodeKey};
use crate::settings_store::{hex, sync_directory, unhex, write_atomic, write_new};
use crate::token::issued::{IssuedTokens, Used};
use crate::token::{Token, TokenError};

const FORMAT: u32 = 1;
/// Most clusters.
const MAX_CLUSTERS: usize = 256;
/// Connections of one cluster at the same time.
const CONNECTIONS: usize = 32;

/// Name, place and certificate of a witness.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) settings: Settings,
    pub(super) ca: String,
    ca_key: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

/// As in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    format: u32,
    /// Its name: a DNS label.
    pub(super) name: String,
    /// Where it listens.
    pub(super) addresses: Vec<IpAddr>,
    /// TCP port.
    pub(super) port: u16,
}

/// As in the file of a cluster.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    cluster: String,
}

/// A registered cluster.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) ca: [u8; 32],
    pub(super) records: Records,
    pub(super) connections: Arc<Semaphore>,
}

/// The directory of a witness, in memory.
#[derive(Debug)]
pub(super) struct Keep {
    directory: PathBuf,
    pub(super) identity: Identity,
    clusters: Mutex<BTreeMap<[u8; 32], Arc<Known>>>,
    /// One registration or token at a time.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Identity {
    /// Draws keys for a new witness.
    pub(super) fn create(name: &str, addresses: Vec<IpAddr>, port: u16) -> Result<Self, WitnessError> {
        let authority = Authority::create(name)?;
        let key = NodeKey::generate(name)?;
        let certificate = authority.certify_node(Request::parse(&key.request)?, name, &addresses)?;
        Ok(Self {
            settings: Settings { format: FORMAT, name: name.to_owned(), addresses, port },
            ca: authority.certificate().to_owned(),
            ca_key: authority.key(),
            certificate,
            key: key.key,
        })
    }

    fn write(&self, directory: &Path) -> Result<(), WitnessError> {
        let settings = serde_json::to_string_pretty(&self.settings).unwrap_or_default();
        let files = [
            ("settings.json", &settings),
            ("ca.pem", &self.ca),
            ("ca.key", &self.ca_key),
            ("witness.pem", &self.certificate),
            ("witness.key", &self.key),
        ];
        for (name, content) in files {
            write_new(&directory.join(name), content.as_bytes())?;
        }
        make(&directory.join("clusters"))
    }

    fn read(directory: &Path) -> Result<Self, WitnessError> {
        let text = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path)
                .map_err(|error| WitnessError::Failed(format!("{}: {error}", path.display())))
        };
        let settings: Settings = serde_json::from_str(&text("settings.json")?)
            .map_err(|error| WitnessError::Failed(format!("settings.json of the witness: {error}")))?;
        if settings.format != FORMAT {
            let message = format!("the witness was set up by another release (format {})", settings.format);
            return Err(WitnessError::Failed(message));
        }
        Ok(Self {
            settings,
            ca: text("ca.pem")?,
            ca_key: text("ca.key")?,
            certificate: text("witness.pem")?,
            key: text("witness.key")?,
        })
    }

    fn fingerprint(&self) -> Result<[u8; 32], WitnessError> {
        Ok(Authority::load(&self.settings.name, &self.ca, &self.ca_key)?.fingerprint())
    }
}

impl Keep {
    /// Makes the directory, whole or not at all.
    pub(super) fn create(directory: &Path, identity: Identity) -> Result<Self, WitnessError> {
        whole(directory, |fresh| identity.write(fresh))?;
        Ok(Self {
            directory: directory.to_owned(),
            identity,
            clusters: Mutex::default(),
            changing: Mutex::default(),
        })
    }

    /// Reads it; none: this safed is no witness.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>, WitnessError> {
        match directory.try_exists() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return Err(WitnessError::Failed(format!("{}: {error}", directory.display()))),
        }
        let identity = Identity::read(directory)?;
        let mut clusters = BTreeMap::new();
        let listed = std::fs::read_dir(directory.join("clusters"));
        for entry in listed.map_err(|error| failed(directory, &error))? {
            let path = entry.map_err(|error| failed(directory, &error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(ca) = unhex(name) {
                clusters.insert(ca, Arc::new(Known::load(&path, ca)?));
            } else {
                // What a crash left unfinished.
                std::fs::remove_dir_all(&path).map_err(|error| failed(&path, &error))?;
            }
        }
        let clusters = Mutex::new(clusters);
        Ok(Some(Self { directory: directory.to_owned(), identity, clusters, changing: Mutex::default() }))
    }

    /// The cluster with this CA.
    pub(super) fn cluster(&self, ca: &[u8; 32]) -> Option<Arc<Known>> {
        self.clusters.lock().get(ca).cloned()
    }

    /// All clusters, by name.
    pub(super) fn clusters(&self) -> Vec<Arc<Known>> {
        let mut all: Vec<Arc<Known>> = self.clusters.lock().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// A token for one more cluster, and its expiry. Waits for the disk.
    pub(super) fn invite(&self, ttl: u64) -> Result<(String, u64), WitnessError> {
        let _changing = self.changing.lock();
        let now = clock::unix_s();
        let (expires, secret) = (now.saturating_add(ttl), crate::random::bytes());
        let mut tokens = self.tokens()?;
        tokens.add(&secret, expires, now).map_err(WitnessError::Failed)?;
        write_atomic(&self.directory.join("tokens.json"), tokens.to_json().as_bytes())?;
        let Settings { name, addresses, port, .. } = &self.identity.settings;
        let token = Token {
            cluster: name.clone(),
            endpoints: addresses.iter().map(|ip| (*ip, *port).into()).collect(),
            ca: self.identity.fingerprint()?,
            secret,
            expires,
        };
        Ok((format!("{}{}", super::TOKEN, token.encode()), expires))
    }

    /// Makes a cluster known: the token is spent first, so that a crash leaves nobody in by mistake; the same cluster
    /// may ask again. Waits for the disk.
    pub(super) fn register(&self, ca: [u8; 32], name: &str, secret: &[u8]) -> Result<(), WitnessError> {
        let _changing = self.changing.lock();
        if let Some(known) = self.cluster(&ca) {
            return if known.name == name { Ok(()) } else { Err(WitnessError::Taken(known.name.clone())) };
        }
        let secret: [u8; 32] = secret.try_into().map_err(|_| WitnessError::Token(TokenError::Foreign))?;
        let mut tokens = self.tokens()?;
        tokens.redeem(&secret, Used { node: name.to_owned(), key: hex(&ca) }, clock::unix_s())?;
        let present = self.clusters();
        if present.iter().any(|known| known.name == name) {
            return Err(WitnessError::Taken(name.to_owned()));
        }
        if present.len() >= MAX_CLUSTERS {
            return Err(WitnessError::Full(MAX_CLUSTERS));
        }
        write_atomic(&self.directory.join("tokens.json"), tokens.to_json().as_bytes())?;
        let path = self.path(&ca);
        let written = Written { format: FORMAT, cluster: name.to_owned() };
        whole(&path, |fresh| {
            let text = serde_json::to_string(&written).unwrap_or_default();
            write_new(&fresh.join("cluster.json"), text.as_bytes())?;
            make(&fresh.join("records"))
        })?;
        let known = Known::load(&path, ca)?;
        self.clusters.lock().insert(ca, Arc::new(known));
        Ok(())
    }

    /// Forgets a cluster with all its records. Waits for the disk.
    pub(super) fn expel(&self, name: &str) -> Result<(), WitnessError> {
        let _changing = self.changing.lock();
        let known = self.clusters().into_iter().find(|known| known.name == name);
        let known = known.ok_or_else(|| WitnessError::Unknown(name.to_owned()))?;
        // Who is about to write beneath finds nothing there.
        let path = self.path(&known.ca);
        let gone = path.with_extension("gone");
        std::fs::rename(&path, &gone).map_err(|error| failed(&path, &error))?;
        self.clusters.lock().remove(&known.ca);
        sync_directory(&self.directory.join("clusters"))?;
        std::fs::remove_dir_all(&gone).map_err(|error| failed(&gone, &error))
    }

    fn path(&self, ca: &[u8; 32]) -> PathBuf {
        self.directory.join("clusters").join(hex(ca))
    }

    fn tokens(&self) -> Result<IssuedTokens, WitnessError> {
        let path = self.directory.join("tokens.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => IssuedTokens::parse(&text)
                .map_err(|error| WitnessError::Failed(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(IssuedTokens::default()),
            Err(error) => Err(failed(&path, &error)),
        }
    }
}

impl Known {
    fn load(path: &Path, ca: [u8; 32]) -> Result<Self, WitnessError> {
        let file = path.join("cluster.json");
        let text = std::fs::read_to_string(&file).map_err(|error| failed(&file, &error))?;
        let written: Written = serde_json::from_str(&text)
            .map_err(|error| WitnessError::Failed(format!("{}: {error}", file.display())))?;
        let records = Records::load(path.join("records")).map_err(|error| failed(path, &error))?;
        Ok(Self { name: written.cluster, ca, records, connections: Arc::new(Semaphore::new(CONNECTIONS)) })
    }
}

/// A directory that is there with everything `fill` puts into it, or not.
fn whole(directory: &Path, fill: impl FnOnce(&Path) -> Result<(), WitnessError>) -> Result<(), WitnessError> {
    let fresh = directory.with_extension("new");
    match std::fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&fresh, &error)),
        Ok(()) | Err(_) => {}
    }
    let outcome = make(&fresh).and_then(|()| fill(&fresh)).and_then(|()| {
        sync_directory(&fresh)?;
        std::fs::rename(&fresh, directory).map_err(|error| failed(directory, &error))?;
        Ok(sync_directory(directory.parent().unwrap_or_else(|| Path::new("/")))?)
    });
    if outcome.is_err() {
        // The error that led here is the one worth telling.
        drop(std::fs::remove_dir_all(&fresh));
    }
    outcome
}

fn make(directory: &Path) -> Result<(), WitnessError> {
    DirBuilder::new().mode(0o700).create(directory).map_err(|error| failed(directory, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> WitnessError {
    WitnessError::Failed(format!("{}: {error}", path.display()))
}
