//! The target's side: answers to questions, from its backing files.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rayon::prelude::*;
use rustix::fs::OFlags;
use rustix::io::Errno;
use safe_replication::diff::whole;
use safe_replication::dirty::DirtySet;
use safe_replication::op::ObjectId;
use safe_replication::tree::Entry;

use super::link::{Answer, DIGEST_LIMIT, DigestOf, Digests, LIST_LIMIT, Located, Query};
use super::located::{LOCATED_LIMIT, export};
use super::{local, room};
use crate::backing::Backing;
use crate::linux::handle::magic_path;
use crate::untouched::Untouched;

/// Listings that are kept between the pages of a directory.
const LISTINGS: usize = 16;

/// What the answers are taken from.
pub trait Target: Sync {
    /// The directories.
    fn backing(&self) -> &Backing;

    /// A bound object, opened only to name it.
    ///
    /// # Errors
    /// `ESTALE`: the id means nothing here, or the object is gone.
    fn path(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno>;

    /// What this node knows to be in flight.
    fn in_flight(&self) -> DirtySet;

    /// The copy is as good as it was, and whether it may be changed is asked first.
    fn untouched(&self) -> Option<&Untouched> {
        None
    }
}

/// Answers questions of one session.
#[derive(Debug, Default)]
pub struct Answerer {
    // Newest last. A page continues the listing of the page before it, so that a directory is read once.
    listings: Mutex<VecDeque<(ObjectId, Arc<Vec<Bytes>>)>>,
    in_flight: Mutex<Option<Arc<Vec<Located>>>>,
}

impl Answerer {
    /// The answer, or the errno to refuse with.
    ///
    /// # Errors
    /// `EINVAL` for a question that breaks its bounds; else what the filesystem says.
    pub fn answer(&self, target: &dyn Target, query: &Query) -> Result<Answer, Errno> {
        match query {
            Query::List { dir, after, limit } => self.list(target, *dir, after, *limit),
            Query::Entries { dir, names } => {
                if names.len() > LIST_LIMIT {
                    return Err(Errno::INVAL);
                }
                entries(target, *dir, names).map(|entries| Answer::Entries { entries, end: true })
            }
            Query::Own { id } => {
                let entry = local::own_entry(target.path(*id)?.as_fd())?;
                Ok(Answer::Entries { entries: vec![entry], end: true })
            }
            Query::Digests(of) => {
                let blocks: u64 = of.iter().map(|of| u64::from(of.count)).sum();
                if of.len() > DIGEST_LIMIT || blocks > DIGEST_LIMIT as u64 {
                    return Err(Errno::INVAL);
                }
                // One by one where there is one: its blocks are hashed side by side anyway.
                of.par_iter().map(|of| digests(target, of)).collect::<Result<_, _>>().map(Answer::Digests)
            }
            Query::Xattrs { id } => local::xattrs(target.path(*id)?.as_fd()).map(Answer::Xattrs),
            Query::InFlight { after } => Ok(self.in_flight(target, *after)),
            Query::Room { most, least } => room::answer(target, most, least),
        }
    }

    fn list(&self, target: &dyn Target, dir: ObjectId, after: &Bytes, limit: u32) -> Result<Answer, Errno> {
        let limit = usize::try_from(limit).unwrap_or(0);
        if limit == 0 || limit > LIST_LIMIT {
            return Err(Errno::INVAL);
        }
        let listing = self.listing(target, dir, !after.is_empty())?;
        let from = listing.partition_point(|name| name <= after);
        let from = if after.is_empty() { 0 } else { from };
        let until = (from + limit).min(listing.len());
        let end = until == listing.len();
        let entries = entries(target, dir, &listing[from..until])?;
        // Everything on the page may be gone: an empty page that is not the end would look like one.
        if entries.is_empty() && !end {
            return self.list(target, dir, &listing[until - 1], u32::try_from(limit).unwrap_or(1));
        }
        Ok(Answer::Entries { entries, end })
    }

    /// The sorted names; a page that continues takes the listing of the one before it: what was made since is not in
    /// it, and what was removed since is left out when its entry is read.
    fn listing(&self, target: &dyn Target, dir: ObjectId, continues: bool) -> Result<Arc<Vec<Bytes>>, Errno> {
        let mut listings = self.listings.lock();
        if let Some(at) = listings.iter().position(|(id, _)| *id == dir)
            && let Some(found) = listings.remove(at)
            && continues
        {
            listings.push_back(found.clone());
            return Ok(found.1);
        }
        drop(listings);
        let listing = Arc::new(local::names(target.path(dir)?.as_fd())?);
        let mut listings = self.listings.lock();
        if listings.len() >= LISTINGS {
            listings.pop_front();
        }
        listings.push_back((dir, listing.clone()));
        Ok(listing)
    }

    fn in_flight(&self, target: &dyn Target, after: u64) -> Answer {
        let mut kept = self.in_flight.lock();
        if after == 0 {
            *kept = None;
        }
        let known = kept.get_or_insert_with(|| Arc::new(export(&target.in_flight(), target.backing())));
        let from = usize::try_from(after).unwrap_or(usize::MAX).min(known.len());
        let until = (from + LOCATED_LIMIT).min(known.len());
        let (known, end) = (known[from..until].to_vec(), until == known.len());
        if end {
            *kept = None;
        }
        Answer::InFlight { known, end }
    }
}

fn entries(target: &dyn Target, dir: ObjectId, names: &[Bytes]) -> Result<Vec<Entry>, Errno> {
    let dir = target.path(dir)?;
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) || matches!(&name[..], b"." | b"..") {
            return Err(Errno::INVAL);
        }
        entries.extend(local::entry(dir.as_fd(), name)?);
    }
    Ok(entries)
}

fn digests(target: &dyn Target, of: &DigestOf) -> Result<Digests, Errno> {
    let path = target.path(of.dir)?;
    let opened = if of.name.is_empty() {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Through the magic link: the object itself, whatever its name is now.
        local::size_of(path.as_fd()).and_then(|size| {
            Ok((rustix::fs::open(magic_path(path.as_fd()), flags, rustix::fs::Mode::empty())?, size))
        })
    } else {
        local::open_file(path.as_fd(), &of.name)
    };
    let (file, size) = match opened {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::INVAL | Errno::LOOP) => return Ok(Digests::default()),
        Err(errno) => return Err(errno),
    };
    let mut blocks = local::digests(file.as_fd(), size, of.first, u64::from(of.count))?;
    if of.whole {
        blocks = vec![whole(&blocks)];
    }
    Ok(Digests { size: Some(size), blocks })
}
