//! Large files that lose their last name on the target: kept until the end of the resync, because a file that was renamed
//! while its source went on alone is there under another name. What such a file has is copied on the target itself; then
//! it is compared like anything else, so that taking the wrong one costs time and nothing more.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use safe_replication::diff::{BLOCK, Digest, blocks_of};
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op, Timestamp};
use safe_replication::tree::Entry;

use super::content::INLINE;
use super::link::{DigestOf, Digests, Failure};
use super::{Resync, Step, Trouble, local};

/// Most that are kept, the largest: each is open on the target.
const MOST: usize = 256;

/// Those of about the same size that are looked at.
const LOOKED_AT: usize = 4;

/// Blocks that are compared to find out whether a file is alike.
const SAMPLES: u64 = 16;

/// Copied in one operation, between which the application is let go first.
const PIECE: u64 = 8 << 20;

/// A file of the target that is losing its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub(super) id: ObjectId,
    size: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spares {
    allowed: AtomicBool,
    kept: Mutex<Vec<Spare>>,
}

impl Spares {
    /// Whether any are kept: not where the target's copy may serve while it is brought in step, and is not to be worse for
    /// a while than it was.
    pub(super) fn allow(&self, allowed: bool) {
        self.allowed.store(allowed, Ordering::Relaxed);
    }

    /// Those whose size is next to this one.
    fn near(&self, size: u64) -> Vec<Spare> {
        let mut all = self.kept.lock().clone();
        all.sort_by_key(|spare| spare.size.abs_diff(size));
        all.truncate(LOOKED_AT);
        all
    }

    /// Keeps the largest; answers which are not kept after all.
    fn keep(&self, new: Vec<Spare>) -> Vec<Spare> {
        let mut kept = self.kept.lock();
        kept.extend(new);
        kept.sort_by_key(|spare| std::cmp::Reverse(spare.size));
        let most = MOST.min(kept.len());
        kept.split_off(most)
    }
}

impl Resync<'_> {
    /// A file that only the target has, if it is worth keeping when its name is removed.
    pub(super) fn spare(&self, parent: ObjectId, target: &Entry) -> Step<Option<Spare>> {
        let worth_it = target.kind == Kind::File && target.links == 1 && target.size > INLINE;
        if !worth_it || !self.spares.allowed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let id = self.link.adopt(parent, &target.name, Kind::File)?;
        Ok(Some(Spare { id, size: target.size }))
    }

    /// Their names are removed; or may not be, then they are none.
    pub(super) fn keep(&self, spares: Vec<Spare>, removed: bool) -> Step<()> {
        let given_up = if removed { self.spares.keep(spares) } else { spares };
        self.give_up(&given_up)
    }

    /// Some are kept.
    pub(super) fn has_spares(&self) -> bool {
        !self.spares.kept.lock().is_empty()
    }

    /// Nothing of them is needed any more: the target has their space back.
    pub(super) fn drop_spares(&self) -> Step<()> {
        let spares = std::mem::take(&mut *self.spares.kept.lock());
        self.give_up(&spares)
    }

    /// As soon as names are equal it is known whether any file is to be sent as a whole.
    pub(super) fn drop_spares_unless_wanted(&self) -> Step<()> {
        if !self.has_spares() {
            return Ok(());
        }
        let mut last = None;
        while let Some((object, marks)) = self.knowledge.next(last.as_ref()) {
            if marks.data.iter().next() == Some(0..u64::MAX) {
                return Ok(());
            }
            last = Some(object);
        }
        self.drop_spares()
    }

    fn give_up(&self, spares: &[Spare]) -> Step<()> {
        for spare in spares {
            match self.link.submit(vec![Op::Unbind { id: spare.id }]) {
                Ok(()) | Err(Failure::Refused(_)) => {}
                Err(lost @ Failure::Lost(_)) => return Err(lost.into()),
            }
        }
        Ok(())
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
        let Some(spare) = self.alike(file, size, id)? else { return Ok(()) };
        tracing::debug!(
            size,
            kept = spare.size,
            "a file is copied on the target from one that lost its name"
        );
        let failed = |errno| Trouble::local("content", errno);
        let (mut at, end) = (0, size.min(spare.size));
        loop {
            self.pass(0)?;
            self.sync_sometimes()?;
            let Some(data) = local::next_data(file, at).map_err(failed)?.filter(|data| *data < end) else {
                return Ok(());
            };
            let hole = local::next_hole(file, data).map_err(failed)?.min(end);
            let length = hole.saturating_sub(data).min(PIECE);
            // A file can lose its own data in between.
            at = data + length.max(1);
            if length == 0 {
                continue;
            }
            let (source, offset) = (spare.id, data);
            let copy = Op::Copy { source, source_offset: data, id, offset, length, time, mode: None };
            match self.link.submit(vec![copy]) {
                Ok(()) => self.unsynced.fetch_add(length, Ordering::Relaxed),
                // It is sent, then.
                Err(Failure::Refused(errno)) => {
                    tracing::info!(errno, "the target cannot copy from a file that lost its name");
                    let full = matches!(Errno::from_raw_os_error(errno), Errno::NOSPC | Errno::DQUOT);
                    return if full { self.drop_spares() } else { Ok(()) };
                }
                Err(lost @ Failure::Lost(_)) => return Err(lost.into()),
            };
        }
    }

    /// One that has the same in most of a few places, and in more of them than the file itself. Nothing is no likeness.
    fn alike(&self, file: BorrowedFd<'_>, size: u64, id: ObjectId) -> Step<Option<Spare>> {
        let near = self.spares.near(size);
        if near.is_empty() {
            return Ok(None);
        }
        let blocks = blocks_of(size);
        let mut places = Vec::new();
        for sample in 0..SAMPLES {
            let first = sample * blocks / SAMPLES;
            if local::next_data(file, first * BLOCK)
                .map_err(|errno| Trouble::local("content", errno))?
                .is_some_and(|data| data < (first + 1) * BLOCK)
            {
                places.push(first);
            }
        }
        let ask = |id: ObjectId, first: u64| DigestOf {
            dir: id,
            name: Bytes::new(),
            first,
            count: 1,
            whole: false,
        };
        let ids = near.iter().map(|spare| spare.id).chain([id]);
        let of = ids.flat_map(|id| places.iter().map(move |first| ask(id, *first))).collect();
        let ours = || {
            places.iter().map(|first| local::digests(file, size, *first, 1)).collect::<Result<Vec<_>, _>>()
        };
        let (ours, theirs) = match self.both_digests(of, ours) {
            Ok((Ok(ours), theirs)) => (ours, theirs),
            Err(lost @ Trouble::Lost(_)) => return Err(lost),
            // What cannot be read is not worth reading: it was to be removed.
            Ok((Err(_), _)) | Err(_) => return Ok(None),
        };
        Ok(best(&near, &ours, &theirs))
    }
}

/// `theirs`: as many of each of `near`, then of the file itself, as there are in `ours`.
fn best(near: &[Spare], ours: &[Vec<Digest>], theirs: &[Digests]) -> Option<Spare> {
    if ours.is_empty() {
        return None;
    }
    let zeros = zeros();
    let tells = ours.iter().filter(|ours| ours.first().is_some_and(|digest| *digest != zeros)).count();
    let same = |theirs: &[Digests]| {
        let is_same = |(ours, theirs): &(&Vec<Digest>, &Digests)| {
            **ours == theirs.blocks && ours.first().is_some_and(|digest| *digest != zeros)
        };
        ours.iter().zip(theirs).filter(is_same).count()
    };
    let of_each: Vec<&[Digests]> = theirs.chunks(ours.len()).collect();
    let already = of_each.get(near.len()).map_or(0, |theirs| same(theirs));
    let (spare, theirs) = near.iter().zip(&of_each).max_by_key(|(_, theirs)| same(theirs))?;
    let found = same(theirs);
    // As long as it was when it was read.
    let size = theirs.first().and_then(|theirs| theirs.size).unwrap_or(0);
    (found > already && found * 2 > tells).then_some(Spare { id: spare.id, size })
}

/// The digest of a block of nothing.
fn zeros() -> Digest {
    let block = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
    *blake3::hash(&block).as_bytes()
}

const _: () = assert!(PIECE.is_multiple_of(BLOCK), "whole blocks");
