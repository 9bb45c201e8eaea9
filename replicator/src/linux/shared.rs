//! Memory that outlives the process: a mapped part of a file, as words.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::FallocateFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// A part of a file, mapped. What is stored is seen by the next process that maps it, however this one ends; after a
/// loss of power it is not.
pub struct Shared {
    start: NonNull<AtomicU64>,
    words: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("words", &self.words).finish_non_exhaustive()
    }
}

#[expect(unsafe_code, reason = "memory that is only reached through atomics")]
// SAFETY: the mapping belongs to this value alone and is only lent out as atomics.
unsafe impl Send for Shared {}
#[expect(unsafe_code, reason = "memory that is only reached through atomics")]
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps `words` words from `offset` (a multiple of the page size), whose space is taken from the disk now: a store
    /// never fails.
    ///
    /// # Errors
    /// The filesystem is full, or cannot do it.
    #[expect(unsafe_code, reason = "mmap")]
    pub fn map(file: &OwnedFd, offset: u64, words: usize) -> io::Result<Self> {
        let length = words * size_of::<AtomicU64>();
        rustix::fs::fallocate(file, FallocateFlags::empty(), offset, length as u64)?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file.as_fd(),
                offset,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { start, words })
    }

    /// The words.
    #[must_use]
    #[expect(unsafe_code, reason = "the mapping as a slice")]
    pub const fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this many words, is aligned to pages and lives as long as `self`; its file has no
        // holes and is never cut.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Shared {
    #[expect(unsafe_code, reason = "munmap")]
    fn drop(&mut self) {
        // SAFETY: nothing borrowed from it is left.
        let unmapped =
            unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "cannot unmap memory");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn what_was_stored_is_there_when_it_is_mapped_again() {
        let place = tempfile::tempdir().expect("a directory");
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = rustix::fs::open(place.path().join("file"), flags, Mode::RUSR | Mode::WUSR).expect("open");
        let first = Shared::map(&file, 4096, 512).expect("map");
        first.words()[7].store(42, Ordering::Release);
        drop(first);
        let again = Shared::map(&file, 4096, 512).expect("map");
        assert_eq!(again.words()[7].load(Ordering::Acquire), 42);
        assert_eq!(again.words()[8].load(Ordering::Acquire), 0);
    }
}
