use super::*;

fn cover(directory: &Path, place: &Path) -> Cover {
    Cover::new("db", vec![directory.to_owned()], &place.join("record"), 7)
}

fn mark(directory: &Path, module: &str) {
    let value = format!("safed1 {module} n1 0");
    rustix::fs::setxattr(directory, MARKER, value.as_bytes(), rustix::fs::XattrFlags::empty()).expect("mark");
}

/// A marked directory of its own; what is mounted on it goes with the test.
struct Marked(tempfile::TempDir);

impl Marked {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(place.path().join("tree")).expect("create");
        mark(&place.path().join("tree"), "db");
        Self(place)
    }

    fn tree(&self) -> PathBuf {
        self.0.path().join("tree")
    }

    fn cover(&self) -> Cover {
        cover(&self.tree(), self.0.path())
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        while linux::uncover(&self.tree()).is_ok() {}
    }
}

#[test]
fn what_is_covered_cannot_be_changed_by_path_but_through_what_was_open_before() {
    let place = Marked::new();
    let (tree, cover) = (place.tree(), place.cover());
    let below = std::fs::File::open(&tree).expect("open");
    assert_eq!(cover.put_now(), Found::default());
    let refused = std::fs::write(tree.join("file"), "x").expect_err("covered");
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&below, "file", flags, rustix::fs::Mode::RUSR).expect("the replicator works on");
    assert!(tree.join("file").exists(), "and what it does is seen");
    assert_eq!(cover.put_now(), Found::default(), "covered once is enough");
    assert_eq!(cover.take_off_now(), Ok(None));
    std::fs::write(tree.join("other"), "x").expect("uncovered");
    assert_eq!(cover.take_off_now(), Ok(None));
}

#[test]
fn the_place_of_a_disk_that_is_not_mounted_is_not_covered() {
    let place = tempfile::tempdir().expect("a directory");
    let cover = cover(place.path(), place.path());
    assert_eq!(cover.put_now(), Found::default());
    std::fs::write(place.path().join("file"), "x").expect("not covered");
    mark(place.path(), "other");
    assert_eq!(cover.put_now(), Found::default());
    std::fs::write(place.path().join("file"), "x")
        .expect("a directory of another module is not this one's business");
}

#[test]
fn who_takes_it_off_by_hand_is_noticed() {
    let place = Marked::new();
    let (tree, cover) = (place.tree(), place.cover());
    assert_eq!(cover.put_now(), Found::default());
    linux::uncover(&tree).expect("as umount does");
    let found = cover.put_now();
    assert!(found.bypassed.is_some_and(|text| text.contains("taken off")), "covered again, and said");
    std::fs::write(tree.join("file"), "x").expect_err("covered");
    linux::uncover(&tree).expect("as umount does");
    let taken = cover.take_off_now().expect("nothing is left");
    assert!(taken.is_some_and(|text| text.contains("taken off")));
    assert_eq!(cover.take_off_now(), Ok(None), "said once");
}

#[test]
fn another_boot_knows_nothing_of_the_covers_of_the_last_one() {
    let place = Marked::new();
    assert_eq!(place.cover().put_now(), Found::default());
    linux::uncover(&place.tree()).expect("gone with the machine");
    let later = Cover::new("db", vec![place.tree()], &place.0.path().join("record"), 8);
    assert_eq!(later.put_now(), Found::default());
}

#[test]
fn who_writes_from_before_is_named() {
    use std::process::{Command, Stdio};
    let place = Marked::new();
    let file = std::fs::File::create(place.tree().join("file")).expect("create");
    let mut reader = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::from(std::fs::File::open(place.tree().join("file")).expect("open")))
        .spawn()
        .expect("sleep");
    drop(file);
    assert_eq!(place.cover().put_now(), Found::default(), "who reads does no harm");
    place.cover().discard().expect("uncovered");
    let file = std::fs::File::create(place.tree().join("file")).expect("create");
    let mut writer = Command::new("sleep").arg("60").stdout(Stdio::from(file)).spawn().expect("sleep");
    let found = place.cover().put_now();
    for process in [&mut reader, &mut writer] {
        process.kill().expect("kill");
        process.wait().expect("wait");
    }
    assert!(found.bypassed.is_some_and(|text| text.contains(&writer.id().to_string())));
}

#[test]
fn a_directory_that_is_no_longer_the_modules_is_uncovered() {
    let (old, new) = (Marked::new(), Marked::new());
    assert_eq!(old.cover().put_now(), Found::default());
    let later = Cover::new("db", vec![new.tree()], &old.0.path().join("record"), 7);
    assert_eq!(later.put_now(), Found::default());
    std::fs::write(old.tree().join("file"), "x").expect("uncovered");
    std::fs::write(new.tree().join("file"), "x").expect_err("covered");
}
