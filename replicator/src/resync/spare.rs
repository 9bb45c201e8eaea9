//! Large files that lose their last name on the target: kept until the end of the resync, because a file that was renamed
//! while its source went on alone is there under another name. What such a file has is copied on the target itself; then
//! it is compared like anything else, so that taking the wrong one costs time and nothing more.

use std::os::fd::BorrowedFd;

use bytes::Bytes;
use parking_lot::Mutex;
use safe_replication::diff::{BLOCK, blocks_of};
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op, Timestamp};
use safe_replication::tree::Entry;

use super::content::INLINE;
use super::link::{DigestOf, Failure};
use super::{Resync, Step, Trouble, local};

/// Most that are kept: each is open on the target.
const MOST: usize = 256;

/// Those of about the same size that are looked at.
const LOOKED_AT: usize = 4;

/// Blocks that are compared to find out whether a file is alike.
const SAMPLES: u64 = 8;

/// Copied in one operation: a few hundred milliseconds on a slow disk.
const PIECE: u64 = 32 << 20;

/// A file of the target without a name.
#[derive(Debug, Clone, Copy)]
struct Spare {
    id: ObjectId,
    size: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Vec<Spare>>);

impl Spares {
    /// Those whose size is next to this one.
    fn near(&self, size: u64) -> Vec<Spare> {
        let mut all = self.0.lock().clone();
        all.sort_by_key(|spare| spare.size.abs_diff(size));
        all.truncate(LOOKED_AT);
        all
    }
}

impl Resync<'_> {
    /// The id under which a file that only the target has is kept when its name is removed; none: it is not worth it.
    pub(super) fn spare(&self, parent: ObjectId, target: &Entry) -> Step<ObjectId> {
        let worth_it = target.kind == Kind::File && target.links == 1 && target.size > INLINE;
        if !worth_it || self.spares.0.lock().len() >= MOST {
            return Ok(ObjectId::NONE);
        }
        let id = self.link.adopt(parent, &target.name, Kind::File)?;
        self.spares.0.lock().push(Spare { id, size: target.size });
        Ok(id)
    }

    /// Nothing of them is needed any more: the target has their space back.
    pub(super) fn drop_spares(&self) -> Step<()> {
        let spares = std::mem::take(&mut *self.spares.0.lock());
        if spares.is_empty() {
            return Ok(());
        }
        Ok(self.link.submit(spares.iter().map(|spare| Op::Unbind { id: spare.id }).collect())?)
    }

    /// Fills a file of the target, all of which is to be compared yet, with what a kept one has in the same places.
    pub(super) fn fill_from_spare(
        &self,
        file: BorrowedFd<'_>,
        size: u64,
        id: ObjectId,
        time: Timestamp,
    ) -> Step<()> {
        if size <= INLINE {
            return Ok(());
        }
        let Some(spare) = self.alike(file, size)? else { return Ok(()) };
        tracing::debug!(
            size,
            kept = spare.size,
            "a file is copied on the target from one that lost its name"
        );
        let failed = |errno| Trouble::local("content", errno);
        let end = size.min(spare.size);
        let mut at = 0;
        while let Some(data) = local::next_data(file, at).map_err(failed)?.filter(|data| *data < end) {
            self.pass(0)?;
            let hole = local::next_hole(file, data).map_err(failed)?.min(end);
            let length = (hole - data).min(PIECE);
            let (source, offset) = (spare.id, data);
            let copy = Op::Copy { source, source_offset: data, id, offset, length, time, mode: None };
            match self.link.submit(vec![copy]) {
                Ok(()) => {}
                // No space, perhaps: it is sent, then, and the kept ones are in the way.
                Err(Failure::Refused(errno)) => {
                    tracing::info!(errno, "the target cannot copy: the file is sent");
                    return self.drop_spares();
                }
                Err(lost @ Failure::Lost(_)) => return Err(lost.into()),
            }
            // A file that shrinks can end before its own data.
            at = (data + length).max(data + 1);
        }
        Ok(())
    }

    /// One that has the same in at least half of a few places.
    fn alike(&self, file: BorrowedFd<'_>, size: u64) -> Step<Option<Spare>> {
        let near = self.spares.near(size);
        if near.is_empty() {
            return Ok(None);
        }
        let blocks = blocks_of(size);
        let places: Vec<u64> = (0..SAMPLES).map(|sample| sample * blocks / SAMPLES).collect();
        let one = |id: ObjectId, first: u64| DigestOf {
            dir: id,
            name: Bytes::new(),
            first,
            count: 1,
            whole: false,
        };
        let of = near.iter().flat_map(|spare| places.iter().map(|first| one(spare.id, *first))).collect();
        let ours = || {
            places.iter().map(|first| local::digests(file, size, *first, 1)).collect::<Result<Vec<_>, _>>()
        };
        let (ours, theirs) = self.both_digests(of, ours)?;
        let ours = ours.map_err(|errno| Trouble::local("content", errno))?;
        let same = |theirs: &[super::link::Digests]| {
            ours.iter().zip(theirs).filter(|(ours, theirs)| **ours == theirs.blocks).count()
        };
        let best = near.iter().zip(theirs.chunks(places.len())).max_by_key(|(_, theirs)| same(theirs));
        Ok(best.filter(|(_, theirs)| same(theirs) * 2 >= places.len()).map(|(spare, _)| *spare))
    }
}

const _: () = assert!(PIECE.is_multiple_of(BLOCK), "whole blocks");
