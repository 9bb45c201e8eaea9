//! The objects that the kernel knows by number: number, what names the object below, and how often the kernel was told.
//!
//! A mapped file: a page of header, then segments of entries, one cache line each. The number of an entry is written
//! last and taken away first, so that an entry is whole or absent wherever the process ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use safe_replication::object::{Kind, Object};

use crate::linux::shared::Shared;

const PAGE: u64 = 4096;
/// Words of the header.
const HEADER: usize = 512;
/// Words of an entry: number, times told, root with kind and flags, and the handle.
const ENTRY: usize = 8;
const HANDLE: usize = (ENTRY - 3) * 8;
/// Entries of a segment: 1 MiB.
const SEGMENT: usize = 1 << 14;
/// "safedh" and the version of the layout.
const MAGIC: u64 = 0x7361_6665_6468_0001;

/// Words of the header.
mod header {
    pub(super) const MAGIC: usize = 0;
    /// The next number.
    pub(super) const NEXT: usize = 1;
    /// Not every object is in the table.
    pub(super) const PARTIAL: usize = 2;
}

/// One object of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub place: u32,
    /// Its number.
    pub id: u64,
    /// How often the kernel was told of it.
    pub told: u64,
    /// It is not replicated.
    pub excluded: bool,
    /// What names it.
    pub object: Object,
}

#[derive(Debug, Default)]
struct Free {
    places: VecDeque<u32>,
    /// Places from here on were never used.
    end: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Handles {
    file: OwnedFd,
    header: Shared,
    segments: RwLock<Vec<Arc<Shared>>>,
    free: Mutex<Free>,
}

impl Handles {
    /// An empty table in an empty file.
    ///
    /// # Errors
    /// The filesystem is full, or cannot do it.
    pub fn create(file: OwnedFd) -> io::Result<Self> {
        let header = Shared::map(&file, 0, HEADER)?;
        header.words()[header::MAGIC].store(MAGIC, Ordering::Release);
        Ok(Self { file, header, segments: RwLock::default(), free: Mutex::default() })
    }

    /// The table of the process before this one.
    ///
    /// # Errors
    /// It is none, of another version, or not complete.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        if size < PAGE {
            return Err(io::Error::other("the table of handles is too short"));
        }
        let header = Shared::map(&file, 0, HEADER)?;
        let word = |index: usize| header.words()[index].load(Ordering::Acquire);
        if word(header::MAGIC) != MAGIC {
            return Err(io::Error::other("the table of handles is of another version"));
        }
        if word(header::PARTIAL) != 0 {
            return Err(io::Error::other("the table of handles is not complete"));
        }
        let table = Self { file, header, segments: RwLock::default(), free: Mutex::default() };
        let whole = (size - PAGE) / segment_bytes();
        for _ in 0..whole {
            table.grow()?;
        }
        let used: Vec<bool> = (0..table.capacity()).map(|place| table.number_at(place) != 0).collect();
        let mut free = table.free.lock();
        free.end = table.capacity();
        free.places = (0..free.end).filter(|place| !used[*place as usize]).collect();
        drop(free);
        Ok(table)
    }

    /// All objects.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        (0..self.capacity()).filter_map(|place| self.entry(place)).collect()
    }

    /// Adds an object; none: there is no room, and the table is worth nothing from now on.
    #[must_use]
    pub fn add(&self, id: u64, object: &Object, excluded: bool, told: u64) -> Option<u32> {
        let place = if object.handle.len() <= HANDLE { self.take_place() } else { None };
        let Some((place, segment)) = place.and_then(|place| Some((place, self.segment(place)?))) else {
            if self.header.words()[header::PARTIAL].swap(1, Ordering::AcqRel) == 0 {
                tracing::warn!("no room for one more handle: the mounts will not survive this process");
            }
            return None;
        };
        let words = entry_words(&segment, place);
        let mut handle = [0; HANDLE];
        handle[..object.handle.len()].copy_from_slice(&object.handle);
        for (word, bytes) in words[3..].iter().zip(handle.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        let what = u64::from(object.root)
            | u64::from(object.kind.number()) << 16
            | u64::from(excluded) << 24
            | (object.handle.len() as u64) << 32;
        words[2].store(what, Ordering::Relaxed);
        words[1].store(told, Ordering::Relaxed);
        words[0].store(id, Ordering::Release);
        Some(place)
    }

    /// How often the kernel has been told of the object there.
    pub fn told(&self, place: u32, times: u64) {
        if let Some(segment) = self.segment(place) {
            entry_words(&segment, place)[1].store(times, Ordering::Release);
        }
    }

    /// The object there is not used any more.
    pub fn remove(&self, place: u32) {
        if let Some(segment) = self.segment(place) {
            entry_words(&segment, place)[0].store(0, Ordering::Release);
            self.free.lock().places.push_back(place);
        }
    }

    /// Numbers below this one were used.
    pub fn used_below(&self, next: u64) {
        self.header.words()[header::NEXT].fetch_max(next, Ordering::AcqRel);
    }

    /// The first number that never was used.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.header.words()[header::NEXT].load(Ordering::Acquire)
    }

    fn entry(&self, place: u32) -> Option<Entry> {
        let segment = self.segment(place)?;
        let words = entry_words(&segment, place);
        let id = words[0].load(Ordering::Acquire);
        if id == 0 {
            return None;
        }
        let what = words[2].load(Ordering::Relaxed);
        let length = usize::try_from(what >> 32).ok().filter(|length| *length <= HANDLE)?;
        let mut handle: Vec<u8> =
            words[3..].iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        handle.truncate(length);
        let byte = |shift: u32| u8::try_from(what >> shift & 0xff).unwrap_or(0);
        let root = u16::try_from(what & 0xffff).ok()?;
        let object = Object { root, kind: Kind::from_number(byte(16))?, handle: handle.into() };
        Some(Entry { place, id, told: words[1].load(Ordering::Relaxed), excluded: byte(24) != 0, object })
    }

    fn number_at(&self, place: u32) -> u64 {
        self.segment(place).map_or(0, |segment| entry_words(&segment, place)[0].load(Ordering::Acquire))
    }

    fn take_place(&self) -> Option<u32> {
        let mut free = self.free.lock();
        if let Some(place) = free.places.pop_front() {
            return Some(place);
        }
        if free.end >= self.capacity()
            && let Err(error) = self.grow()
        {
            tracing::warn!(%error, "the table of handles cannot grow");
            return None;
        }
        free.end += 1;
        Some(free.end - 1)
    }

    fn capacity(&self) -> u32 {
        u32::try_from(self.segments.read().len() * SEGMENT).unwrap_or(u32::MAX)
    }

    fn grow(&self) -> io::Result<()> {
        let mut segments = self.segments.write();
        let offset = PAGE + segments.len() as u64 * segment_bytes();
        segments.push(Arc::new(Shared::map(&self.file, offset, SEGMENT * ENTRY)?));
        Ok(())
    }

    fn segment(&self, place: u32) -> Option<Arc<Shared>> {
        self.segments.read().get(place as usize / SEGMENT).cloned()
    }
}

const fn segment_bytes() -> u64 {
    (SEGMENT * ENTRY * 8) as u64
}

fn entry_words(segment: &Shared, place: u32) -> &[AtomicU64] {
    let at = place as usize % SEGMENT * ENTRY;
    &segment.words()[at..at + ENTRY]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDWR | OFlags::CREATE, Mode::RUSR | Mode::WUSR).expect("open")
    }

    fn object(number: u64) -> Object {
        Object::new(3, Kind::Directory, &number.to_le_bytes())
    }

    #[test]
    fn the_next_process_finds_what_was_added_and_not_what_was_removed() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("handles");
        let table = Handles::create(open(&path)).expect("create");
        let many = SEGMENT as u64 + 10;
        let places: Vec<u32> =
            (1..=many).map(|id| table.add(id, &object(id), id == 2, 1).expect("room")).collect();
        table.told(places[1], 7);
        table.remove(places[4]);
        table.used_below(many + 1);
        drop(table);
        let table = Handles::open(open(&path)).expect("open");
        let entries = table.entries();
        assert_eq!(entries.len() as u64, many - 1);
        assert_eq!(entries[1], Entry { place: places[1], id: 2, told: 7, excluded: true, object: object(2) });
        assert!(entries.iter().all(|entry| entry.id != 5));
        assert_eq!(table.next(), many + 1);
        assert_eq!(table.add(99_999, &object(1), false, 1), Some(places[4]), "a free place is used again");
    }

    #[test]
    fn a_table_that_is_not_complete_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("handles");
        let table = Handles::create(open(&path)).expect("create");
        let long = Object { root: 0, kind: Kind::File, handle: vec![1; HANDLE + 1].into() };
        assert_eq!(table.add(1, &long, false, 1), None);
        drop(table);
        assert!(Handles::open(open(&path)).is_err());
        std::fs::write(&path, "something else").expect("write");
        assert!(Handles::open(open(&path)).is_err());
    }
}
