//! Records whose checksums are right, whatever they say: chance alone never gets past a checksum.

use safe_replication::record::{self, Found, HEAD, VERSION};

/// Reads `data` as pieces, each of which becomes a record: a byte for its kind, one for how it is spoiled,
/// two for its length, then its body.
pub(crate) fn sealed(mut data: &[u8], epoch: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [kind, spoiled, low, high, rest @ ..] = data {
        let length = u16::from_le_bytes([*low, *high]);
        let (body, rest) = rest.split_at(rest.len().min(usize::from(length)));
        data = rest;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; HEAD]);
        bytes.extend_from_slice(body);
        let record = &mut bytes[start..];
        record[4..6].copy_from_slice(&length.to_le_bytes());
        record[6] = *kind;
        record[7] = VERSION;
        record[8..16].copy_from_slice(&epoch.to_le_bytes());
        record[16..24].copy_from_slice(&u64::from(*spoiled >> 4).to_le_bytes());
        let sum = crc32fast::hash(&record[4..]);
        record[..4].copy_from_slice(&sum.to_le_bytes());
        match spoiled & 0xf {
            // Cut off, as by a loss of power.
            1 => bytes.truncate(start + HEAD / 2),
            2 => bytes[start] ^= 1,
            // A page that was never written.
            3 => bytes.extend_from_slice(&[0; HEAD]),
            _ => {}
        }
    }
    bytes
}

/// What is read is written back as the same bytes.
pub(crate) fn check(mut bytes: &[u8]) {
    while let Found::Record(found, length) = record::decode(bytes) {
        assert!(length >= HEAD && length <= bytes.len(), "a record of {length} bytes of {}", bytes.len());
        let mut written = Vec::new();
        record::encode(&found, &mut written);
        assert_eq!(
            record::decode(&written),
            Found::Record(found, written.len()),
            "what was written is read back"
        );
        bytes = &bytes[length..];
    }
}
