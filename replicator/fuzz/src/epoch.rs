//! The record of an epoch, as it may be found on the disk.

use safe_replicator::epoch::header::Header;
use safe_replicator::epoch::segment;

use crate::records;

const BOOT: u128 = 9;
const SERIAL: u64 = 5;

/// The bytes as they are, and as records behind a valid header, under the same boot and another.
pub fn check(data: &[u8]) {
    let mut bytes = Vec::new();
    for boot in [BOOT, BOOT + 1] {
        drop(segment::parse(data, boot));
    }
    let header = Header {
        lineage: 7,
        boot: BOOT,
        serial: SERIAL,
        epoch: 3,
        closed: 2,
        journalled: false,
        complete: true,
    };
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(&records::sealed(data, SERIAL));
    let same = segment::parse(&bytes, BOOT);
    let other = segment::parse(&bytes, BOOT + 1);
    if let Ok(left) = same {
        let left = left.expect("it has a header");
        assert_eq!(left.header, header, "the header is what was written");
        // Where everything is there, nothing can be missing from what is durable.
        let other = other.expect("what is whole under this boot is whole under another").expect("the header");
        assert_eq!(left.set.changes().count(), other.set.changes().count(), "both ways of reading agree");
    }
}
