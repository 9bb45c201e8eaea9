//! Mounts over a directory, and takes the mount away again.

use std::io::BufRead as _;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Type of our mounts in /proc/self/mountinfo.
pub const TYPE: &str = "fuse.safed";

/// One line of /proc/self/mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLine {
    /// Number of the mount.
    pub id: u64,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Filesystem type.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Minor number of the device: the number of a FUSE connection.
    pub minor: u64,
}

/// All mounts that this process sees, in order: of two at one path the later one is on top.
///
/// # Errors
/// /proc cannot be read.
pub fn mounts() -> std::io::Result<Vec<MountLine>> {
    let file = std::io::BufReader::new(std::fs::File::open("/proc/self/mountinfo")?);
    let mut result = Vec::new();
    for line in file.lines() {
        result.extend(parse(&line?));
    }
    Ok(result)
}

fn parse(line: &str) -> Option<MountLine> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let (_, minor) = left.nth(1)?.split_once(':')?;
    let point = left.nth(1)?;
    let read_only = left.next()?.split(',').any(|option| option == "ro");
    let mut right = right.split(' ');
    Some(MountLine {
        id,
        read_only,
        point: PathBuf::from(unescape(point)),
        kind: right.next()?.to_owned(),
        source: unescape(right.next()?),
        minor: minor.parse().ok()?,
    })
}

/// Undoes the kernel's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        result.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let (Some(code), Some(tail)) = (code, after.get(3..)) {
            result.push(char::from(code));
            rest = tail;
        } else {
            result.push('\\');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

/// Where the kernel shows SELinux, if it is enabled.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// The label of the covered directory, for everything in the mount: without one the policy confines applications to what
/// it allows them on any FUSE filesystem, which is mostly nothing. None: SELinux is not enabled, or it has no label.
fn label(directory: BorrowedFd<'_>) -> Option<String> {
    if !Path::new(SELINUX).exists() {
        return None;
    }
    let value = crate::backing::xattr(directory, b"security.selinux").ok().flatten()?;
    String::from_utf8(value).ok().map(|label| label.trim_end_matches('\0').to_owned())
}

fn options(device: i32, label: Option<&str>) -> String {
    let mut options = format!(
        "fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576"
    );
    // In quotes, for categories are separated by commas. One with a quote in it is none.
    if let Some(label) = label.filter(|label| !label.is_empty() && !label.contains('"')) {
        options.push_str(&format!(",context=\"{label}\""));
    }
    options
}

/// Mounts the device over the directory that `directory` has open, labelled as it where SELinux is enabled.
///
/// # Errors
/// As mount(2).
pub fn mount(device: &OwnedFd, directory: BorrowedFd<'_>, module: &str) -> rustix::io::Result<()> {
    let options = options(device.as_raw_fd(), label(directory).as_deref());
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    // By descriptor, so that it is this very directory whatever the path leads to by now.
    let target = format!("/proc/self/fd/{}", directory.as_raw_fd());
    rustix::mount::mount(
        format!("safed:{module}"),
        target,
        TYPE,
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
}

/// The topmost mount of ours exactly at this path.
///
/// # Errors
/// /proc cannot be read.
pub fn find(path: &Path) -> std::io::Result<Option<MountLine>> {
    Ok(mounts()?.into_iter().rev().find(|line| line.point == path).filter(|line| line.kind == TYPE))
}

/// Unmounts in good order.
///
/// # Errors
/// EBUSY while something uses it.
pub fn unmount(path: &Path) -> rustix::io::Result<()> {
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW)
}

/// Ends the connection: everything still open gets an error, everything waiting returns. Then detaches the mount.
///
/// # Errors
/// As umount2(2).
pub fn abort(path: &Path, connection: Option<u64>) -> rustix::io::Result<()> {
    if let Some(number) = connection {
        abort_connection(number);
    }
    let ours = || is_topmost(path, connection);
    if !ours() {
        return Ok(());
    }
    match rustix::mount::unmount(path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(error) => tracing::debug!(%error, path = %path.display(), "in use, detaching"),
    }
    if !ours() {
        return Ok(());
    }
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What unmounting the path would unmount is a mount of ours with this connection, not what lies below it.
#[must_use]
pub fn is_topmost(path: &Path, connection: Option<u64>) -> bool {
    let found = find(path).ok().flatten();
    found.is_some_and(|line| connection.is_none_or(|connection| connection == line.minor))
}

/// Ends the connection, wherever it is mounted.
pub fn abort_connection(number: u64) {
    // Only there if fusectl is mounted; a forced unmount does the same.
    let file = format!("/sys/fs/fuse/connections/{number}/abort");
    if let Err(error) = std::fs::write(&file, "1") {
        tracing::debug!(%error, file, "no abort through sysfs");
    }
}

/// Detaches left-over mounts of ours at this path whose owner is gone.
///
/// # Errors
/// A mount of ours there is alive: one sentence for people.
pub fn clear_stale(path: &Path) -> Result<(), String> {
    for _ in 0..16 {
        let Some(line) = find(path).map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?
        else {
            return Ok(());
        };
        if alive(path) {
            return Err(format!(
                "{} is mounted by another replicator ({}); stop that module first",
                path.display(),
                line.source
            ));
        }
        tracing::info!(path = %path.display(), source = line.source, "detaching a mount without owner");
        abort(path, Some(line.minor))
            .map_err(|error| format!("cannot detach {}: {error}", path.display()))?;
    }
    Err(format!("{} carries too many left-over mounts; type: umount -l {}", path.display(), path.display()))
}

/// Whether somebody answers requests of the mount. A server that is stuck counts as alive, so ask in a thread.
fn alive(path: &Path) -> bool {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let path = path.to_owned();
    let asked = std::thread::Builder::new().name("mount-probe".into()).spawn(move || {
        let dead = matches!(rustix::fs::statfs(&path), Err(Errno::NOTCONN | Errno::CONNABORTED));
        let _sent = sender.send(!dead);
    });
    asked.is_err() || receiver.recv_timeout(Duration::from_secs(2)).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = r"36 35 0:57 / /srv/my\040data rw,relatime shared:1 - fuse.safed safed:db rw,user_id=0";
        let parsed = parse(line).expect("a line");
        assert_eq!(parsed.point, Path::new("/srv/my data"));
        assert_eq!(
            (parsed.kind.as_str(), parsed.source.as_str(), parsed.minor),
            ("fuse.safed", "safed:db", 57)
        );
    }

    #[test]
    fn the_label_of_the_directory_is_that_of_the_mount() {
        let plain = options(7, None);
        assert!(plain.starts_with("fd=7,") && !plain.contains("context"));
        let label = "system_u:object_r:postgresql_db_t:s0:c1,c2";
        assert_eq!(options(7, Some(label)), format!("{plain},context=\"{label}\""));
        assert_eq!(options(7, Some("no\"label")), plain);
        assert_eq!(options(7, Some("")), plain);
    }

    #[test]
    fn a_line_that_is_none_is_skipped() {
        assert_eq!(parse("36 35 0:57 /"), None);
    }
}
