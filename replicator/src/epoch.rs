//! Epochs: what was changed on this node since everything was durable on both nodes.
//!
//! A change is recorded before it is made. The first one of an object in an epoch, and of a directory the first of each
//! kind, is durable before it is made; the others only have to survive this process. So the cost is one small durable
//! record for each file or directory and epoch, and none for a file that was made in it: the record of its directory
//! covers it. After a loss of power a file with any record counts as different wholly, and of a directory all names.
//!
//! **Epoch N closes** once all its operations were carried out on both nodes before a syncfs began on each, and both
//! syncs succeeded. The primary begins: it records in another segment from now on, waits for what is recorded in the
//! one before to be carried out, makes its new segment durable (which says that epoch N-1 is closed), sends
//! `SyncAll { epoch: N }` and only then syncs itself. The secondary begins another segment when that operation arrives,
//! with everything in it that it does not know to be carried out on the primary, and forgets the one before once a
//! keepalive says that the epoch is closed. So what either node knows to be closed is at most one epoch behind.
//!
//! While this node goes on alone an epoch is closed by its own disk alone: what was changed is in the journal.
//!
//! Three files, of which two are in use at most; preallocated, so that this works on a full disk.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use safe_replication::dirty::{Change, DirtySet, Object};

use crate::clock::Boottime;
use crate::journal::Binding;
use header::Header;
use segment::{Marked, Segment};

pub mod closing;
pub mod header;
pub mod keeper;
pub mod segment;

const SLOTS: usize = 3;
/// An epoch lasts so long, or so many times as long as the last one took to be closed.
const AGE: Duration = Duration::from_secs(10);
const SHARE: u32 = 20;
const LONGEST: Duration = Duration::from_secs(120);
/// An epoch in which nothing was changed for so long is closed at once: little is left to be synced.
const QUIET: Duration = Duration::from_secs(2);

/// What an earlier process knew.
#[derive(Debug, Default)]
pub struct Recalled {
    /// What may differ from what the other node has.
    pub set: DirtySet,
    /// The journal belongs to it, and must be there.
    pub journalled: bool,
}

#[derive(Debug, Default)]
struct Inner {
    binding: Option<Binding>,
    journalled: bool,
    complete: bool,
    current: Option<Arc<Segment>>,
    closing: Vec<Arc<Segment>>,
    /// What an earlier process knew, until it is in a segment of this one.
    recalled: DirtySet,
    /// The last number of a segment, epoch in which this node records, and epoch that is durable on both nodes.
    serial: u64,
    epoch: u64,
    closed: u64,
    /// The epoch that this node has synced as the secondary.
    synced: u64,
    /// Since when something is recorded, and when something was last.
    since: Option<Boottime>,
    last: Boottime,
    age: Duration,
    /// A session records here, not only this node alone.
    paired: bool,
    wanted: bool,
    /// When it was last tried to close one.
    tried: Boottime,
    files: Vec<Arc<File>>,
    /// Slots that are not in use any more, but say so only once they are erased.
    stale: Vec<usize>,
    /// Slots that an earlier process used, by the number of the segment.
    left: Vec<(u64, usize)>,
}

/// See the module.
#[derive(Debug)]
pub struct Epochs {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

/// An operation that is recorded and not carried out yet.
#[derive(Debug, Default)]
pub struct Entered {
    segment: Option<Arc<Segment>>,
    marked: Marked,
}

impl Entered {
    /// The record is durable when this returns, as far as it has to be.
    ///
    /// # Errors
    /// The disk failed: the change must not be made.
    pub fn make_durable(&self) -> io::Result<()> {
        self.segment.as_ref().map_or(Ok(()), |segment| segment.make_durable(self.marked.until))
    }

    /// Something is recorded of which it is not known where it is found.
    #[must_use]
    pub const fn is_unplaced(&self) -> bool {
        self.marked.unplaced
    }

    /// Records where it is.
    ///
    /// # Errors
    /// The disk failed.
    pub fn place(&self, places: &[Change]) -> io::Result<()> {
        self.segment.as_ref().map_or(Ok(()), |segment| segment.mark(places).map(drop))
    }

    /// The operation has made this object.
    pub fn made(&self, object: &Object) {
        if let Some(segment) = &self.segment {
            segment.made(object);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(segment) = &self.segment {
            segment.under_way.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Epochs {
    /// Records nothing until [`Self::open`].
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        let inner = Inner { age: AGE, ..Inner::default() };
        Self { directory: directory.to_path_buf(), inner: Mutex::new(inner) }
    }

    /// What an earlier process of one of these lineages left, if it left everything that it knew; and reserves the space
    /// for what follows. `settled`: everything that it changed was made durable.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn recall(&self, accept: &[u128], boot: u128, settled: bool) -> io::Result<Option<Recalled>> {
        let mut recalled = None;
        let mut newest = 0;
        let mut lost = false;
        let mut complete = false;
        let mut inner = self.inner.lock();
        for slot in 0..SLOTS {
            match segment::read(&self.directory, slot, boot) {
                Ok(None) => {}
                Err(reason) => {
                    tracing::warn!(reason, "what was recorded of an epoch is lost");
                    lost = true;
                }
                Ok(Some(left)) => {
                    inner.serial = inner.serial.max(left.header.serial);
                    inner.left.push((left.header.serial, slot));
                    if !accept.contains(&left.header.lineage) {
                        continue;
                    }
                    let all: &mut Recalled = recalled.get_or_insert_default();
                    let precise = left.header.boot == boot || settled;
                    all.set.merge(&if precise { left.set } else { left.set.wholly() });
                    if left.header.serial > newest {
                        newest = left.header.serial;
                        (inner.closed, inner.epoch) = (left.header.closed, left.header.epoch);
                        (all.journalled, complete) = (left.header.journalled, left.header.complete);
                    }
                }
            }
        }
        self.reserve(&mut inner)?;
        let recalled = recalled.filter(|_| !lost && complete);
        inner.journalled = recalled.as_ref().is_some_and(|recalled| recalled.journalled);
        inner.recalled = recalled.as_ref().map(|recalled| recalled.set.clone()).unwrap_or_default();
        Ok(recalled)
    }

    fn reserve(&self, inner: &mut Inner) -> io::Result<()> {
        for slot in inner.files.len()..SLOTS {
            inner.files.push(Arc::new(segment::reserve(&self.directory, slot)?));
        }
        Ok(())
    }

    /// To what the records belong; durable when this returns, if there are any. `journalled`: there is a journal too.
    ///
    /// # Errors
    /// The disk failed.
    pub fn bind(&self, binding: Binding, journalled: Option<bool>) -> io::Result<()> {
        let current = {
            let mut inner = self.inner.lock();
            let journalled = journalled.unwrap_or(inner.journalled);
            if inner.binding == Some(binding) && inner.journalled == journalled {
                return Ok(());
            }
            (inner.binding, inner.journalled) = (Some(binding), journalled);
            set_headers(&inner)?
        };
        current.iter().try_for_each(|segment| segment.flush())
    }

    /// Whether these records, with the journal, say everything in which the copies may differ: they do once both are in
    /// step. Durable when this returns.
    ///
    /// # Errors
    /// The disk failed.
    pub fn set_complete(&self, complete: bool) -> io::Result<()> {
        let current = {
            let mut inner = self.inner.lock();
            if std::mem::replace(&mut inner.complete, complete) == complete {
                return Ok(());
            }
            set_headers(&inner)?
        };
        current.iter().try_for_each(|segment| segment.flush())
    }

    /// There is no journal any more.
    ///
    /// # Errors
    /// The disk failed.
    pub fn no_journal(&self) -> io::Result<()> {
        let binding = self.inner.lock().binding;
        binding.map_or(Ok(()), |binding| self.bind(binding, Some(false)))
    }

    /// Record from now on. Durable when this returns, with what an earlier process knew.
    ///
    /// # Errors
    /// The disk failed.
    pub fn open(&self) -> io::Result<()> {
        let current = {
            let mut inner = self.inner.lock();
            if inner.current.is_some() || inner.binding.is_none() {
                return Ok(());
            }
            self.reserve(&mut inner)?;
            let recalled = inner.recalled.clone();
            begin(&mut inner, &recalled)?
        };
        current.flush()?;
        let mut inner = self.inner.lock();
        inner.recalled = DirtySet::new();
        inner.left.clear();
        // What is damaged or belongs to another lineage too.
        inner.stale = (0..SLOTS).filter(|slot| *slot != current.slot).collect();
        Ok(())
    }

    /// Records changes before they are made. They count as under way until what is answered is dropped.
    ///
    /// # Errors
    /// The disk failed: the change must not be made.
    pub fn enter(&self, changes: &[Change]) -> io::Result<Entered> {
        let segment = {
            let mut inner = self.inner.lock();
            let Some(segment) = inner.current.clone() else { return Ok(Entered::default()) };
            segment.under_way.fetch_add(1, Ordering::AcqRel);
            inner.last = Boottime::now();
            if inner.since.is_none() {
                inner.since = Some(inner.last);
            }
            segment
        };
        let mut entered = Entered { segment: Some(segment), marked: Marked::default() };
        if let Some(segment) = &entered.segment {
            entered.marked = segment.mark(changes)?;
        }
        Ok(entered)
    }

    /// Everything that was changed since the last epoch that is durable on both nodes.
    #[must_use]
    pub fn since(&self) -> DirtySet {
        let inner = self.inner.lock();
        let mut since = inner.recalled.clone();
        for segment in inner.closing.iter().chain(&inner.current) {
            since.merge(&segment.set());
        }
        since
    }

    /// The last epoch that is durable on both nodes, as far as this one knows.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.inner.lock().closed
    }

    /// A session begins with a node that knows this epoch to be closed. False: it is of another time, and no record says
    /// what may differ.
    #[must_use]
    pub fn meet(&self, closed: u64) -> bool {
        let mut inner = self.inner.lock();
        let agrees = inner.closed.abs_diff(closed) <= 1;
        // Numbers that this node alone gave are given again: what a node knows to be closed may be old by one epoch, and
        // must not be taken for a copy of another time because of a leap.
        inner.epoch = inner.closed.max(closed) + 1;
        if agrees {
            inner.closed = inner.closed.max(closed);
        }
        (inner.paired, inner.synced) = (true, 0);
        if let Some(current) = &inner.current {
            current.paired.store(true, Ordering::Release);
        }
        agrees
    }

    /// Everything recorded is durable when this returns.
    ///
    /// # Errors
    /// The disk failed.
    pub fn flush(&self) -> io::Result<()> {
        let current = self.inner.lock().current.clone();
        current.map_or(Ok(()), |segment| segment.flush())
    }

    /// Erases what is not in use any more.
    pub fn sweep(&self) {
        let mut inner = self.inner.lock();
        while let Some(slot) = inner.stale.pop() {
            let erased = inner.files.get(slot).map(|file| segment::erase(file));
            if let Some(Err(error)) = erased {
                tracing::warn!(%error, "what is durable on both nodes counts as different once more");
            }
        }
    }

    /// Close the present epoch soon.
    pub fn want_close(&self) {
        self.inner.lock().wanted = true;
    }
}

/// A slot that is not in use. Of what an earlier process left the newest says everything that is in the oldest, once there
/// are three.
fn unused(inner: &Inner) -> Option<usize> {
    let used = |slot: &usize| {
        let own = inner.closing.iter().chain(&inner.current).any(|segment| segment.slot == *slot);
        own || inner.left.iter().any(|(_, left)| left == slot)
    };
    let oldest = inner.left.iter().min().map(|(_, slot)| *slot);
    (0..SLOTS).find(|slot| !used(slot)).or(oldest)
}

/// Records in another segment from now on. Writes nothing.
fn begin(inner: &mut Inner, set: &DirtySet) -> io::Result<Arc<Segment>> {
    let slot = unused(inner).ok_or_else(|| io::Error::other("no segment is free"))?;
    let file = inner.files.get(slot).cloned().ok_or_else(|| io::Error::other("no space is reserved"))?;
    inner.serial += 1;
    let header = header_of(inner).ok_or_else(|| io::Error::other("no lineage is known"))?;
    let segment = Arc::new(Segment::begin(file, slot, header, set));
    segment.paired.store(inner.paired, Ordering::Release);
    inner.stale.retain(|stale| *stale != slot);
    inner.current = Some(Arc::clone(&segment));
    inner.since = (!set.is_empty()).then(Boottime::now);
    Ok(segment)
}

/// Has all segments say what is known now; answers them.
fn set_headers(inner: &Inner) -> io::Result<Vec<Arc<Segment>>> {
    let Some(header) = header_of(inner) else { return Ok(Vec::new()) };
    let segments: Vec<Arc<Segment>> = inner.closing.iter().chain(&inner.current).cloned().collect();
    for segment in &segments {
        let header = Header { serial: segment.serial, epoch: segment.epoch, ..header };
        segment.set_header(header)?;
    }
    Ok(segments)
}

fn header_of(inner: &Inner) -> Option<Header> {
    let Binding { lineage, boot } = inner.binding?;
    let (serial, epoch, closed) = (inner.serial, inner.epoch, inner.closed);
    let (journalled, complete) = (inner.journalled, inner.complete);
    Some(Header { lineage, boot, serial, epoch, closed, journalled, complete })
}

#[cfg(test)]
mod tests;
