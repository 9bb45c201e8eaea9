//! Archives of what this node's copy alone held when the other node's took its place: listed, shown, restored,
//! discarded. They are made by the replicator; the format is [`safe_replication::archive`].

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use safe_replication::archive::{ENTRIES, Entry, MANIFEST, Manifest, UNFINISHED};

mod restore;

pub use restore::{Restored, restore};

/// Shortest beginning of an id that names it.
const SHORTEST: usize = 4;

/// One archive.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its id: the lineage, 32 hexadecimal digits.
    pub id: String,
    /// What it holds.
    pub manifest: Manifest,
    path: PathBuf,
}

/// All archives in a directory, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<Archive>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if id.ends_with(UNFINISHED) {
            continue;
        }
        let manifest = fs::read(path.join(MANIFEST)).ok().and_then(|text| Manifest::parse(&text));
        if let Some(manifest) = manifest {
            found.push(Archive { id, manifest, path });
        }
    }
    found.sort_by(|a, b| (a.manifest.at, &a.id).cmp(&(b.manifest.at, &b.id)));
    Ok(found)
}

/// The one whose id begins so.
///
/// # Errors
/// None does, or several do: a sentence for people.
pub fn find(directory: &Path, id: &str) -> Result<Archive, String> {
    let plain = id.len() >= SHORTEST && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !plain {
        return Err(format!("an id has at least {SHORTEST} hexadecimal digits"));
    }
    let id = id.to_lowercase();
    let all = list(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut named = all.into_iter().filter(|archive| archive.id.starts_with(&id));
    match (named.next(), named.next()) {
        (Some(archive), None) => Ok(archive),
        (Some(_), Some(_)) => Err(format!("several ids begin with {id}: type more of it")),
        (None, _) => Err(format!("no archive has the id {id}")),
    }
}

/// Entries from the one with this number on (the first is 0), at most `limit`; whether there are more.
///
/// # Errors
/// The archive is damaged.
pub fn entries(archive: &Archive, from: u64, limit: usize) -> io::Result<(Vec<Entry>, bool)> {
    let mut found = Vec::new();
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    for entry in lines(archive)?.skip(from) {
        if found.len() == limit {
            return Ok((found, true));
        }
        found.push(entry?);
    }
    Ok((found, false))
}

/// Removes an archive for good.
///
/// # Errors
/// It cannot be removed.
pub fn discard(archive: &Archive) -> io::Result<()> {
    // What is left of one that was being removed is no archive any more.
    fs::remove_file(archive.path.join(MANIFEST))?;
    fs::remove_dir_all(&archive.path)
}

fn lines(archive: &Archive) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
    let file = File::open(archive.path.join(ENTRIES))?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the list of the archive is damaged");
    Ok(BufReader::new(file).lines().map(move |line| Entry::parse(&line?).ok_or_else(damaged)))
}

#[cfg(test)]
mod tests;
