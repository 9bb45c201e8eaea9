//! Space and time of the disk below: an operation that will not fit must fail before the other node has carried it
//! out, and a disk that does not answer must be noticed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use safe_replication::op::{Allocation, Op};

use crate::backing::Root;
use crate::carry::Objects;
use crate::clock::Boottime;

/// An error that speaks of the disk, not of the operation: what the filesystem has taken may be gone as well.
#[must_use]
pub const fn is_of_the_disk(error: Errno) -> bool {
    // Not ENXIO nor ENODEV: they also speak of fifos and device nodes without anything behind them.
    matches!(error, Errno::IO | Errno::ROFS | Errno::UCLEAN)
}

/// Below this, every operation that needs space is checked.
const HEADROOM: u64 = 256 << 20;
/// Inodes below which creations are checked.
const INODES: u64 = 4096;
/// What an operation may need besides its content: directory blocks, extents, attributes.
const OVERHEAD: u64 = 256 << 10;
/// How long it is believed that there is room: less than a disk can be filled in.
const BELIEVED: Duration = Duration::from_millis(50);

/// What is known of the space of each directory's filesystem.
#[derive(Debug, Default)]
pub struct Space {
    /// CLOCK_BOOTTIME of the last look that found room, by index of the directory.
    roomy: Mutex<BTreeMap<u16, Boottime>>,
}

impl Space {
    /// The operation will find the space that it needs. `privileged`: the caller may use what is reserved for root.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn reserve(
        &self,
        objects: &dyn Objects,
        root: &Root,
        op: &Op,
        privileged: bool,
    ) -> Result<(), Errno> {
        let Some((needed, inodes)) = need(op) else { return Ok(()) };
        // One large request may need more than what counts as plenty.
        let small = needed <= HEADROOM / 4;
        if small && self.roomy.lock().get(&root.index).is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        let s = rustix::fs::fstatvfs(&root.directory)?;
        let free = if privileged { s.f_bfree } else { s.f_bavail }.saturating_mul(s.f_frsize);
        // Some filesystems make inodes as they are needed, and say that there are none.
        let (files, total) = (s.f_ffree, s.f_files);
        if free >= needed.saturating_add(HEADROOM) && (total == 0 || files >= INODES) {
            self.roomy.lock().insert(root.index, Boottime::now());
            return Ok(());
        }
        if free < needed.saturating_add(OVERHEAD) && !rewrites(objects, op)? {
            return Err(Errno::NOSPC);
        }
        if inodes && total > 0 && files < 16 {
            return Err(Errno::NOSPC);
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others write no content")]
        match op {
            // What is reserved cannot be taken by others before it is written.
            Op::Write { id, offset, data, .. } => allocate(&*objects.file(*id)?, *offset, data.len() as u64),
            Op::Copy { id, offset, length, .. } => allocate(&*objects.file(*id)?, *offset, *length),
            _ => Ok(()),
        }
    }
}

/// Bytes of content, and whether an inode is needed; none: no space is.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others need no space")]
fn need(op: &Op) -> Option<(u64, bool)> {
    match op {
        Op::Write { data, .. } => Some((data.len() as u64, false)),
        Op::Copy { length, .. }
        | Op::Allocate { how: Allocation::Grow | Allocation::KeepSize | Allocation::Zero, length, .. } => {
            Some((*length, false))
        }
        Op::Create { .. } => Some((4096, true)),
        Op::Link { .. } | Op::Rename { .. } => Some((0, false)),
        Op::SetXattr { xattr, .. } => Some((xattr.value.len() as u64, false)),
        _ => None,
    }
}

/// The range is allocated already: writing it needs no space on a filesystem that writes in place.
fn rewrites(objects: &dyn Objects, op: &Op) -> Result<bool, Errno> {
    let Op::Write { id, offset, data, .. } = op else { return Ok(false) };
    let file = objects.file(*id)?;
    match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Hole(*offset)) {
        Ok(hole) => Ok(hole >= offset + data.len() as u64),
        Err(Errno::NXIO) => Ok(false),
        Err(error) => Err(error),
    }
}

fn allocate(file: &OwnedFd, offset: u64, length: u64) -> Result<(), Errno> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length) {
        // A filesystem without it gives no such promise.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Operations under way on the files below, to notice a disk that hangs.
#[derive(Debug, Default)]
pub struct Stopwatch {
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Boottime>>,
}

/// One operation under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Lap<'a>(&'a Stopwatch, u64);

impl Stopwatch {
    /// One begins.
    pub fn begin(&self) -> Lap<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.running.lock().insert(number, Boottime::now());
        Lap(self, number)
    }

    /// How long the oldest one has been under way.
    #[must_use]
    pub fn oldest(&self) -> Duration {
        self.running.lock().first_key_value().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

impl Drop for Lap<'_> {
    fn drop(&mut self) {
        self.0.running.lock().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stopwatch_knows_the_oldest() {
        let watch = Stopwatch::default();
        assert_eq!(watch.oldest(), Duration::ZERO);
        let first = watch.begin();
        let second = watch.begin();
        std::thread::sleep(Duration::from_millis(2));
        drop(second);
        assert!(watch.oldest() >= Duration::from_millis(2));
        drop(first);
        assert_eq!(watch.oldest(), Duration::ZERO);
    }
}
