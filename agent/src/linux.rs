//! System calls that no safe wrapper offers.

pub mod precedence;

use std::io;
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

/// Makes the child the leader of a session of its own: signals to the daemon's group do not reach it, and it has no
/// terminal.
pub fn own_session(command: &mut tokio::process::Command) {
    let setsid = || {
        rustix::process::setsid()?;
        Ok::<(), io::Error>(())
    };
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe and allocates nothing.
    #[expect(unsafe_code, reason = "setsid must be called by the child, before exec")]
    unsafe {
        command.pre_exec(setsid);
    }
}

/// Waits for readiness of a descriptor by the runtime.
///
/// # Errors
/// The runtime cannot watch it.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` owns a valid descriptor, and the result never replaces or closes it while it is watched.
    #[expect(unsafe_code, reason = "the caller must promise that the descriptor stays valid")]
    let watched = unsafe { AsyncFd::register(fd) };
    Ok(watched?)
}

/// Aborts the FUSE connection mounted at `path` and detaches the mount; whoever has it open goes on with errors.
///
/// # Errors
/// `INVAL` if nothing is mounted there.
pub fn detach(path: &std::path::Path) -> rustix::io::Result<()> {
    use rustix::mount::UnmountFlags;
    rustix::mount::unmount(path, UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Mounts the directory over itself, read-only: never writable for a moment.
///
/// # Errors
/// As of `open_tree(2)`, `mount_setattr(2)` and `move_mount(2)`.
pub fn cover(path: &std::path::Path) -> rustix::io::Result<()> {
    use rustix::mount::{MoveMountFlags, OpenTreeFlags};
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, path, clone)?;
    // A group of its own: what is mounted above it later reaches other namespaces, but never the directory below it.
    set_attributes(&tree, READ_ONLY, libc::MS_PRIVATE)?;
    set_attributes(&tree, READ_ONLY, libc::MS_SHARED)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, c"", rustix::fs::CWD, path, flags)
}

/// Detaches the topmost mount at `path`; whoever has something of it open may go on reading.
///
/// # Errors
/// `INVAL` if nothing is mounted there.
pub fn uncover(path: &std::path::Path) -> rustix::io::Result<()> {
    use rustix::mount::UnmountFlags;
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// `MOUNT_ATTR_RDONLY`
const READ_ONLY: u64 = 1;

/// `struct mount_attr`, as the kernel defines it.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn set_attributes(tree: &OwnedFd, set: u64, propagation: libc::c_ulong) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let attributes = MountAttributes { set, clear: 0, propagation, user_namespace: 0 };
    // SAFETY: the descriptor and the structure live during the call, whose length says how much of it may be read.
    #[expect(unsafe_code, reason = "no safe wrapper sets the attributes of a mount")]
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attributes),
            size_of::<MountAttributes>(),
        )
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO))
    }
}

/// A kind of link-layer payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtherType {
    /// Address resolution of IPv4.
    Arp,
    /// IPv6.
    Ipv6,
}

/// Sends one packet on an interface, below the IP layer; the kernel makes the Ethernet header.
///
/// # Errors
/// As of `socket(2)` and `sendto(2)`.
pub fn send_packet(interface: u32, kind: EtherType, to: [u8; 6], payload: &[u8]) -> io::Result<()> {
    let protocol: u16 = match kind {
        EtherType::Arp => 0x0806,
        EtherType::Ipv6 => 0x86dd,
    };
    // Protocol 0: the socket is never given a packet to receive.
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), Some(Protocol::from(0)))?;
    socket.send_to(payload, &link_address(interface, protocol, to)?).map(|_| ())
}

/// `AF_PACKET`, in the width of the address.
const FAMILY: libc::sa_family_t = 17;

const _: () = assert!(libc::AF_PACKET == FAMILY as i32, "AF_PACKET is 17");

/// Bytes of a link-layer address, as the kernel defines it.
const LENGTH: libc::socklen_t = 20;

const _: () = assert!(size_of::<libc::sockaddr_ll>() == LENGTH as usize, "sockaddr_ll has 20 bytes");

fn link_address(interface: u32, protocol: u16, to: [u8; 6]) -> io::Result<SockAddr> {
    let index = i32::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: the storage is zeroed, aligned and large enough for any address; exactly a sockaddr_ll is written and
    // its length is returned.
    #[expect(unsafe_code, reason = "no safe wrapper makes a link-layer address")]
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = FAMILY;
            (*link).sll_protocol = protocol.to_be();
            (*link).sll_ifindex = index;
            (*link).sll_halen = 6;
            (&mut (*link).sll_addr)[..6].copy_from_slice(&to);
            *length = LENGTH;
            Ok(())
        })?
    };
    Ok(address)
}
