//! The journal of the last process, as it may be found on the disk.

use safe_replicator::journal::{self, Binding};

use crate::records;

const BINDING: Binding = Binding { lineage: 7, boot: 9 };

/// The bytes as they are, and as records behind a valid header.
pub fn check(data: &[u8]) {
    read(data);
    let mut bytes = journal::page(BINDING);
    let records = records::sealed(data, journal::EPOCH);
    records::check(&records);
    bytes.extend_from_slice(&records);
    read(&bytes);
    bytes.resize(bytes.len() + 4096, 0);
    read(&bytes);
}

fn read(bytes: &[u8]) {
    let whole = journal::parse(bytes, BINDING);
    let left = journal::parse_left(bytes, BINDING.lineage);
    if let Ok((set, end, torn)) = whole {
        assert!(end + torn as u64 <= bytes.len() as u64, "it ends behind its end");
        let left = left.expect("a journal that is whole says what it says after a loss of power, too");
        let count = |set: &safe_replication::dirty::DirtySet| set.changes().count();
        assert_eq!(count(&set), count(&left), "both ways of reading agree");
    }
}
