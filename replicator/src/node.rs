//! The objects that are in use: by the kernel, which names them by number, or by a session, where the same number is
//! the id of the object.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use safe_replication::object::{Kind, Object};
use safe_replication::op::{Number, ObjectId, Timestamp};
use safe_replication::short::Short;

use crate::backing::{Backing, Found, Root};
use crate::carry::Objects;
use crate::legacy::Legacy;
use crate::linux::handle::magic_path;

/// One object in use.
#[derive(Debug)]
pub struct Node {
    /// Number in this process, and id in every session; never reused.
    pub id: ObjectId,
    /// What names it among the files below.
    pub object: Object,
    /// It is, or lies below, something that is not replicated.
    pub excluded: bool,
    /// Serial of the session in which the other node knows the id, and in its last [`DEPARTURES`] bits how often names
    /// had begun to differ before; 0: none.
    pub bound: AtomicU64,
    state: Mutex<State>,
    /// The last operation that gave a modification time, and which; held while it is set.
    stamp: Mutex<Option<Box<(Number, Timestamp)>>>,
}

/// There are as many nodes as the kernel remembers names, so each byte here is a megabyte in a large tree.
#[derive(Debug, Default)]
struct State {
    /// How many times the kernel was told of it.
    lookups: u64,
    /// A name under which it was found or made: the newest one.
    newest: Option<Place>,
    /// Where it stands among the handles that outlive this process.
    place: Option<u32>,
    /// It was known before this process: the application may have it open more often.
    inherited: bool,
    /// Of what few have.
    rest: Option<Box<Rest>>,
}

/// What only those have that were opened, or have several names.
#[derive(Debug, Default)]
struct Rest {
    /// Other names, the last one is the newest.
    places: Vec<Place>,
    /// Keeps it alive after its last name is gone.
    pin: Option<Arc<OwnedFd>>,
    /// A descriptor for reading and writing that somebody has open.
    file: Weak<OwnedFd>,
    /// How many times the application has it open, as far as this process knows.
    opens: u32,
    /// How many of these are for writing.
    writers: u32,
}

impl State {
    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    fn pin(&self) -> Option<&Arc<OwnedFd>> {
        self.rest.as_ref()?.pin.as_ref()
    }

    fn file(&self) -> Option<Arc<OwnedFd>> {
        self.rest.as_ref()?.file.upgrade()
    }

    fn opens(&self) -> u32 {
        self.rest.as_ref().map_or(0, |rest| rest.opens)
    }

    /// Newest first.
    fn places(&self) -> impl Iterator<Item = &Place> {
        let others = self.rest.iter().flat_map(|rest| rest.places.iter().rev());
        self.newest.iter().chain(others)
    }
}

/// Bits of a binding below the serial of its session.
pub const DEPARTURES: u32 = 20;

#[derive(Debug)]
struct Place {
    parent: ObjectId,
    name: Short,
}

impl Place {
    fn is(&self, (parent, name): (ObjectId, &Bytes)) -> bool {
        self.parent == parent && *self.name == **name
    }
}

/// More names than this are not remembered: the object is found through any of them.
const PLACES: usize = 16;
/// Files kept open in case they are written again.
const OPEN_FILES: usize = 256;
/// Numbers below belong to the roots.
const FIRST: u64 = 1 << 16;

impl Node {
    fn new(id: ObjectId, object: Object, excluded: bool) -> Arc<Self> {
        Arc::new(Self {
            id,
            object,
            excluded,
            bound: AtomicU64::new(0),
            state: Mutex::default(),
            stamp: Mutex::default(),
        })
    }

    /// It is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.object.kind.is_directory()
    }

    /// Names under which it was seen, newest first.
    #[must_use]
    pub fn places(&self) -> Vec<(ObjectId, Bytes)> {
        let copy = |place: &Place| (place.parent, Bytes::copy_from_slice(&place.name));
        self.state.lock().places().map(copy).collect()
    }

    /// A descriptor for reading and writing exists as long as its owner keeps it.
    pub fn lend(&self, file: &Arc<OwnedFd>) {
        self.state.lock().rest().file = Arc::downgrade(file);
    }

    /// The application opened it.
    pub fn opened(&self, writes: bool) {
        let mut state = self.state.lock();
        let rest = state.rest();
        rest.opens += 1;
        rest.writers += u32::from(writes);
    }

    /// The application closed it.
    pub fn closed(&self, writes: bool) {
        let mut state = self.state.lock();
        let rest = state.rest();
        rest.opens = rest.opens.saturating_sub(1);
        rest.writers = rest.writers.saturating_sub(writes.into());
    }

    /// The application may be writing it: has it open for that, or had when this process began.
    #[must_use]
    pub fn may_be_written(&self) -> bool {
        let state = self.state.lock();
        let writers = state.rest.as_ref().map_or(0, |rest| rest.writers);
        self.object.kind == Kind::File && (writers > 0 || state.inherited)
    }

    /// The modification time that its last operation gave it, or `found` if there was none. While content is being
    /// written the files below show another one.
    ///
    /// # Errors
    /// What `found` says.
    pub fn modified(&self, found: impl FnOnce() -> Result<Timestamp, Errno>) -> Result<Timestamp, Errno> {
        let mut stamp = self.stamp.lock();
        if let Some(last) = &*stamp {
            return Ok(last.1);
        }
        let time = found()?;
        *stamp = Some(Box::new((Number(0), time)));
        Ok(time)
    }

    fn is_at(&self, place: (ObjectId, &Bytes)) -> bool {
        self.state.lock().places().any(|seen| seen.is(place))
    }

    fn moved(&self, from: Option<(ObjectId, &Bytes)>, to: Option<(ObjectId, &Bytes)>) {
        let mut state = self.state.lock();
        let gone = |seen: &Place| [from, to].into_iter().flatten().any(|place| seen.is(place));
        state.newest.take_if(|seen| gone(seen));
        if let Some(rest) = &mut state.rest {
            rest.places.retain(|seen| !gone(seen));
        }
        let Some((parent, name)) = to else {
            if state.newest.is_none() {
                state.newest = state.rest.as_mut().and_then(|rest| rest.places.pop());
            }
            return;
        };
        let newest = Place { parent, name: name.as_ref().into() };
        if let Some(before) = state.newest.replace(newest) {
            let places = &mut state.rest().places;
            if places.len() >= PLACES - 1 {
                places.remove(0);
            }
            places.push(before);
        }
    }
}

#[derive(Debug, Default)]
struct Tables {
    by_id: HashSet<Numbered>,
    by_object: HashSet<Named>,
}

/// A node, found by its number.
#[derive(Debug)]
struct Numbered(Arc<Node>);

impl Borrow<ObjectId> for Numbered {
    fn borrow(&self) -> &ObjectId {
        &self.0.id
    }
}

impl Hash for Numbered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for Numbered {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Numbered {}

impl Tables {
    fn numbered(&self, id: ObjectId) -> Option<Arc<Node>> {
        self.by_id.get(&id).map(|numbered| Arc::clone(&numbered.0))
    }
}

/// A node, found by its object.
#[derive(Debug)]
struct Named(Arc<Node>);

impl Borrow<Object> for Named {
    fn borrow(&self) -> &Object {
        &self.0.object
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.object.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.object == other.0.object
    }
}

impl Eq for Named {}

/// All objects in use.
#[derive(Debug)]
pub struct Nodes {
    backing: Backing,
    tables: Mutex<Tables>,
    next: AtomicU64,
    open: Mutex<VecDeque<(ObjectId, Arc<OwnedFd>)>>,
    /// Objects that the other node may forget.
    released: Mutex<Vec<(u64, ObjectId)>>,
    /// While mounted: what the next process is to know.
    legacy: ArcSwapOption<Legacy>,
}

impl Nodes {
    /// Knows only the roots.
    #[must_use]
    pub fn new(backing: Backing) -> Self {
        let mut tables = Tables::default();
        for root in backing.roots.iter() {
            let node = Node::new(ObjectId::root(root.index.into()), root.object.clone(), false);
            tables.by_id.insert(Numbered(Arc::clone(&node)));
            tables.by_object.insert(Named(node));
        }
        Self {
            backing,
            tables: Mutex::new(tables),
            next: AtomicU64::new(FIRST),
            open: Mutex::default(),
            released: Mutex::default(),
            legacy: ArcSwapOption::empty(),
        }
    }

    /// What the kernel is told from now on outlives this process; none: it does not any more.
    pub fn bequeath(&self, legacy: Option<Arc<Legacy>>) {
        self.legacy.store(legacy);
    }

    /// Goes on with what the process before this one told the kernel, and the files without a name that it held.
    /// Answers them.
    pub fn inherit(&self, legacy: &Arc<Legacy>, files: &BTreeMap<u64, Arc<OwnedFd>>) -> Vec<Arc<Node>> {
        let mut inherited = Vec::new();
        let mut tables = self.tables.lock();
        for entry in legacy.handles.entries() {
            if entry.told == 0 {
                legacy.handles.remove(entry.place);
                continue;
            }
            let id = ObjectId(entry.id);
            let node = tables.numbered(id);
            let node = node.unwrap_or_else(|| Node::new(id, entry.object.clone(), entry.excluded));
            {
                let mut state = node.state.lock();
                (state.lookups, state.place, state.inherited) = (entry.told, Some(entry.place), true);
                if let Some(file) = files.get(&entry.id) {
                    state.rest().pin = Some(Arc::clone(file));
                }
            }
            tables.by_id.replace(Numbered(Arc::clone(&node)));
            tables.by_object.replace(Named(Arc::clone(&node)));
            inherited.push(node);
        }
        drop(tables);
        self.next.fetch_max(legacy.handles.next(), Ordering::AcqRel);
        self.bequeath(Some(Arc::clone(legacy)));
        inherited
    }

    /// A number that was never used.
    pub fn fresh_id(&self) -> ObjectId {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(legacy) = &*self.legacy.load() {
            legacy.handles.used_below(id + 1);
        }
        ObjectId(id)
    }

    /// The node with this number.
    ///
    /// # Errors
    /// `ESTALE`: there is none.
    pub fn get(&self, id: ObjectId) -> Result<Arc<Node>, Errno> {
        self.tables.lock().numbered(id).ok_or(Errno::STALE)
    }

    /// The node of an object, if it is in use.
    #[must_use]
    pub fn find(&self, object: &Object) -> Option<Arc<Node>> {
        self.tables.lock().by_object.get(object).map(|named| Arc::clone(&named.0))
    }

    /// The node of an object that was found at a name; `told`: the kernel is told of it now.
    pub fn remember(&self, object: Object, place: Option<(&Arc<Node>, &Bytes)>, told: bool) -> Arc<Node> {
        let excluded = place.is_some_and(|(parent, name)| self.is_excluded(parent, name));
        let mut tables = self.tables.lock();
        let known = tables.by_object.get(&object).map(|named| Arc::clone(&named.0));
        let node = known.unwrap_or_else(|| {
            let node = Node::new(self.fresh_id(), object, excluded);
            tables.by_id.insert(Numbered(Arc::clone(&node)));
            tables.by_object.insert(Named(Arc::clone(&node)));
            node
        });
        if told {
            self.tell(&node);
        }
        drop(tables);
        if let Some((parent, name)) = place
            && !node.is_at((parent.id, name))
        {
            node.moved(None, Some((parent.id, name)));
        }
        node
    }

    /// The kernel was told of a node (after a creation).
    pub fn tell(&self, node: &Node) {
        let mut state = node.state.lock();
        state.lookups += 1;
        self.note(node, &mut state);
    }

    /// Notes for the next process how often the kernel was told of a node.
    fn note(&self, node: &Node, state: &mut State) {
        let Some(legacy) = &*self.legacy.load() else { return };
        match state.place {
            Some(place) => legacy.handles.told(place, state.lookups),
            None => {
                state.place = legacy.handles.add(node.id.0, &node.object, node.excluded, state.lookups);
            }
        }
    }

    /// The kernel forgets what it was told so many times.
    pub fn forget(&self, id: ObjectId, count: u64) {
        let Ok(node) = self.get(id) else { return };
        let unused = {
            let mut state = node.state.lock();
            state.lookups = state.lookups.saturating_sub(count);
            self.note(&node, &mut state);
            state.lookups == 0
        };
        if unused {
            self.release(node);
        }
    }

    /// Drops a node that nobody uses: neither the kernel nor another holder of the reference.
    pub fn release(&self, node: Arc<Node>) {
        if node.id.0 < FIRST {
            return;
        }
        let mut tables = self.tables.lock();
        // Both tables and the caller.
        if Arc::strong_count(&node) > 3 || node.state.lock().lookups > 0 {
            return;
        }
        tables.by_id.remove(&node.id);
        tables.by_object.remove(&node.object);
        self.disown(&node);
        drop(tables);
        self.open.lock().retain(|(id, _)| *id != node.id);
        let serial = node.bound.load(Ordering::Acquire) >> DEPARTURES;
        if serial != 0 {
            self.released.lock().push((serial, node.id));
        }
    }

    /// The next process need not know of it.
    fn disown(&self, node: &Node) {
        let Some(legacy) = &*self.legacy.load() else { return };
        if let Some(place) = node.state.lock().place.take() {
            legacy.handles.remove(place);
        }
        legacy.unpin(node.id.0);
    }

    /// Some of what was released and is known to the other node in the session with this serial.
    #[must_use]
    pub fn take_released(&self, serial: u64, most: usize) -> Vec<ObjectId> {
        let mut released = self.released.lock();
        released.retain(|(bound, _)| *bound == serial);
        let rest = released.len().saturating_sub(most);
        released.drain(rest..).map(|(_, id)| id).collect()
    }

    /// Forgets everything but the roots: the mounts are gone, or the session is.
    pub fn clear(&self) {
        let mut tables = self.tables.lock();
        tables.by_id.retain(|numbered| numbered.0.id.0 < FIRST);
        tables.by_object.retain(|named| named.0.id.0 < FIRST);
        for root in self.backing.roots.iter() {
            if let Some(node) = tables.numbered(ObjectId::root(root.index.into())) {
                *node.stamp.lock() = Default::default();
            }
        }
        drop(tables);
        self.open.lock().clear();
        self.released.lock().clear();
    }

    /// Path below the root, if the names above are known.
    #[must_use]
    pub fn path_below(&self, node: &Node) -> Option<Vec<Bytes>> {
        let mut names = Vec::new();
        let mut at = node.places();
        let mut id = node.id;
        while id.0 >= FIRST {
            let (parent, name) = at.into_iter().next()?;
            names.push(name);
            let parent = self.get(parent).ok()?;
            (at, id) = (parent.places(), parent.id);
            if names.len() > 4096 {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }

    /// Whether this name in a directory is not replicated.
    #[must_use]
    pub fn is_excluded(&self, parent: &Node, name: &[u8]) -> bool {
        if parent.excluded {
            return true;
        }
        let Some(root) = self.backing.roots.get(usize::from(parent.object.root)) else { return false };
        if root.exclude.is_empty() {
            return false;
        }
        root.exclude.matches(&self.joined(parent, name))
    }

    /// The path of a name below the root, as globs see it.
    #[must_use]
    pub fn joined(&self, parent: &Node, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::new();
        for part in self.path_below(parent).unwrap_or_default() {
            path.extend_from_slice(&part);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The directory that holds the object.
    #[must_use]
    pub fn root_of(&self, node: &Node) -> &Root {
        &self.backing.roots[usize::from(node.object.root)]
    }

    /// The directory that holds the object with this id.
    #[must_use]
    pub fn root_named(&self, id: ObjectId) -> Option<&Root> {
        let index = usize::from(self.get(id).ok()?.object.root);
        self.backing.roots.get(index)
    }

    /// Opens an object with these flags, even if its last name is gone.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
        let pin = node.state.lock().pin().cloned();
        match pin {
            Some(pin) if flags.contains(OFlags::PATH) => rustix::io::fcntl_dupfd_cloexec(&*pin, 0),
            Some(pin) => rustix::fs::open(magic_path(pin.as_fd()), flags | OFlags::CLOEXEC, Mode::empty()),
            None => match self.root_of(node).open(&node.object, flags) {
                // It was pinned and unlinked in between.
                Err(Errno::STALE) if node.state.lock().pin().is_some() => self.open(node, flags),
                other => other,
            },
        }
    }

    /// The object, opened only to name it.
    ///
    /// # Errors
    /// `ESTALE` if it is gone.
    pub fn open_path(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(pin) = node.state.lock().pin() {
            return Ok(Arc::clone(pin));
        }
        self.open(node, OFlags::PATH | OFlags::NOFOLLOW).map(Arc::new)
    }

    /// A regular file for reading and writing.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_file(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        if node.object.kind != Kind::File {
            return Err(Errno::INVAL);
        }
        if let Some(file) = node.state.lock().file() {
            return Ok(file);
        }
        let file = Arc::new(self.open(node, OFlags::RDWR)?);
        self.keep_open(node, &file);
        Ok(file)
    }

    fn keep_open(&self, node: &Node, file: &Arc<OwnedFd>) {
        node.lend(file);
        let mut open = self.open.lock();
        if open.len() >= OPEN_FILES {
            open.pop_front();
        }
        open.push_back((node.id, Arc::clone(file)));
    }
}

impl Objects for Nodes {
    fn backing(&self) -> &Backing {
        &self.backing
    }

    fn root(&self, id: ObjectId) -> Result<&Root, Errno> {
        let index = usize::from(self.get(id)?.object.root);
        self.backing.roots.get(index).ok_or(Errno::STALE)
    }

    fn path(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno> {
        self.open_path(&*self.get(id)?)
    }

    fn file(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno> {
        self.open_file(&*self.get(id)?)
    }

    fn pin(&self, id: ObjectId) -> Result<(), Errno> {
        let node = self.get(id)?;
        if node.state.lock().pin().is_none() {
            let path = Arc::new(self.open(&node, OFlags::PATH | OFlags::NOFOLLOW)?);
            node.state.lock().rest().pin = Some(path);
        }
        let (pin, in_use) = {
            let state = node.state.lock();
            (state.pin().cloned(), state.lookups > 0 && (state.opens() > 0 || state.inherited))
        };
        if in_use
            && node.object.kind == Kind::File
            && let Some(pin) = pin
            && let Some(legacy) = &*self.legacy.load()
        {
            legacy.pin(id.0, &pin);
        }
        self.open.lock().retain(|(open, _)| *open != id);
        Ok(())
    }

    fn stamp(
        &self,
        id: ObjectId,
        number: Number,
        time: Timestamp,
        set: &mut dyn FnMut(Timestamp) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let node = self.get(id)?;
        let mut stamp = node.stamp.lock();
        let last = stamp.get_or_insert_default();
        // Zero: carried out alone, after all that came before; whatever a session numbers afterwards follows it.
        if number == Number(0) || number >= last.0 {
            **last = (number, time);
        }
        set(last.1)
    }

    fn bound(
        &self,
        id: ObjectId,
        found: Found,
        file: Option<OwnedFd>,
        place: (ObjectId, &Bytes),
    ) -> Result<(), Errno> {
        let parent = self.get(place.0)?;
        let nameless = place.1.is_empty();
        let excluded = if nameless { parent.excluded } else { self.is_excluded(&parent, place.1) };
        let mut tables = self.tables.lock();
        if let Some(other) = tables.numbered(id) {
            if other.object == found.object {
                // Named twice by two threads of the primary.
                return Ok(());
            }
            // The primary's object was removed here by a resync and is made again: the id means the new one.
            if tables.by_object.get(&other.object).is_some_and(|named| named.0.id == id) {
                tables.by_object.remove(&other.object);
            }
        }
        let node = Node::new(id, found.object.clone(), excluded);
        if nameless {
            node.state.lock().rest().pin = Some(Arc::new(found.path));
        } else {
            node.moved(None, Some(place));
        }
        tables.by_id.replace(Numbered(Arc::clone(&node)));
        // A second name of an object that already has an id, or one that was removed and whose handle came back: the
        // newest one is found.
        tables.by_object.replace(Named(Arc::clone(&node)));
        drop(tables);
        if let Some(file) = file {
            // Whoever creates a file is about to write it.
            self.keep_open(&node, &Arc::new(file));
        }
        Ok(())
    }

    fn unbound(&self, id: ObjectId) {
        let mut tables = self.tables.lock();
        let node = if id.0 >= FIRST { tables.by_id.take(&id) } else { None };
        if let Some(Numbered(node)) = &node
            && tables.by_object.get(&node.object).is_some_and(|other| other.0.id == id)
        {
            tables.by_object.remove(&node.object);
        }
        drop(tables);
        let mut open = self.open.lock();
        let (closed, kept) = std::mem::take(&mut *open).into_iter().partition(|(open, _)| *open == id);
        *open = kept;
        drop(open);
        // Outside of both: with its last descriptor a file without a name goes, and a large one takes its time.
        let closed: VecDeque<_> = closed;
        drop((node, closed));
    }

    fn renamed(&self, id: ObjectId, from: Option<(ObjectId, &Bytes)>, to: Option<(ObjectId, &Bytes)>) {
        if let Ok(node) = self.get(id) {
            node.moved(from, to);
        }
    }
}
