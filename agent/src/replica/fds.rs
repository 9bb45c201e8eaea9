//! The replicator's socket for descriptors: one packet, one descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::unix::AsyncFd;

/// An open connection.
#[derive(Debug)]
pub(super) struct FdsSocket {
    socket: AsyncFd<OwnedFd>,
}

impl FdsSocket {
    /// Connects to the replicator.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket: crate::linux::watch(socket)? })
    }

    /// Sends one descriptor with its words.
    pub(super) async fn send(&self, words: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            let sent = ready.try_io(|socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds = [fd];
                if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                    return Err(io::Error::other("no room for a descriptor"));
                }
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(words)], &mut control, flags)?)
            });
            if let Ok(sent) = sent {
                return sent.map(|_| ());
            }
        }
    }

    /// Receives one packet: its first word and the descriptor. An error, or the end, ends the connection. May be
    /// cancelled.
    pub(super) async fn receive(&self) -> io::Result<(u8, OwnedFd)> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive_now(socket.as_fd())) {
                Ok(Ok(Some(packet))) => return Ok(packet),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

fn receive_now(socket: BorrowedFd<'_>) -> io::Result<Option<(u8, OwnedFd)>> {
    let mut word = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut word)], &mut control, flags)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let fds = control.drain().filter_map(|message| {
        if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None }
    });
    // More than one would break the contract: those after the first are closed by being dropped.
    let first = fds.flatten().next();
    Ok(first.map(|fd| (word[0], fd)))
}
