use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use safe_replication::archive::{Attributes, DATA, Text, VERSION, What};
use safe_replication::object::Kind;

use super::*;

fn attributes(kind: Kind, mode: u32, size: u64) -> Option<Attributes> {
    Some(Attributes {
        kind: kind.number(),
        mode,
        uid: 7,
        gid: 8,
        mtime: (1_000_000_000, 5),
        size,
        rdev: 0,
        target: Text(if kind == Kind::Symlink { b"nowhere".to_vec() } else { Vec::new() }),
        xattrs: if kind == Kind::File {
            vec![(Text(b"user.x".to_vec()), Text(b"v".to_vec()))]
        } else {
            Vec::new()
        },
    })
}

/// An archive as the replicator writes it.
fn archive(directory: &Path, id: &str, at: i64, entries: &[Entry]) {
    let path = directory.join(id);
    fs::create_dir_all(path.join(DATA).join("0").join("d")).unwrap();
    fs::write(path.join(DATA).join("0").join("d").join("file"), "content").unwrap();
    fs::write(path.join(ENTRIES), entries.iter().map(Entry::to_line).collect::<String>()).unwrap();
    let manifest = Manifest {
        version: VERSION,
        module: "m".into(),
        node: "n2".into(),
        peer: "n1".into(),
        at,
        files: 1,
        bytes: 7,
        removed: 1,
        entries: entries.len() as u64,
        directories: vec![Text(b"/srv/data".to_vec())],
    };
    fs::write(path.join(MANIFEST), manifest.to_json()).unwrap();
}

fn entry(path: &str, what: What, attributes: Option<Attributes>) -> Entry {
    Entry { directory: 0, path: Text(path.as_bytes().to_vec()), what, attributes }
}

fn usual() -> Vec<Entry> {
    vec![
        entry("d", What::Attributes, attributes(Kind::Directory, 0o2750, 0)),
        entry("d/file", What::Content, attributes(Kind::File, 0o640, 7)),
        entry("d/link", What::Attributes, attributes(Kind::Symlink, 0o777, 0)),
        entry("d/touched", What::Attributes, attributes(Kind::File, 0o600, 7)),
        entry("gone", What::Removed, None),
    ]
}

const ONE: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "0123ffffffffffffffffffffffffffff";

#[test]
fn they_are_listed_oldest_first_and_found_by_a_beginning_of_their_id() {
    let directory = tempfile::tempdir().unwrap();
    assert!(list(&directory.path().join("none")).unwrap().is_empty());
    archive(directory.path(), OTHER, 20, &usual());
    archive(directory.path(), ONE, 10, &usual());
    archive(directory.path(), "aaaa.new", 5, &usual());
    fs::create_dir(directory.path().join("ffff")).unwrap();
    let ids: Vec<_> = list(directory.path()).unwrap().into_iter().map(|one| one.id).collect();
    assert_eq!(ids, [ONE, OTHER]);
    assert_eq!(find(directory.path(), "01234").unwrap().id, ONE);
    assert!(find(directory.path(), "0123").unwrap_err().contains("several"));
    for bad in ["", "01", "../..", "zzzz", "9999"] {
        assert!(find(directory.path(), bad).is_err(), "{bad}");
    }
}

#[test]
fn entries_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    archive(directory.path(), ONE, 10, &usual());
    let found = find(directory.path(), ONE).unwrap();
    let (first, more) = entries(&found, 0, 2).unwrap();
    assert!(more);
    let (rest, more) = entries(&found, 2, 100).unwrap();
    assert!(!more);
    assert_eq!([first, rest].concat(), usual());
}

#[test]
fn what_is_restored_has_everything_it_had() {
    let directory = tempfile::tempdir().unwrap();
    archive(directory.path(), ONE, 10, &usual());
    let found = find(directory.path(), ONE).unwrap();
    let target = directory.path().join("restored");
    let done = restore(&found, &target, |_| true).unwrap();
    assert_eq!((done.files, done.bytes), (1, 7));
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o700);
    let base = target.join("srv/data/d");
    let file = base.join("file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "content");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o640));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 5));
    assert_eq!(fs::read_link(base.join("link")).unwrap(), Path::new("nowhere"));
    assert!(!base.join("touched").exists(), "its content is not in the archive");
    assert_eq!(fs::metadata(&base).unwrap().mode() & 0o7777, 0o2750);
    assert_eq!(fs::metadata(&base).unwrap().mtime(), 1_000_000_000);
    assert!(restore(&found, &target, |_| true).is_err(), "nothing is written over");
}

#[test]
fn a_list_that_was_tampered_with_leads_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let mut bad = usual();
    bad[1].path = Text(b"../../../../escaped".to_vec());
    archive(directory.path(), ONE, 10, &bad);
    let found = find(directory.path(), ONE).unwrap();
    assert!(restore(&found, &directory.path().join("restored"), |_| true).is_err());
    // A link where a directory should be is not followed.
    let mut bad = usual();
    bad[0] = entry("d", What::Attributes, attributes(Kind::Symlink, 0o777, 0));
    archive(directory.path(), OTHER, 10, &bad);
    let found = find(directory.path(), OTHER).unwrap();
    assert!(restore(&found, &directory.path().join("again"), |_| true).is_err());
    assert!(!directory.path().join("escaped").exists());
}

#[test]
fn what_is_discarded_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    archive(directory.path(), ONE, 10, &usual());
    discard(&find(directory.path(), ONE).unwrap()).unwrap();
    assert!(list(directory.path()).unwrap().is_empty());
    assert!(!directory.path().join(ONE).exists());
}
