//! What is done to each directory.

use std::time::Duration;

use crate::error::{Context as _, Result};
use crate::fio::Job;
use crate::node::Node;
use crate::place::binary;

/// One workload; some give several figures.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    work: Work,
}

#[derive(Debug, Clone)]
enum Work {
    Fio(Job),
    Small,
    Untar,
    Database,
}

/// Small files of one run.
const FILES: u32 = 5000;

pub(super) fn workloads() -> Vec<Workload> {
    let fio = |name, unit, options: &'static [&'static str]| Workload {
        name,
        unit,
        work: Work::Fio(Job::new(name, options, unit == "MiB/s")),
    };
    vec![
        fio("4 KiB random write, depth 1", "/s", &["--rw=randwrite", "--bs=4k", "--size=256m"]),
        fio(
            "4 KiB random write, 4 jobs, a file each",
            "/s",
            &["--rw=randwrite", "--bs=4k", "--size=64m", "--numjobs=4", "--group_reporting"],
        ),
        fio("1 MiB sequential write", "MiB/s", &["--rw=write", "--bs=1m", "--size=1g"]),
        fio("4 KiB write + fsync", "/s", &["--rw=randwrite", "--bs=4k", "--size=64m", "--fsync=1"]),
        fio(
            "cached read, 4 KiB",
            "/s",
            &["--rw=randread", "--bs=4k", "--size=128m", "--invalidate=0", "--pre_read=1"],
        ),
        fio("cold read, 128 KiB", "MiB/s", &["--rw=read", "--bs=128k", "--size=512m", "--invalidate=1"]),
        Workload { name: "small files of 4 KiB", unit: "/s", work: Work::Small },
        Workload { name: "untar of /usr/include", unit: "files/s", work: Work::Untar },
        Workload { name: "pgbench, synchronous_commit on", unit: "/s", work: Work::Database },
    ]
}

impl Workload {
    /// Runs it on the host; what was measured, and figures of which more is better.
    pub(super) fn run(&self, node: &Node, directory: &str, time: Duration) -> Result<Vec<(String, f64)>> {
        match &self.work {
            Work::Fio(job) => {
                let figures = job.run(node, directory, time)?;
                Ok(vec![(self.name.to_owned(), figures.figure())])
            }
            Work::Small => small(node, directory),
            Work::Untar => Ok(vec![(self.name.to_owned(), untar(node, directory)?)]),
            Work::Database => Ok(vec![(self.name.to_owned(), database(node, directory, time)?)]),
        }
    }

    /// At the same time on several hosts; of each figure the least. None: a workload that is about one of them.
    pub(super) fn run_on(
        &self,
        nodes: &[Node],
        directory: &str,
        time: Duration,
    ) -> Result<Option<Vec<(String, f64)>>> {
        let Work::Fio(job) = &self.work else { return Ok(None) };
        let figures = std::thread::scope(|scope| {
            let runs: Vec<_> =
                nodes.iter().map(|node| scope.spawn(|| job.run(node, directory, time))).collect();
            let ended = |run: std::thread::ScopedJoinHandle<'_, _>| {
                run.join()
                    .unwrap_or_else(|_| Err(crate::error::Error::new("a thread of the benchmark has ended")))
            };
            runs.into_iter().map(ended).collect::<Result<Vec<_>>>()
        })?;
        let least = figures.iter().map(crate::fio::Figures::figure).fold(f64::INFINITY, f64::min);
        Ok(Some(vec![(self.name.to_owned(), least)]))
    }
}

fn small(node: &Node, directory: &str) -> Result<Vec<(String, f64)>> {
    let program = node.program(&binary("bench")?.display().to_string())?.deadline(Duration::from_secs(300));
    let said = program.arg("small").arg(format!("{directory}/small")).arg(FILES.to_string()).run()?;
    let rates: serde_json::Value = serde_json::from_str(&said)?;
    ["create", "stat", "unlink"]
        .into_iter()
        .map(|what| {
            let rate = rates[what].as_f64().context(|| format!("no figure for {what} in {said}"))?;
            Ok((format!("{what} {FILES} files of 4 KiB"), rate))
        })
        .collect()
}

fn untar(node: &Node, directory: &str) -> Result<f64> {
    let archive = format!("{}/include.tar", super::disk());
    let script = format!(
        "[ -e {archive} ] || tar -cf {archive} -C /usr include; mkdir {directory}/untar
         begin=$(date +%s%N); tar -xf {archive} -C {directory}/untar; end=$(date +%s%N)
         count=$(tar -tf {archive} | wc -l); rm -rf {directory}/untar
         echo \"$count $((end - begin))\""
    );
    let said = node.program("sh")?.arg("-ec").arg(script).deadline(Duration::from_secs(300)).run()?;
    let mut numbers = said.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    let (count, nanoseconds) =
        numbers.next().zip(numbers.next()).context(|| format!("not figures: {said}"))?;
    Ok(count / (nanoseconds / 1e9))
}

/// A server on the directory for the time of the run; the fastest commits that are still durable.
fn database(node: &Node, directory: &str, time: Duration) -> Result<f64> {
    let script = format!(
        "cd /; bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1); data={directory}/pg; run=/srv/pg
         install -d -o postgres -g postgres -m 700 $data $run
         as() {{ runuser -u postgres -- \"$@\"; }}
         as $bin/initdb -D $data --auth trust --no-locale -E UTF8 -k >/dev/null
         as $bin/pg_ctl -D $data -w -t 60 -l $run/log -o \"-c unix_socket_directories=$run -c listen_addresses=\" start >/dev/null
         as $bin/createdb -h $run bench; as $bin/pgbench -h $run -q -i -s 5 bench >/dev/null 2>&1
         as $bin/pgbench -h $run -c 4 -j 2 -T {} bench 2>/dev/null | sed -n 's/^tps = \\([0-9.]*\\).*/\\1/p'
         as $bin/pg_ctl -D $data -w -m fast stop >/dev/null; rm -rf $data $run",
        time.as_secs().max(1)
    );
    let said = node.program("sh")?.arg("-c").arg(script).deadline(Duration::from_secs(300)).run()?;
    said.trim().parse().map_err(|_| crate::error::Error::new(format!("pgbench said {said:?}")))
}
