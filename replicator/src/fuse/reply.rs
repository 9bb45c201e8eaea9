//! Answers to the kernel.

use std::time::Duration;

use bytes::Bytes;
use safe_replication::op::Timestamp;

use super::wire::{Body, OUT_HEADER};

/// How long the kernel may trust names and attributes: nobody else changes them.
const VALID: Duration = Duration::from_secs(86400);

/// Attributes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields are those of stat(2)")]
pub struct Attributes {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// Device number as stat(2) gives it.
    pub rdev: u64,
    pub block_size: u32,
}

/// A name that was found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Node; 0: there is no such name, and the kernel may remember that.
    pub node: u64,
    /// Its attributes.
    pub attributes: Attributes,
}

/// Sizes of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of statvfs(3)")]
pub struct StatFs {
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    pub block_size: u32,
    pub name_max: u32,
    pub fragment_size: u32,
}

/// An answer.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the result of the request of the same name")]
pub enum Reply {
    /// None is sent.
    Silent,
    Empty,
    Entry(Entry),
    Attributes(Attributes),
    /// The kernel keeps what it has cached of the file.
    Opened {
        handle: u64,
    },
    Created {
        entry: Entry,
        handle: u64,
    },
    Data(Bytes),
    Directory(Listing),
    Written(u32),
    /// Length of an extended attribute or of the list of them.
    Length(u32),
    StatFs(StatFs),
    Position(u64),
}

/// FOPEN_KEEP_CACHE: nobody else writes, so what is cached stays true.
const KEEP_CACHE: u32 = 1 << 1;
/// FOPEN_CACHE_DIR.
const CACHE_DIRECTORY: u32 = 1 << 3;

impl Reply {
    /// The message for the device; none for [`Reply::Silent`]. Large data is not copied: it is the second part.
    #[must_use]
    pub fn encode(self, unique: u64) -> Option<(Vec<u8>, Bytes)> {
        let mut body = Body(Vec::with_capacity(OUT_HEADER + 160));
        body.zeros(OUT_HEADER);
        let mut data = Bytes::new();
        match self {
            Self::Silent => return None,
            Self::Empty => {}
            Self::Entry(entry) => put_entry(&mut body, &entry),
            Self::Attributes(attributes) => {
                body.u64(VALID.as_secs()).u64(0);
                put_attributes(&mut body, &attributes);
            }
            Self::Opened { handle } => put_open(&mut body, handle),
            Self::Created { entry, handle } => {
                put_entry(&mut body, &entry);
                put_open(&mut body, handle);
            }
            Self::Data(bytes) => data = bytes,
            Self::Directory(listing) => data = listing.body.0.into(),
            Self::Written(size) | Self::Length(size) => {
                body.u32(size).u32(0);
            }
            Self::Position(offset) => {
                body.u64(offset);
            }
            Self::StatFs(s) => {
                body.u64(s.blocks).u64(s.free).u64(s.available).u64(s.files).u64(s.files_free);
                body.u32(s.block_size).u32(s.name_max).u32(s.fragment_size).zeros(28);
            }
        }
        Some((finish(body, data.len(), 0, unique), data))
    }

    /// The message of a failure.
    #[must_use]
    pub fn error(unique: u64, errno: i32) -> Vec<u8> {
        let mut body = Body::default();
        body.zeros(OUT_HEADER);
        finish(body, 0, -errno, unique)
    }
}

/// Writes the header in front of the body.
pub(super) fn finish(body: Body, more: usize, error: i32, unique: u64) -> Vec<u8> {
    let mut message = body.0;
    let length = u32::try_from(message.len() + more).unwrap_or(u32::MAX);
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..8].copy_from_slice(&error.to_ne_bytes());
    message[8..16].copy_from_slice(&unique.to_ne_bytes());
    message
}

fn put_open(body: &mut Body, handle: u64) {
    body.u64(handle).u32(KEEP_CACHE | CACHE_DIRECTORY).u32(0);
}

fn put_entry(body: &mut Body, entry: &Entry) {
    // Node ids are never reused, so the generation is always 0.
    body.u64(entry.node).u64(0).u64(VALID.as_secs()).u64(VALID.as_secs()).u32(0).u32(0);
    put_attributes(body, &entry.attributes);
}

fn put_attributes(body: &mut Body, a: &Attributes) {
    body.u64(a.ino).u64(a.size).u64(a.blocks);
    for time in [a.atime, a.mtime, a.ctime] {
        body.u64(time.seconds.cast_unsigned());
    }
    for time in [a.atime, a.mtime, a.ctime] {
        body.u32(time.nanos);
    }
    body.u32(a.mode).u32(a.nlink).u32(a.uid).u32(a.gid).u32(encode_device(a.rdev)).u32(a.block_size).u32(0);
}

/// The kernel's 32-bit form of a device number.
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (libc::major(device), libc::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of what the kernel sends with mknod.
#[must_use]
pub fn decode_device(device: u32) -> u64 {
    libc::makedev((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

/// Names of a directory, as many as fit.
pub struct Listing {
    body: Body,
    limit: usize,
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("bytes", &self.body.0.len()).finish()
    }
}

impl Listing {
    /// Room for this many bytes.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        let limit = (limit as usize).min(1 << 20);
        Self { body: Body(Vec::with_capacity(limit)), limit }
    }

    /// Whether one more name of this length fits.
    #[must_use]
    pub fn fits(&self, name: usize, plus: bool) -> bool {
        let entry = if plus { 128 } else { 0 };
        self.body.0.len() + entry + (24 + name).next_multiple_of(8) <= self.limit
    }

    /// Adds a name; `entry` where the request was for names with attributes (node 0: attributes are not known).
    pub fn push(&mut self, entry: Option<&Entry>, ino: u64, next: u64, kind: u32, name: &[u8]) {
        if let Some(entry) = entry {
            put_entry(&mut self.body, entry);
        }
        let length = u32::try_from(name.len()).unwrap_or(0);
        self.body.u64(ino).u64(next).u32(length).u32(kind).bytes(name);
        let padded = self.body.0.len().next_multiple_of(8);
        self.body.0.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_protocol() {
        let entry = Entry { node: 1, attributes: Attributes::default() };
        let length = |reply: Reply| reply.encode(1).expect("a message").0.len();
        assert_eq!(length(Reply::Entry(entry)), 16 + 128);
        assert_eq!(length(Reply::Attributes(entry.attributes)), 16 + 104);
        assert_eq!(length(Reply::Created { entry, handle: 1 }), 16 + 128 + 16);
        let statfs = StatFs {
            blocks: 1,
            free: 1,
            available: 1,
            files: 1,
            files_free: 1,
            block_size: 1,
            name_max: 1,
            fragment_size: 1,
        };
        assert_eq!(length(Reply::StatFs(statfs)), 16 + 80);
    }

    #[test]
    fn device_numbers_survive_the_round_trip() {
        for (major, minor) in [(1, 3), (8, 0), (259, 70_000), (0xfff, 0xf_ffff)] {
            let device = libc::makedev(major, minor);
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }

    #[test]
    fn a_listing_never_exceeds_its_limit() {
        let mut listing = Listing::new(100);
        let mut pushed = 0;
        while listing.fits(5, false) {
            listing.push(None, 1, 1, 8, b"abcde");
            pushed += 1;
        }
        assert_eq!(pushed, 3);
        assert!(listing.body.0.len() <= 100);
    }
}
