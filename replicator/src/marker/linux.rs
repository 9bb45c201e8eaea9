//! What tells one filesystem from another, also after a reboot.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The best name that the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filesystem {
    /// Its UUID.
    Uuid(u128),
    /// What statfs(2) says, where that is made of the UUID.
    Statfs(u64),
    /// Nothing that is the same after a reboot.
    Unnamed,
}

impl Filesystem {
    pub(super) fn parts(self) -> (&'static str, u128) {
        match self {
            Self::Uuid(id) => ("uuid", id),
            Self::Statfs(id) => ("statfs", id.into()),
            Self::Unnamed => ("none", 0),
        }
    }

    pub(super) fn from_parts(kind: &str, id: u128) -> Option<Self> {
        match kind {
            "uuid" => Some(Self::Uuid(id)),
            "statfs" => u64::try_from(id).ok().map(Self::Statfs),
            "none" => Some(Self::Unnamed),
            _ => None,
        }
    }

    /// They are surely not the same. Names of two kinds say nothing: the kernel was replaced by one that gives another.
    pub(super) fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Uuid(a), Self::Uuid(b)) => a != b,
            (Self::Statfs(a), Self::Statfs(b)) => a != b,
            (Self::Uuid(_) | Self::Statfs(_) | Self::Unnamed, _) => false,
        }
    }
}

/// Of FS_IOC_GETFSUUID (Linux 6.9).
#[repr(C)]
struct Uuid {
    len: u8,
    uuid: [u8; 16],
}

/// _IOR(0x15, 0, struct fsuuid2)
const GET_UUID: libc::c_ulong = (2 << 30) | (17 << 16) | (0x15 << 8);

const EXT: i64 = 0xef53;
const BTRFS: i64 = 0x9123_683e;

#[expect(unsafe_code, reason = "an ioctl and a C structure that rustix has not")]
pub(super) fn filesystem(file: BorrowedFd<'_>) -> io::Result<Filesystem> {
    let mut uuid = Uuid { len: 0, uuid: [0; 16] };
    // SAFETY: the kernel writes at most the structure, whose size is in the number of the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), GET_UUID, &raw mut uuid) };
    if result == 0 && uuid.len == 16 && uuid.uuid != [0; 16] {
        return Ok(Filesystem::Uuid(u128::from_le_bytes(uuid.uuid)));
    }
    // SAFETY: all zeros is a value of this plain structure, and the kernel fills it.
    let (result, stat) = unsafe {
        let mut stat: libc::statfs64 = std::mem::zeroed();
        (libc::fstatfs64(file.as_raw_fd(), &raw mut stat), stat)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // Elsewhere it is made of the device's number, which can be another after a reboot.
    if stat.f_type != EXT && stat.f_type != BTRFS {
        return Ok(Filesystem::Unnamed);
    }
    // SAFETY: two plain integers; the fields have no names in C's own header either.
    let id: [u32; 2] = unsafe { std::mem::transmute(stat.f_fsid) };
    Ok(Filesystem::Statfs(u64::from(id[0]) << 32 | u64::from(id[1])))
}
