//! File handles: names of inodes that outlive renames and contain a generation (name_to_handle_at(2)).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::fs::OFlags;
use safe_replication::object::HANDLE_LIMIT;
use safe_replication::short::Short;

const TYPE: usize = 4;
const MOST: usize = HANDLE_LIMIT - TYPE;

/// The kernel's `struct file_handle` with room for the longest handle.
#[repr(C, align(8))]
struct Raw {
    bytes: u32,
    kind: i32,
    handle: [u8; MOST],
}

/// The handle of what is open, in the form of [`safe_replication::object::Object::handle`].
///
/// # Errors
/// `EOPNOTSUPP`: the filesystem has no handles.
#[expect(unsafe_code, reason = "rustix has no name_to_handle_at")]
pub fn handle_of(file: BorrowedFd<'_>) -> io::Result<Short> {
    let mut raw = Raw { bytes: u32::try_from(MOST).unwrap_or(128), kind: 0, handle: [0; MOST] };
    let mut mount: libc::c_int = 0;
    // SAFETY: `raw` has the layout of struct file_handle followed by the number of bytes it says; the empty name with
    // AT_EMPTY_PATH means the descriptor itself.
    let result = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = (raw.bytes as usize).min(MOST);
    let mut handle = Vec::with_capacity(TYPE + length);
    handle.extend_from_slice(&raw.kind.to_le_bytes());
    handle.extend_from_slice(&raw.handle[..length]);
    Ok(handle.into())
}

/// Opens an inode by its handle. `filesystem` is any open file of the same mount.
///
/// # Errors
/// `ESTALE`: there is no such inode any more.
pub fn open_handle(filesystem: BorrowedFd<'_>, handle: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut attempt = 0;
    loop {
        // What some filesystems say while the inode's number is just being given to a new file, which is over at once
        // and then makes the handle stale.
        match open_once(filesystem, handle, flags) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && attempt < 50 => {
                attempt += 1;
                std::thread::sleep(Duration::from_micros(100));
            }
            other => return other,
        }
    }
}

#[expect(unsafe_code, reason = "rustix has no open_by_handle_at")]
fn open_once(filesystem: BorrowedFd<'_>, handle: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let (kind, rest) = handle.split_first_chunk::<TYPE>().ok_or_else(invalid)?;
    if rest.len() > MOST {
        return Err(invalid());
    }
    let mut raw = Raw {
        bytes: u32::try_from(rest.len()).unwrap_or(0),
        kind: i32::from_le_bytes(*kind),
        handle: [0; MOST],
    };
    raw.handle[..rest.len()].copy_from_slice(rest);
    let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
    // SAFETY: `raw` has the layout of struct file_handle followed by the number of bytes it says.
    let result = unsafe { libc::open_by_handle_at(filesystem.as_raw_fd(), (&raw mut raw).cast(), flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call gave this process a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// The path through which an open file of any kind can be named in calls that take only paths.
#[must_use]
pub fn magic_path(file: BorrowedFd<'_>) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn a_handle_survives_a_rename_and_ends_with_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = rustix::fs::open(directory.path(), OFlags::RDONLY, Mode::empty()).expect("open");
        std::fs::write(directory.path().join("a"), "content").expect("write");
        let file =
            rustix::fs::openat(&root, "a", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).expect("open");
        let handle = handle_of(file.as_fd()).expect("handle");
        drop(file);
        std::fs::rename(directory.path().join("a"), directory.path().join("b")).expect("rename");
        let file = open_handle(root.as_fd(), &handle, OFlags::RDONLY).expect("open by handle");
        assert_eq!(rustix::fs::fstat(&file).expect("stat").st_size, 7);
        drop(file);
        std::fs::remove_file(directory.path().join("b")).expect("remove");
        assert_eq!(
            open_handle(root.as_fd(), &handle, OFlags::RDONLY).expect_err("gone").raw_os_error(),
            Some(libc::ESTALE)
        );
    }

    #[test]
    fn a_handle_that_is_no_handle_is_refused() {
        let root = rustix::fs::open("/", OFlags::RDONLY, Mode::empty()).expect("open");
        assert!(open_handle(root.as_fd(), &[1, 2], OFlags::PATH).is_err());
        assert!(open_handle(root.as_fd(), &[0; 200], OFlags::PATH).is_err());
    }
}
