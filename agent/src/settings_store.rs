//! What a node durably holds of its cluster: `DIR/lib/cluster/`, every file 0600.
//!
//! The directory comes into being whole, by one rename at the end of `init` or `join`; so a node either belongs to a
//! cluster with everything that takes, or to none.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use safe_proto::settings::ClusterSettings;

const MAX_FILE: u64 = 1024 * 1024;
const FILES: [&str; 6] = ["ca.pem", "ca.key", "node.pem", "node.key", "secret", "settings.json"];

/// Why something could not be read or written; one sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}", path = .path.display())]
pub struct StoreError {
    path: PathBuf,
    what: String,
}

/// Everything a node holds of its cluster.
#[derive(Clone)]
pub struct Held {
    /// The node's own name.
    pub node: String,
    /// Cluster settings.
    pub settings: ClusterSettings,
    /// Cluster CA certificate, PEM.
    pub ca: String,
    /// Its key, PEM.
    pub ca_key: String,
    /// The node's certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// Cluster secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("node", &self.node)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in this directory, which need not exist.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What is held; none if the node belongs to no cluster.
    ///
    /// # Errors
    /// The directory is there but not whole, or a file is not readable.
    pub fn load(&self) -> Result<Option<Held>, StoreError> {
        discard(&self.fresh())?;
        match std::fs::symlink_metadata(&self.directory) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&self.directory, error)),
        }
        let settings_path = self.file("settings.json");
        let settings = ClusterSettings::parse(&self.text("settings.json")?)
            .map_err(|error| failed(&settings_path, error))?;
        let secret = unhex(self.text("secret")?.trim())
            .ok_or_else(|| failed(&self.file("secret"), "is not 64 hexadecimal digits"))?;
        Ok(Some(Held {
            node: self.text("node")?.trim().to_owned(),
            settings,
            ca: self.text("ca.pem")?,
            ca_key: self.text("ca.key")?,
            certificate: self.text("node.pem")?,
            key: self.text("node.key")?,
            secret,
        }))
    }

    /// Makes a node a member: all or nothing.
    ///
    /// # Errors
    /// It holds a cluster already, or the disk refuses; nothing is left behind.
    pub fn create(&self, held: &Held) -> Result<(), StoreError> {
        if self.directory.exists() {
            return Err(failed(&self.directory, "exists: this node belongs to a cluster already"));
        }
        let fresh = self.fresh();
        discard(&fresh)?;
        let outcome = self.create_in(&fresh, held);
        if outcome.is_err() {
            // The error that led here is the one worth telling.
            drop(std::fs::remove_dir_all(&fresh));
        }
        outcome
    }

    /// Whether a membership could be written: said before the network is asked for one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn probe(&self) -> Result<(), StoreError> {
        let fresh = self.fresh();
        discard(&fresh)?;
        let parent = parent(&fresh);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| failed(parent, error))?;
        DirBuilder::new().mode(0o700).create(&fresh).map_err(|error| failed(&fresh, error))?;
        let outcome = write_new(&fresh.join("probe"), &[0; 16 * 1024]);
        discard(&fresh)?;
        outcome
    }

    fn create_in(&self, fresh: &Path, held: &Held) -> Result<(), StoreError> {
        let parent = parent(fresh);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| failed(parent, error))?;
        DirBuilder::new().mode(0o700).create(fresh).map_err(|error| failed(fresh, error))?;
        let secret = hex(&held.secret);
        let settings = held.settings.to_json();
        let contents = [&held.ca, &held.ca_key, &held.certificate, &held.key, &secret, &settings];
        for (name, content) in FILES.iter().zip(contents) {
            write_new(&fresh.join(name), content.as_bytes())?;
        }
        write_new(&fresh.join("node"), held.node.as_bytes())?;
        sync_directory(fresh)?;
        std::fs::rename(fresh, &self.directory).map_err(|error| failed(&self.directory, error))?;
        sync_directory(parent)
    }

    /// Replaces the settings.
    ///
    /// # Errors
    /// The disk refuses; then the old ones stand.
    pub fn save_settings(&self, settings: &ClusterSettings) -> Result<(), StoreError> {
        write_atomic(&self.file("settings.json"), settings.to_json().as_bytes())
    }

    /// The text of an extra file of the store; none if it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        match self.file(name).try_exists() {
            Ok(false) => Ok(None),
            Ok(true) => self.text(name).map(Some),
            Err(error) => Err(failed(&self.file(name), error)),
        }
    }

    /// Writes an extra file of the store, durably and whole.
    ///
    /// # Errors
    /// The disk refuses; then the old content stands.
    pub fn save_text(&self, name: &str, text: &str) -> Result<(), StoreError> {
        write_atomic(&self.file(name), text.as_bytes())
    }

    fn text(&self, name: &str) -> Result<String, StoreError> {
        let path = self.file(name);
        let mut text = String::new();
        let file = File::open(&path).map_err(|error| failed(&path, error))?;
        file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| failed(&path, error))?;
        Ok(text)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn fresh(&self) -> PathBuf {
        self.directory.with_extension("new")
    }
}

/// Writes a file of mode 0600 so that after a crash either the old or the new content is there, whole.
///
/// # Errors
/// The disk refuses; then the old content stands.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&fresh, error)),
    }
    write_new(&fresh, content)?;
    std::fs::rename(&fresh, path).map_err(|error| failed(path, error))?;
    sync_directory(parent(path))
}

/// Writes a file of mode 0600 that must not exist; durable, but for its name.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(path, error))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| failed(path, error))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| failed(path, error))
}

fn discard(directory: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(directory, error)),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

fn failed(path: &Path, what: impl std::fmt::Display) -> StoreError {
    StoreError { path: path.to_owned(), what: what.to_string() }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes from 64 hexadecimal digits.
#[must_use]
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use safe_proto::settings::{NodeSettings, Ports};

    use super::*;

    fn held() -> Held {
        let node = NodeSettings {
            name: "n1".to_owned(),
            addresses: BTreeMap::from([("default".to_owned(), [10, 0, 0, 1].into())]),
            joined: 1,
            changed: 1,
            key: "ab".repeat(32),
        };
        let settings =
            ClusterSettings::new("demo", vec!["default".to_owned()], Ports::default(), node).unwrap();
        Held {
            node: "n1".to_owned(),
            settings,
            ca: "ca".to_owned(),
            ca_key: "ca key".to_owned(),
            certificate: "certificate".to_owned(),
            key: "key".to_owned(),
            secret: [7; 32],
        }
    }

    #[test]
    fn what_was_created_is_loaded_and_private() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path().join("lib/cluster"));
        assert!(store.load().unwrap().is_none());
        store.create(&held()).unwrap();
        let loaded = store.load().unwrap().unwrap();
        assert_eq!((loaded.node.as_str(), loaded.secret, loaded.key.as_str()), ("n1", [7; 32], "key"));
        for entry in std::fs::read_dir(root.path().join("lib/cluster")).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
        assert!(store.create(&held()).is_err());
    }

    #[test]
    fn an_interrupted_creation_leaves_no_membership() {
        let root = tempfile::tempdir().unwrap();
        let fresh = root.path().join("cluster.new");
        std::fs::create_dir(&fresh).unwrap();
        std::fs::write(fresh.join("ca.pem"), "half").unwrap();
        let store = Store::new(root.path().join("cluster"));
        assert!(store.load().unwrap().is_none());
        assert!(!fresh.exists());
    }

    #[test]
    fn settings_are_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path().join("cluster"));
        store.create(&held()).unwrap();
        let mut settings = held().settings;
        settings.version = 9;
        store.save_settings(&settings).unwrap();
        assert_eq!(store.load().unwrap().unwrap().settings.version, 9);
    }
}
