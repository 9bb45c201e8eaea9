//! The records of one cluster: a file each, durable before anybody is told.
//!
//! A record of which it is not certain whether it is on the disk is not spoken of: after a restart it would be another
//! one, and two nodes would each have been told what lets them serve.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use safe_failover::lineage::LineageId;
use safe_proto::settings::label;
use serde::{Deserialize, Serialize};

const FORMAT: u32 = 1;
/// Most bytes of a record's file.
const MAX_FILE: u64 = 4096;
/// Most modules of one cluster.
pub(super) const MAX_MODULES: usize = 1024;
const CHECK_CONTEXT: &str = "safed 2026-11 witness record checksum v1";

/// Who may go on with a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The lineage under which it goes on.
    pub lineage: LineageId,
    /// Node that set it.
    pub owner: String,
    /// Raised with each change, from 1.
    pub serial: u64,
}

/// As in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    module: String,
    /// 32 hexadecimal digits.
    lineage: String,
    owner: String,
    serial: u64,
    /// blake3 of the others, 64 hexadecimal digits.
    check: String,
}

/// What a swap came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swapped {
    /// It was as expected.
    pub swapped: bool,
    /// The record now; none: there is none.
    pub record: Option<Record>,
}

/// Why a record is not read or set; one sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It cannot be trusted.
    #[error(
        "the witness cannot trust its record of module {0}: {1}; restart safed there once its disk is well"
    )]
    Fault(String, String),
    /// Nothing was changed.
    #[error("the witness's disk refuses the record of module {0}, nothing has changed: {1}; make room there")]
    Refused(String, String),
    /// Too many modules.
    #[error("the witness keeps {} modules of this cluster already", MAX_MODULES)]
    TooMany,
}

/// All records of a cluster. One is written while others are: all modules of a cluster ask in the same instant.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
    slots: Mutex<BTreeMap<String, Arc<Mutex<Slot>>>>,
}

/// One record; none: nobody has set it. Or why it cannot be trusted.
type Slot = Result<Option<Record>, String>;

impl Records {
    /// Reads the directory, and makes durable what is read: a rename of before may not be.
    ///
    /// # Errors
    /// The directory cannot be read or synced.
    pub(super) fn load(directory: PathBuf) -> std::io::Result<Self> {
        let mut slots = BTreeMap::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let (stem, end) = (path.file_stem(), path.extension());
            match (stem.and_then(|stem| stem.to_str()), end.and_then(|end| end.to_str())) {
                (Some(module), Some("json")) if label("module", module).is_ok() => {
                    let slot = read(&path, module).map(Some);
                    slots.insert(module.to_owned(), Arc::new(Mutex::new(slot)));
                }
                // What a crash left unfinished.
                (_, Some("new")) => std::fs::remove_file(&path)?,
                _ => tracing::warn!(path = %path.display(), "is no record of a witness"),
            }
        }
        File::open(&directory)?.sync_all()?;
        Ok(Self { directory, slots: Mutex::new(slots) })
    }

    /// All of them, by module. May wait for one that is being written.
    pub(super) fn all(&self) -> Vec<(String, Result<Record, String>)> {
        let slots: Vec<_> =
            self.slots.lock().iter().map(|(module, slot)| (module.clone(), Arc::clone(slot))).collect();
        let known = |(module, slot): (String, Arc<Mutex<Slot>>)| {
            let record = slot.lock().clone().transpose()?;
            Some((module, record))
        };
        slots.into_iter().filter_map(known).collect()
    }

    /// One; none: nobody has set it. May wait for it to be written.
    ///
    /// # Errors
    /// It cannot be trusted.
    pub(super) fn get(&self, module: &str) -> Result<Option<Record>, RecordError> {
        let slot = self.slots.lock().get(module).cloned();
        let Some(slot) = slot else { return Ok(None) };
        let record = slot.lock().clone();
        record.map_err(|fault| RecordError::Fault(module.to_owned(), fault))
    }

    /// Sets one if its lineage is as expected. Durable when it returns. Waits for the disk.
    ///
    /// # Errors
    /// It cannot be trusted, or cannot be written.
    pub(super) fn swap(
        &self,
        module: &str,
        expect: Option<LineageId>,
        lineage: LineageId,
        owner: &str,
    ) -> Result<Swapped, RecordError> {
        let Some(slot) = self.slot(module, expect.is_none())? else {
            return Ok(Swapped { swapped: false, record: None });
        };
        let mut slot = slot.lock();
        let present = slot.clone().map_err(|fault| RecordError::Fault(module.to_owned(), fault))?;
        if present.as_ref().map(|record| record.lineage) != expect {
            return Ok(Swapped { swapped: false, record: present });
        }
        let serial = present.map_or(0, |record| record.serial).saturating_add(1);
        let record = Record { lineage, owner: owner.to_owned(), serial };
        let written = self.write(module, &record);
        match &written {
            Ok(()) => *slot = Ok(Some(record.clone())),
            Err(RecordError::Fault(_, fault)) => *slot = Err(fault.clone()),
            // The old one stands.
            Err(RecordError::Refused(..) | RecordError::TooMany) => {}
        }
        written.map(|()| Swapped { swapped: true, record: Some(record) })
    }

    /// The place of a record; a new one only if it may be made.
    fn slot(&self, module: &str, make: bool) -> Result<Option<Arc<Mutex<Slot>>>, RecordError> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(module) {
            return Ok(Some(Arc::clone(slot)));
        }
        if !make {
            return Ok(None);
        }
        if slots.len() >= MAX_MODULES {
            return Err(RecordError::TooMany);
        }
        let slot = Arc::new(Mutex::new(Ok(None)));
        slots.insert(module.to_owned(), Arc::clone(&slot));
        Ok(Some(slot))
    }

    fn write(&self, module: &str, record: &Record) -> Result<(), RecordError> {
        let path = self.directory.join(format!("{module}.json"));
        let fresh = path.with_extension("new");
        if let Err(error) = write_new(&fresh, &text(module, record)) {
            // The old one stands, and nothing is to be in its way.
            drop(std::fs::remove_file(&fresh));
            return Err(RecordError::Refused(module.to_owned(), error.to_string()));
        }
        let renamed = std::fs::rename(&fresh, &path).and_then(|()| File::open(&self.directory)?.sync_all());
        renamed.map_err(|error| {
            RecordError::Fault(module.to_owned(), format!("it may or may not be on its disk ({error})"))
        })
    }
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn text(module: &str, record: &Record) -> String {
    let mut written = Written {
        format: FORMAT,
        module: module.to_owned(),
        lineage: format!("{:032x}", record.lineage.0),
        owner: record.owner.clone(),
        serial: record.serial,
        check: String::new(),
    };
    written.check = check(&written);
    serde_json::to_string(&written).unwrap_or_default()
}

fn check(written: &Written) -> String {
    let Written { format, module, lineage, owner, serial, .. } = written;
    let content = format!("{format}\n{module}\n{lineage}\n{owner}\n{serial}");
    crate::settings_store::hex(&blake3::derive_key(CHECK_CONTEXT, content.as_bytes()))
}

/// A record, made durable.
fn read(path: &Path, module: &str) -> Result<Record, String> {
    let file = File::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
    file.sync_all().map_err(|error| format!("its disk failed: {error}"))?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| format!("it cannot be read: {error}"))?;
    let written: Written = serde_json::from_str(&text).map_err(|error| format!("it is damaged: {error}"))?;
    if written.format != FORMAT {
        return Err(format!("its format {} is not known to this safed", written.format));
    }
    let lineage = u128::from_str_radix(&written.lineage, 16).ok().filter(|lineage| *lineage != 0);
    match lineage {
        Some(lineage) if written.check == check(&written) && written.module == module => {
            Ok(Record { lineage: LineageId(lineage), owner: written.owner, serial: written.serial })
        }
        Some(_) | None => Err("it is damaged: its checksum is wrong".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const A: LineageId = LineageId(0xa);
    const B: LineageId = LineageId(0xb);

    #[test]
    fn one_of_two_swaps_from_the_same_value_wins_and_is_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::load(directory.path().to_owned()).unwrap();
        assert_eq!(records.get("db"), Ok(None));
        assert!(!records.swap("db", Some(A), B, "n1").unwrap().swapped, "there is none");
        assert_eq!(records.all(), Vec::new());
        assert!(records.swap("db", None, A, "n1").unwrap().swapped);
        assert!(records.swap("db", Some(A), B, "n2").unwrap().swapped);
        let late = records.swap("db", Some(A), LineageId(0xc), "n1").unwrap();
        let now = Record { lineage: B, owner: "n2".to_owned(), serial: 2 };
        assert_eq!(late, Swapped { swapped: false, record: Some(now.clone()) });
        let file = directory.path().join("db.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Records::load(directory.path().to_owned()).unwrap();
        assert_eq!(again.get("db"), Ok(Some(now)));
    }

    #[test]
    fn a_damaged_record_is_not_an_absent_one() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::load(directory.path().to_owned()).unwrap();
        records.swap("db", None, A, "n1").unwrap();
        let file = directory.path().join("db.json");
        let text = std::fs::read_to_string(&file).unwrap();
        for damaged in [text.replace("000a\"", "000b\""), text[..text.len() / 2].to_owned(), String::new()] {
            std::fs::write(&file, damaged).unwrap();
            let records = Records::load(directory.path().to_owned()).unwrap();
            assert!(matches!(records.get("db"), Err(RecordError::Fault(..))));
            assert!(matches!(records.swap("db", None, B, "n2"), Err(RecordError::Fault(..))));
        }
    }

    #[test]
    fn a_refused_write_changes_nothing_and_what_a_crash_left_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::load(directory.path().to_owned()).unwrap();
        records.swap("db", None, A, "n1").unwrap();
        // Something that cannot be removed is where the new file is to be made.
        let blocked = directory.path().join("db.new");
        std::fs::create_dir(&blocked).unwrap();
        assert!(matches!(records.swap("db", Some(A), B, "n2"), Err(RecordError::Refused(..))));
        assert_eq!(records.get("db").unwrap().unwrap().lineage, A);
        std::fs::remove_dir(&blocked).unwrap();
        std::fs::write(&blocked, "half").unwrap();
        let again = Records::load(directory.path().to_owned()).unwrap();
        assert_eq!(again.get("db").unwrap().unwrap().lineage, A);
        assert!(!blocked.exists());
    }
}
