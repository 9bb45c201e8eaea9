//! Jobs of fio and their figures.

use std::time::Duration;

use crate::error::{Context as _, Result};
use crate::host::Host;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// What it is.
    pub name: &'static str,
    options: &'static [&'static str],
    /// Bandwidth says more than operations.
    bandwidth: bool,
}

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
    /// One that reads or writes, by its options; `bandwidth` says more about it than operations.
    pub const fn new(name: &'static str, options: &'static [&'static str], bandwidth: bool) -> Self {
        Self { name, options, bandwidth }
    }

    /// Runs it for so long in a directory of the host; its files are removed.
    pub fn run(&self, host: &Host, directory: &str, time: Duration) -> Result<Figures> {
        let program = host.program("fio")?.deadline(time * 6 + Duration::from_secs(120));
        let program = program.args(["--name=job", "--output-format=json", "--ioengine=psync"]);
        let program = program.arg(format!("--directory={directory}")).args(self.options.iter().copied());
        let program =
            program.args(["--time_based", "--ramp_time=1"]).arg(format!("--runtime={}", time.as_secs()));
        let said = program.run();
        host.shell(&format!("rm -f {directory}/job.*"))?;
        self.figures(&said?)
    }

    fn figures(&self, json: &str) -> Result<Figures> {
        let json = json.find('{').map_or(json, |begin| &json[begin..]);
        let value: serde_json::Value = serde_json::from_str(json)?;
        let job = value.pointer("/jobs/0").context(|| "no figures from fio".to_owned())?;
        let number = |path: &str| {
            let of = |way: &str| job.pointer(&format!("/{way}{path}")).and_then(serde_json::Value::as_f64);
            of("write").filter(|figure| *figure > 0.0).or_else(|| of("read")).unwrap_or(0.0)
        };
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

    /// The one that counts: operations or MiB per second.
    pub const fn figure(&self) -> f64 {
        if self.bandwidth { self.mib } else { self.iops }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_behind_a_warning() {
        let json = r#"note: both iodepth >= 1 and synchronous I/O engine
            {"jobs":[{"write":{"iops":1000.5,"bw_bytes":1048576,"clat_ns":{"mean":2000.0}}}]}"#;
        let figures = Job::new("any", &[], false).figures(json).unwrap();
        assert_eq!(figures.text(), "1000/s, 2 µs (p99 0)");
        let read = r#"{"jobs":[{"write":{"iops":0},"read":{"iops":5.0}}]}"#;
        assert_eq!(Job::new("any", &[], false).figures(read).unwrap().figure(), 5.0);
    }
}
