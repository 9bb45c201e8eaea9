//! How long a resync takes, on demand: `SAFE_REPLICATOR=target/release/safe-replicator cargo test -p safe-replicator
//! --test mirror catch_up -- --ignored --nocapture`.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use safe_proto::replication::Plan;

use crate::node::now;
use crate::pair::{Pair, assert_equal};
use crate::random::Random;

fn fill(place: &Path, files: usize, bytes: usize) {
    let mut random = Random::new(1);
    for number in 0..files {
        let dir = place.join(format!("d{}", number / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{number}")), random.bytes(bytes)).unwrap();
    }
}

#[test]
#[ignore = "a measurement, not a check"]
#[expect(clippy::print_stderr, reason = "the figures are the result")]
fn catch_up() {
    let mut pair = Pair::new();
    fill(&pair.a.data, 10_000, 12_000);
    fill(&pair.a.data.join("large"), 20, 20 << 20);
    let copy = pair.b.data.with_file_name("copy");
    let begun = now();
    let status = Command::new("rsync")
        .arg("-aHAX")
        .arg(format!("{}/", pair.a.data.display()))
        .arg(&copy)
        .status()
        .unwrap();
    assert!(status.success());
    eprintln!("rsync to an empty directory: {:.2} s", begun.elapsed().as_secs_f64());
    let begun = now();
    pair.session(1, Plan::Full);
    eprintln!("full resync, empty target: {:.2} s", begun.elapsed().as_secs_f64());
    assert_equal(&pair.a.data, &pair.b.data);
    pair.leave(1);
    let begun = now();
    pair.session(2, Plan::Full);
    eprintln!("full resync, equal target: {:.2} s", begun.elapsed().as_secs_f64());
    pair.leave(2);

    pair.a.mount();
    pair.a.settle(7);
    let large = pair.at("large/d0/f0");
    let file = fs::OpenOptions::new().write(true).open(&large).unwrap();
    for number in 0..100 {
        file.write_all_at(&[number; 4096], u64::from(number) * 200_000).unwrap();
    }
    let begun = now();
    pair.session(3, Plan::Delta);
    eprintln!("delta, 100 pages of a large file: {:.3} s", begun.elapsed().as_secs_f64());
    pair.assert_equal();
}
