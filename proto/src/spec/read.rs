//! Text to types, with a line for everything that is wrong.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use super::{FILE, Finding, MAX_BYTES, ModuleSpec, suggest};

/// Most findings about the form of one file; more would only hide the first.
const MAX_FINDINGS: usize = 20;

/// The line of each key, by its path (`replicate.0.path`).
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(BTreeMap<String, u32>);

/// Two modules are equal if they say the same, wherever it stands.
impl PartialEq for Lines {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Lines {}

impl Lines {
    /// Line of a key, or of the nearest table around it; 0 if there is none.
    pub(super) fn of(&self, key: &str) -> u32 {
        let mut key = key;
        loop {
            if let Some(line) = self.0.get(key) {
                return *line;
            }
            match key.rfind('.') {
                Some(end) => key = &key[..end],
                None => return 0,
            }
        }
    }

    fn collect(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path =
                if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            self.0.insert(path.clone(), line_at(text, key.span().start));
            self.descend(text, &path, value);
        }
    }

    fn descend(&mut self, text: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        if let Some(table) = value.get_ref().as_table() {
            self.collect(text, path, table);
        } else if let Some(array) = value.get_ref().as_array() {
            for (index, item) in array.iter().enumerate() {
                let path = format!("{path}.{index}");
                self.0.insert(path.clone(), line_at(text, item.span().start));
                self.descend(text, &path, item);
            }
        }
    }
}

/// Reads the text; see [`ModuleSpec::parse`].
pub(super) fn read(text: &str) -> Result<ModuleSpec, Vec<Finding>> {
    parse(text).map_err(|mut findings| {
        findings.sort_by_key(|finding| finding.line);
        findings
    })
}

fn parse(text: &str) -> Result<ModuleSpec, Vec<Finding>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Finding::error(FILE, format!("the file is larger than {} KiB", MAX_BYTES / 1024))]);
    }
    let (mut root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .take(MAX_FINDINGS)
            .map(|error| finding(text, root.get_ref(), error))
            .collect());
    }
    let mut lines = Lines::default();
    lines.collect(text, "", root.get_ref());
    let mut findings = Vec::new();
    let mut removed = Vec::new();
    // Serde stops at the first error. What it objects to is noted and taken out, and the rest tried again.
    loop {
        let error = match ModuleSpec::deserialize(Deserializer::from(root.clone())) {
            Ok(spec) if findings.is_empty() => return Ok(ModuleSpec { lines, ..spec }),
            Ok(_) => return Err(findings),
            Err(error) => error,
        };
        // A key that is missing only because it was taken out has been told already.
        if missing(&error).is_none_or(|field| !removed.iter().any(|name| name == field)) {
            findings.push(finding(text, root.get_ref(), &error));
        }
        match error.span().and_then(|span| remove(root.get_mut(), &span)) {
            Some(name) if findings.len() < MAX_FINDINGS => removed.push(name),
            Some(_) | None => return Err(findings),
        }
    }
}

fn missing(error: &Error) -> Option<&str> {
    let rest = error.message().strip_prefix("missing field `")?;
    rest.split_once('`').map(|(field, _)| field)
}

fn finding(text: &str, root: &DeTable<'_>, error: &Error) -> Finding {
    let line = error.span().map_or(0, |span| line_at(text, span.start));
    let name = error.span().and_then(|span| name_of(root, &span));
    let twice = error.span().filter(|_| error.message() == "duplicate key").and_then(|span| text.get(span));
    if let Some(key) = twice {
        let message = format!("the key \"{key}\" is given twice; remove one");
        return Finding { error: true, file: FILE.to_owned(), line, message };
    }
    let message = match (missing(error), name) {
        (Some(field), _) => format!("the key \"{field}\" is missing here"),
        (None, Some(name)) => format!("{name}: {}", suggest::explain(error.message())),
        (None, None) => suggest::explain(error.message()),
    };
    Finding { error: true, file: FILE.to_owned(), line, message }
}

/// Name of the key whose value, or an item of it, stands at `span`.
fn name_of(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let nested = |value: &Spanned<DeValue<'_>>| match (value.get_ref().as_table(), value.get_ref().as_array())
    {
        (Some(table), _) => name_of(table, span),
        (_, Some(items)) => {
            items.iter().filter_map(|item| item.get_ref().as_table()).find_map(|table| name_of(table, span))
        }
        _ => None,
    };
    let here = table.iter().find(|(_, value)| is_at(value, span)).map(|(key, _)| key.get_ref().to_string());
    here.or_else(|| table.values().find_map(nested))
}

/// Takes out the entry that `span` points at: its key, its value, or an item of its list. Returns its name.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let found = table.iter().find(|(key, value)| key.span() == *span || is_at(value, span));
    if let Some(key) = found.map(|(key, _)| key.clone()) {
        return table.remove(&key).map(|_| key.get_ref().to_string());
    }
    table.iter_mut().find_map(|(_, value)| remove_within(value.get_mut(), span))
}

fn is_at(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let item_is = |items: &DeArray<'_>| items.iter().any(|item| item.span() == *span);
    value.span() == *span || value.get_ref().as_array().is_some_and(item_is)
}

fn remove_within(value: &mut DeValue<'_>, span: &Range<usize>) -> Option<String> {
    match value {
        DeValue::Table(table) => remove(table, span),
        DeValue::Array(items) => items.iter_mut().find_map(|item| remove_within(item.get_mut(), span)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    }
}

fn line_at(text: &str, offset: usize) -> u32 {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    u32::try_from(before.iter().filter(|&&byte| byte == b'\n').count() + 1).unwrap_or(u32::MAX)
}
