//! Bytes of which there are few: kept in place, not behind a pointer. A process holds a handle and a name for each file
//! that the kernel remembers.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// So many need no memory of their own.
const INLINE: usize = 22;

/// Bytes that never change.
#[derive(Clone)]
pub struct Short(Place);

#[derive(Clone)]
enum Place {
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
}

impl From<&[u8]> for Short {
    fn from(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(bytes);
                Self(Place::Inline(length, inline))
            }
            _ => Self(Place::Heap(bytes.into())),
        }
    }
}

impl From<Vec<u8>> for Short {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl Deref for Short {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Inline(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Place::Heap(bytes) => bytes,
        }
    }
}

impl PartialEq for Short {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Short {}

impl PartialOrd for Short {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Short {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl std::fmt::Debug for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", &**self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_are_what_they_were() {
        for length in [0, 1, INLINE - 1, INLINE, INLINE + 1, 300] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
            let short = Short::from(bytes.clone());
            assert_eq!(*short, *bytes);
            assert_eq!(short, Short::from(bytes.as_slice()));
        }
        assert!(Short::from(&b"a"[..]) < Short::from(vec![b'b'; 40]));
        assert_eq!(size_of::<Short>(), 24);
    }
}
