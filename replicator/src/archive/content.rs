//! Content of a file, into the archive.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::io::Errno;

use super::wanted::Ranges;
use super::{Refused, place};
use crate::backing::Root;
use crate::resync::local;

/// Bytes copied before it is looked whether it is still wanted.
const STEP: u64 = 8 << 20;

pub(super) fn open(root: &Root, path: &[Bytes]) -> Result<OwnedFd, Refused> {
    let failed = |errno| Refused::at(local::display(root, path))(errno);
    let (name, above) = path.split_last().ok_or(Errno::ISDIR).map_err(failed)?;
    let directory = place::descend(root, above).map_err(failed)?.ok_or(Errno::NOENT).map_err(failed)?;
    local::open_file(directory.as_fd(), name).map(|(file, _)| file).map_err(failed)
}

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
            at += piece(source, target, at, (to - at).min(STEP)).map_err(Refused::at("the archive"))?;
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

/// Some bytes; how many. The filesystem shares them where it can.
fn piece(source: &OwnedFd, target: &OwnedFd, at: u64, length: u64) -> Result<u64, Errno> {
    let (mut from, mut to) = (at, at);
    let step = usize::try_from(length).unwrap_or(usize::MAX);
    match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), step) {
        // It became shorter, which nobody does while it is archived.
        Ok(0) => return Err(Errno::STALE),
        Ok(count) => return Ok(count as u64),
        Err(Errno::INTR) => return Ok(0),
        Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
        Err(errno) => return Err(errno),
    }
    let mut buffer = Vec::new();
    local::read_full(source.as_fd(), at, step.min(1 << 20), &mut buffer)?;
    let mut done = 0;
    while done < buffer.len() {
        done += rustix::io::pwrite(target, &buffer[done..], at + done as u64)?;
    }
    if done == 0 { Err(Errno::STALE) } else { Ok(done as u64) }
}
