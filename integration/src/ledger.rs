//! A small application to be protected: a ledger that is appended to over HTTP. Only what is on disk is acknowledged.
//!
//! One line an entry: `id TAB content TAB checksum`. A line that a crash tore is at the end and was never
//! acknowledged; it is cut off at start. A bad line anywhere else is damage, and the ledger does not start.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use crate::error::{Context as _, Error, Result};

pub mod client;
mod http;
pub mod protected;
pub mod server;

/// Longest content of an entry.
pub const CONTENT_MAX: usize = 4096;

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    entries: BTreeMap<u64, String>,
}

impl Ledger {
    /// Opens it, or begins it. Answers also how many bytes of a torn line were cut off.
    pub fn open(path: &Path) -> Result<(Self, u64)> {
        let what = || path.display().to_string();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).context(what)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).context(what)?;
        let (entries, good) = parse(&bytes)?;
        let torn = u64::try_from(bytes.len() - good).unwrap_or(u64::MAX);
        if torn > 0 {
            file.set_len(u64::try_from(good).unwrap_or(u64::MAX)).context(what)?;
        }
        // The name of a new ledger, and the cut, are durable before anything is promised.
        file.sync_all().context(what)?;
        if let Some(parent) = path.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).context(what)?;
        }
        Ok((Self { file, entries }, torn))
    }

    /// Appends an entry; it is durable when this returns. The same entry again is fine: its client did not hear.
    pub fn append(&mut self, id: u64, content: &str) -> Result<()> {
        match self.entries.get(&id) {
            Some(old) if old == content => return Ok(()),
            Some(_) => return Err(Error::new(format!("entry {id} has other content"))),
            None => {}
        }
        self.file.write_all(line(id, content).as_bytes()).context(|| "append".to_owned())?;
        self.file.sync_data().context(|| "fsync".to_owned())?;
        self.entries.insert(id, content.to_owned());
        Ok(())
    }

    /// All entries, by id.
    pub fn entries(&self) -> &BTreeMap<u64, String> {
        &self.entries
    }
}

fn line(id: u64, content: &str) -> String {
    let body = format!("{id}\t{content}");
    format!("{body}\t{:08x}\n", crc32fast::hash(body.as_bytes()))
}

/// Entries of the good lines, and where they end.
fn parse(bytes: &[u8]) -> Result<(BTreeMap<u64, String>, usize)> {
    let mut entries = BTreeMap::new();
    let mut end = 0;
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some((id, content)) = parse_line(piece) else {
            if end + piece.len() == bytes.len() {
                break;
            }
            return Err(Error::new(format!("the ledger is damaged at byte {end}")));
        };
        if entries.insert(id, content).is_some() {
            return Err(Error::new(format!("entry {id} is twice in the ledger")));
        }
        end += piece.len();
    }
    Ok((entries, end))
}

fn parse_line(piece: &[u8]) -> Option<(u64, String)> {
    let text = std::str::from_utf8(piece).ok()?.strip_suffix('\n')?;
    let (body, sum) = text.rsplit_once('\t')?;
    let (id, content) = body.split_once('\t')?;
    let good = sum == format!("{:08x}", crc32fast::hash(body.as_bytes()));
    good.then_some((id.parse().ok()?, content.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let (mut ledger, torn) = Ledger::open(&path).unwrap();
        assert_eq!(torn, 0);
        ledger.append(1, "one").unwrap();
        ledger.append(1, "one").unwrap();
        assert!(ledger.append(1, "uno").is_err());
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&line(2, "two").as_bytes()[..5]).unwrap();
        let (mut ledger, torn) = Ledger::open(&path).unwrap();
        assert_eq!(torn, 5);
        ledger.append(2, "two").unwrap();
        let (ledger, torn) = Ledger::open(&path).unwrap();
        assert_eq!((ledger.entries().len(), torn), (2, 0));
    }

    #[test]
    fn damage_in_the_middle_is_not_repaired() {
        let text = format!("{}nonsense\n{}", line(1, "one"), line(2, "two"));
        assert!(parse(text.as_bytes()).is_err());
    }
}
