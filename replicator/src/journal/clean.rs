//! A note that the process ended with nothing in flight: the next one knows what was in flight, namely nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const MAGIC: &[u8; 8] = b"safedcln";
/// Magic, lineage, checksum.
const LEN: usize = 28;

/// Leave the note, for this lineage (zero: none). Everything must be on disk; durable when this returns.
///
/// # Errors
/// The directory cannot be written; then there is no note, which costs a full compare.
pub fn write(directory: &Path, lineage: u128) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&lineage.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    put(directory, &bytes)
}

/// In the space that an earlier note left, so that it can be left on a full disk; one that is torn is not valid.
fn put(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join("clean"))?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// Take the note away, durably, before anything can be in flight again, and keep its space. None: there was none, or it is
/// not valid.
///
/// # Errors
/// It cannot be taken away: going on would leave a lie behind.
pub fn take(directory: &Path) -> io::Result<Option<u128>> {
    let path = directory.join("clean");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let note = decode(&bytes);
    if put(directory, &[0; LEN]).is_err() {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => File::open(directory)?.sync_all()?,
        }
    }
    Ok(note)
}

fn decode(bytes: &[u8]) -> Option<u128> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
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
