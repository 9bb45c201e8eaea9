//! Comparing without repairing: every difference is found and named, and nothing else.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::XattrFlags;
use safe_replicator::progress::Progress;
use safe_replicator::resync::verify::{Aspect, Findings};
use safe_replicator::resync::{Outcome, Plan, Resync};
use safe_replicator::throttle::Throttle;

use crate::application::{Application, any_act};
use crate::pair::{Pair, differences};
use crate::random::{Random, grow, set_mtime};

fn verify(pair: &Pair) -> (Outcome, Findings) {
    let (progress, throttle, findings) = (Progress::default(), Throttle::new(0), Findings::default());
    let resync = Resync::new(&pair.link, &pair.knowledge, &pair.backing, &progress, &throttle, &pair.stop);
    let outcome = resync.verify(&findings);
    (outcome, findings)
}

fn found(pair: &Pair) -> Vec<(String, Aspect)> {
    let (outcome, findings) = verify(pair);
    assert_eq!(outcome, Outcome::InStep);
    let text =
        |path: &[Bytes]| path.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join("/");
    let named = findings.named();
    assert_eq!(findings.count(), named.len() as u64);
    let mut named: Vec<_> = named.iter().map(|one| (text(&one.path), one.aspect)).collect();
    named.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
    named
}

/// A tree of which every test below changes something.
fn scene() -> Pair {
    let pair = Pair::new();
    let at = |path: &str| pair.source.join(path);
    fs::create_dir_all(at("dir/below")).unwrap();
    fs::write(at("dir/file"), vec![7; 300_000]).unwrap();
    fs::write(at("dir/below/other"), b"other").unwrap();
    fs::write(at("empty"), b"").unwrap();
    symlink("somewhere", at("link")).unwrap();
    fs::write(at("a"), b"several names").unwrap();
    fs::hard_link(at("a"), at("dir/b")).unwrap();
    pair.in_step(Plan::Full);
    assert_eq!(found(&pair), []);
    pair
}

/// What the change on the target makes differ; a resync of just that repairs it.
fn check(change: impl FnOnce(&Path), expected: &[(&str, Aspect)]) {
    let pair = scene();
    let times: Vec<_> = ["", "dir", "dir/below"]
        .iter()
        .map(|dir| (pair.target.join(dir), fs::metadata(pair.target.join(dir)).unwrap().modified().unwrap()))
        .collect();
    change(&pair.target);
    for (dir, time) in times {
        if let Ok(open) = fs::File::open(dir) {
            open.set_modified(time).unwrap();
        }
    }
    let expected: Vec<_> = expected.iter().map(|(path, aspect)| ((*path).to_owned(), *aspect)).collect();
    assert_eq!(found(&pair), expected);
    let (_, findings) = verify(&pair);
    pair.knowledge.merge(&findings.changes()).unwrap();
    pair.in_step(Plan::Delta);
    pair.assert_equal();
}

fn keep_time(path: &Path, change: impl FnOnce()) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    change();
    fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn one_byte_of_content() {
    let flip = |target: &Path| {
        let path = target.join("dir/file");
        keep_time(&path, || {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"x", 200_000).unwrap();
        });
    };
    let content = Aspect::Content { offset: 131_072, length: 131_072 };
    check(flip, &[("dir/file", content)]);
}

#[test]
fn a_size() {
    let cut = |target: &Path| {
        let path = target.join("dir/file");
        keep_time(&path, || fs::File::options().write(true).open(&path).unwrap().set_len(262_144).unwrap());
    };
    let content = Aspect::Content { offset: 262_144, length: u64::MAX - 262_144 };
    check(cut, &[("dir/file", content)]);
}

#[test]
fn each_attribute() {
    check(
        |target| fs::set_permissions(target.join("empty"), fs::Permissions::from_mode(0o4711)).unwrap(),
        &[("empty", Aspect::Mode)],
    );
    check(
        |target| std::os::unix::fs::lchown(target.join("link"), Some(12), None).unwrap(),
        &[("link", Aspect::Owner)],
    );
    check(|target| set_mtime(&target.join("dir/below/other"), 5, 6), &[("dir/below/other", Aspect::Time)]);
    check(
        |target| {
            rustix::fs::setxattr(target.join("dir"), "user.kind", b"value", XattrFlags::empty()).unwrap();
        },
        &[("dir", Aspect::Xattrs)],
    );
    check(
        |target| fs::set_permissions(target, fs::Permissions::from_mode(0o700)).unwrap(),
        &[("", Aspect::Mode)],
    );
}

#[test]
fn names_that_only_one_side_has() {
    check(|target| fs::remove_file(target.join("dir/file")).unwrap(), &[("dir/file", Aspect::Missing)]);
    check(|target| fs::write(target.join("dir/new"), b"new").unwrap(), &[("dir/new", Aspect::Extra)]);
    check(|target| fs::remove_dir_all(target.join("dir/below")).unwrap(), &[("dir/below", Aspect::Missing)]);
    check(
        |target| {
            fs::remove_file(target.join("empty")).unwrap();
            fs::create_dir(target.join("empty")).unwrap();
        },
        &[("empty", Aspect::Type)],
    );
}

#[test]
fn names_of_another_file() {
    let part = |target: &Path| {
        let time = fs::metadata(target.join("a")).unwrap().modified().unwrap();
        fs::remove_file(target.join("dir/b")).unwrap();
        fs::write(target.join("dir/b"), b"several names").unwrap();
        fs::File::options().append(true).open(target.join("dir/b")).unwrap().set_modified(time).unwrap();
    };
    let pair = scene();
    part(&pair.target);
    let names: Vec<_> = found(&pair).into_iter().filter(|(_, aspect)| *aspect == Aspect::Links).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let (_, findings) = verify(&pair);
    pair.knowledge.merge(&findings.changes()).unwrap();
    pair.in_step(Plan::Delta);
    pair.assert_equal();
}

#[test]
fn what_is_under_way_is_no_difference() {
    for seed in 250..254 {
        let pair = Pair::new();
        let mut random = Random::new(seed);
        grow(&pair.source, &mut random, 150);
        pair.in_step(Plan::Full);
        let application = Application::new(&pair);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (application, over, pair) = (&application, &over, &pair);
                scope.spawn(move || {
                    let mut random = Random::new(seed * 1000 + thread);
                    while !over.load(Ordering::SeqCst) {
                        application.act(&pair.knowledge, &any_act(&pair.source, &mut random), true);
                    }
                });
            }
            let results: Vec<_> = (0..4).map(|_| verify(&pair)).collect();
            over.store(true, Ordering::SeqCst);
            for (outcome, findings) in results {
                assert_eq!((outcome, findings.named()), (Outcome::InStep, Vec::new()), "seed {seed}");
            }
        });
        assert_eq!(differences(&pair.source, &pair.target), "", "seed {seed}");
    }
}
