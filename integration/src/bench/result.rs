//! Figures, their medians, and how they are shown: a table, JSON, a chart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::Plan;
use super::contestant::Contestant;
use crate::error::{Context as _, Result};

/// All figures of one workload on one directory, by round.
#[derive(Debug, Default)]
struct Series(Vec<f64>);

#[derive(Debug)]
struct Row {
    what: String,
    unit: String,
    series: BTreeMap<Contestant, Series>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Results {
    title: String,
    setting: String,
    rows: Vec<Row>,
}

const ORDER: [Contestant; 6] = [
    Contestant::Plain,
    Contestant::Both,
    Contestant::PassThrough,
    Contestant::Mirrored,
    Contestant::Gluster,
    Contestant::Rsync,
];

impl Series {
    fn sorted(&self) -> Vec<f64> {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        all
    }

    fn median(&self) -> f64 {
        let all = self.sorted();
        let middle = all.len() / 2;
        if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) }
    }

    fn range(&self) -> (f64, f64) {
        let all = self.sorted();
        (all[0], all[all.len() - 1])
    }
}

impl Results {
    pub(super) fn new(plan: &Plan) -> Result<Self> {
        let disk = if plan.memory { "memory" } else { "ext4 on loop devices" };
        let setting = format!("{disk}, {} rounds, {} s each", plan.rounds, plan.time.as_secs());
        Ok(Self { title: title()?, setting, rows: Vec::new() })
    }

    pub(super) fn add(&mut self, what: &str, unit: &str, contestant: Contestant, figure: f64) {
        let index = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            self.rows.push(Row { what: what.into(), unit: unit.into(), series: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[index].series.entry(contestant).or_default().0.push(figure);
    }

    /// Adds the table to `RESULTS.md` of the directory; writes its JSON and its chart to `results/`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let results = directory.join("results");
        fs::create_dir_all(&results)?;
        fs::write(results.join("latest.json"), serde_json::to_string_pretty(&self.json())?)?;
        fs::write(results.join("latest.svg"), self.chart())?;
        let record = directory.join("RESULTS.md");
        let before = fs::read_to_string(&record).unwrap_or_default();
        fs::write(&record, before + &self.table()).context(|| record.display().to_string())
    }

    fn table(&self) -> String {
        let mut text = format!("\n## {} ({})\n\n", self.title, self.setting);
        text += "| workload | plain | plain on both | pass-through | mirrored | glusterfs | rsync | mirrored / both | mirrored / pass-through | mirrored / peer |\n";
        text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for row in &self.rows {
            let cell = |contestant| {
                row.series.get(&contestant).map_or_else(
                    || "–".to_owned(),
                    |series| {
                        let (least, most) = series.range();
                        let median = rounded(series.median());
                        if series.0.len() == 1 {
                            return format!("{median} {}", row.unit);
                        }
                        format!("{median} {} ({} to {})", row.unit, rounded(least), rounded(most))
                    },
                )
            };
            let cells = ORDER.map(cell);
            let peer = row.ratio(Contestant::Gluster).or_else(|| row.ratio(Contestant::Rsync));
            let part = |ratio: Option<f64>| ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"));
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                row.what,
                cells.join(" | "),
                part(row.ratio(Contestant::Both)),
                part(row.ratio(Contestant::PassThrough)),
                part(peer)
            );
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let series: serde_json::Map<_, _> = row
                    .series
                    .iter()
                    .map(|(contestant, series)| (contestant.name().to_owned(), series.0.clone().into()))
                    .collect();
                serde_json::json!({ "workload": row.what, "unit": row.unit, "figures": series })
            })
            .collect();
        serde_json::json!({ "title": self.title, "setting": self.setting, "rows": rows })
    }

    /// Bars of each workload, as parts of the best of its row; written out, so that colour is not needed.
    fn chart(&self) -> String {
        let shades = ["#bbbbbb", "#777777", "#88ccee", "#117733", "#ddaa33", "#cc6677"];
        let (mut body, mut y) = (String::new(), 30.0);
        for row in &self.rows {
            let best = row.series.values().map(Series::median).fold(f64::MIN_POSITIVE, f64::max);
            let _infallible =
                writeln!(body, "<text x='8' y='{y}' font-weight='bold'>{} ({})</text>", row.what, row.unit);
            y += 6.0;
            for (contestant, shade) in ORDER.iter().zip(shades) {
                let Some(series) = row.series.get(contestant) else { continue };
                let median = series.median();
                let _infallible = writeln!(
                    body,
                    "<rect x='110' y='{y}' width='{:.1}' height='12' fill='{shade}'/><text x='8' y='{}'>{}</text><text x='{:.1}' y='{}'>{}</text>",
                    median / best * 440.0,
                    y + 10.0,
                    contestant.name(),
                    116.0 + median / best * 440.0,
                    y + 10.0,
                    rounded(median)
                );
                y += 15.0;
            }
            y += 18.0;
        }
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='640' height='{y}' font-family='sans-serif' font-size='11'>\n\
             <rect width='640' height='{y}' fill='white'/>\n<text x='8' y='14'>{} ({})</text>\n{body}</svg>\n",
            self.title, self.setting
        )
    }
}

impl Row {
    fn ratio(&self, to: Contestant) -> Option<f64> {
        let own = self.series.get(&Contestant::Mirrored)?.median();
        Some(own / self.series.get(&to)?.median().max(f64::MIN_POSITIVE))
    }
}

fn rounded(figure: f64) -> String {
    if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
}

/// Day and commit.
///
/// # Errors
/// `date` cannot be run.
pub fn title() -> Result<String> {
    let said = |program: &str, words: &[&str]| -> Result<String> {
        let output = Command::new(program).args(words).output().context(|| program.to_owned())?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let day = said("date", &["--utc", "+%Y-%m-%d"])?;
    Ok(format!("{day}, {}", said("git", &["describe", "--always", "--dirty"])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let time = std::time::Duration::from_secs(1);
        Plan { rounds: 3, time, memory: true, only: None, gluster: false, resync: false }
    }

    #[test]
    fn ratios_are_of_medians() {
        let mut results = Results::new(&plan()).unwrap();
        for figure in [10.0, 1000.0, 30.0] {
            results.add("w", "/s", Contestant::Mirrored, figure);
            results.add("w", "/s", Contestant::Gluster, figure / 2.0);
        }
        assert_eq!(results.rows[0].ratio(Contestant::Gluster), Some(2.0));
        assert_eq!(results.rows[0].ratio(Contestant::PassThrough), None);
        let table = results.table();
        assert!(
            table.contains(
                "| w | – | – | – | 30.00 /s (10.00 to 1000) | 15.00 /s (5.00 to 500) | – | – | – | 2.00 |"
            ),
            "{table}"
        );
    }
}
