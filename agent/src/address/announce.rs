//! Tells the neighbours where an address is now: gratuitous ARP for IPv4, unsolicited advertisement for IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::linux::{EtherType, send_packet};

const BROADCAST: [u8; 6] = [0xff; 6];

/// All IPv6 nodes of the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Sends one round.
///
/// # Errors
/// The interface takes no packet.
pub(super) fn announce(interface: u32, mac: [u8; 6], ip: IpAddr) -> io::Result<()> {
    match ip {
        IpAddr::V4(ip) => {
            // Some hosts learn from requests only, some from replies only.
            send_packet(interface, EtherType::Arp, BROADCAST, &gratuitous_arp(ip, mac, 1))?;
            send_packet(interface, EtherType::Arp, BROADCAST, &gratuitous_arp(ip, mac, 2))
        }
        IpAddr::V6(ip) => send_packet(interface, EtherType::Ipv6, ALL_NODES_MAC, &advertisement(ip, mac)),
    }
}

/// ARP (RFC 826, RFC 5227): sender and target are the address itself.
fn gratuitous_arp(ip: Ipv4Addr, mac: [u8; 6], operation: u8) -> [u8; 28] {
    let mut packet = [0; 28];
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&ip.octets());
    packet[18..24].copy_from_slice(&BROADCAST);
    packet[24..28].copy_from_slice(&ip.octets());
    packet
}

/// Neighbour advertisement (RFC 4861): override, with the target's link-layer address.
fn advertisement(ip: Ipv6Addr, mac: [u8; 6]) -> [u8; 72] {
    const BODY: usize = 32;
    let mut packet = [0; 72];
    packet[0] = 0x60;
    packet[5] = 32;
    packet[6] = 58;
    // Routers and hosts drop it if it came over a router.
    packet[7] = 255;
    packet[8..24].copy_from_slice(&ip.octets());
    packet[24..40].copy_from_slice(&ALL_NODES.octets());
    packet[40] = 136;
    packet[44] = 0x20;
    packet[48..64].copy_from_slice(&ip.octets());
    packet[64..66].copy_from_slice(&[2, 1]);
    packet[66..72].copy_from_slice(&mac);
    let sum = checksum(&packet[8..40], &packet[40..40 + BODY]);
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// ICMPv6: over both addresses, the length, the protocol and the body.
fn checksum(addresses: &[u8], body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(addresses) + words(body) + 32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn arp_names_the_address_twice() {
        let packet = gratuitous_arp(Ipv4Addr::new(10, 0, 0, 5), MAC, 1);
        assert_eq!(packet[..8], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!((&packet[14..18], &packet[24..28]), (&[10, 0, 0, 5][..], &[10, 0, 0, 5][..]));
    }

    #[test]
    fn the_checksum_of_an_advertisement_is_right() {
        let packet = advertisement("2001:db8::50".parse().unwrap(), MAC);
        // Summed with the checksum in its place the result is zero.
        assert_eq!(checksum(&packet[8..40], &packet[40..]), 0);
    }
}
