//! What differs, or may differ, between this copy and the peer's.
//!
//! A mark is made before the change it is about, under the same keys, and taken by the resync under the same keys.
//! The set is bounded: byte ranges become whole files, names become whole directories, and at last everything is
//! marked. It may say too much, never too little.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use crate::extent::ExtentSet;
pub use crate::object::{Kind, Object};

/// One thing that changes on this copy and not, or not surely, on the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Content or size of a file: bytes from `offset`, `len` of them; `u64::MAX - offset` reaches to its end, wherever
    /// that is (truncate). Includes its times.
    Data {
        /// The file.
        object: Object,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Mode, owner, times, extended attributes, ACLs.
    Meta {
        /// The object.
        object: Object,
    },
    /// What a name of a directory stands for. Includes the directory's times.
    Name {
        /// The directory.
        dir: Object,
        /// The name.
        name: Box<[u8]>,
        /// A directory is, was or will be behind the name: everything below is to be compared too.
        deep: bool,
    },
    /// Every name of a directory, as if each were marked.
    Names {
        /// The directory.
        dir: Object,
        /// As in [`Change::Name`].
        deep: bool,
    },
    /// Everything below a directory, and itself.
    Tree {
        /// The directory.
        dir: Object,
    },
    /// Everything below every replicated directory.
    Everything,
    /// Where an object can be found; no difference by itself, kept only with an object that has marks.
    Place {
        /// The object, not a directory.
        object: Object,
        /// A directory that holds it.
        dir: Object,
        /// Its name there.
        name: Box<[u8]>,
    },
}

impl Change {
    /// The mark for content that starts at `offset` and has no end.
    #[must_use]
    pub const fn data_from(object: Object, offset: u64) -> Self {
        Self::Data { object, offset, len: u64::MAX - offset }
    }

    /// The object that the mark is kept with; none for [`Change::Everything`].
    #[must_use]
    pub const fn object(&self) -> Option<&Object> {
        match self {
            Self::Data { object, .. } | Self::Meta { object } | Self::Place { object, .. } => Some(object),
            Self::Name { dir, .. } | Self::Names { dir, .. } | Self::Tree { dir } => Some(dir),
            Self::Everything => None,
        }
    }
}

/// Where an object can be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// A directory that holds it.
    pub dir: Object,
    /// Its name there.
    pub name: Box<[u8]>,
}

/// Which names of a directory are marked; the flag of each is `deep` of [`Change::Name`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// These.
    Some(BTreeMap<Box<[u8]>, bool>),
    /// All.
    All {
        /// As in [`Change::Name`].
        deep: bool,
    },
}

impl Names {
    fn len(&self) -> usize {
        match self {
            Self::Some(names) => names.len(),
            Self::All { .. } => 0,
        }
    }

    fn is_deep(&self) -> bool {
        match self {
            Self::Some(names) => names.values().any(|deep| *deep),
            Self::All { deep } => *deep,
        }
    }
}

/// Everything marked about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Content, of a file.
    pub data: ExtentSet,
    /// Attributes.
    pub meta: bool,
    /// Names, of a directory.
    pub names: Names,
    /// Everything below, of a directory.
    pub tree: bool,
    /// Where it was seen last, of anything but a directory.
    pub place: Option<Place>,
}

impl Marks {
    const fn new() -> Self {
        Self {
            data: ExtentSet::new(),
            meta: false,
            names: Names::Some(BTreeMap::new()),
            tree: false,
            place: None,
        }
    }

    fn has_names(&self) -> bool {
        self.tree || !matches!(&self.names, Names::Some(names) if names.is_empty())
    }

    fn is_clean(&self) -> bool {
        self.data.is_empty() && !self.meta && !self.has_names()
    }
}

/// Bounds of a set. Beyond them marks become coarser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Objects with marks.
    pub objects: usize,
    /// Names, in all directories.
    pub names: usize,
    /// Byte ranges of one file.
    pub extents_of_one: usize,
    /// Byte ranges of all files.
    pub extents: usize,
}

impl Limits {
    /// About 100 MiB at the most.
    pub const DEFAULT: Self =
        Self { objects: 200_000, names: 300_000, extents_of_one: 4096, extents: 500_000 };
}

/// Granularity of marks on content: writes smaller than a page are rounded out to it.
pub const GRAIN: u64 = 4096;

/// The set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtySet {
    everything: bool,
    // Invariant: no value is clean.
    objects: BTreeMap<Object, Marks>,
    limits: Limits,
    grain: u64,
    // How many of each there are in `objects`.
    names: usize,
    extents: usize,
    // Directories with marks.
    with_names: usize,
    // Objects whose marks became coarser than what was marked, if anyone wants to know.
    coarsened: Option<BTreeSet<Object>>,
}

impl Default for DirtySet {
    fn default() -> Self {
        Self::with_limits(Limits::DEFAULT, GRAIN)
    }
}

impl DirtySet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The empty set with other bounds; `grain` is a power of two.
    #[must_use]
    pub const fn with_limits(limits: Limits, grain: u64) -> Self {
        Self {
            everything: false,
            objects: BTreeMap::new(),
            limits,
            grain,
            names: 0,
            extents: 0,
            with_names: 0,
            coarsened: None,
        }
    }

    /// Remember from now on which objects' marks became coarser than what was marked.
    pub fn track_coarsening(&mut self) {
        self.coarsened = Some(BTreeSet::new());
    }

    /// The objects whose marks became coarser than what was marked since the last call. (Everything: see
    /// [`Self::is_everything`].)
    pub fn take_coarsened(&mut self) -> BTreeSet<Object> {
        self.coarsened.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The marks of one object, as changes.
    #[must_use]
    pub fn changes_of(&self, object: &Object) -> Vec<Change> {
        self.objects.get(object).map(|marks| changes_of(object, marks)).unwrap_or_default()
    }

    fn note_coarser(&mut self, object: &Object) {
        if let Some(coarsened) = &mut self.coarsened {
            coarsened.insert(object.clone());
        }
    }

    /// Nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.everything && self.objects.is_empty()
    }

    /// Directories may differ: their names, or attributes that what is made in them inherits. Not only content and
    /// attributes of files that both copies have under the same names. While this holds, every object counts as dirty:
    /// an object cannot be addressed on the peer by its name.
    #[must_use]
    pub const fn has_names(&self) -> bool {
        self.everything || self.with_names > 0
    }

    /// Everything is marked.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.everything
    }

    /// Number of objects with marks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Number of files whose content is marked.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.objects.values().filter(|marks| !marks.data.is_empty()).count() as u64
    }

    /// Bytes of content that are marked; marks without end count up to what `size` says of the file.
    pub fn bytes(&self, mut size: impl FnMut(&Object) -> u64) -> u64 {
        let marked = self.objects.iter().filter(|(_, marks)| !marks.data.is_empty());
        marked.map(|(object, marks)| marks.data.bytes(size(object))).sum()
    }

    /// Add a mark. True if the set says more than before. A [`Change::Place`] of an object without marks is ignored.
    pub fn mark(&mut self, change: &Change) -> bool {
        if self.everything {
            return false;
        }
        let Some(object) = change.object() else {
            self.mark_everything();
            return true;
        };
        if matches!(change, Change::Place { .. }) && !self.objects.contains_key(object) {
            return false;
        }
        let changed = self.update(object, |marks, grain| apply(marks, change, grain));
        self.keep_within_limits(object);
        changed
    }

    /// The change is marked already, as finely as it would be.
    #[must_use]
    pub fn says(&self, change: &Change) -> bool {
        if self.everything {
            return true;
        }
        let Some(marks) = change.object().and_then(|object| self.objects.get(object)) else { return false };
        match change {
            Change::Data { offset, len, .. } => {
                marks.meta && marks.data.contains(&(*offset..offset.saturating_add(*len)))
            }
            Change::Meta { .. } => marks.meta,
            Change::Name { name, deep, .. } => match &marks.names {
                Names::All { deep: known } => *known || !deep,
                Names::Some(names) => names.get(name).is_some_and(|known| *known || !deep),
            },
            Change::Names { deep, .. } => match marks.names {
                Names::All { deep: known } => known || !deep,
                Names::Some(_) => false,
            },
            Change::Tree { .. } => marks.tree,
            Change::Place { dir, name, .. } => {
                marks.place.as_ref().is_some_and(|place| place.dir == *dir && place.name == *name)
            }
            Change::Everything => false,
        }
    }

    /// What may differ if only the first mark of each object, and of each kind of change in a directory, is sure to be in
    /// the set: a file with any mark is marked wholly, and of a directory with a name all names.
    #[must_use]
    pub fn wholly(&self) -> Self {
        let mut whole = Self::with_limits(self.limits, self.grain);
        whole.everything = self.everything;
        for (object, marks) in &self.objects {
            let mut changes = vec![Change::Meta { object: object.clone() }];
            if marks.has_names() && object.kind.is_directory() {
                changes.push(Change::Names { dir: object.clone(), deep: marks.names.is_deep() });
            }
            if marks.tree {
                changes.push(Change::Tree { dir: object.clone() });
            }
            if !object.kind.is_directory() {
                changes.push(Change::data_from(object.clone(), 0));
            }
            if let Some(Place { dir, name }) = marks.place.clone() {
                changes.push(Change::Place { object: object.clone(), dir, name });
            }
            for change in &changes {
                whole.mark(change);
            }
        }
        whole
    }

    /// Mark everything; nothing finer is kept.
    pub fn mark_everything(&mut self) {
        let coarsened = self.coarsened.take().map(|_| BTreeSet::new());
        *self = Self { everything: true, coarsened, ..Self::with_limits(self.limits, self.grain) };
    }

    /// Add all marks of another set.
    pub fn merge(&mut self, other: &Self) {
        if other.everything {
            return self.mark_everything();
        }
        for change in other.changes() {
            self.mark(&change);
        }
    }

    /// The change would be on something that already differs, or cannot be addressed on the peer.
    #[must_use]
    pub fn is_dirty(&self, change: &Change) -> bool {
        match change {
            Change::Data { object, offset, len } => {
                self.is_dirty_data(object, *offset..offset.saturating_add(*len))
            }
            Change::Meta { object } => self.is_dirty_meta(object),
            Change::Name { .. } | Change::Names { .. } | Change::Tree { .. } | Change::Everything => {
                self.has_names()
            }
            Change::Place { .. } => false,
        }
    }

    /// Some byte of the range is marked.
    #[must_use]
    pub fn is_dirty_data(&self, object: &Object, range: Range<u64>) -> bool {
        self.has_names() || self.objects.get(object).is_some_and(|marks| marks.data.intersects(&range))
    }

    /// The attributes are marked.
    #[must_use]
    pub fn is_dirty_meta(&self, object: &Object) -> bool {
        self.has_names() || self.objects.get(object).is_some_and(|marks| marks.meta)
    }

    /// A name in the directory may differ. (Any marked name makes all count as dirty, see [`Self::has_names`].)
    #[must_use]
    pub fn is_dirty_names(&self, _dir: &Object) -> bool {
        self.has_names()
    }

    /// The marks of one object.
    #[must_use]
    pub fn get(&self, object: &Object) -> Option<&Marks> {
        self.objects.get(object)
    }

    /// The first object after `after`, in the order of work, with its marks.
    pub fn next(&self, after: Option<&Object>) -> Option<(&Object, &Marks)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.objects.range::<Object, _>((from, Unbounded)).next()
    }

    /// Unmark content.
    pub fn clear_data(&mut self, object: &Object, range: &Range<u64>) {
        self.update(object, |marks, _| {
            marks.data.remove(range);
            true
        });
    }

    /// Unmark attributes.
    pub fn clear_meta(&mut self, object: &Object) {
        self.update(object, |marks, _| {
            marks.meta = false;
            true
        });
    }

    /// Forget all marks of an object that no longer exists.
    pub fn forget(&mut self, object: &Object) {
        self.update(object, |marks, _| {
            *marks = Marks::new();
            true
        });
    }

    /// Take all marks of directories, and of everything, out as a set of their own; what stays are content and attributes
    /// of files.
    #[must_use]
    pub fn take_names(&mut self) -> Self {
        let mut taken = Self::with_limits(self.limits, self.grain);
        taken.everything = std::mem::take(&mut self.everything);
        if self.with_names == 0 {
            return taken;
        }
        let directories: Vec<Object> = self.directories().map(|(object, _)| object.clone()).collect();
        for dir in directories {
            let mut all = Marks::new();
            self.update(&dir, |marks, _| {
                std::mem::swap(&mut all, marks);
                true
            });
            taken.update(&dir, |marks, _| {
                *marks = all;
                true
            });
        }
        taken
    }

    /// What the last name stands for may differ by a mark on any of the names that lead to it, each with the directory
    /// that has it, from the root downwards.
    #[must_use]
    pub fn covers(&self, names: &[(Object, Bytes)]) -> bool {
        let covered = |(at, (dir, name)): (usize, &(Object, Bytes))| {
            let last = at + 1 == names.len();
            self.objects.get(dir).is_some_and(|marks| {
                marks.tree
                    || match &marks.names {
                        Names::All { deep } => last || *deep,
                        Names::Some(some) => some.get(&name[..]).is_some_and(|deep| last || *deep),
                    }
            })
        };
        self.everything || names.iter().enumerate().any(covered)
    }

    /// The directories with marks, in order.
    pub fn directories(&self) -> impl Iterator<Item = (&Object, &Marks)> {
        self.objects.iter().filter(|(object, _)| object.kind.is_directory())
    }

    /// The set as changes: marking them all in an empty set gives an equal one.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        let everything = self.everything.then_some(Change::Everything);
        everything
            .into_iter()
            .chain(self.objects.iter().flat_map(|(object, marks)| changes_of(object, marks)))
    }

    /// Change the marks of one object and keep the counts and the invariant.
    fn update(&mut self, object: &Object, change: impl FnOnce(&mut Marks, u64) -> bool) -> bool {
        let mut marks = self.objects.remove(object).unwrap_or(const { Marks::new() });
        self.names -= marks.names.len();
        self.extents -= marks.data.len();
        // Only what was there counts: a new entry is clean until `change`.
        self.with_names -= usize::from(object.kind.is_directory() && !marks.is_clean());
        let changed = change(&mut marks, self.grain);
        if marks.is_clean() {
            return changed;
        }
        if marks.data.len() > self.limits.extents_of_one {
            // To half the bound, so that the next small write does not coarsen again.
            marks.data.coarsen(self.limits.extents_of_one / 2);
            self.note_coarser(object);
        }
        self.names += marks.names.len();
        self.extents += marks.data.len();
        self.with_names += usize::from(object.kind.is_directory());
        self.objects.insert(object.clone(), marks);
        changed
    }

    fn keep_within_limits(&mut self, last: &Object) {
        if self.names > self.limits.names {
            self.coarsen_names(last);
        }
        if self.extents > self.limits.extents {
            self.coarsen_extents();
        }
        if self.objects.len() > self.limits.objects {
            // Where a file was seen may not be one of its names any more, so its directory cannot stand for it.
            self.mark_everything();
        }
    }

    /// The directory that has most names marked (or the last one) is marked as a whole.
    fn coarsen_names(&mut self, last: &Object) {
        let most = self.objects.iter().max_by_key(|(_, marks)| marks.names.len());
        let dir = most.map_or_else(|| last.clone(), |(object, _)| object.clone());
        self.note_coarser(&dir);
        self.update(&dir, |marks, _| {
            marks.names = Names::All { deep: marks.names.is_deep() };
            true
        });
    }

    fn coarsen_extents(&mut self) {
        let each = (self.limits.extents / 2 / self.objects.len().max(1)).max(1);
        let files: Vec<Object> = self
            .objects
            .iter()
            .filter(|(_, marks)| marks.data.len() > each)
            .map(|(o, _)| o.clone())
            .collect();
        for file in files {
            self.note_coarser(&file);
            self.update(&file, |marks, _| {
                marks.data.coarsen(each);
                true
            });
        }
    }
}

/// Put one change into the marks of its object. True if they say more than before.
fn apply(marks: &mut Marks, change: &Change, grain: u64) -> bool {
    match change {
        Change::Data { offset, len, .. } => {
            let start = offset & !(grain - 1);
            let end = offset.saturating_add(*len).checked_next_multiple_of(grain).unwrap_or(u64::MAX);
            let meta = std::mem::replace(&mut marks.meta, true);
            marks.data.insert(start..end) | !meta
        }
        Change::Meta { .. } => !std::mem::replace(&mut marks.meta, true),
        Change::Name { name, deep, .. } => {
            let meta = std::mem::replace(&mut marks.meta, true);
            apply_name(&mut marks.names, name, *deep) | !meta
        }
        Change::Names { deep, .. } => {
            let all = Names::All { deep: marks.names.is_deep() || *deep };
            let meta = std::mem::replace(&mut marks.meta, true);
            let before = std::mem::replace(&mut marks.names, all);
            before != marks.names || !meta
        }
        Change::Tree { .. } => {
            let meta = std::mem::replace(&mut marks.meta, true);
            !std::mem::replace(&mut marks.tree, true) | !meta
        }
        Change::Place { dir, name, .. } => {
            let place = Some(Place { dir: dir.clone(), name: name.clone() });
            let before = std::mem::replace(&mut marks.place, place);
            before != marks.place
        }
        Change::Everything => false,
    }
}

fn apply_name(names: &mut Names, name: &[u8], deep: bool) -> bool {
    match names {
        Names::All { deep: known } => !std::mem::replace(known, *known || deep) && deep,
        Names::Some(names) => match names.get_mut(name) {
            Some(known) => !std::mem::replace(known, *known || deep) && deep,
            None => names.insert(name.into(), deep).is_none(),
        },
    }
}

fn changes_of(object: &Object, marks: &Marks) -> Vec<Change> {
    let mut changes = Vec::new();
    if marks.meta {
        changes.push(Change::Meta { object: object.clone() });
    }
    changes.extend(marks.data.iter().map(|range| Change::Data {
        object: object.clone(),
        offset: range.start,
        len: range.end - range.start,
    }));
    match &marks.names {
        Names::Some(names) => changes.extend(names.iter().map(|(name, deep)| Change::Name {
            dir: object.clone(),
            name: name.clone(),
            deep: *deep,
        })),
        Names::All { deep } => changes.push(Change::Names { dir: object.clone(), deep: *deep }),
    }
    if marks.tree {
        changes.push(Change::Tree { dir: object.clone() });
    }
    if let Some(place) = &marks.place {
        let (dir, name) = (place.dir.clone(), place.name.clone());
        changes.push(Change::Place { object: object.clone(), dir, name });
    }
    changes
}

#[cfg(test)]
mod tests;
