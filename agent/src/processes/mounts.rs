//! FUSE mounts on a module's directories, from the mount table: no path is touched.

use std::path::{Path, PathBuf};

/// One FUSE mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FuseMount {
    /// Number of the mount.
    pub id: u64,
    /// Number of the connection below `/sys/fs/fuse/connections`.
    pub connection: u64,
    /// Where.
    pub path: PathBuf,
    /// Who mounted it: `safed:MODULE` for a replicator.
    pub source: String,
}

impl FuseMount {
    /// True if the replicator of that module mounted it. Any other FUSE mount is none of ours.
    #[must_use]
    pub fn is_of(&self, module: &str) -> bool {
        self.source.strip_prefix("safed:") == Some(module)
    }
}

/// Type of the replicator's mounts.
const TYPE: &str = "fuse.safed";

/// Mounts of replicators exactly at one of `directories`, topmost last.
#[must_use]
pub fn fuse_mounts_at(directories: &[PathBuf]) -> Vec<FuseMount> {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    table.lines().filter_map(parse).filter(|mount| directories.contains(&mount.path)).collect()
}

/// A line: id parent major:minor root point options … - type source options.
fn parse(line: &str) -> Option<FuseMount> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    if after.next()? != TYPE {
        return None;
    }
    let source = after.next()?.to_owned();
    let mut fields = before.split(' ');
    let id = fields.next()?.parse().ok()?;
    let (_, minor) = fields.nth(1)?.split_once(':')?;
    let path = unescape(fields.nth(1)?);
    Some(FuseMount { id, connection: minor.parse().ok()?, path, source })
}

/// A path of the mount table: blanks and backslashes stand as three octal digits.
#[must_use]
pub fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Ids of mounts, as they stand in `/proc/PID/fdinfo`.
pub(super) fn ids(directories: &[PathBuf]) -> Vec<u64> {
    fuse_mounts_at(directories).iter().map(|mount| mount.id).collect()
}

/// True if `path` is one of the directories or below.
pub(super) fn beneath(directories: &[PathBuf], path: &Path) -> bool {
    directories.iter().any(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table() {
        let line = r"612 29 0:57 / /var/lib/my\040db rw,nosuid shared:3 - fuse.safed safed:db rw,user_id=0";
        let mount = parse(line).unwrap();
        assert!(mount.is_of("db") && !mount.is_of("d"));
        assert_eq!((mount.id, mount.connection, mount.path), (612, 57, PathBuf::from("/var/lib/my db")));
        assert_eq!(parse("612 29 0:57 / /data rw - fuse.sshfs host:/data rw"), None);
        assert_eq!(parse("29 1 8:1 / / rw - ext4 /dev/sda1 rw"), None);
        assert_eq!(parse("30 1 0:40 / /sys/fs/fuse/connections rw - fusectl none rw"), None);
        assert_eq!(parse(""), None);
    }
}
