//! Frames and journals from anywhere: decoded to something within its bounds, or refused; never a panic, never a large
//! allocation. A corpus of valid ones is mutated from fixed seeds, so that this needs no other compiler than the rest.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use safe_proto::replication::{Frame, frame};
use safe_replication::dirty::{Change, DirtySet};
use safe_replication::object::{Kind, Object};
use safe_replication::op::{Allocation, Number, ObjectId, Op, RenameMode, Timestamp, Xattr};
use safe_replicator::journal::{Binding, Journal};
use safe_replicator::line::frame::{Assembler, Encoded, encode};
use safe_replicator::wire;

const TIME: Timestamp = Timestamp { seconds: -1, nanos: 999_999_999 };

/// Of each run; `SAFE_MUTATIONS` for more.
fn mutations() -> u64 {
    std::env::var("SAFE_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(60_000)
}

fn corpus(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/receiver/corpus").join(kind)
}

/// All files of a corpus; `SAFE_CORPUS=write` makes the files first.
fn read(kind: &str, make: impl Fn() -> Vec<(&'static str, Vec<u8>)>) -> Vec<Vec<u8>> {
    let place = corpus(kind);
    if std::env::var_os("SAFE_CORPUS").is_some() {
        std::fs::create_dir_all(&place).unwrap();
        for (name, content) in make() {
            std::fs::write(place.join(name), content).unwrap();
        }
    }
    let mut paths: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 2, "the corpus {kind} is not there");
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    /// Changes a few bytes, cuts, repeats, or joins with another one.
    fn mutate(&mut self, all: &[Vec<u8>]) -> Vec<u8> {
        const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'/', b'.', 0x0f];
        let mut bytes = all[self.below(all.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = EDGES[self.below(8)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, EDGES[self.below(8)]),
                4 => {
                    let other = &all[self.below(all.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let piece = bytes[at.min(end)..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }
}

fn operations() -> Vec<(&'static str, Op)> {
    let (id, parent, time) = (ObjectId(70_000), ObjectId::root(0), TIME);
    let name = Bytes::from_static(b"name");
    let how = Allocation::Punch;
    let create = |mode, target: &'static [u8]| Op::Create {
        id,
        parent,
        name: name.clone(),
        mode,
        uid: 1,
        gid: 2,
        rdev: 0,
        target: Bytes::from_static(target),
        time,
    };
    let xattr = Xattr { name: Bytes::from_static(b"user.x"), value: Bytes::from_static(b"value") };
    vec![
        ("bind", Op::Bind { id, parent, name: name.clone(), kind: libc::S_IFREG }),
        ("unbind", Op::Unbind { id }),
        ("create", create(libc::S_IFREG | 0o644, b"")),
        ("symlink", create(libc::S_IFLNK | 0o777, b"target")),
        (
            "write",
            Op::Write { id, offset: 1 << 33, data: Bytes::from_static(b"data"), time, mode: Some(0o755) },
        ),
        ("truncate", Op::Truncate { id, size: 7, time, mode: None }),
        ("allocate", Op::Allocate { id, how, offset: 4096, length: 8192, time, mode: None }),
        ("copy", Op::Copy { source: id, source_offset: 0, id, offset: 9, length: 5, time, mode: None }),
        ("unlink", Op::Unlink { parent, name: name.clone(), id, directory: false, time }),
        (
            "rename",
            Op::Rename {
                parent,
                name: name.clone(),
                new_parent: parent,
                new_name: Bytes::from_static(b"other"),
                how: RenameMode::Exchange,
                id,
                replaced: ObjectId::NONE,
                time,
            },
        ),
        ("link", Op::Link { id, parent, name: name.clone(), time }),
        (
            "meta",
            Op::SetMeta { id, mode: Some(0o4755), uid: Some(3), gid: None, atime: Some(time), mtime: None },
        ),
        ("xattr", Op::SetXattr { id, xattr, mode: None }),
        ("no-xattr", Op::RemoveXattr { id, name }),
        ("sync", Op::Sync { id, data_only: true }),
        ("sync-all", Op::SyncAll { in_step: true, epoch: 7 }),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let encode = |(name, op): (&'static str, Op)| {
        let kind = frame::Kind::Operation(wire::operation(Number(9), Number(3), &op));
        (name, Frame { kind: Some(kind) }.encode_to_vec())
    };
    operations().into_iter().map(encode).collect()
}

/// What was accepted is within its bounds.
fn assert_bounded(op: &Op) {
    let name = |name: &Bytes| {
        let plain = !name.is_empty() && name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0);
        assert!(plain && name.as_ref() != b"." && name.as_ref() != b"..", "{op:?}");
    };
    match op {
        Op::Create { name: n, mode, .. } if n.is_empty() => assert_eq!(mode & libc::S_IFMT, libc::S_IFREG),
        Op::Bind { name: n, .. }
        | Op::Create { name: n, .. }
        | Op::Unlink { name: n, .. }
        | Op::Link { name: n, .. }
        | Op::RemoveXattr { name: n, .. } => name(n),
        Op::Rename { name: from, new_name: to, .. } => {
            name(from);
            name(to);
        }
        Op::Write { offset, data, .. } => {
            assert!(!data.is_empty() && data.len() <= 1 << 20);
            assert!(offset + data.len() as u64 <= i64::MAX as u64);
        }
        Op::Allocate { offset, length, .. } | Op::Copy { offset, length, .. } => {
            assert!(*length > 0 && offset.checked_add(*length).unwrap() <= i64::MAX as u64);
        }
        Op::Truncate { size, .. } => assert!(*size < i64::MAX as u64),
        Op::SetXattr { xattr, .. } => assert!(xattr.value.len() <= 65536),
        _ => {}
    }
}

/// True: it was accepted.
fn take(bytes: &[u8]) -> bool {
    let Ok(frame) = Frame::decode(bytes) else { return false };
    match frame.kind {
        Some(frame::Kind::Operation(operation)) => match wire::parse_operation(operation) {
            Ok((number, watermark, op)) => {
                assert!(watermark < number);
                assert_bounded(&op);
                // What is said again is the same.
                let again = wire::parse_operation(wire::operation(number, watermark, &op));
                assert_eq!(again, Ok((number, watermark, op)));
                true
            }
            Err(_) => false,
        },
        Some(frame::Kind::Question(question)) => wire::parse_question(question).is_ok(),
        Some(frame::Kind::Result(result)) => wire::result(result, None).is_ok(),
        _ => false,
    }
}

#[test]
fn any_frame_is_within_its_bounds_or_refused() {
    let all = read("frames", frames);
    assert!(all.iter().all(|bytes| take(bytes)), "the corpus is valid");
    let (mut random, mut accepted) = (Random(7), 0);
    for _ in 0..mutations() {
        accepted += u64::from(take(&random.mutate(&all)));
    }
    assert!(
        accepted > mutations() / 50,
        "only {accepted} were accepted: the mutations are too wild to find anything"
    );
}

/// Frames as they come over a line, after one another.
fn streams() -> Vec<Vec<u8>> {
    let encode = |(_, op): (_, Op)| {
        let kind = frame::Kind::Operation(wire::operation(Number(9), Number(3), &op));
        let Encoded { mut message, content } = encode(Frame { kind: Some(kind) });
        message.extend_from_slice(&content);
        message
    };
    let single: Vec<Vec<u8>> = operations().into_iter().map(encode).collect();
    single.windows(3).map(<[_]>::concat).collect()
}

#[test]
fn any_stream_is_frames_within_their_bounds_or_refused() {
    let all = streams();
    let (mut random, mut accepted) = (Random(13), 0);
    for _ in 0..mutations() {
        let (mut assembler, mut frames) = (Assembler::default(), VecDeque::new());
        let stream = random.mutate(&all);
        let whole =
            stream.chunks(1 + random.below(64)).all(|piece| assembler.take(piece, &mut frames).is_ok());
        for frame in frames {
            if let Some(frame::Kind::Operation(operation)) = frame.kind
                && let Ok((_, _, op)) = wire::parse_operation(operation)
            {
                assert_bounded(&op);
                accepted += u64::from(whole);
            }
        }
    }
    assert!(accepted > mutations() / 50, "only {accepted} were accepted");
}

const BINDING: Binding = Binding { lineage: 11, boot: 12 };

fn journals() -> Vec<(&'static str, Vec<u8>)> {
    let place = tempfile::tempdir().unwrap();
    let file = |number: u64| Object::new(0, Kind::File, &number.to_le_bytes());
    let directory = Object::new(0, Kind::Directory, &[1; 12]);
    let made = |name, changes: &[Change]| {
        let mut journal = Journal::create(place.path(), BINDING, &DirtySet::new()).unwrap();
        journal.append(changes, &DirtySet::new).unwrap();
        let mut bytes = std::fs::read(place.path().join("journal")).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // Zeros follow in a real one.
        bytes.truncate(end);
        (name, bytes)
    };
    let data = |number, offset| Change::Data { object: file(number), offset, len: 4096 };
    let name = Change::Name { dir: directory.clone(), name: b"name".as_slice().into(), deep: true };
    vec![
        made("empty", &[]),
        made("content", &[data(1, 0), data(2, 1 << 40), Change::Meta { object: file(3) }]),
        made(
            "names",
            &[name, Change::Names { dir: directory.clone(), deep: false }, Change::Tree { dir: directory }],
        ),
        made("everything", &[Change::Everything]),
    ]
}

#[test]
fn any_journal_is_read_or_counts_as_lost() {
    let all = read("journals", journals);
    let place = tempfile::tempdir().unwrap();
    let open = |bytes: &[u8]| {
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len() + 8192, 0);
        std::fs::write(place.path().join("journal"), whole).unwrap();
        Journal::open(place.path(), BINDING).is_ok()
    };
    assert!(all.iter().all(|bytes| open(bytes)), "the corpus is valid");
    let (mut random, mut accepted) = (Random(11), 0);
    for _ in 0..mutations() / 100 {
        accepted += u64::from(open(&random.mutate(&all)));
    }
    assert!(accepted > 0, "nothing that was changed could be read");
}
