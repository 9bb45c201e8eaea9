//! What the resync needs of the session it runs in: ask the target, send it operations, and hold back the application
//! where both would touch the same thing.

use bytes::Bytes;
use safe_replication::dirty::Object;
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op};
use safe_replication::room::Load;
use safe_replication::tree::Entry;

/// The way to the target. The source's session implements it; all calls may come from several threads at once.
pub trait Link: Sync {
    /// Ask the target. It answers from its copy as it is after every operation submitted before.
    fn query(&self, query: Query) -> Result<Answer, Failure>;

    /// Send operations, in this order, numbered among those of the application, and wait until the target has applied
    /// all of them. Refused: that one and those after it may not have been applied.
    fn submit(&self, ops: Vec<Op>) -> Result<(), Failure>;

    /// Hold these keys until the guard is dropped; one set at a time in each thread, and none while [`Key::Everything`]
    /// is held: no operation of the application that touches them is between its
    /// mark or decision and the end of its local change.
    fn lock(&self, keys: &[Key]) -> Box<dyn Held + '_>;

    /// The id of an object in this session; given at first use, not bound by that. Roots are always bound, to
    /// [`ObjectId::root`].
    fn id(&self, object: &Object) -> ObjectId;

    /// The id of an object, if it means something on the target.
    fn bound(&self, object: &Object) -> Option<ObjectId>;

    /// A new id for something that only the target has.
    fn fresh(&self) -> ObjectId;

    /// Let the id mean, on the target, what `name` in `parent` stands for there, which must be of the object's kind;
    /// nothing is sent if it is bound. The caller holds the name's key or names do not change.
    fn bind(&self, parent: ObjectId, name: &[u8], object: &Object) -> Result<ObjectId, Failure>;

    /// As [`Self::bind`] for something that only the target has, with an id of [`Self::fresh`].
    fn adopt(&self, parent: ObjectId, name: &[u8], kind: Kind) -> Result<ObjectId, Failure>;

    /// These ids are not used for now: both sides may drop what they keep for them. They are bound again at next use.
    fn forget(&self, ids: &[ObjectId]);

    /// Operations of the application that wait at this moment, for a resync that yields.
    fn waiting(&self) -> usize;
}

/// Keys held; released when dropped.
pub trait Held {}

/// What can be held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Bytes `from` (included) to `to` (excluded) of a file; `u64::MAX` includes its size.
    Data {
        /// The file.
        object: Object,
        /// First byte.
        from: u64,
        /// First byte not held.
        to: u64,
    },
    /// Attributes.
    Meta {
        /// The object.
        object: Object,
    },
    /// One name.
    Name {
        /// The directory.
        dir: Object,
        /// The name.
        name: Bytes,
    },
    /// All names of a directory.
    Names {
        /// The directory.
        dir: Object,
    },
    /// Everything: no mutating operation is on the way anywhere.
    Everything,
}

/// Why a call to the target failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The session is gone.
    #[error("the session was lost: {0}")]
    Lost(String),
    /// The target could not carry out an operation, bind or query.
    #[error("the other node refused: {}", std::io::Error::from_raw_os_error(*.0))]
    Refused(i32),
}

/// A question to the target. Names are looked up in the directory, never followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Entries of a directory by name, in ascending order of bytes.
    List {
        /// The directory.
        dir: ObjectId,
        /// Only names after this one; empty: from the first.
        after: Bytes,
        /// At most this many; 1 to [`LIST_LIMIT`].
        limit: u32,
    },
    /// These entries only; what does not exist is left out.
    Entries {
        /// The directory.
        dir: ObjectId,
        /// At most [`LIST_LIMIT`].
        names: Vec<Bytes>,
    },
    /// The entry of an object itself (its name is empty).
    Own {
        /// The object.
        id: ObjectId,
    },
    /// Digests of content.
    Digests(Vec<DigestOf>),
    /// Extended attributes, ACLs included.
    Xattrs {
        /// The object.
        id: ObjectId,
    },
    /// What the target knows to be in flight, as paths.
    InFlight {
        /// Continue after this many.
        after: u64,
    },
    /// May the target's copy be changed? For each replicated directory, in order.
    Room {
        /// No more than this will come.
        most: Vec<Load>,
        /// So much the source's directory holds, at least; empty: it was not counted.
        least: Vec<Load>,
    },
}

/// Most entries or names of one list.
pub const LIST_LIMIT: usize = 1024;

/// Which blocks of a file of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestOf {
    /// Directory of the file.
    pub dir: ObjectId,
    /// Its name there; empty: `dir` is the file itself.
    pub name: Bytes,
    /// First block.
    pub first: u64,
    /// At most this many; 1 to [`DIGEST_LIMIT`] in one query.
    pub count: u32,
    /// One digest is wanted, of the digests of all of them: [`safe_replication::diff::whole`].
    pub whole: bool,
}

/// Most digests of one query.
pub const DIGEST_LIMIT: usize = 8192;

/// What the target says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::List`], [`Query::Entries`] and [`Query::Own`].
    Entries {
        /// The entries.
        entries: Vec<Entry>,
        /// There is nothing after the last one.
        end: bool,
    },
    /// To [`Query::Digests`], in the order asked: nothing for what is not a readable regular file.
    Digests(Vec<Digests>),
    /// To [`Query::Xattrs`], by name.
    Xattrs(Vec<(Bytes, Bytes)>),
    /// To [`Query::InFlight`].
    InFlight {
        /// Some of them.
        known: Vec<Located>,
        /// There are no more.
        end: bool,
    },
    /// To [`Query::Room`].
    Room(Leave),
}

/// Whether the target's copy may be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// It may.
    Begin,
    /// First it has to be known what the source's directories hold.
    Count,
    /// What is to come surely does not fit; why, for people.
    Refused(String),
}

/// Digests of one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digests {
    /// Size of the file when it was read; none: it could not be read.
    pub size: Option<u64>,
    /// One for each block that was asked for and exists; see [`safe_replication::diff::Digest`].
    pub blocks: Vec<[u8; 32]>,
}

/// A change on the target by its path there, since handles mean nothing on another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Index of the replicated directory.
    pub root: u16,
    /// Names from the root to the object.
    pub path: Vec<Bytes>,
    /// What changed; the handles in it are empty.
    pub what: What,
}

/// See [`safe_replication::dirty::Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Content of the file at the path.
    Data {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Attributes of the object at the path.
    Meta,
    /// What the path stands for.
    Name {
        /// See [`safe_replication::dirty::Change::Name`].
        deep: bool,
    },
    /// All names of the directory at the path.
    Names {
        /// See [`safe_replication::dirty::Change::Name`].
        deep: bool,
    },
    /// Everything below the path.
    Tree,
    /// Everything.
    Everything,
}
