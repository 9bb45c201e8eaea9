//! How changes are written in the journal.
//!
//! A record is: CRC-32 of all that follows it in the record (u32), length of the body (u16), kind (u8), version (u8),
//! epoch (u64), session (2 × u64), body. All little-endian. A place where a record could begin that holds only zeros
//! is the end.

use crate::dirty::Change;
use crate::object::{HANDLE_LIMIT, Kind, NAME_LIMIT, Object};

/// Version of the format of records.
pub const VERSION: u8 = 1;

/// Bytes before the body.
pub const HEAD: usize = 32;

/// Longest body.
pub const BODY_LIMIT: usize = 2 * (4 + HANDLE_LIMIT) + 1 + NAME_LIMIT + 16;

/// In what a change happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Context {
    /// Epoch; 0 while epochs are not used.
    pub epoch: u64,
    /// The session, or zeros outside of one.
    pub session: (u64, u64),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// In what it happened.
    pub context: Context,
    /// What happened.
    pub change: Change,
}

/// What is at a place of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A record, and how many bytes it takes.
    Record(Box<Record>, usize),
    /// Nothing was ever written here.
    End,
    /// Neither: a record that was not written to its end, or damage.
    Damaged,
}

/// Append the encoded record to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let kind = encode_change(&record.change, out);
    let body = u16::try_from(out.len() - start - HEAD).unwrap_or(u16::MAX);
    let head = &mut out[start..start + HEAD];
    head[4..6].copy_from_slice(&body.to_le_bytes());
    head[6] = kind;
    head[7] = VERSION;
    head[8..16].copy_from_slice(&record.context.epoch.to_le_bytes());
    head[16..24].copy_from_slice(&record.context.session.0.to_le_bytes());
    head[24..32].copy_from_slice(&record.context.session.1.to_le_bytes());
    let crc = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Read what is at the start of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8]) -> Found {
    let head = &bytes[..bytes.len().min(HEAD)];
    if head.iter().all(|byte| *byte == 0) {
        return Found::End;
    }
    match decode_record(bytes) {
        Some((record, len)) => Found::Record(Box::new(record), len),
        None => Found::Damaged,
    }
}

fn decode_record(bytes: &[u8]) -> Option<(Record, usize)> {
    let mut input = Input(bytes);
    let crc = input.u32()?;
    let body = usize::from(input.u16()?);
    if body > BODY_LIMIT || bytes.len() < HEAD + body {
        return None;
    }
    if crc32fast::hash(&bytes[4..HEAD + body]) != crc {
        return None;
    }
    let kind = input.u8()?;
    if input.u8()? != VERSION {
        return None;
    }
    let context = Context { epoch: input.u64()?, session: (input.u64()?, input.u64()?) };
    let mut input = Input(&bytes[HEAD..HEAD + body]);
    let change = decode_change(kind, &mut input)?;
    input.0.is_empty().then_some((Record { context, change }, HEAD + body))
}

fn encode_change(change: &Change, out: &mut Vec<u8>) -> u8 {
    match change {
        Change::Data { object, offset, len } => {
            encode_object(object, out);
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            1
        }
        Change::Meta { object } => {
            encode_object(object, out);
            2
        }
        Change::Name { dir, name, deep } => {
            encode_object(dir, out);
            encode_name(name, out);
            out.push(u8::from(*deep));
            3
        }
        Change::Names { dir, deep } => {
            encode_object(dir, out);
            out.push(u8::from(*deep));
            4
        }
        Change::Tree { dir } => {
            encode_object(dir, out);
            5
        }
        Change::Everything => 6,
        Change::Place { object, dir, name } => {
            encode_object(object, out);
            encode_object(dir, out);
            encode_name(name, out);
            7
        }
    }
}

fn decode_change(kind: u8, input: &mut Input<'_>) -> Option<Change> {
    Some(match kind {
        1 => Change::Data { object: input.object()?, offset: input.u64()?, len: input.u64()? },
        2 => Change::Meta { object: input.object()? },
        3 => Change::Name { dir: input.directory()?, name: input.name()?, deep: input.flag()? },
        4 => Change::Names { dir: input.directory()?, deep: input.flag()? },
        5 => Change::Tree { dir: input.directory()? },
        6 => Change::Everything,
        7 => Change::Place { object: input.object()?, dir: input.directory()?, name: input.name()? },
        _ => return None,
    })
}

fn encode_object(object: &Object, out: &mut Vec<u8>) {
    debug_assert!(object.handle.len() <= HANDLE_LIMIT, "the kernel makes no longer handles");
    let handle = &object.handle[..object.handle.len().min(HANDLE_LIMIT)];
    out.extend_from_slice(&object.root.to_le_bytes());
    out.push(object.kind.number());
    out.push(u8::try_from(handle.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(handle);
}

fn encode_name(name: &[u8], out: &mut Vec<u8>) {
    debug_assert!(name.len() <= NAME_LIMIT, "the kernel makes no longer names");
    let name = &name[..name.len().min(NAME_LIMIT)];
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn name(&mut self) -> Option<Box<[u8]>> {
        let len = usize::from(self.u8()?);
        let name = self.bytes(len)?;
        let valid = len > 0 && !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b"..";
        valid.then(|| name.into())
    }

    fn object(&mut self) -> Option<Object> {
        let root = self.u16()?;
        let kind = Kind::from_number(self.u8()?)?;
        let len = usize::from(self.u8()?);
        (len <= HANDLE_LIMIT).then_some(())?;
        Some(Object::new(root, kind, self.bytes(len)?))
    }

    fn directory(&mut self) -> Option<Object> {
        self.object().filter(|object| object.kind.is_directory())
    }
}

#[cfg(test)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "in a test a wrong assumption is a failed test"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(directory: bool) -> impl Strategy<Value = Object> {
        let kind = if directory { 1..2usize } else { 0..7 };
        (any::<u16>(), kind, prop::collection::vec(any::<u8>(), 0..=HANDLE_LIMIT))
            .prop_map(|(root, kind, handle)| Object::new(root, Kind::ALL[kind], &handle))
    }

    fn name() -> impl Strategy<Value = Box<[u8]>> {
        let byte = any::<u8>().prop_filter("not in names", |byte| !matches!(byte, 0 | b'/' | b'.'));
        prop::collection::vec(byte, 1..=NAME_LIMIT).prop_map(Vec::into_boxed_slice)
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (object(false), any::<u64>(), any::<u64>()).prop_map(|(object, offset, len)| Change::Data {
                object,
                offset,
                len
            }),
            object(false).prop_map(|object| Change::Meta { object }),
            (object(true), name(), any::<bool>()).prop_map(|(dir, name, deep)| Change::Name {
                dir,
                name,
                deep
            }),
            (object(true), any::<bool>()).prop_map(|(dir, deep)| Change::Names { dir, deep }),
            object(true).prop_map(|dir| Change::Tree { dir }),
            Just(Change::Everything),
            (object(false), object(true), name()).prop_map(|(object, dir, name)| Change::Place {
                object,
                dir,
                name
            }),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        (any::<u64>(), any::<(u64, u64)>(), change())
            .prop_map(|(epoch, session, change)| Record { context: Context { epoch, session }, change })
    }

    #[test]
    fn zeros_are_the_end() {
        assert_eq!(decode(&[]), Found::End);
        assert_eq!(decode(&[0; 4096]), Found::End);
        assert_eq!(decode(&[0, 0, 1]), Found::Damaged);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in prop::collection::vec(record(), 0..20)) {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| encode(record, &mut bytes));
            bytes.extend_from_slice(&[0; 64]);
            let mut rest = bytes.as_slice();
            for expected in &records {
                match decode(rest) {
                    Found::Record(found, len) => {
                        prop_assert_eq!(&*found, expected);
                        rest = &rest[len..];
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(decode(rest), Found::End);
        }

        #[test]
        fn a_record_cut_short_is_damaged(record in record(), keep in 0.0f64..1.0) {
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            let keep = (last as f64 * keep) as usize;
            bytes.truncate(keep);
            bytes.resize(4096, 0);
            let expected = if bytes[..HEAD].iter().all(|byte| *byte == 0) { Found::End } else { Found::Damaged };
            prop_assert_eq!(decode(&bytes), expected);
        }

        #[test]
        fn any_flipped_bit_is_noticed(record in record(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), Found::Damaged);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1024), good_crc in any::<bool>()) {
            let mut bytes = bytes;
            if good_crc && bytes.len() > HEAD {
                let body = (bytes.len() - HEAD).min(BODY_LIMIT);
                bytes.truncate(HEAD + body);
                bytes[4..6].copy_from_slice(&(body as u16).to_le_bytes());
                bytes[6] %= 9;
                bytes[7] = VERSION;
                let crc = crc32fast::hash(&bytes[4..]);
                bytes[..4].copy_from_slice(&crc.to_le_bytes());
            }
            if let Found::Record(record, len) = decode(&bytes) {
                let mut again = Vec::new();
                encode(&record, &mut again);
                prop_assert_eq!(&again, &bytes[..len]);
            }
        }
    }
}
