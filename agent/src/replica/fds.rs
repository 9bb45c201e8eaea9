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

/// One packet.
#[derive(Debug)]
pub(super) struct Packet {
    /// Its words, at least one.
    pub(super) words: Vec<u8>,
    /// The descriptor that came with them.
    pub(super) descriptor: Option<OwnedFd>,
}

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

    /// Receives one packet. An error, or the end, ends the connection. May be cancelled.
    pub(super) async fn receive(&self) -> io::Result<Packet> {
        loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(received) = ready.try_io(|socket| receive_now(socket.as_fd())) {
                return received;
            }
        }
    }

    /// The next packet of those that were sent.
    pub(super) fn receive_now(&self) -> io::Result<Packet> {
        receive_now(self.socket.get_ref().as_fd())
    }
}

fn receive_now(socket: BorrowedFd<'_>) -> io::Result<Packet> {
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
    let descriptor = fds.flatten().next();
    Ok(Packet { words: word[..received.bytes].to_vec(), descriptor })
}
