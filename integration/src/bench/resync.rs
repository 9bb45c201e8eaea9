//! Bringing a copy up to date, beside rsync on the same network.

use std::time::Duration;

use crate::clock;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::eventually::eventually_true;
use crate::lan::DEFAULT;
use crate::status::{Phase, State};
use crate::timeline::{Timeline, Tone};

use super::Plan;
use super::contestant::Contestant;
use super::result::Results;

/// 20,000 small files and a large one.
const FILL: &str = r#"
mkdir -p "$1" && cd "$1"
for directory in $(seq 0 199); do
    mkdir $directory
    head -c 2048000 /dev/urandom | split -b 20480 -a 2 - $directory/file-
done
head -c 2147483648 /dev/urandom >large
"#;

/// Writes 100 pages all over the large file.
const SCATTER: &str = r#"
for page in $(seq 0 99); do
    head -c 4096 /dev/urandom | dd of="$1/large" bs=4096 seek=$((page * 5227)) conv=notrunc status=none
done
"#;

const PATIENCE: Duration = Duration::from_secs(600);
const DATA: &str = "/srv/disk/plain/data";

pub(super) fn measure(c: &Cluster, timeline: &Timeline, plan: &Plan, results: &mut Results) -> Result<()> {
    let (first, second) = (c.node(0), c.node(1));
    let long = |script: &str, argument: &str| {
        let program = first.program("bash")?.args(["-ec", script, "bash", argument]);
        program.deadline(PATIENCE).run()
    };
    long(FILL, DATA)?;
    second.safectl("stop mirrored --on n2")?;
    let copy = format!("{}/data", Contestant::Mirrored.directory());
    long("cp -a /srv/disk/plain/data \"$1\" && sync", &copy)?;
    timeline.event(Tone::Step, "20,001 files, 2.4 GB; resync into an empty directory beside rsync -aHAX");
    for _ in 0..plan.rounds.min(3) {
        let took = rsync(c)?;
        results.add("full resync, 20,001 files", "MB/s", Contestant::Rsync, 2.457e9 / took / 1e6);
        timeline.event(Tone::Figure, &format!("rsync -aHAX: {took:.1} s"));
    }
    let (took, sent) = resync(c, "second mirrored --on n2 --full")?;
    results.add("full resync, 20,001 files", "MB/s", Contestant::Mirrored, 2.457e9 / took / 1e6);
    timeline.event(Tone::Figure, &format!("full resync: {took:.1} s, {sent} bytes sent"));
    let steps = [
        ("100 pages of 2 GiB changed", SCATTER),
        ("nothing changed", ":"),
        ("2 GiB renamed", "mv \"$1/large\" \"$1/0/renamed\""),
    ];
    for (what, script) in steps {
        second.safectl("stop mirrored --on n2")?;
        c.wait_state("mirrored", "n1", State::Alone)?;
        long(script, &copy)?;
        let (took, sent) = resync(c, "start mirrored --on n2")?;
        results.add(&format!("resync, {what}"), "s (less is better)", Contestant::Mirrored, took);
        timeline.event(Tone::Figure, &format!("resync, {what}: {took:.2} s, {sent} bytes sent"));
    }
    Ok(())
}

/// Seconds until the other node is in step, and what was sent.
fn resync(c: &Cluster, command: &str) -> Result<(f64, u64)> {
    let begin = clock::now();
    c.node(1).safectl(&format!("{command} --no-wait --yes"))?;
    eventually_true(PATIENCE, "the end of the resync", || {
        let status = c.node(1).status_of("mirrored", "n2");
        status.is_ok_and(|status| status.state == State::Second && status.phase == Some(Phase::Ready))
    })?;
    let took = clock::now().duration_since(begin).as_secs_f64();
    Ok((took, c.node(0).last_resync("mirrored")?.map_or(0, |(sent, _)| sent)))
}

fn rsync(c: &Cluster) -> Result<f64> {
    let (first, second) = (c.node(0), c.node(1));
    second.shell(
        "rm -rf /srv/disk/rsync && mkdir /srv/disk/rsync && cd /srv
         printf '[bench]\npath=/srv/disk/rsync\nread only=no\nuid=0\ngid=0\nuse chroot=no\n' >/srv/rsyncd.conf
         pgrep -x rsync >/dev/null || rsync --daemon --config=/srv/rsyncd.conf --port=8730",
    )?;
    let to = format!("rsync://{}:8730/bench/", DEFAULT.address(second.number));
    let begin = clock::now();
    let program = first.program("rsync")?.args(["-aHAX", &format!("{DATA}/"), &to]);
    program.deadline(PATIENCE).run()?;
    Ok(clock::now().duration_since(begin).as_secs_f64())
}
