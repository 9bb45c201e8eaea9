//! The heartbeat sockets: one per lan, bound to the node's address on it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Network control: switches keep these when they must drop something.
const CLASS: u32 = 0xc0;
/// Bytes of datagrams that may wait while the process is suspended.
const BUFFER: usize = 512 * 1024;

/// Binds a socket. The address may be set so that a replicator of an earlier agent still holds a duplicate of its
/// socket: the newest socket gets the datagrams. With `later` the address need not be on the machine yet.
///
/// # Errors
/// The address is not on this machine (unless `later`), or another program has the port.
pub fn bind(address: SocketAddr, later: bool) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    free(&socket, address.ip(), later)?;
    match address.ip() {
        IpAddr::V4(_) => socket.set_tos_v4(CLASS)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(CLASS)?;
        }
    }
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Lets a socket bind to an address that is not on the machine (yet): an interface may come up later.
pub(crate) fn free(socket: &Socket, address: IpAddr, later: bool) -> std::io::Result<()> {
    match address {
        IpAddr::V4(_) => socket.set_freebind_v4(later),
        IpAddr::V6(_) => socket.set_freebind_v6(later),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_socket_gets_the_datagrams() {
        let first = bind("127.77.1.1:0".parse().unwrap(), false).unwrap();
        let address = first.local_addr().unwrap();
        let second = bind(address, false).unwrap();
        let sender = UdpSocket::bind("127.77.1.2:0").unwrap();
        sender.send_to(b"beat", address).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(second.recv(&mut buffer).unwrap(), 4);
        assert!(first.recv(&mut buffer).is_err());
    }

    #[test]
    fn an_address_that_is_not_here_is_noticed_or_awaited() {
        let absent = "203.0.113.7:9401".parse().unwrap();
        assert!(bind(absent, false).is_err());
        assert!(bind(absent, true).is_ok());
    }
}
