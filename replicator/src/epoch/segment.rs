//! The record of one epoch: a preallocated file that is written from its beginning, and in memory the same as a set.
//!
//! A header page, then records as in the journal. Each carries the number of its segment as its epoch, so that what an
//! earlier use of the file left behind is not taken for one, and how far the file was known to be durable when it was
//! written, so that a tail that a loss of power tore can be told from damage.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use rustix::fs::FallocateFlags;
use safe_replication::dirty::{Change, DirtySet, Limits, Object};
use safe_replication::record::{self, Context, Found, Record};

use super::header::{Header, SIZE as HEADER};
use crate::crash;

/// Size of the file; it never changes.
pub const SIZE: u64 = 8 << 20;
/// From here on files are recorded wholly, and of directories all names.
const COARSE: u64 = SIZE / 4 * 3;
/// Kept free for the one record that says "everything".
const RESERVE: u64 = 4096;
const LIMITS: Limits = Limits { objects: 150_000, names: 200_000, extents_of_one: 65_536, extents: 150_000 };
/// Most objects that are known to have been made in this epoch.
const MADE: usize = 65_536;
/// A file that grows is recorded a part of its length ahead, so that it takes few records.
const AHEAD: u64 = 1 << 20;

/// Kinds of change, each of which needs a durable record of its own before the first one.
const KINDS: usize = 3;

fn kind_of(change: &Change) -> usize {
    match change {
        Change::Data { .. } | Change::Meta { .. } | Change::Everything | Change::Place { .. } => 0,
        Change::Name { deep: false, .. } | Change::Names { deep: false, .. } => 1,
        Change::Name { deep: true, .. } | Change::Names { deep: true, .. } | Change::Tree { .. } => 2,
    }
}

#[derive(Debug)]
struct Inner {
    set: DirtySet,
    /// Where the record of the first change of each kind ends.
    first: HashMap<Object, [u64; KINDS]>,
    /// Made in this epoch: the record of their directory covers them.
    made: HashSet<Object>,
    /// What is to be written before anything else.
    unwritten: Vec<u8>,
    end: u64,
    says_everything: bool,
    failed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Segment {
    /// Which of the files.
    pub slot: usize,
    /// The epoch whose changes it records.
    pub epoch: u64,
    /// Counts the segments of this node.
    pub serial: u64,
    file: Arc<File>,
    inner: Mutex<Inner>,
    /// How far the file is durable.
    durable: AtomicU64,
    syncing: Mutex<bool>,
    synced: Condvar,
    /// Operations that were recorded here and are not carried out.
    pub under_way: AtomicU64,
    /// A session recorded here: what it says is not all in the journal.
    pub paired: AtomicBool,
}

/// What was recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marked {
    /// How far the file must be durable before the change is made.
    pub until: u64,
    /// An object was recorded that was not before: it is not known where it is found.
    pub unplaced: bool,
}

/// A segment that an earlier process left.
#[derive(Debug)]
pub struct Left {
    /// Its header.
    pub header: Header,
    /// What it says.
    pub set: DirtySet,
}

/// The file of a slot.
pub fn path(directory: &Path, slot: usize) -> PathBuf {
    directory.join(format!("epoch.{slot}"))
}

/// Open the file of a slot; its space is reserved.
///
/// # Errors
/// The directory cannot be written, or there is no space.
pub fn reserve(directory: &Path, slot: usize) -> io::Result<File> {
    let path = path(directory, slot);
    if fs::metadata(&path).is_ok_and(|found| found.len() == SIZE) {
        return OpenOptions::new().write(true).open(&path);
    }
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// What the segment of a slot says. `Ok(None)`: it is not in use.
///
/// # Errors
/// It is damaged: what it says is not everything.
pub fn read(directory: &Path, slot: usize, boot: u128) -> Result<Option<Left>, String> {
    let path = path(directory, slot);
    let bytes = match fs::metadata(&path) {
        Ok(found) if found.len() == SIZE => fs::read(&path),
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    parse(&bytes, boot).map_err(|what| format!("{} {what}", path.display()))
}

/// As [`read`], from its bytes.
///
/// # Errors
/// As there.
pub fn parse(bytes: &[u8], boot: u128) -> Result<Option<Left>, &'static str> {
    let header = match Header::decode(bytes) {
        Ok(Some(header)) => header,
        Ok(None) => return Ok(None),
        Err(what) => return Err(what),
    };
    let mut set = DirtySet::with_limits(LIMITS, safe_replication::dirty::GRAIN);
    let mut at = usize::try_from(HEADER).unwrap_or(usize::MAX);
    while let Found::Record(record, len) = record::decode(bytes.get(at..).unwrap_or_default()) {
        if record.context.epoch != header.serial {
            break;
        }
        set.mark(&record.change);
        at += len;
    }
    // After a loss of power only what was made durable is sure to be there; else everything is.
    let claimed = claimed(bytes, at, header.serial);
    let lost = if header.boot == boot { claimed.is_some() } else { claimed > Some(at as u64) };
    if lost { Err("is damaged") } else { Ok(Some(Left { header, set })) }
}

/// How far a file was durable by any record behind `at` that names this segment; none: there is no such record.
#[must_use]
pub fn claimed(bytes: &[u8], at: usize, serial: u64) -> Option<u64> {
    const PAGE: usize = 4096;
    let pattern = serial.to_le_bytes();
    let mut most = None;
    for page in (at / PAGE)..bytes.len().div_ceil(PAGE) {
        // A record begins in this page; its number may be in the next one.
        let from = (page * PAGE).max(at);
        let until = ((page + 1) * PAGE).min(bytes.len());
        if bytes[from..until].iter().all(|byte| *byte == 0) {
            continue;
        }
        for start in from..until {
            if bytes.get(start + 8..start + 16) != Some(&pattern[..]) {
                continue;
            }
            if let Found::Record(record, _) = record::decode(&bytes[start..])
                && record.context.epoch == serial
            {
                most = most.max(Some(record.context.session.0));
            }
        }
    }
    most
}

/// Take a segment out of use; a loss of power may bring it back, which says too much.
///
/// # Errors
/// The disk failed.
pub fn erase(file: &File) -> io::Result<()> {
    file.write_all_at(&[0; 64], 0)
}

impl Segment {
    /// Begin one in a slot that is not in use. Nothing is written until something is recorded.
    #[must_use]
    pub fn begin(file: Arc<File>, slot: usize, header: Header, set: &DirtySet) -> Self {
        let mut known = DirtySet::with_limits(LIMITS, safe_replication::dirty::GRAIN);
        known.track_coarsening();
        let segment = Self {
            slot,
            epoch: header.epoch,
            file,
            serial: header.serial,
            inner: Mutex::new(Inner {
                set: known,
                first: HashMap::new(),
                made: HashSet::new(),
                unwritten: header.encode(),
                end: HEADER,
                says_everything: false,
                failed: false,
            }),
            durable: AtomicU64::new(0),
            syncing: Mutex::new(false),
            synced: Condvar::new(),
            under_way: AtomicU64::new(0),
            paired: AtomicBool::new(false),
        };
        let changes: Vec<Change> = set.changes().collect();
        segment.seed(&changes);
        segment
    }

    /// Record what began before; written with the next record.
    pub fn seed(&self, changes: &[Change]) {
        let mut inner = self.inner.lock();
        let bytes = self.encode(&mut inner, changes);
        inner.unwritten.extend_from_slice(&bytes);
    }

    /// Say something else in the header.
    ///
    /// # Errors
    /// The disk failed.
    pub fn set_header(&self, header: Header) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.unwritten.is_empty() {
            self.file.write_all_at(&header.encode(), 0)
        } else {
            let page = header.encode();
            inner.unwritten[..page.len()].copy_from_slice(&page);
            Ok(())
        }
    }

    /// Record changes before they are made.
    ///
    /// # Errors
    /// The disk failed: the change must not be made.
    pub fn mark(&self, changes: &[Change]) -> io::Result<Marked> {
        let mut inner = self.inner.lock();
        if inner.failed {
            return Err(io::Error::other("the record of the epoch could not be written before"));
        }
        let unplaced =
            changes.iter().filter_map(Change::object).any(|object| inner.set.get(object).is_none());
        let bytes = self.encode(&mut inner, changes);
        if !bytes.is_empty() {
            self.write(&mut inner, &bytes)?;
        }
        let mut marked = Marked { until: 0, unplaced: unplaced && !inner.says_everything };
        let end = inner.end;
        for change in changes {
            let Some(object) = change.object() else { continue };
            if matches!(change, Change::Place { .. }) || inner.made.contains(object) {
                continue;
            }
            let first = &mut inner.first.entry(object.clone()).or_default()[kind_of(change)];
            if *first == 0 {
                *first = end;
            }
            marked.until = marked.until.max(*first);
        }
        Ok(marked)
    }

    /// An object was made by an operation that was recorded here. What is in a directory is not covered by the one above.
    pub fn made(&self, object: &Object) {
        let mut inner = self.inner.lock();
        if inner.made.len() < MADE && !object.kind.is_directory() {
            inner.made.insert(object.clone());
        }
    }

    /// Records of what the file does not say yet.
    fn encode(&self, inner: &mut Inner, changes: &[Change]) -> Vec<u8> {
        let context = Context { epoch: self.serial, session: (self.durable.load(Ordering::Acquire), 0) };
        let mut bytes = Vec::new();
        let mut put = |change: Change| record::encode(&Record { context, change }, &mut bytes);
        for change in changes {
            if inner.set.says(change) {
                continue;
            }
            let change = widened(inner, change);
            if inner.set.mark(&change) {
                put(change);
            }
        }
        for object in inner.set.take_coarsened() {
            inner.set.changes_of(&object).into_iter().for_each(&mut put);
        }
        if inner.set.is_everything() && !inner.says_everything {
            bytes.clear();
            record::encode(&Record { context, change: Change::Everything }, &mut bytes);
            inner.says_everything = true;
        }
        bytes
    }

    fn write(&self, inner: &mut Inner, bytes: &[u8]) -> io::Result<()> {
        let pending = std::mem::take(&mut inner.unwritten);
        let result = self.put(inner, &pending, bytes);
        inner.failed = result.is_err();
        result
    }

    fn put(&self, inner: &mut Inner, pending: &[u8], bytes: &[u8]) -> io::Result<()> {
        // The header page stands before the first record.
        if let Some((page, records)) = pending.split_at_checked(usize::try_from(HEADER).unwrap_or(4096)) {
            self.file.write_all_at(page, 0)?;
            self.append(inner, records)?;
        }
        self.append(inner, bytes)
    }

    fn append(&self, inner: &mut Inner, bytes: &[u8]) -> io::Result<()> {
        let room = if inner.says_everything { SIZE } else { SIZE - RESERVE };
        let mut everything = Vec::new();
        let bytes = if inner.end + bytes.len() as u64 > room {
            let context = Context { epoch: self.serial, session: (self.durable.load(Ordering::Acquire), 0) };
            record::encode(&Record { context, change: Change::Everything }, &mut everything);
            inner.set.mark_everything();
            inner.says_everything = true;
            everything.as_slice()
        } else {
            bytes
        };
        self.file.write_all_at(bytes, inner.end)?;
        inner.end += bytes.len() as u64;
        Ok(())
    }

    /// What was recorded up to here is durable when this returns. Many callers share one sync.
    ///
    /// # Errors
    /// The disk failed: the change must not be made.
    pub fn make_durable(&self, until: u64) -> io::Result<()> {
        while self.durable.load(Ordering::Acquire) < until {
            let mut syncing = self.syncing.lock();
            if *syncing {
                self.synced.wait(&mut syncing);
                continue;
            }
            if self.durable.load(Ordering::Acquire) >= until {
                break;
            }
            *syncing = true;
            drop(syncing);
            let result = self.sync();
            *self.syncing.lock() = false;
            self.synced.notify_all();
            result?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let end = {
            let inner = self.inner.lock();
            if inner.failed {
                return Err(io::Error::other("the record of the epoch could not be made durable before"));
            }
            inner.end
        };
        let result = if crash::fails("record") {
            Err(io::Error::from_raw_os_error(libc::EIO))
        } else {
            self.file.sync_data()
        };
        match result {
            Ok(()) => {
                self.durable.fetch_max(end, Ordering::AcqRel);
            }
            // Never tried again: the kernel may have dropped what it could not write.
            Err(_) => self.inner.lock().failed = true,
        }
        result
    }

    /// Everything recorded so far is durable when this returns, the header too.
    ///
    /// # Errors
    /// The disk failed.
    pub fn flush(&self) -> io::Result<()> {
        {
            let mut inner = self.inner.lock();
            self.write(&mut inner, &[])?;
        }
        self.sync()
    }

    /// What is recorded.
    #[must_use]
    pub fn set(&self) -> DirtySet {
        self.inner.lock().set.clone()
    }

    /// Nothing is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.lock().set.is_empty()
    }

    /// It gets full: the epoch should be closed soon.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        let inner = self.inner.lock();
        inner.end > SIZE / 2 || inner.set.is_everything()
    }
}

/// What is recorded for a change: more than it, where that saves records.
fn widened(inner: &Inner, change: &Change) -> Change {
    let coarse = inner.end > COARSE;
    match change {
        Change::Data { object, .. } if coarse => Change::data_from(object.clone(), 0),
        Change::Name { dir, deep, .. } if coarse => Change::Names { dir: dir.clone(), deep: *deep },
        Change::Data { object, offset, len } => {
            let start = offset & !(safe_replication::dirty::GRAIN - 1);
            let run = inner.set.get(object).map_or(0, |marks| marks.data.run_before(start));
            let len = len.saturating_add((run / 8).min(AHEAD));
            Change::Data { object: object.clone(), offset: *offset, len }
        }
        Change::Meta { .. }
        | Change::Name { .. }
        | Change::Names { .. }
        | Change::Tree { .. }
        | Change::Everything
        | Change::Place { .. } => change.clone(),
    }
}
