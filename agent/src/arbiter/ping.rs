//! An ICMP echo, of IPv4 and IPv6 (RFC 792, RFC 4443).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// Bytes by which an answer is known: guessing them is hopeless, so neither identifier nor sequence matter.
const NONCE: usize = 16;
const HEADER: usize = 8;
/// Requests until the time is over: one lost packet is no loss.
const REQUESTS: u32 = 4;

/// Waits for an answer of this address for `patience`, asking several times.
///
/// # Errors
/// No socket, no route, or no answer.
pub(super) async fn ping(ip: IpAddr, patience: Duration) -> io::Result<()> {
    let socket = open(ip)?;
    let nonce = crate::random::bytes::<NONCE>();
    let ask = async {
        let mut sequence = 0_u16;
        loop {
            // What a network says of one request may be different for the next.
            let _sent = socket.send(&request(ip, sequence, &nonce)).await;
            match tokio::time::timeout(patience / REQUESTS, answer(&socket, ip, &nonce)).await {
                Ok(Ok(())) => return,
                Ok(Err(_)) => tokio::time::sleep(patience / REQUESTS).await,
                Err(_) => {}
            }
            sequence = sequence.wrapping_add(1);
        }
    };
    tokio::time::timeout(patience, ask).await.map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer to ping within {} ms", patience.as_millis()),
        )
    })
}

/// A raw socket where that is permitted, as it is to root, else one for pings only.
fn open(ip: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match ip {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let make = |kind: Type| Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol));
    let socket = match make(Type::RAW) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => make(Type::DGRAM)?,
        made => made?,
    };
    socket.connect(&SocketAddr::new(ip, 0).into())?;
    // Only for its reading and writing: what is below is no UDP.
    UdpSocket::from_std(socket.into())
}

fn request(ip: IpAddr, sequence: u16, nonce: &[u8; NONCE]) -> [u8; HEADER + NONCE] {
    let mut packet = [0; HEADER + NONCE];
    packet[0] = if ip.is_ipv4() { 8 } else { 128 };
    packet[4..6].copy_from_slice(&nonce[..2]);
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[HEADER..].copy_from_slice(nonce);
    if ip.is_ipv4() {
        // Of IPv6 the kernel does it.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

async fn answer(socket: &UdpSocket, ip: IpAddr, nonce: &[u8; NONCE]) -> io::Result<()> {
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(ip, &buffer[..length], nonce) {
            return Ok(());
        }
    }
}

/// A raw socket of IPv4 gives the IP header, too; the others do not.
fn is_answer(ip: IpAddr, packet: &[u8], nonce: &[u8; NONCE]) -> bool {
    let start = match packet.first() {
        Some(first) if ip.is_ipv4() && first >> 4 == 4 => usize::from(first & 0x0f) * 4,
        Some(_) | None => 0,
    };
    let echo = if ip.is_ipv4() { 0 } else { 129 };
    packet.get(start..).is_some_and(|icmp| icmp.first() == Some(&echo) && icmp.get(HEADER..) == Some(nonce))
}

/// Of the Internet protocols (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let words =
        packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_standards_want_them() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let nonce = [7; NONCE];
        let packet = request(v4, 3, &nonce);
        assert_eq!((packet[0], packet[7], checksum(&packet)), (8, 3, 0));
        assert_eq!(request(v6, 3, &nonce)[..4], [128, 0, 0, 0]);
        let mut answer = packet.to_vec();
        answer[0] = 0;
        assert!(is_answer(v4, &answer, &nonce));
        assert!(!is_answer(v4, &packet, &nonce), "the request itself");
        assert!(!is_answer(v4, &answer, &[8; NONCE]));
        let with_header: Vec<u8> = [0x45].into_iter().chain([0; 19]).chain(answer).collect();
        assert!(is_answer(v4, &with_header, &nonce));
        assert!(!is_answer(v4, &[0x4f], &nonce) && !is_answer(v6, &[], &nonce));
    }

    #[tokio::test]
    async fn this_machine_answers() {
        for ip in ["127.0.0.1", "::1"] {
            ping(ip.parse().unwrap(), Duration::from_secs(5)).await.unwrap();
        }
    }
}
