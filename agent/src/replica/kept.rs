//! What is kept for a replicator that may die: descriptors without which its mounts would end with it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::fds::Packet;

/// Most files without a name; a replicator does not ask for more.
const MOST_FILES: usize = 256;

/// See the module. The kernel aborts a FUSE connection when the last descriptor of it is closed.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By the words that they came with, which are sent along with them again.
    descriptors: BTreeMap<Vec<u8>, OwnedFd>,
}

impl Kept {
    /// What the replicator sent. False: it is nothing to keep.
    pub(super) fn take(&mut self, packet: Packet) -> bool {
        let known = match packet.words.first() {
            Some(b'F' | b'D') => packet.words.len() == 3,
            Some(b'P') => packet.words.len() == 9,
            _ => false,
        };
        match packet.descriptor {
            Some(descriptor) if known => {
                let room = packet.words[0] != b'P' || self.files() < MOST_FILES;
                if room || self.descriptors.contains_key(&packet.words) {
                    self.descriptors.insert(packet.words, descriptor);
                }
            }
            Some(_) => {}
            None => {
                self.descriptors.remove(&packet.words);
            }
        }
        known
    }

    /// The mounts are gone.
    pub(super) fn clear(&mut self) {
        self.descriptors.clear();
    }

    /// The device and the directory of each of so many mounts.
    pub(super) fn is_complete(&self, directories: usize) -> bool {
        directories > 0 && self.count(b'F') == directories && self.count(b'D') == directories
    }

    /// How many files without a name.
    pub(super) fn files(&self) -> usize {
        self.count(b'P')
    }

    /// Everything, with its words.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &OwnedFd)> {
        self.descriptors.iter().map(|(words, descriptor)| (words.as_slice(), descriptor))
    }

    fn count(&self, kind: u8) -> usize {
        self.descriptors.keys().filter(|words| words.first() == Some(&kind)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> Option<OwnedFd> {
        Some(std::fs::File::open("/dev/null").expect("open").into())
    }

    #[test]
    fn what_is_not_needed_any_more_is_let_go() {
        let mut kept = Kept::default();
        let packet = |words: &[u8], descriptor| Packet { words: words.to_vec(), descriptor };
        assert!(kept.take(packet(b"F\0\0", descriptor())));
        assert!(!kept.is_complete(1));
        assert!(kept.take(packet(b"D\0\0", descriptor())));
        assert!(kept.is_complete(1) && !kept.is_complete(2));
        assert!(kept.take(packet(b"P12345678", descriptor())));
        assert_eq!(kept.files(), 1);
        assert!(kept.take(packet(b"P12345678", None)));
        assert_eq!(kept.files(), 0);
        assert!(!kept.take(packet(b"X", descriptor())));
        kept.clear();
        assert_eq!(kept.iter().count(), 0);
    }
}
