//! Descriptors to and from the agent: the socket fds.sock.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recvmsg, sendmsg, socket_with,
};
use rustix::time::Timespec;
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::legacy::inherited::Inherited;

/// Agents at one time: the last one, and those before it that have not noticed their end.
const CONNECTIONS: usize = 4;

/// The listening side.
pub struct Listener(OwnedFd);

/// What an agent keeps for the next process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The FUSE device of the directory with this index.
    Device(u16),
    /// That directory, below the mount.
    Directory(u16),
    /// A file without a name, by its number.
    File(u64),
}

impl Kept {
    /// Its words.
    fn packet(self) -> Vec<u8> {
        let (kind, number): (u8, Vec<u8>) = match self {
            Self::Device(index) => (b'F', index.to_le_bytes().into()),
            Self::Directory(index) => (b'D', index.to_le_bytes().into()),
            Self::File(id) => (b'P', id.to_le_bytes().into()),
        };
        [vec![kind], number].concat()
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let (kind, number) = packet.split_first()?;
        Some(match kind {
            b'F' => Self::Device(u16::from_le_bytes(number.try_into().ok()?)),
            b'D' => Self::Directory(u16::from_le_bytes(number.try_into().ok()?)),
            b'P' => Self::File(u64::from_le_bytes(number.try_into().ok()?)),
            _ => return None,
        })
    }
}

/// An agent that reads nothing for this long keeps nothing.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What goes to the agent.
#[derive(Debug, Default)]
pub struct Outbox(Mutex<Option<Arc<OwnedFd>>>);

impl Outbox {
    /// Sends a descriptor for safekeeping, if an agent is there; without one, what was sent before is not needed any
    /// more.
    pub fn send(&self, kept: Kept, descriptor: Option<&OwnedFd>) {
        let Some(agent) = self.0.lock().clone() else { return };
        let packet = kept.packet();
        for _ in 0..2 {
            match send_now(&agent, &packet, descriptor) {
                Err(Errno::AGAIN) => {
                    let mut polled = [PollFd::new(&*agent, PollFlags::OUT)];
                    // What counts is whether the next attempt succeeds.
                    let _ready = poll(&mut polled, Some(&PATIENCE));
                }
                Err(error) => return tracing::warn!(%error, ?kept, "the agent does not take a descriptor"),
                Ok(()) => return,
            }
        }
        tracing::warn!(?kept, "the agent does not take a descriptor in time");
    }
}

fn send_now(agent: &OwnedFd, packet: &[u8], descriptor: Option<&OwnedFd>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor.as_fd()]);
    if let Some(descriptors) = &descriptors {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(agent, &[IoSlice::new(packet)], &mut control, flags).map(drop)
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// As bind(2).
    pub fn bind(path: &Path) -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&listener, &SocketAddrUnix::new(path)?)?;
        listen(&listener, 8)?;
        Ok(Self(listener))
    }

    /// Takes what comes, for ever; `greet` is called for each agent that comes.
    pub fn serve(
        &self,
        outbox: &Outbox,
        inherited: &Inherited,
        arrivals: &mpsc::Sender<TcpStream>,
        agent: &Agent,
        greet: impl Fn(),
    ) {
        let mut connections: Vec<Arc<OwnedFd>> = Vec::new();
        loop {
            let ready = match self.wait(&connections) {
                Ok(ready) => ready,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for descriptors");
                    return;
                }
            };
            let mut kept = Vec::new();
            for (connection, readable) in connections.into_iter().zip(&ready[1..]) {
                if !readable || take(&connection, agent, inherited, arrivals) {
                    kept.push(connection);
                }
            }
            connections = kept;
            if ready[0]
                && let Ok(connection) = accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
            {
                let connection = Arc::new(connection);
                *outbox.0.lock() = Some(Arc::clone(&connection));
                connections.push(connection);
                greet();
                if connections.len() > CONNECTIONS {
                    connections.remove(0);
                }
            }
        }
    }

    fn wait(&self, connections: &[Arc<OwnedFd>]) -> Result<Vec<bool>, Errno> {
        let mut polled: Vec<PollFd<'_>> = std::iter::once(self.0.as_fd())
            .chain(connections.iter().map(|connection| connection.as_fd()))
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        poll(&mut polled, Some(&Timespec { tv_sec: 60, tv_nsec: 0 }))?;
        Ok(polled.iter().map(|one| !one.revents().is_empty()).collect())
    }
}

/// Takes one packet; false: the connection has ended.
fn take(
    connection: &OwnedFd,
    agent: &Agent,
    inherited: &Inherited,
    arrivals: &mpsc::Sender<TcpStream>,
) -> bool {
    let mut data = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut data)];
    let received = match recvmsg(connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(received) => received.bytes,
        // Reset: it ended without having read everything, which says nothing of what it sent before.
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNRESET) => return true,
        Err(_) => return false,
    };
    if received == 0 {
        return false;
    }
    // Whatever is not expected is closed by being dropped.
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        RecvAncillaryMessage::ScmCredentials(_) | _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut list| list.next());
    match (&data[..received], descriptor) {
        ([b'S'], Some(descriptor)) => arrived(TcpStream::from(descriptor), arrivals),
        ([b'H', lan], Some(descriptor)) => agent.set_socket(*lan, UdpSocket::from(descriptor)),
        (packet, Some(descriptor)) if Kept::parse(packet).is_some() => {
            if let Some(kept) = Kept::parse(packet) {
                inherited.add(kept, descriptor);
            }
        }
        (packet, _) => tracing::warn!(?packet, "an unknown packet from the agent"),
    }
    true
}

fn arrived(socket: TcpStream, arrivals: &mpsc::Sender<TcpStream>) {
    if let Err(error) = socket.set_nonblocking(true) {
        tracing::warn!(%error, "a connection of the other node is not usable");
        return;
    }
    // More than a few mean that no session is expected; the other node tries again.
    if arrivals.try_send(socket).is_err() {
        tracing::debug!("a connection of the other node that nobody waits for was closed");
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::{SendFlags, send, socketpair};

    use super::*;

    #[test]
    fn what_an_agent_sent_before_it_died_is_taken() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, agents) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("sockets");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        send_now(&agents, b"S", Some(&OwnedFd::from(stream))).expect("sent");
        // It never reads what it is greeted with.
        send(&ours, b"D", SendFlags::NOSIGNAL).expect("greeted");
        drop(agents);
        let (arrivals, mut arrived) = mpsc::channel(1);
        let (agent, inherited) = (Agent::new(), Inherited::default());
        let taken = (0..3).take_while(|_| take(&ours, &agent, &inherited, &arrivals)).count();
        assert!(taken < 3, "its end is noticed");
        assert!(arrived.try_recv().is_ok(), "the connection was taken");
    }
}
