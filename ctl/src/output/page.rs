//! A page of the guide for the terminal: the few forms of Markdown that the guide is written in.

use owo_colors::OwoColorize;

/// Widest text: longer lines are hard to read.
const MOST: usize = 100;
/// Before everything but headings.
const INDENT: &str = "  ";
/// Between the columns of a table.
const GAP: usize = 2;
/// The last column of a table is wrapped, down to this; with less room each row becomes lines.
const LAST_COLUMN: usize = 34;

/// The page in lines of at most `width` columns, and never more than 100. Code stays as it is, so that it can be copied.
pub(crate) fn render(markdown: &str, width: usize) -> String {
    let width = width.min(MOST);
    let mut out = Vec::new();
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        let block = Block::of(line);
        let mut text = vec![line];
        while let Some(next) = lines.next_if(|next| block.takes(next)) {
            text.push(next);
        }
        match block {
            Block::Blank => out.push(String::new()),
            Block::Heading => out.push(heading(line)),
            Block::Code => out.extend(text.iter().map(|line| line.trim_end().to_owned())),
            Block::Table => out.extend(table(&text, width)),
            Block::Item => {
                let words = text.join(" ");
                let words = words.trim_start_matches("- ");
                out.extend(fill(words, &format!("{INDENT}- "), &format!("{INDENT}  "), width));
            }
            Block::Paragraph => out.extend(fill(&text.join(" "), INDENT, INDENT, width)),
        }
    }
    out.join("\n")
}

/// What a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Blank,
    Heading,
    Code,
    Table,
    Item,
    Paragraph,
}

impl Block {
    fn of(line: &str) -> Self {
        if line.trim().is_empty() {
            Self::Blank
        } else if line.starts_with('#') {
            Self::Heading
        } else if line.starts_with("    ") {
            Self::Code
        } else if line.starts_with('|') {
            Self::Table
        } else if line.starts_with("- ") {
            Self::Item
        } else {
            Self::Paragraph
        }
    }

    /// The next line belongs to the block, too.
    fn takes(self, next: &str) -> bool {
        match self {
            Self::Blank | Self::Heading => false,
            Self::Code | Self::Table | Self::Paragraph => Self::of(next) == self,
            Self::Item => next.starts_with("  ") && !next.trim().is_empty(),
        }
    }
}

fn heading(line: &str) -> String {
    let level = line.chars().take_while(|&c| c == '#').count();
    let text = plain(line[level..].trim());
    match level {
        1 => format!("{}", text.to_uppercase().bold()),
        _ => format!("{}", text.bold()),
    }
}

/// Marks of emphasis are left out; those of code stay, as they tell words from names.
fn plain(text: &str) -> String {
    text.replace("**", "")
}

/// Breaks between words. `first` stands before the first line, `rest` before the others.
pub(super) fn fill(text: &str, first: &str, rest: &str, width: usize) -> Vec<String> {
    let text = plain(text);
    let mut lines: Vec<String> = Vec::new();
    let mut begun = false;
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if begun && columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            last => {
                let before = if last.is_none() { first } else { rest };
                lines.push(format!("{before}{word}"));
                begun = true;
            }
        }
    }
    lines
}

fn table(text: &[&str], width: usize) -> Vec<String> {
    let mut rows: Vec<Vec<String>> = text.iter().map(|line| cells(line)).collect();
    // The line under the header.
    rows.retain(|row| !row.iter().all(|cell| cell.chars().all(|c| c == '-')));
    let Some((header, body)) = rows.split_first() else { return Vec::new() };
    let count = header.len();
    let widths: Vec<usize> = (0..count)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| columns(cell)).max().unwrap_or(0))
        .collect();
    let before: usize = INDENT.len() + widths.iter().rev().skip(1).map(|wide| wide + GAP).sum::<usize>();
    let last = widths.last().copied().unwrap_or(0);
    if before + last.min(LAST_COLUMN) > width {
        return body.iter().flat_map(|row| stacked(header, row, width)).collect();
    }
    rows.iter()
        .enumerate()
        .flat_map(|(number, row)| {
            let lines = aligned(row, &widths, before, width);
            let bold = move |line: String| if number == 0 { format!("{}", line.bold()) } else { line };
            lines.into_iter().map(bold)
        })
        .collect()
}

/// A row as one line of columns; its last cell goes on below itself.
fn aligned(row: &[String], widths: &[usize], before: usize, width: usize) -> Vec<String> {
    let mut first = INDENT.to_owned();
    let short = widths.len().saturating_sub(1);
    for (cell, wide) in row.iter().zip(widths).take(short) {
        first.push_str(cell);
        first.push_str(&" ".repeat(wide + GAP - columns(cell)));
    }
    let last = row.get(short).map_or("", String::as_str);
    let lines = fill(last, &first, &" ".repeat(before), width);
    if lines.is_empty() { vec![first.trim_end().to_owned()] } else { lines }
}

/// A row as a line for its first cell, and one or more for each of the others.
fn stacked(header: &[String], row: &[String], width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, cell) in row.iter().enumerate() {
        match header.get(at).filter(|_| at > 0) {
            _ if cell.is_empty() => {}
            None => lines.extend(fill(cell, INDENT, INDENT, width)),
            Some(name) => {
                lines.extend(fill(cell, &format!("{INDENT}    {name}: "), &format!("{INDENT}      "), width));
            }
        }
    }
    lines
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim();
    let inner = inner.strip_prefix('|').unwrap_or(inner);
    inner.strip_suffix('|').unwrap_or(inner).split('|').map(|cell| plain(cell.trim())).collect()
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(markdown: &str, width: usize) -> String {
        anstream::adapter::strip_str(&render(markdown, width)).to_string()
    }

    #[test]
    fn each_form() {
        let page = "# A page\n\nSome **words** that are\nwrapped again.\n\n## Part\n\n- one thing that is longer\n  than a line\n\n    \
                    code --that stays as it is, however long it may be\n";
        insta::assert_snapshot!(shown(page, 30), @r"
        A PAGE

          Some words that are wrapped
          again.

        Part

          - one thing that is longer
            than a line

            code --that stays as it is, however long it may be
        ");
    }

    #[test]
    fn a_table_with_room_has_columns_and_else_lines() {
        let page = "| key | default | meaning |\n| --- | --- | --- |\n| `a` | `\"on\"` | some words that need two lines at the least |\n| `bb` | | other words |\n";
        insta::assert_snapshot!(shown(page, 56), @r#"
          key   default  meaning
          `a`   `"on"`   some words that need two lines at the
                         least
          `bb`           other words
        "#);
        insta::assert_snapshot!(shown(page, 40), @r#"
          `a`
              default: `"on"`
              meaning: some words that need two
                lines at the least
          `bb`
              meaning: other words
        "#);
    }
}
