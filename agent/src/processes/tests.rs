use super::*;
use std::process::{Child, Command, Stdio};

fn hunt(dir: &str) -> Hunt {
    Hunt { module: "hunted".to_owned(), dir: dir.into(), directories: Vec::new(), spare: BTreeSet::new() }
}

fn sleeper(dir: &str) -> Child {
    Command::new("sh")
        .args(["-c", "trap '' TERM HUP INT; sleep 1000 & setsid sleep 1000 & wait"])
        .env("SAFE_MODULE", "hunted")
        .env("SAFE_DIR", dir)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn wait_for(hunt: &Hunt, count: usize) {
    for _ in 0..500 {
        if hunt.find().0.len() == count {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("expected {count}, found {:?}", hunt.find());
}

#[test]
fn kills_whoever_carries_the_mark_and_nobody_else() {
    let place = tempfile::tempdir().unwrap();
    let (here, there) = (place.path().join("here"), place.path().join("there"));
    let (here, there) = (here.to_str().unwrap(), there.to_str().unwrap());
    let (mut mine, mut other) = (sleeper(here), sleeper(there));
    let (hunted, others) = (hunt(here), hunt(there));
    wait_for(&hunted, 3);
    wait_for(&others, 3);
    hunted.kill(Duration::from_secs(10)).unwrap();
    mine.wait().unwrap();
    assert_eq!(hunted.find().0.len(), 0);
    assert_eq!(others.find().0.len(), 3);
    others.kill(Duration::from_secs(10)).unwrap();
    other.wait().unwrap();
}

#[test]
fn spares_whom_it_is_told_to_spare() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let mut child = sleeper(dir);
    let pid = i32::try_from(child.id()).unwrap();
    wait_for(&hunt(dir), 3);
    let mut sparing = hunt(dir);
    sparing.spare.insert(pid);
    sparing.kill(Duration::from_secs(10)).unwrap();
    assert!(hunt(dir).find().0.is_subset(&BTreeSet::from([pid])));
    hunt(dir).kill(Duration::from_secs(10)).unwrap();
    child.wait().unwrap();
}
