//! Frame of a heartbeat datagram: what an agent, and a replicator in its place, put around a `safe.peer.v1.Heartbeat`.
//!
//! ```text
//! 'S' 'F' 'H' version | origin | lan | 0 0 | incarnation (8, LE) | counter (8, LE) | body | mac (16)
//! ```
//! The mac is keyed blake3 over all before it. The counter rises strictly within one origin, incarnation and lan; a
//! stand-in has an incarnation of its own, so the two counter spaces never meet. Pure: no socket, no clock.

/// Version of the frame.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER: usize = 24;
/// Bytes after the body.
pub const MAC: usize = 16;
/// Most bytes of a datagram: what the smallest path of IPv6 carries uncut (1280 less the headers of IP and UDP).
pub const MAX_DATAGRAM: usize = 1232;
/// Most bytes of a body.
pub const MAX_BODY: usize = MAX_DATAGRAM - HEADER - MAC;

const MAGIC: [u8; 3] = *b"SFH";
const KEY_CONTEXT: &str = "safed 2026-11 heartbeat datagram key v1";

/// Key of the heartbeats of a cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The key that belongs to a cluster secret.
    #[must_use]
    pub fn derive(secret: &[u8]) -> Self {
        Self(blake3::derive_key(KEY_CONTEXT, secret))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Who made a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The node's agent.
    Agent,
    /// A replicator, because the agent is gone.
    StandIn,
}

/// What the frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who made it.
    pub origin: Origin,
    /// Index of the lan it was sent on, in the order of the cluster settings.
    pub lan: u8,
    /// Random number of the sending process.
    pub incarnation: u64,
    /// Rises with each datagram of this origin, incarnation and lan.
    pub counter: u64,
}

/// Why a datagram is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short or too long, or no such magic, version or origin.
    #[error("not a heartbeat of this version")]
    Malformed,
    /// Not sealed with this key, or altered on the way.
    #[error("a heartbeat that was not sealed with this cluster's key")]
    Forged,
}

/// A ready datagram. The body must not be longer than [`MAX_BODY`]: a longer one gives none.
#[must_use]
pub fn seal(key: &Key, header: Header, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > MAX_BODY {
        return None;
    }
    let mut datagram = Vec::with_capacity(HEADER + body.len() + MAC);
    datagram.extend_from_slice(&MAGIC);
    datagram.push(VERSION);
    datagram.push(match header.origin {
        Origin::Agent => 0,
        Origin::StandIn => 1,
    });
    datagram.extend_from_slice(&[header.lan, 0, 0]);
    datagram.extend_from_slice(&header.incarnation.to_le_bytes());
    datagram.extend_from_slice(&header.counter.to_le_bytes());
    datagram.extend_from_slice(body);
    let mac = mac(key, &datagram);
    datagram.extend_from_slice(&mac);
    Some(datagram)
}

/// Checks a datagram and gives its header and body. Whether it is new is for the receiver to judge.
///
/// # Errors
/// See [`OpenError`].
pub fn open<'a>(key: &Key, datagram: &'a [u8]) -> Result<(Header, &'a [u8]), OpenError> {
    if datagram.len() < HEADER + MAC || datagram.len() > MAX_DATAGRAM {
        return Err(OpenError::Malformed);
    }
    let (sealed, seal) = datagram.split_at(datagram.len() - MAC);
    let (head, body) = sealed.split_at(HEADER);
    if head[..3] != MAGIC || head[3] != VERSION || head[6..8] != [0, 0] {
        return Err(OpenError::Malformed);
    }
    let origin = match head[4] {
        0 => Origin::Agent,
        1 => Origin::StandIn,
        _ => return Err(OpenError::Malformed),
    };
    if !same(&mac(key, sealed), seal) {
        return Err(OpenError::Forged);
    }
    let header =
        Header { origin, lan: head[5], incarnation: number(&head[8..16]), counter: number(&head[16..24]) };
    Ok((header, body))
}

fn mac(key: &Key, content: &[u8]) -> [u8; MAC] {
    let hash = blake3::keyed_hash(&key.0, content);
    let mut mac = [0; MAC];
    mac.copy_from_slice(&hash.as_bytes()[..MAC]);
    mac
}

/// Compares without telling by the time it takes where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Header = Header { origin: Origin::StandIn, lan: 3, incarnation: u64::MAX - 1, counter: 7 };

    #[test]
    fn what_was_sealed_opens() {
        let key = Key::derive(b"secret");
        let datagram = seal(&key, HEAD, b"body").unwrap();
        assert_eq!(open(&key, &datagram), Ok((HEAD, b"body".as_slice())));
    }

    #[test]
    fn every_altered_byte_is_noticed() {
        let key = Key::derive(b"secret");
        let datagram = seal(&key, HEAD, b"some body").unwrap();
        for index in 0..datagram.len() {
            let mut altered = datagram.clone();
            altered[index] ^= 0x40;
            assert!(open(&key, &altered).is_err(), "byte {index}");
        }
    }

    #[test]
    fn another_key_does_not_open() {
        let datagram = seal(&Key::derive(b"one"), HEAD, b"").unwrap();
        assert_eq!(open(&Key::derive(b"other"), &datagram), Err(OpenError::Forged));
    }

    #[test]
    fn sizes_are_bounded() {
        let key = Key::derive(b"secret");
        assert!(seal(&key, HEAD, &vec![0; MAX_BODY + 1]).is_none());
        assert_eq!(seal(&key, HEAD, &vec![0; MAX_BODY]).unwrap().len(), MAX_DATAGRAM);
        for length in 0..HEADER + MAC {
            assert_eq!(open(&key, &vec![0; length]), Err(OpenError::Malformed));
        }
    }
}
