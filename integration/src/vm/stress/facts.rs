//! What must be there, as lines: said by the stressor, remembered on the host, checked in a machine.

use std::collections::BTreeMap;

use crate::error::{Context as _, Error, Result};

/// Something durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// Slot `index` of a file is of this generation or a later one.
    Slot(u64),
    /// The file begins with so many bytes of this checksum.
    Log {
        /// Bytes.
        length: u64,
        /// CRC-32 of them.
        sum: u32,
    },
    /// The file is whole, of this generation or a later one.
    Whole(u64),
    /// The file is there as it was made, with mode and attribute.
    Made,
    /// It may be there or not: it is about to be removed.
    Doubt,
    /// It is not there.
    Gone,
}

impl Fact {
    /// A later fact about the same thing takes its place, unless it says less.
    fn is_less_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Slot(old), Self::Slot(new)) | (Self::Whole(old), Self::Whole(new)) => old < new,
            (Self::Log { length: old, .. }, Self::Log { length: new, .. }) => old < new,
            _ => true,
        }
    }
}

/// A line: `slot 7 9 shared`, `log 4096 1234 run-1/log`, `whole 3 run-1/name-2`, `made run-1/d/1`.
pub(super) fn line(path: &str, fact: Fact, index: u64) -> String {
    match fact {
        Fact::Slot(generation) => format!("slot {index} {generation} {path}"),
        Fact::Log { length, sum } => format!("log {length} {sum} {path}"),
        Fact::Whole(generation) => format!("whole {generation} {path}"),
        Fact::Made => format!("made {path}"),
        Fact::Doubt => format!("doubt {path}"),
        Fact::Gone => format!("gone {path}"),
    }
}

/// What a fact is about: a path, and the slot where there are slots.
pub(super) type Thing = (String, u64);

/// Reads a line.
pub(super) fn parse(line: &str) -> Result<(Thing, Fact)> {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let mut number = || -> Result<u64> {
        let word = words.next().context(|| "too short".to_owned())?;
        word.parse().context(|| word.to_owned())
    };
    let (index, fact) = match kind {
        "slot" => (number()?, Fact::Slot(number()?)),
        "log" => {
            (0, Fact::Log { length: number()?, sum: u32::try_from(number()?).context(|| "sum".to_owned())? })
        }
        "whole" => (0, Fact::Whole(number()?)),
        "made" => (0, Fact::Made),
        "doubt" => (0, Fact::Doubt),
        "gone" => (0, Fact::Gone),
        other => return Err(Error::new(format!("no such fact: {other}"))),
    };
    let path = words.next().context(|| "no path".to_owned())?;
    Ok(((path.to_owned(), index), fact))
}

/// All that was heard.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    known: BTreeMap<Thing, Fact>,
    heard: usize,
}

impl Facts {
    /// Remembers a line; whether the stressor waits for an answer.
    pub(super) fn hear(&mut self, line: &str) -> Result<bool> {
        let (thing, fact) = parse(line)?;
        let doubt = fact == Fact::Doubt;
        self.heard += usize::from(!doubt);
        let newer = self.known.get(&thing).is_none_or(|old| old.is_less_than(fact));
        if newer {
            self.known.insert(thing, fact);
        }
        Ok(doubt)
    }

    /// Lines heard that promise something.
    pub(super) fn heard(&self) -> usize {
        self.heard
    }

    /// As lines.
    pub(super) fn text(&self) -> String {
        self.known.iter().map(|((path, index), fact)| line(path, *fact, *index) + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_fact_counts() {
        let mut facts = Facts::default();
        for line in ["slot 3 5 a", "slot 3 4 a", "log 10 99 b", "made c", "gone c", "slot 4 1 a"] {
            assert!(!facts.hear(line).unwrap());
        }
        assert!(facts.hear("doubt d").unwrap());
        assert_eq!(facts.text(), "slot 3 5 a\nslot 4 1 a\nlog 10 99 b\ngone c\ndoubt d\n");
        assert_eq!(facts.heard(), 6);
        assert!(facts.hear("nonsense").is_err());
    }
}
