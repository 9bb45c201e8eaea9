//! Keeps what only this copy holds, before that of the other node takes its place: what was marked as different, as it
//! is now.
//!
//! An archive is a directory named by the lineage: `data/N/PATH` the content of files below directory
//! N of the module, `entries.jsonl` one [`Entry`] a line, `manifest.json` the [`Manifest`], written last. While
//! it is made its name ends in `.new`; what was broken off is removed when the next one is made. All of an archive is
//! durable when [`keep`] returns.
//!
//! Small files are kept whole, large ones by the ranges that were marked, at their places in a file with holes.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::archive::{Attributes, Entry, Manifest, Text, UNFINISHED, VERSION, What};
use safe_replication::object::Kind;
use safe_replication::tree::Entry as Found;

use crate::backing::{Backing, Root, open_name};
use crate::resync::link::Located;
use crate::resync::local;
use place::Place;
use wanted::{Ranges, Wanted};

mod content;
mod place;
mod wanted;

/// Larger files are kept by ranges, where the ranges are known.
const LARGE: u64 = 64 << 20;

/// What an archive is of.
#[derive(Debug, Clone)]
pub struct Order {
    /// Lineage under which this copy went on alone.
    pub lineage: u128,
    /// Module, this node, the other one.
    pub names: [String; 3],
    /// Seconds since 1970, for people.
    pub at: i64,
    /// Bytes that all archives of the module may take.
    pub limit: u64,
}

/// Why nothing is kept.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It takes more than may be used.
    #[error("it takes {needs}, {left} may be used ({bound})")]
    Room {
        /// How much it takes, for people.
        needs: String,
        /// How much may be taken, for people.
        left: String,
        /// What sets the bound.
        bound: String,
    },
    /// Nobody wants it any more.
    #[error("it was broken off")]
    Cancelled,
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

impl Refused {
    fn at(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |errno| Self::Io(what, errno.into())
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = path.display().to_string();
        move |error| Self::Io(what, error)
    }
}

/// Keeps everything that `known` names, in `directory`. None: there is nothing.
///
/// # Errors
/// See [`Refused`]; then there is no archive.
pub fn keep(
    backing: &Backing,
    known: Vec<Located>,
    directory: &Path,
    order: &Order,
    cancel: &AtomicBool,
) -> Result<Option<Manifest>, Refused> {
    let name = format!("{:032x}", order.lineage);
    let (whole, part) = (directory.join(&name), directory.join(format!("{name}{UNFINISHED}")));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(Refused::io(directory))?;
    remove_unfinished(directory)?;
    let wanted = wanted::of(known);
    let mut measure = Keeper::new(backing, cancel, None);
    measure.all(&wanted)?;
    if measure.count.entries == 0 {
        return Ok(None);
    }
    place::must_fit(directory, &name, measure.count.bytes, order.limit)?;
    let outcome = write(backing, &wanted, &part, order, cancel);
    if outcome.is_err() {
        // What stays behind is removed before the next one.
        drop(fs::remove_dir_all(&part));
    }
    let manifest = outcome?;
    if whole.exists() {
        fs::remove_dir_all(&whole).map_err(Refused::io(&whole))?;
    }
    fs::rename(&part, &whole).map_err(Refused::io(&whole))?;
    place::sync(directory)?;
    Ok(Some(manifest))
}

fn remove_unfinished(directory: &Path) -> Result<(), Refused> {
    for entry in fs::read_dir(directory).map_err(Refused::io(directory))? {
        let path = entry.map_err(Refused::io(directory))?.path();
        if path.to_string_lossy().ends_with(UNFINISHED) {
            fs::remove_dir_all(&path).map_err(Refused::io(&path))?;
        }
    }
    Ok(())
}

fn write(
    backing: &Backing,
    wanted: &wanted::All,
    part: &Path,
    order: &Order,
    cancel: &AtomicBool,
) -> Result<Manifest, Refused> {
    let place = Place::make(part)?;
    let mut keeper = Keeper::new(backing, cancel, Some(place));
    keeper.all(wanted)?;
    let Count { files, bytes, removed, entries } = keeper.count;
    let [module, node, peer] = order.names.clone();
    let directories =
        backing.roots.iter().map(|root| Text(root.path.as_os_str().as_bytes().to_vec())).collect();
    let (version, at) = (VERSION, order.at);
    let manifest = Manifest { version, module, node, peer, at, files, bytes, removed, entries, directories };
    if let Some(place) = keeper.place {
        place.finish(&manifest)?;
    }
    Ok(manifest)
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    files: u64,
    bytes: u64,
    removed: u64,
    entries: u64,
}

/// Something that was found, and the directory that has it, open.
struct Spot<'a> {
    root: &'a Root,
    directory: BorrowedFd<'a>,
    /// From the root; empty: the root itself.
    path: &'a [Bytes],
}

impl Spot<'_> {
    fn name(&self) -> &[u8] {
        self.path.last().map_or(&[], |name| name)
    }

    fn failed(&self) -> impl FnOnce(Errno) -> Refused {
        Refused::at(local::display(self.root, self.path))
    }

    fn xattrs(&self) -> Result<Vec<(Text, Text)>, Refused> {
        if self.path.is_empty() {
            return Ok(Vec::new());
        }
        let found = open_name(self.directory, self.name(), OFlags::PATH).map_err(self.failed())?;
        let xattrs = local::xattrs(found.as_fd()).map_err(self.failed())?;
        Ok(xattrs.into_iter().map(|(name, value)| (Text(name.to_vec()), Text(value.to_vec()))).collect())
    }
}

/// Goes through what is wanted; without a place it only counts.
struct Keeper<'a> {
    backing: &'a Backing,
    cancel: &'a AtomicBool,
    place: Option<Place>,
    count: Count,
    /// Files with several names: where the first one was kept.
    linked: HashMap<(u16, u64), Vec<Bytes>>,
}

impl<'a> Keeper<'a> {
    fn new(backing: &'a Backing, cancel: &'a AtomicBool, place: Option<Place>) -> Self {
        Self { backing, cancel, place, count: Count::default(), linked: HashMap::new() }
    }

    fn all(&mut self, wanted: &wanted::All) -> Result<(), Refused> {
        let backing = self.backing;
        for root in backing.roots.iter() {
            if wanted.everything {
                self.below(root, &[])?;
                continue;
            }
            for (path, what) in wanted.of_root(root.index) {
                self.one(root, path, what)?;
            }
        }
        Ok(())
    }

    /// What a path stands for.
    fn one(&mut self, root: &Root, path: &[Bytes], wanted: &Wanted) -> Result<(), Refused> {
        let failed = |errno| Refused::at(local::display(root, path))(errno);
        let Some((name, above)) = path.split_last() else {
            let own = local::own_entry(root.directory.as_fd()).map_err(failed)?;
            return self.found(&Spot { root, directory: root.directory.as_fd(), path }, &own, wanted);
        };
        if root.excludes(above, name) {
            return Ok(());
        }
        let directory = root.open_directory(above).map_err(failed)?;
        if let Some(directory) = &directory
            && let Some(found) = local::entry(directory.as_fd(), name).map_err(failed)?
        {
            return self.found(&Spot { root, directory: directory.as_fd(), path }, &found, wanted);
        }
        if wanted.name { self.removed(root, path) } else { Ok(()) }
    }

    /// Everything below a directory.
    fn below(&mut self, root: &Root, path: &[Bytes]) -> Result<(), Refused> {
        let failed = |errno| Refused::at(local::display(root, path))(errno);
        let Some(directory) = root.open_directory(path).map_err(failed)? else { return Ok(()) };
        for name in local::names(directory.as_fd()).map_err(failed)? {
            if root.excludes(path, &name) {
                continue;
            }
            let found = match local::entry(directory.as_fd(), &name) {
                Ok(Some(found)) => found,
                // What is mounted there is not of this module.
                Ok(None) | Err(Errno::XDEV) => continue,
                Err(errno) => return Err(failed(errno)),
            };
            let path = &[path, &[name]].concat();
            self.found(&Spot { root, directory: directory.as_fd(), path }, &found, &Wanted::ALL)?;
        }
        Ok(())
    }

    fn found(&mut self, spot: &Spot<'_>, found: &Found, wanted: &Wanted) -> Result<(), Refused> {
        match found.kind {
            Kind::Directory => {
                self.note(spot, found, What::Attributes)?;
                if wanted.deep { self.below(spot.root, spot.path) } else { Ok(()) }
            }
            Kind::File if wanted.name => self.file(spot, found, &Ranges::Whole),
            Kind::File if !wanted.ranges.is_empty() => self.file(spot, found, &wanted.ranges),
            Kind::File | Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {
                self.note(spot, found, What::Attributes)
            }
        }
    }

    fn file(&mut self, spot: &Spot<'_>, found: &Found, ranges: &Ranges) -> Result<(), Refused> {
        let (root, path) = (spot.root, spot.path);
        let ranges = if found.size <= LARGE { &Ranges::Whole } else { ranges };
        if found.links > 1 {
            if let Some(first) = self.linked.get(&(root.index, found.inode)) {
                if let Some(place) = &self.place {
                    place.link(root, first, path)?;
                }
                return self.note(spot, found, what(ranges, found.size));
            }
            self.linked.insert((root.index, found.inode), path.to_vec());
        }
        let (source, _) = local::open_file(spot.directory, spot.name()).map_err(spot.failed())?;
        self.count.bytes += content::size(&source, ranges, found.size)?;
        self.count.files += 1;
        if let Some(place) = &self.place {
            let target = place.create(root, path)?;
            content::copy(&source, &target, ranges, found.size, self.cancel)?;
        }
        self.note(spot, found, what(ranges, found.size))
    }

    fn removed(&mut self, root: &Root, path: &[Bytes]) -> Result<(), Refused> {
        self.count.removed += 1;
        let (directory, path) = (root.index, Text(local::join(path)));
        self.line(|| Ok(Entry { directory, path, what: What::Removed, attributes: None }))
    }

    fn note(&mut self, spot: &Spot<'_>, found: &Found, what: What) -> Result<(), Refused> {
        self.line(|| {
            let xattrs = if found.xattrs == [0; 16] { Vec::new() } else { spot.xattrs()? };
            let attributes = Some(Attributes::of(found, xattrs));
            let (directory, path) = (spot.root.index, Text(local::join(spot.path)));
            Ok(Entry { directory, path, what, attributes })
        })
    }

    fn line(&mut self, entry: impl FnOnce() -> Result<Entry, Refused>) -> Result<(), Refused> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Refused::Cancelled);
        }
        self.count.entries += 1;
        match &mut self.place {
            Some(place) => place.line(&entry()?),
            None => Ok(()),
        }
    }
}

fn what(ranges: &Ranges, size: u64) -> What {
    match ranges {
        Ranges::Whole => What::Content,
        Ranges::Some(_) => What::Ranges(ranges.within(size).map(|range| [range.start, range.end]).collect()),
    }
}

/// What is to be told when an archive was made; empty: there was nothing for one.
#[must_use]
pub fn sentence(kept: Option<&Manifest>, module: &str) -> String {
    let Some(Manifest { files, bytes, removed, .. }) = kept else {
        return String::new();
    };
    let gone =
        if *removed == 0 { String::new() } else { format!(", and {removed} names that it had removed") };
    let bytes = human(*bytes);
    format!(
        "kept what only this copy held: {files} files, {bytes}{gone}; see: safectl conflicts list {module}"
    )
}

/// Bytes for people.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "bytes");
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        (tenths, whole, unit) = (whole % 1024 * 10 / 1024, whole / 1024, next);
    }
    if unit == "bytes" || whole >= 100 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenths} {unit}")
    }
}
