//! Content of a file, into the archive.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Refused;
use super::wanted::Ranges;
use crate::carry;
use crate::resync::local;

/// Bytes copied before it is looked whether it is still wanted.
const STEP: u64 = 8 << 20;

/// Bytes that the copy of the ranges takes: holes take none.
pub(super) fn size(source: &OwnedFd, ranges: &Ranges, size: u64) -> Result<u64, Refused> {
    let mut total = 0;
    pieces(source, ranges, size, |from, to| {
        total += to - from;
        Ok(())
    })?;
    Ok(total)
}

/// Copies the ranges to their places; the file gets the size of the source.
pub(super) fn copy(
    source: &OwnedFd,
    target: &OwnedFd,
    ranges: &Ranges,
    size: u64,
    cancel: &AtomicBool,
) -> Result<(), Refused> {
    let failed = Refused::at("the archive");
    rustix::fs::ftruncate(target, size).map_err(failed)?;
    pieces(source, ranges, size, |from, to| {
        let mut at = from;
        while at < to {
            if cancel.load(Ordering::Relaxed) {
                return Err(Refused::Cancelled);
            }
            let step = (to - at).min(STEP);
            carry::copy(source, at, target, at, step).map_err(Refused::at("the archive"))?;
            at += step;
        }
        Ok(())
    })
}

/// Calls for each part of the ranges that is no hole.
fn pieces(
    source: &OwnedFd,
    ranges: &Ranges,
    size: u64,
    mut each: impl FnMut(u64, u64) -> Result<(), Refused>,
) -> Result<(), Refused> {
    for range in ranges.within(size) {
        let mut at = range.start;
        while at < range.end {
            let next = local::next_data(source.as_fd(), at).map_err(Refused::at("a file of this copy"))?;
            let Some(from) = next.filter(|from| *from < range.end) else { break };
            let hole = local::next_hole(source.as_fd(), from).map_err(Refused::at("a file of this copy"))?;
            let to = hole.min(range.end);
            each(from, to)?;
            at = to;
        }
    }
    Ok(())
}
