//! Tables for people.

use std::io::IsTerminal;

use comfy_table::{
    Attribute, Cell as StyledCell, Color, ColumnConstraint, ContentArrangement, Table as StyledTable, Width,
    presets,
};

/// How a cell is to look. Never the only sign: what it says stands in words or symbols too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Moving,
    Bad,
    Faint,
}

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Spaces before a line that belongs to the row above it.
const INDENT: &str = "    ";

/// A table: a line of names on top, rows with sentences under them, and lines below it all.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Row>,
    below: Vec<String>,
    /// The last column holds sentences and is wrapped; else no cell is.
    prose: bool,
    /// Name of the column of remarks.
    remarks: &'static str,
}

#[derive(Debug)]
struct Row {
    cells: Vec<Cell>,
    remark: Option<String>,
    notes: Vec<String>,
}

impl Table {
    /// A table of short words.
    pub(crate) fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            header: header.into_iter().collect(),
            rows: Vec::new(),
            below: Vec::new(),
            prose: false,
            remarks: "",
        }
    }

    /// A table with sentences in its last column.
    pub(crate) fn with_prose(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self { prose: true, ..Self::new(header) }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(Row { cells: cells.into_iter().collect(), remark: None, notes: Vec::new() });
    }

    /// A sentence to the last row: in one more column named `name` where all of it has room there, else under the row
    /// (not for tables with prose).
    pub(crate) fn remark(&mut self, name: &'static str, remark: impl Into<String>) {
        self.remarks = name;
        if let Some(row) = self.rows.last_mut() {
            row.remark = Some(remark.into());
        }
    }

    /// A sentence under the last row (not for tables with prose).
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        if let Some(row) = self.rows.last_mut() {
            row.notes.push(note.into());
        }
    }

    /// A line under the table.
    pub(crate) fn below(&mut self, line: impl Into<String>) {
        self.below.push(line.into());
    }

    /// The text.
    pub(crate) fn render(&self, width: u16) -> String {
        let mut lines = Vec::new();
        if !self.rows.is_empty() {
            let table = self.styled(width).lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
            lines = if self.prose { table } else { self.annotated(table, width) };
        }
        lines.extend(self.below.iter().cloned());
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The lines with the remarks beside them and the notes under them.
    fn annotated(&self, table: Vec<String>, width: u16) -> Vec<String> {
        let widest = table.iter().map(|line| shown_width(line)).max().unwrap_or(0) + 2;
        let room = usize::from(width).saturating_sub(widest);
        let fits = |row: &Row| row.remark.as_ref().is_some_and(|remark| shown_width(remark) <= room);
        let beside = |line: &str, remark: &str| {
            let gap = " ".repeat(widest.saturating_sub(shown_width(line)));
            format!("{line}{gap}{remark}")
        };
        let mut table = table.into_iter();
        let mut lines: Vec<String> = table.next().into_iter().collect();
        if let Some(header) = lines.first_mut().filter(|_| self.rows.iter().any(fits)) {
            *header = beside(header, &format!("\u{1b}[1m{}\u{1b}[0m", self.remarks));
        }
        for (line, row) in table.zip(&self.rows) {
            match &row.remark {
                Some(remark) if fits(row) => lines.push(beside(&line, remark)),
                Some(remark) => {
                    lines.push(line);
                    lines.extend(wrap(remark, width));
                }
                None => lines.push(line),
            }
            lines.extend(row.notes.iter().flat_map(|note| wrap(note, width)));
        }
        lines
    }

    fn styled(&self, width: u16) -> StyledTable {
        let mut table = StyledTable::new();
        table.load_style(presets::NOTHING).set_width(width).enforce_styling().style_text_only();
        table.set_header(self.header.iter().map(|name| StyledCell::new(name).add_attribute(Attribute::Bold)));
        for row in &self.rows {
            table.add_row(row.cells.iter().map(style));
        }
        let arrangement = if self.prose { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
        table.set_content_arrangement(arrangement);
        let widest = table.column_max_content_widths();
        for (index, column) in table.column_iter_mut().enumerate() {
            let last = index + 1 == self.header.len();
            column.set_padding((0, if last { 0 } else { 2 }));
            if self.prose && !last {
                let wide = widest.get(index).copied().unwrap_or(0) + 2;
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(wide)));
            }
        }
        table
    }
}

fn style(cell: &Cell) -> StyledCell {
    let styled = StyledCell::new(&cell.text);
    match cell.tone {
        Tone::Plain => styled,
        Tone::Good => styled.fg(Color::Green),
        Tone::Moving => styled.fg(Color::Yellow),
        Tone::Bad => styled.fg(Color::Red).add_attribute(Attribute::Bold),
        Tone::Faint => styled.add_attribute(Attribute::Dim),
    }
}

/// Breaks a sentence between words. A command to be typed stays on one line, so that it can be copied.
fn wrap(note: &str, width: u16) -> Vec<String> {
    if note.starts_with("type:") || note.contains("safectl ") {
        return vec![format!("{INDENT}{note}")];
    }
    let room = usize::from(width).saturating_sub(INDENT.len()).max(20);
    let mut lines: Vec<String> = Vec::new();
    for word in note.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() - INDENT.len() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{INDENT}{word}")),
        }
    }
    lines
}

/// Columns a line takes, its colours aside.
fn shown_width(line: &str) -> usize {
    anstream::adapter::strip_str(line).to_string().chars().count()
}

/// Columns of the terminal that stdout is, if it is one.
pub(super) fn terminal_width() -> Option<u16> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    StyledTable::new().width().filter(|&columns| columns >= 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_stand_under_their_row() {
        let mut table = Table::new(["A", "B"]);
        table.row([Cell::plain("one"), Cell::plain("x")]);
        table.note("some words that are too long for one line of forty columns");
        table.note("type: a command that is longer than forty columns in all");
        table.row([Cell::plain("two"), Cell::plain("y")]);
        table.below("done");
        let text = anstream::adapter::strip_str(&table.render(40)).to_string();
        let expected = "A    B\none  x\n    some words that are too long for one\n    line of forty columns\n    \
                        type: a command that is longer than forty columns in all\ntwo  y\ndone\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn prose_wraps_in_its_column() {
        let mut table = Table::with_prose(["A", "B"]);
        table.row([Cell::plain("one"), Cell::plain("some words that are too long for one line of forty")]);
        let text = anstream::adapter::strip_str(&table.render(40)).to_string();
        assert_eq!(text, "A    B\none  some words that are too long for\n     one line of forty\n");
    }
}
