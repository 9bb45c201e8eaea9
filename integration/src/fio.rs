//! Jobs of fio and their figures.

use std::time::Duration;

use crate::error::{Context as _, Result};
use crate::host::Host;

/// Each job writes for so long.
const TIME: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// For the table.
    pub name: &'static str,
    options: &'static [&'static str],
    /// Bandwidth says more than operations.
    bandwidth: bool,
}

/// The jobs of the record.
pub const JOBS: [Job; 4] = [
    Job {
        name: "4 KiB random write, depth 1",
        options: &["--rw=randwrite", "--bs=4k", "--size=256m"],
        bandwidth: false,
    },
    Job {
        name: "4 KiB random write, 4 jobs, a file each",
        options: &["--rw=randwrite", "--bs=4k", "--size=64m", "--numjobs=4", "--group_reporting"],
        bandwidth: false,
    },
    Job { name: "1 MiB sequential write", options: &["--rw=write", "--bs=1m", "--size=1g"], bandwidth: true },
    Job {
        name: "4 KiB write + fsync",
        options: &["--rw=randwrite", "--bs=4k", "--size=64m", "--fsync=1"],
        bandwidth: false,
    },
];

/// Figures of a job.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    iops: f64,
    mib: f64,
    mean_us: f64,
    p99_us: f64,
    bandwidth: bool,
}

impl Job {
    /// Runs it in a directory of the host; its files are removed.
    pub fn run(&self, host: &Host, directory: &str) -> Result<Figures> {
        let program = host.program("fio")?.deadline(TIME * 6);
        let program =
            program.args(["--name=job", "--output-format=json", "--ioengine=psync", "--invalidate=1"]);
        let program = program.arg(format!("--directory={directory}")).args(self.options.iter().copied());
        let program =
            program.args(["--time_based", "--ramp_time=1"]).arg(format!("--runtime={}", TIME.as_secs()));
        let said = program.run();
        host.shell(&format!("rm -f {directory}/job.*"))?;
        self.figures(&said?)
    }

    fn figures(&self, json: &str) -> Result<Figures> {
        let json = json.find('{').map_or(json, |begin| &json[begin..]);
        let value: serde_json::Value = serde_json::from_str(json)?;
        let write = value.pointer("/jobs/0/write").context(|| "no figures from fio".to_owned())?;
        let number = |path: &str| write.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        Ok(Figures {
            iops: number("/iops"),
            mib: number("/bw_bytes") / f64::from(1 << 20),
            mean_us: number("/clat_ns/mean") / 1000.0,
            p99_us: number("/clat_ns/percentile/99.000000") / 1000.0,
            bandwidth: self.bandwidth,
        })
    }
}

impl Figures {
    /// For the table.
    pub fn text(&self) -> String {
        if self.bandwidth {
            format!("{:.0} MiB/s", self.mib)
        } else {
            format!("{:.0}/s, {:.0} µs (p99 {:.0})", self.iops, self.mean_us, self.p99_us)
        }
    }

    /// How much of `other` this is.
    pub fn part_of(&self, other: &Self) -> f64 {
        let figure = |figures: &Self| if figures.bandwidth { figures.mib } else { figures.iops };
        figure(self) / figure(other).max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_behind_a_warning() {
        let json = r#"note: both iodepth >= 1 and synchronous I/O engine
            {"jobs":[{"write":{"iops":1000.5,"bw_bytes":1048576,"clat_ns":{"mean":2000.0}}}]}"#;
        let figures = JOBS[0].figures(json).unwrap();
        assert_eq!(figures.text(), "1000/s, 2 µs (p99 0)");
    }
}
