//! Figures, on demand: `SAFE_REPLICATOR=target/release/safe-replicator cargo test -p safe-replicator --test mirror speed
//! -- --ignored --nocapture`.

use std::fs;
use std::path::Path;
use std::process::Command;

use safe_proto::replication::Plan;

use crate::node::now;
use crate::pair::Pair;

fn fio(place: &Path, name: &str, arguments: &[&str]) -> String {
    let output = Command::new("fio")
        .args(["--name=x", "--size=64m", "--runtime=4", "--time_based", "--minimal", "--ioengine=psync"])
        .args(arguments)
        .arg(format!("--directory={}", place.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let sum = |field: usize| -> f64 {
        text.lines().filter_map(|line| line.split(';').nth(field)?.parse::<f64>().ok()).sum()
    };
    // Fields of fio's terse format: write bandwidth (KiB/s), write IOPS, mean completion latency.
    format!("{name}: {:.0} MB/s, {:.0}/s", sum(47) / 1000.0, sum(48))
}

#[test]
#[ignore = "a measurement, not a check"]
#[expect(clippy::print_stderr, reason = "the figures are the result")]
fn speed() {
    let pair = Pair::paired(Plan::Repair);
    let plain = tempfile::tempdir().unwrap();
    for (what, place) in [("plain", plain.path()), ("mirrored", pair.a.data.as_path())] {
        for (name, arguments) in [
            ("4k random write, depth 1", &["--rw=randwrite", "--bs=4k"][..]),
            ("4k random write, 4 jobs", &["--rw=randwrite", "--bs=4k", "--numjobs=4"]),
            ("1m sequential write", &["--rw=write", "--bs=1m", "--size=256m"]),
            ("4k write + fsync", &["--rw=randwrite", "--bs=4k", "--fsync=1"]),
        ] {
            eprintln!("{what}: {}", fio(place, name, arguments));
        }
        let begun = now();
        for number in 0..2000 {
            fs::write(place.join(format!("f{number}")), [0; 4096]).unwrap();
        }
        eprintln!("{what}: creations of 4 KiB files: {:.0}/s", 2000.0 / begun.elapsed().as_secs_f64());
    }
}
