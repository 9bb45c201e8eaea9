//! Which generation of the marker is the newest one: noted beside the journal, on another disk than the markers. A copy
//! that was put back to an earlier state carries an earlier one, also where its lineage is still the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "generation";
const VERSION: &str = "safed1";

/// A file in the state directory.
#[derive(Debug, Clone)]
pub struct Generation {
    directory: PathBuf,
}

impl Generation {
    /// Of the module whose state is in this directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// What the markers may carry: two while they are being written. Empty: nothing is known of that.
    #[must_use]
    pub fn accepted(&self) -> Vec<u64> {
        let text = fs::read_to_string(self.directory.join(NAME)).unwrap_or_default();
        decode(text.trim_end()).map(Vec::from).unwrap_or_default()
    }

    /// Has markers of the next generation written; until all are, those of the last one count as well.
    ///
    /// # Errors
    /// The generation cannot be noted, then no marker is written; or as `write` fails.
    pub fn advance(&self, write: impl FnOnce(u64) -> Result<(), String>) -> Result<(), String> {
        let last = self.last();
        let next = last + 1;
        let failed = |error: io::Error| format!("the generation of the markers cannot be noted: {error}");
        // Without an earlier note any marker counts: as long as there is one, it does.
        if last != 0 {
            self.note([last, next]).map_err(failed)?;
        }
        write(next)?;
        self.note([next, next]).map_err(failed)
    }

    /// The newest one.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.accepted().into_iter().max().unwrap_or(0)
    }

    fn note(&self, accepted: [u64; 2]) -> io::Result<()> {
        // In its place, so that it can be noted on a full disk; one that is torn says nothing.
        let path = self.directory.join(NAME);
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let line = format!("{}\n", encode(accepted));
        file.write_all(line.as_bytes())?;
        file.set_len(line.len() as u64)?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }
}

fn encode([last, next]: [u64; 2]) -> String {
    let line = format!("{VERSION} {last} {next}");
    format!("{line} {:08x}", crc32fast::hash(line.as_bytes()))
}

fn decode(text: &str) -> Option<[u64; 2]> {
    let (line, crc) = text.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(line.as_bytes()) {
        return None;
    }
    let [version, last, next] = <[&str; 3]>::try_from(line.split(' ').collect::<Vec<_>>()).ok()?;
    (version == VERSION).then_some(())?;
    Some([last.parse().ok()?, next.parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_count_until_all_markers_are_written() {
        let place = tempfile::tempdir().expect("a directory");
        let generation = Generation::of(place.path());
        assert_eq!(generation.accepted(), Vec::<u64>::new());
        generation.advance(|next| (next == 1).then_some(()).ok_or_else(String::new)).expect("noted");
        assert_eq!(generation.accepted(), [1, 1]);
        generation.advance(|_| Err("power is lost".to_owned())).expect_err("not all are written");
        assert_eq!(generation.accepted(), [1, 2]);
        generation.advance(|next| (next == 3).then_some(()).ok_or_else(String::new)).expect("noted");
        assert_eq!(generation.accepted(), [3, 3]);
        fs::write(place.path().join(NAME), "safed1 9 9 00000000\n").expect("write");
        assert_eq!(generation.accepted(), Vec::<u64>::new(), "damage is nothing known");
    }
}
