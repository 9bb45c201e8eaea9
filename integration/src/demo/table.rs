//! The closing table of the demo.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Loss of power to the first answer at the address.
    pub failover: Duration,
    /// Power on to SECOND.
    pub resync: Duration,
    /// Longest time without an acknowledgement during the resync.
    pub pause_of_resync: Duration,
    /// Bytes that the resync sent.
    pub bytes_sent: u64,
    /// Bytes that it had to look at.
    pub bytes_total: u64,
    /// Longest time without an acknowledgement around the swap.
    pub swap: Duration,
    /// Writes acknowledged.
    pub acknowledged: usize,
    /// Of those, writes that the ledger does not have.
    pub lost: usize,
    /// Lines in which the two trees differ.
    pub differences: usize,
}

impl Outcome {
    /// Nothing was lost, both trees are equal.
    pub fn is_good(&self) -> bool {
        self.acknowledged > 0 && self.lost == 0 && self.differences == 0
    }

    /// For the terminal.
    pub fn table(&self) -> String {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let equal = if self.differences == 0 {
            "yes".to_owned()
        } else {
            format!("{} differences", self.differences)
        };
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let rows = [
            ("failover: power lost to first answer at the address", seconds(self.failover)),
            ("writes acknowledged", self.acknowledged.to_string()),
            ("acknowledged writes lost", self.lost.to_string()),
            ("return: power on to in step", seconds(self.resync)),
            ("bytes resynchronised (looked at)", self.bytes()),
            ("longest pause of writes during the return", seconds(self.pause_of_resync)),
            ("longest pause of writes around the swap", seconds(self.swap)),
            ("both trees equal (rsync --checksum)", equal),
        ];
        for (name, value) in rows {
            table.add_row([name.to_owned(), value]);
        }
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    fn bytes(&self) -> String {
        let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
        format!("{} ({})", kib(self.bytes_sent), kib(self.bytes_total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_write_is_not_good() {
        let good = Outcome { acknowledged: 3, ..Outcome::default() };
        assert!(good.is_good());
        assert!(!Outcome { lost: 1, ..good.clone() }.is_good());
        assert!(!Outcome { differences: 1, ..good.clone() }.is_good());
        assert!(good.table().contains("acknowledged writes lost"));
    }
}
