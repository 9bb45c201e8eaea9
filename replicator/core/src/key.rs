//! What operations conflict on.

/// One thing that an operation reads (`shared`) or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Which object: any number that names it on this side.
    pub object: u64,
    /// Which part of it.
    pub part: Part,
    /// Two shared keys never conflict.
    pub shared: bool,
}

/// Part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Content from `start` up to, not including, `end`.
    Range(u64, u64),
    /// Mode, owner, times set by hand, extended attributes.
    Meta,
    /// A name in a directory, by its hash: a collision only costs time.
    Name(u64),
    /// All names of a directory.
    Names,
    /// The object as a whole.
    All,
}

impl Key {
    const fn new(object: u64, part: Part) -> Self {
        Self { object, part, shared: false }
    }

    /// Content.
    #[must_use]
    pub const fn range(object: u64, start: u64, end: u64) -> Self {
        Self::new(object, Part::Range(start, end))
    }

    /// Attributes.
    #[must_use]
    pub const fn meta(object: u64) -> Self {
        Self::new(object, Part::Meta)
    }

    /// One name in a directory.
    #[must_use]
    pub fn name(object: u64, name: &[u8]) -> Self {
        Self::new(object, Part::Name(hash(name)))
    }

    /// All names in a directory.
    #[must_use]
    pub const fn names(object: u64) -> Self {
        Self::new(object, Part::Names)
    }

    /// Everything about an object.
    #[must_use]
    pub const fn all(object: u64) -> Self {
        Self::new(object, Part::All)
    }

    /// Everything: no other operation that has [`Keys::push_any`] is on the way.
    #[must_use]
    pub const fn everything() -> Self {
        Self::meta(EVERYTHING)
    }

    /// The same, only read.
    #[must_use]
    pub const fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Whether two operations that hold these must be carried out one after the other.
    #[must_use]
    pub const fn conflicts(&self, other: &Self) -> bool {
        if self.object != other.object || (self.shared && other.shared) {
            return false;
        }
        match (self.part, other.part) {
            (Part::All, _)
            | (_, Part::All)
            | (Part::Meta, Part::Meta)
            | (Part::Names, Part::Name(_) | Part::Names)
            | (Part::Name(_), Part::Names) => true,
            (Part::Range(a, b), Part::Range(c, d)) => a < d && c < b,
            (Part::Name(a), Part::Name(b)) => a == b,
            (Part::Range(..), Part::Meta | Part::Name(_) | Part::Names)
            | (Part::Meta, Part::Range(..) | Part::Name(_) | Part::Names)
            | (Part::Name(_) | Part::Names, Part::Range(..) | Part::Meta) => false,
        }
    }
}

/// FNV-1a: short inputs, no adversary (a collision only serialises two operations).
fn hash(name: &[u8]) -> u64 {
    name.iter()
        .fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

const MOST: usize = 6;
/// No object has this number.
const EVERYTHING: u64 = 0;

/// The keys of one operation, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    list: [Key; MOST],
    count: usize,
}

impl Keys {
    /// These; at most six.
    #[must_use]
    pub fn of(keys: &[Key]) -> Self {
        let mut result = Self { list: [Key::all(0); MOST], count: 0 };
        for key in keys {
            result.push(*key);
        }
        result
    }

    /// A range of content, and the attributes if they change too.
    #[must_use]
    pub fn data(object: u64, start: u64, end: u64, meta: bool) -> Self {
        let mut keys = Self::of(&[Key::range(object, start, end)]);
        if meta {
            keys.push(Key::meta(object));
        }
        keys
    }

    /// A name, and an object as a whole unless it is 0.
    #[must_use]
    pub fn name_and(parent: u64, name: &[u8], object: u64) -> Self {
        let mut keys = Self::of(&[Key::name(parent, name)]);
        if object != 0 {
            keys.push(Key::all(object));
        }
        keys
    }

    /// One more. A seventh would be a mistake in the program; it widens to the whole object of the last one.
    pub fn push(&mut self, key: Key) {
        debug_assert!(self.count < MOST, "an operation has at most six keys");
        if self.count < MOST {
            self.list[self.count] = key;
            self.count += 1;
        }
    }

    /// The shared key of every operation that changes anything: who holds [`Key::everything`] stops them all.
    pub fn push_any(&mut self) {
        self.push(Key::meta(EVERYTHING).shared());
    }

    /// As a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[Key] {
        &self.list[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_conflict_only_where_they_overlap() {
        assert!(Key::range(1, 0, 10).conflicts(&Key::range(1, 9, 20)));
        assert!(!Key::range(1, 0, 10).conflicts(&Key::range(1, 10, 20)));
        assert!(!Key::range(1, 0, 10).conflicts(&Key::range(2, 0, 10)));
        assert!(!Key::range(1, 0, 10).shared().conflicts(&Key::range(1, 0, 10).shared()));
    }

    #[test]
    fn all_conflicts_with_every_part() {
        for key in [Key::range(1, 0, 1), Key::meta(1), Key::name(1, b"a"), Key::names(1), Key::all(1)] {
            assert!(Key::all(1).conflicts(&key) && key.conflicts(&Key::all(1)));
        }
    }

    #[test]
    fn names_are_independent_of_each_other() {
        assert!(!Key::name(1, b"a").conflicts(&Key::name(1, b"b")));
        assert!(Key::name(1, b"a").conflicts(&Key::names(1)));
    }
}
