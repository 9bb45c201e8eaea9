//! One slot: a header, the state as JSON, zeros.

use safe_failover::hard::HardState;

use super::StoreError;

/// Bytes of a slot: a hard state with a full history takes less than a third of it.
pub(super) const SLOT_LEN: usize = 8192;

const MAGIC: [u8; 8] = *b"SAFEHARD";
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 20;

/// What a slot holds.
pub(super) enum Slot {
    /// A state whose checksum is right.
    Valid(Box<HardState>),
    /// Empty, torn or damaged.
    Invalid(String),
    /// Of a format this release does not know, with a right checksum.
    Later(u32),
}

impl Slot {
    /// magic (8), format (4), length of the JSON (4), CRC-32 of format, length and JSON (4), JSON, zeros.
    pub(super) fn encode(state: &HardState) -> Result<Vec<u8>, StoreError> {
        let json = serde_json::to_vec(state).map_err(|_| StoreError::TooLarge(0))?;
        let length = u32::try_from(json.len()).ok().filter(|_| json.len() <= SLOT_LEN - HEADER_LEN);
        let length = length.ok_or(StoreError::TooLarge(json.len()))?;
        let mut bytes = Vec::with_capacity(SLOT_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&checksum(FORMAT, &json).to_le_bytes());
        bytes.extend_from_slice(&json);
        bytes.resize(SLOT_LEN, 0);
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        let invalid = |why: &str| Self::Invalid(why.to_owned());
        let Some((header, body)) = bytes.split_at_checked(HEADER_LEN) else { return invalid("too short") };
        if header.iter().all(|byte| *byte == 0) {
            return invalid("never written");
        }
        if header[..8] != MAGIC {
            return invalid("not a state");
        }
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&header[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let (format, length, sum) = (word(8), word(12), word(16));
        let Some(json) = usize::try_from(length).ok().and_then(|length| body.get(..length)) else {
            return invalid("impossible length");
        };
        if checksum(format, json) != sum {
            return invalid("wrong checksum");
        }
        if format != FORMAT {
            return Self::Later(format);
        }
        match serde_json::from_slice(json) {
            Ok(state) => Self::Valid(Box::new(state)),
            Err(error) => Self::Invalid(error.to_string()),
        }
    }
}

fn checksum(format: u32, json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&format.to_le_bytes());
    hasher.update(&(json.len() as u64).to_le_bytes());
    hasher.update(json);
    hasher.finalize()
}
