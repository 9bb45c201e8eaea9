//! The dirty set on disk: a preallocated file that is appended to, bound to one lineage and one boot of the machine.
//!
//! It survives the end of the process at any instant, since what was written is in the page cache, and works on a full
//! disk, since its space was reserved before. After a loss of power its tail may be missing: what it then does not say is
//! said by the records of the epoch ([`crate::epoch`]), which closes only once the journal is durable. Each record says
//! how far the file was durable when it was written, so that a torn tail can be told from damage.
//!
//! Files in the directory: `journal` the one in use, `journal.spare` an empty one of the first size whose space is
//! reserved, for the next beginning or rewriting, `journal.used` one that has ended, on its way to become that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;
use safe_replication::dirty::{Change, DirtySet, Limits};
use safe_replication::record::{self, Context, Found, Record};

use crate::epoch::segment::claimed;
use header::{Header, SIZE as HEADER};

pub mod clean;
mod header;

/// One that has ended.
const USED: &str = "journal.used";

/// First size of the file, and by how much it grows.
const STEP: u64 = 4 << 20;

/// It never gets larger; marks become coarser instead.
const MOST: u64 = 96 << 20;

/// Kept free for the one record that says "everything".
const RESERVE: u64 = 4096;

/// Granularity of records on content, so that a file that is written through takes few.
const GRAIN: u64 = 64 * 1024;

/// The epoch that its records name: no segment has this number.
pub const EPOCH: u64 = u64::from_le_bytes(*b"journal\xff");

/// What a journal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Lineage id.
    pub lineage: u128,
    /// Boot id of the machine.
    pub boot: u128,
}

/// The knowledge is gone: only a full compare helps. The reason is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    binding: Binding,
    end: u64,
    allocated: u64,
    most: u64,
    // How far the file is durable.
    durable: AtomicU64,
    // What the file says, so that it is not said twice. Invariant: reading the file gives at least this.
    recorded: DirtySet,
    // A write failed: what `recorded` says is no longer on disk.
    failed: bool,
}

impl Journal {
    /// Reserve the space that a journal will need, so that it can begin on a full disk.
    ///
    /// # Errors
    /// The directory cannot be written, or there is no space.
    pub fn prepare(directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        if has_spare(directory) || reset(directory).is_ok() {
            return Ok(());
        }
        allocate(&directory.join("journal.spare"), STEP).map(drop)
    }

    /// Begin a journal that says what `set` says, in place of any other; durable when this returns.
    ///
    /// # Errors
    /// The directory cannot be written, or there is no space for the first [`STEP`] bytes.
    pub fn create(directory: &Path, binding: Binding, set: &DirtySet) -> io::Result<Self> {
        Self::create_with(directory, binding, set, MOST)
    }

    fn create_with(directory: &Path, binding: Binding, set: &DirtySet, most: u64) -> io::Result<Self> {
        if Self::prepare(directory).is_err() {
            // On a full disk there is room for one: the space of that which is replaced. Should power be lost before
            // there is another, everything is compared.
            Self::remove(directory)?;
            Self::prepare(directory)?;
        }
        let mut journal = Self {
            directory: directory.to_path_buf(),
            file: File::open(directory)?,
            binding,
            end: 0,
            allocated: 0,
            most,
            durable: AtomicU64::new(0),
            recorded: fresh(Limits::DEFAULT),
            failed: false,
        };
        journal.rewrite(set)?;
        Ok(journal)
    }

    /// Open the journal of this lineage, written under this boot.
    ///
    /// # Errors
    /// There is none, it belongs to something else, or it is damaged.
    pub fn open(directory: &Path, binding: Binding) -> Result<(Self, DirtySet), Lost> {
        let path = directory.join("journal");
        let lost = |what: &str| Lost(format!("the journal {} {what}", path.display()));
        let io = |error: io::Error| lost(&format!("cannot be read: {error}"));
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        let mut bytes = Vec::new();
        let limit = file.metadata().map_err(io)?.len();
        if limit > 2 * MOST {
            return Err(lost("is longer than any journal"));
        }
        file.read_to_end(&mut bytes).map_err(io)?;
        let (recorded, end, torn) = parse(&bytes, binding).map_err(lost)?;
        if torn > 0 {
            file.write_all_at(&vec![0; torn], end).map_err(io)?;
        }
        let mut set = DirtySet::new();
        set.merge(&recorded);
        let allocated = bytes.len() as u64;
        let directory = directory.to_path_buf();
        let durable = AtomicU64::new(0);
        Ok((
            Self { directory, file, binding, end, allocated, most: MOST, durable, recorded, failed: false },
            set,
        ))
    }

    /// What a journal of this lineage says that was written before the machine lost power: all that was durable.
    ///
    /// # Errors
    /// There is none, it belongs to something else, or something that was durable is damaged.
    pub fn read_left(directory: &Path, lineage: u128) -> Result<DirtySet, Lost> {
        let path = directory.join("journal");
        let lost = |what: &str| Lost(format!("the journal {} {what}", path.display()));
        let io = |error: io::Error| lost(&format!("cannot be read: {error}"));
        if fs::metadata(&path).map_err(io)?.len() > 2 * MOST {
            return Err(lost("is longer than any journal"));
        }
        let bytes = fs::read(&path).map_err(io)?;
        let recorded = parse_left(&bytes, lineage).map_err(lost)?;
        let mut set = DirtySet::new();
        set.merge(&recorded);
        Ok(set)
    }

    fn context(&self) -> Context {
        Context { epoch: EPOCH, session: (self.durable.load(Ordering::Acquire), 0) }
    }

    /// What it is bound to.
    #[must_use]
    pub const fn binding(&self) -> Binding {
        self.binding
    }

    /// Write changes, in one write(2); those it already says cost nothing. `truth` is asked for all that is dirty when
    /// the file has to be rewritten, and says these changes too.
    ///
    /// # Errors
    /// The disk failed; the change must not be made.
    pub fn append(&mut self, changes: &[Change], truth: &dyn Fn() -> DirtySet) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the journal could not be written before"));
        }
        let bytes = self.encode(changes);
        let written = self.write(&bytes, truth);
        self.failed = written.is_err();
        written
    }

    /// Records of what the file does not say yet.
    fn encode(&mut self, changes: &[Change]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for change in changes {
            let change = rounded(change);
            if self.recorded.mark(&change) {
                record::encode(&Record { context: self.context(), change }, &mut bytes);
            }
        }
        if self.recorded.is_everything() && !bytes.is_empty() {
            bytes.clear();
            record::encode(&Record { context: self.context(), change: Change::Everything }, &mut bytes);
        }
        for object in self.recorded.take_coarsened() {
            for change in self.recorded.changes_of(&object) {
                record::encode(&Record { context: self.context(), change }, &mut bytes);
            }
        }
        bytes
    }

    fn write(&mut self, bytes: &[u8], truth: &dyn Fn() -> DirtySet) -> io::Result<()> {
        if bytes.is_empty() || (self.make_room(bytes.len() as u64, truth)? == Room::Rewritten) {
            return Ok(());
        }
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Make everything written durable.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.durable.store(self.end, Ordering::Release);
        Ok(())
    }

    /// End it: the copies are equal. The space stays reserved for the next one.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn clear(self) -> io::Result<()> {
        Self::remove(&self.directory)
    }

    /// Remove what another process left. Its space stays reserved, if none is.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remove(directory: &Path) -> io::Result<()> {
        match fs::rename(directory.join("journal"), directory.join(USED)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        // Before it is overwritten, no journal may be there any more.
        File::open(directory)?.sync_all()?;
        if has_spare(directory) || reset(directory).is_err() {
            fs::remove_file(directory.join(USED))?;
        }
        File::open(directory)?.sync_all()
    }

    fn make_room(&mut self, len: u64, truth: &dyn Fn() -> DirtySet) -> io::Result<Room> {
        if self.end + len + RESERVE <= self.allocated {
            return Ok(Room::There);
        }
        let truth = truth();
        // Rewriting pays when at least half of the file is no longer true.
        let pays = size_of(&truth) + HEADER + len < self.end / 2;
        if !pays && self.allocated + len + STEP <= self.most && self.grow(len + STEP).is_ok() {
            return Ok(Room::There);
        }
        match self.rewrite(&truth) {
            Ok(()) => Ok(Room::Rewritten),
            Err(error) => {
                tracing::warn!(%error, "journal cannot be rewritten, everything is marked");
                self.say_everything()?;
                Ok(Room::Rewritten)
            }
        }
    }

    fn grow(&mut self, by: u64) -> io::Result<()> {
        rustix::fs::fallocate(&self.file, FallocateFlags::empty(), self.allocated, by)?;
        self.allocated += by;
        Ok(())
    }

    /// The last resort, in the space kept for it.
    fn say_everything(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        record::encode(&Record { context: self.context(), change: Change::Everything }, &mut bytes);
        self.recorded.mark_everything();
        self.file.write_all_at(&bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Write what `set` says into the spare file, as finely as fits, and put it in the journal's place.
    fn rewrite(&mut self, set: &DirtySet) -> io::Result<()> {
        let spare = self.directory.join("journal.spare");
        let file = OpenOptions::new().read(true).write(true).open(&spare)?;
        let size = file.metadata()?.len();
        let most = self.most.saturating_sub(RESERVE).max(STEP - RESERVE);
        let wanted = (size_of(set) + HEADER + STEP / 2).min(most).next_multiple_of(STEP);
        let mut allocated = size;
        if wanted > size && rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, wanted).is_ok() {
            allocated = wanted;
        }
        let (recorded, bytes) = fit(set, self.context(), allocated / 4 * 3);
        file.write_all_at(&Header { binding: self.binding }.encode(), 0)?;
        file.write_all_at(&bytes, HEADER)?;
        // What the file before it says may be durable: nothing less may stand in its place.
        file.sync_data()?;
        fs::rename(&spare, self.directory.join("journal"))?;
        File::open(&self.directory)?.sync_all()?;
        (self.file, self.recorded, self.allocated) = (file, recorded, allocated);
        self.end = HEADER + bytes.len() as u64;
        self.durable.store(self.end, Ordering::Release);
        if let Err(error) = Self::prepare(&self.directory) {
            tracing::warn!(%error, "no space can be reserved for the next journal");
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Room {
    There,
    /// The rewritten file says it already.
    Rewritten,
}

fn fresh(limits: Limits) -> DirtySet {
    let mut set = DirtySet::with_limits(limits, GRAIN);
    set.track_coarsening();
    set
}

fn rounded(change: &Change) -> Change {
    match change {
        Change::Data { object, offset, len } => {
            let start = offset & !(GRAIN - 1);
            let end = offset.saturating_add(*len).checked_next_multiple_of(GRAIN).unwrap_or(u64::MAX);
            Change::Data { object: object.clone(), offset: start, len: end - start }
        }
        Change::Meta { .. }
        | Change::Name { .. }
        | Change::Names { .. }
        | Change::Tree { .. }
        | Change::Everything
        | Change::Place { .. } => change.clone(),
    }
}

/// Upper bound of the bytes that the set takes.
fn size_of(set: &DirtySet) -> u64 {
    let mut bytes = Vec::new();
    let mut total = 0;
    for change in set.changes() {
        bytes.clear();
        record::encode(&Record { context: Context::default(), change }, &mut bytes);
        total += bytes.len() as u64;
    }
    total
}

/// The set as finely as it fits into so many bytes.
fn fit(set: &DirtySet, context: Context, room: u64) -> (DirtySet, Vec<u8>) {
    let mut limits = Limits::DEFAULT;
    loop {
        let mut recorded = fresh(limits);
        set.changes().for_each(|change| {
            recorded.mark(&rounded(&change));
        });
        drop(recorded.take_coarsened());
        let mut bytes = Vec::new();
        for change in recorded.changes() {
            record::encode(&Record { context, change }, &mut bytes);
        }
        if bytes.len() as u64 <= room {
            return (recorded, bytes);
        }
        limits = Limits {
            objects: limits.objects / 2,
            names: limits.names / 2,
            extents_of_one: (limits.extents_of_one / 2).max(1),
            extents: limits.extents / 2,
        };
    }
}

fn has_spare(directory: &Path) -> bool {
    fs::metadata(directory.join("journal.spare")).is_ok_and(|found| found.len() == STEP)
}

/// What is left of a journal that has ended becomes the spare one, in the space that it has.
fn reset(directory: &Path) -> io::Result<()> {
    let used = directory.join(USED);
    let file = OpenOptions::new().write(true).open(&used)?;
    rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 0, STEP)?;
    file.set_len(STEP)?;
    file.sync_all()?;
    fs::rename(&used, directory.join("journal.spare"))?;
    File::open(directory)?.sync_all()
}

/// A new file of this size, zeros, its space reserved.
fn allocate(path: &Path, size: u64) -> io::Result<File> {
    drop(fs::remove_file(path));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    let reserved = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size);
    if let Err(error) = reserved {
        drop(fs::remove_file(path));
        return Err(error.into());
    }
    Ok(file)
}

/// The first page of a journal that is bound to this.
#[must_use]
pub fn page(binding: Binding) -> Vec<u8> {
    Header { binding }.encode()
}

/// What a journal says that was written under this boot, where its records end, and how many bytes of a record that was
/// not written to its end follow.
///
/// # Errors
/// It belongs to something else, or it is damaged.
pub fn parse(bytes: &[u8], binding: Binding) -> Result<(DirtySet, u64, usize), &'static str> {
    let header = Header::decode(bytes).ok_or("has no valid header")?;
    if header.binding.lineage != binding.lineage {
        return Err("belongs to another lineage");
    }
    if header.binding.boot != binding.boot {
        return Err("was written before the machine was restarted");
    }
    read(bytes).ok_or("is damaged")
}

/// What a journal says of which only what was durable is sure to be there.
///
/// # Errors
/// It belongs to something else, or something that was durable is damaged.
pub fn parse_left(bytes: &[u8], lineage: u128) -> Result<DirtySet, &'static str> {
    let header = Header::decode(bytes).ok_or("has no valid header")?;
    if header.binding.lineage != lineage {
        return Err("belongs to another lineage");
    }
    let (recorded, end) = prefix(bytes).ok_or("is damaged")?;
    let durable = usize::try_from(end).ok().and_then(|end| claimed(bytes, end, EPOCH));
    if durable > Some(end) { Err("is damaged") } else { Ok(recorded) }
}

/// All records up to the first place that holds none: what they say, and where they end.
fn prefix(bytes: &[u8]) -> Option<(DirtySet, u64)> {
    let mut recorded = fresh(Limits::DEFAULT);
    let mut at = usize::try_from(HEADER).ok()?;
    while let Found::Record(record, len) = record::decode(bytes.get(at..)?) {
        recorded.mark(&record.change);
        at += len;
    }
    Some((recorded, at as u64))
}

/// All records: what they say, where they end, and how many bytes of a record that was not written to its end follow.
fn read(bytes: &[u8]) -> Option<(DirtySet, u64, usize)> {
    let (recorded, end) = prefix(bytes)?;
    let rest = bytes.get(usize::try_from(end).ok()?..)?;
    let torn = match record::decode(rest) {
        // Only zeros may follow the end.
        Found::Record(..) | Found::End => 0,
        Found::Damaged => rest.len().min(record::HEAD + record::BODY_LIMIT),
    };
    rest[torn..].iter().all(|byte| *byte == 0).then_some((recorded, end, torn))
}

#[cfg(test)]
mod tests;
