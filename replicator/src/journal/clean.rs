//! A note that the process ended with nothing in flight: the next one knows what was in flight, namely nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const MAGIC: &[u8; 8] = b"safedcln";

/// Leave the note, for this lineage (zero: none). Everything must be on disk; durable when this returns.
///
/// # Errors
/// The directory cannot be written; then there is no note, which costs a full compare.
pub fn write(directory: &Path, lineage: u128) -> io::Result<()> {
    let new = directory.join("clean.new");
    drop(fs::remove_file(&new));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&lineage.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, directory.join("clean"))?;
    File::open(directory)?.sync_all()
}

/// Take the note away, durably, before anything can be in flight again. None: there was none, or it is not valid.
///
/// # Errors
/// It cannot be removed: going on would leave a lie behind.
pub fn take(directory: &Path) -> io::Result<Option<u128>> {
    let path = directory.join("clean");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    fs::remove_file(&path)?;
    File::open(directory)?.sync_all()?;
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Option<u128> {
    let bytes: &[u8; 28] = bytes.try_into().ok()?;
    let crc = u32::from_le_bytes(bytes[24..].try_into().ok()?);
    (&bytes[..8] == MAGIC && crc == crc32fast::hash(&bytes[..24]))
        .then(|| bytes[8..24].try_into().map(u128::from_le_bytes).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_read_once() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(take(directory.path()).expect("absent"), None);
        write(directory.path(), 42).expect("write");
        assert_eq!(take(directory.path()).expect("there"), Some(42));
        assert_eq!(take(directory.path()).expect("gone"), None);
        fs::write(directory.path().join("clean"), "anything").expect("write");
        assert_eq!(take(directory.path()).expect("not valid"), None);
    }
}
