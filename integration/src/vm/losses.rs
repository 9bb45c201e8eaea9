//! What came of all losses of power: the closing table.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One kind of loss.
#[derive(Debug, Default)]
struct Kind {
    powers: usize,
    checked: usize,
    missing: usize,
    differences: usize,
    served: Vec<Duration>,
}

/// The table; its `Display` is Markdown.
#[derive(Debug, Default)]
pub struct Losses(BTreeMap<&'static str, Kind>);

impl Losses {
    /// So many machines lost their power.
    pub fn lost(&mut self, kind: &'static str, powers: usize) {
        self.kind(kind).powers += powers;
    }

    /// So much of what had been told to be durable was looked for on the node that serves, and so much of it is not there.
    pub fn looked(&mut self, kind: &'static str, checked: usize, missing: usize) {
        self.kind(kind).checked += checked;
        self.kind(kind).missing += missing;
    }

    /// The service was back so long after the power was lost, or after the power of the node that had to return came.
    pub fn served(&mut self, kind: &'static str, after: Duration) {
        self.kind(kind).served.push(after);
    }

    /// Differences of both copies after the repair.
    pub fn differ(&mut self, kind: &'static str, differences: usize) {
        self.kind(kind).differences += differences;
    }

    /// All machines that lost their power.
    pub fn powers(&self) -> usize {
        self.0.values().map(|kind| kind.powers).sum()
    }

    fn kind(&mut self, kind: &'static str) -> &mut Kind {
        self.0.entry(kind).or_default()
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "| power lost by | times | durable things looked for | lost | differences after repair | served again, median | max |"
        )?;
        writeln!(formatter, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for (name, kind) in &self.0 {
            let mut served = kind.served.clone();
            served.sort();
            let seconds = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64);
            writeln!(
                formatter,
                "| {name} | {} | {} | {} | {} | {:.1} s | {:.1} s |",
                kind.powers,
                kind.checked,
                kind.missing,
                kind.differences,
                seconds(served.get(served.len() / 2)),
                seconds(served.last())
            )?;
        }
        Ok(())
    }
}
