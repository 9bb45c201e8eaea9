//! Writes the first files of the corpus: valid frames of every kind, and valid records.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use safe_proto::replication::{Frame, frame};
use safe_replication::dirty::{Change, Object};
use safe_replication::object::Kind;
use safe_replication::op::{Allocation, Number, ObjectId, Op, RenameMode, Timestamp, Xattr};
use safe_replication::record::{self, Context, HEAD, Record};
use safe_replication::room::Load;
use safe_replication::tree::Entry;
use safe_replicator::line::frame::encode;
use safe_replicator::resync::link::{Answer, DigestOf, Digests, Leave, Located, Query, What};
use safe_replicator::wire;

const FILE: ObjectId = ObjectId(70_000);
const OTHER: ObjectId = ObjectId(70_001);
const TIME: Timestamp = Timestamp { seconds: -5, nanos: 999_999_999 };

fn write(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory).expect("the corpus can be written");
    fs::write(directory.join(name), bytes).expect("the corpus can be written");
}

fn names() -> Vec<(&'static str, Op)> {
    let (parent, name) = (ObjectId::root(0), Bytes::from_static(b"n\xff"));
    let (new_parent, new_name) = (OTHER, Bytes::from_static(b"new"));
    let link = Bytes::from_static(b"../anywhere");
    let create = |mode, target: &Bytes| Op::Create {
        id: FILE,
        parent,
        name: name.clone(),
        mode,
        uid: 1,
        gid: 2,
        rdev: 0,
        target: target.clone(),
        time: TIME,
    };
    vec![
        ("bind", Op::Bind { id: FILE, parent, name: name.clone(), kind: 0o100_000 }),
        ("unbind", Op::Unbind { id: FILE }),
        ("create", create(0o100_644, &Bytes::new())),
        ("symlink", create(0o120_777, &link)),
        ("unlink", Op::Unlink { parent, name: name.clone(), id: FILE, directory: false, time: TIME }),
        (
            "rename",
            Op::Rename {
                parent,
                name: name.clone(),
                new_parent,
                new_name,
                how: RenameMode::Exchange,
                id: FILE,
                replaced: OTHER,
                time: TIME,
            },
        ),
        ("link", Op::Link { id: FILE, parent, name, time: TIME }),
    ]
}

fn contents() -> Vec<(&'static str, Op)> {
    let xattr = Xattr { name: Bytes::from_static(b"user.x"), value: Bytes::from_static(b"value") };
    let data = Bytes::from_static(b"content of a file");
    let how = Allocation::Punch;
    vec![
        ("write", Op::Write { id: FILE, offset: 1 << 40, data, time: TIME, mode: Some(0o755) }),
        ("truncate", Op::Truncate { id: FILE, size: 3, time: TIME, mode: None }),
        ("allocate", Op::Allocate { id: FILE, how, offset: 0, length: 5, time: TIME, mode: None }),
        (
            "copy",
            Op::Copy {
                source: FILE,
                source_offset: 1,
                id: OTHER,
                offset: 2,
                length: 3,
                time: TIME,
                mode: None,
            },
        ),
        (
            "set-meta",
            Op::SetMeta {
                id: FILE,
                mode: Some(0o4755),
                uid: Some(1),
                gid: None,
                atime: Some(TIME),
                mtime: None,
            },
        ),
        ("set-xattr", Op::SetXattr { id: FILE, xattr, mode: None }),
        ("remove-xattr", Op::RemoveXattr { id: FILE, name: Bytes::from_static(b"user.x") }),
        ("sync", Op::Sync { id: FILE, data_only: true }),
        ("sync-all", Op::SyncAll { in_step: true, epoch: 4 }),
    ]
}

fn questions() -> Vec<(&'static str, Query)> {
    let name = Bytes::from_static(b"name");
    vec![
        ("list", Query::List { dir: FILE, after: name.clone(), limit: 16 }),
        ("entries", Query::Entries { dir: FILE, names: vec![name.clone()] }),
        ("own", Query::Own { id: FILE }),
        ("digests", Query::Digests(vec![DigestOf { dir: FILE, name, first: 0, count: 4, whole: false }])),
        ("xattrs", Query::Xattrs { id: FILE }),
        ("in-flight", Query::InFlight { after: 3 }),
        ("room", Query::Room { most: vec![Load { bytes: 5, files: 6 }], least: vec![Load::default()] }),
    ]
}

fn replies() -> Vec<(&'static str, Answer)> {
    let name = Bytes::from_static(b"name");
    let entry = Entry {
        name: name.clone(),
        kind: Kind::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        size: 9,
        mtime: TIME,
        rdev: 0,
        links: 1,
        inode: 12,
        target: Bytes::new(),
        xattrs: [7; 16],
    };
    let located = Located { root: 0, path: vec![name.clone()], what: What::Data { offset: 1, len: 2 } };
    vec![
        ("entries", Answer::Entries { entries: vec![entry], end: true }),
        ("digests", Answer::Digests(vec![Digests { size: Some(9), blocks: vec![[3; 32]] }])),
        ("xattrs", Answer::Xattrs(vec![(name, Bytes::from_static(b"value"))])),
        ("in-flight", Answer::InFlight { known: vec![located], end: true }),
        ("room", Answer::Room(Leave::Refused("no room".to_owned()))),
    ]
}

fn frames() {
    let mut all = Vec::new();
    for (name, op) in names().into_iter().chain(contents()) {
        all.push((format!("op-{name}"), frame::Kind::Operation(wire::operation(Number(9), Number(3), &op))));
    }
    for (name, query) in questions() {
        all.push((format!("ask-{name}"), frame::Kind::Question(wire::question(&query).numbered(Number(9)))));
    }
    for (name, answer) in replies() {
        all.push((format!("say-{name}"), frame::Kind::Result(wire::answer(Number(9), Ok(Some(answer))))));
    }
    all.push(("say-errno".into(), frame::Kind::Result(wire::answer(Number(9), Err(28)))));
    all.push(("refusal".into(), frame::Kind::Refusal("no".into())));
    let mut together = vec![7];
    for (name, kind) in all {
        let sent = encode(Frame { kind: Some(kind) });
        let bytes = [&sent.message[..], &sent.content].concat();
        write("frames", &name, &[&[200], &bytes[..]].concat());
        together.extend_from_slice(&bytes);
    }
    write("frames", "all", &together);
}

fn changes() -> Vec<(&'static str, Change)> {
    let object = Object::new(0, Kind::File, &[1; 12]);
    let dir = Object::new(1, Kind::Directory, &[2; 40]);
    let name: Box<[u8]> = (*b"name").into();
    vec![
        ("data", Change::Data { object: object.clone(), offset: 4096, len: 65536 }),
        ("meta", Change::Meta { object: object.clone() }),
        ("name", Change::Name { dir: dir.clone(), name: name.clone(), deep: true }),
        ("names", Change::Names { dir: dir.clone(), deep: false }),
        ("tree", Change::Tree { dir: dir.clone() }),
        ("everything", Change::Everything),
        ("place", Change::Place { object, dir, name }),
    ]
}

/// As [`safe_replicator_fuzz`] reads records: kind, how it is spoiled, length, body.
fn piece(change: Change, spoiled: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode(&Record { context: Context::default(), change }, &mut bytes);
    [&[bytes[6], spoiled], &bytes[4..6], &bytes[HEAD..]].concat()
}

fn records(target: &str) {
    let mut together = Vec::new();
    for (name, change) in changes() {
        let bytes = piece(change, 0);
        write(target, name, &bytes);
        together.extend_from_slice(&bytes);
    }
    write(target, "all", &together);
    for spoiled in 1..=3 {
        let torn = piece(Change::Everything, spoiled);
        write(target, &format!("all-torn-{spoiled}"), &[&together[..], &torn].concat());
    }
}

fn main() {
    frames();
    records("journal");
    records("epoch");
}
