//! JSON values as YAML: block style, every text quoted as in JSON, which YAML reads alike.

use serde_json::Value;

/// The document.
pub(super) fn render(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes `value` as lines of their own, the first of them at the present position.
fn block(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                indent(if index == 0 { 0 } else { depth }, text);
                text.push_str("- ");
                block(item, depth + 1, text);
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            for (index, (name, field)) in fields.iter().enumerate() {
                indent(if index == 0 { 0 } else { depth }, text);
                text.push_str(&key(name));
                text.push(':');
                below(field, depth + 1, text);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            text.push_str(&value.to_string());
            text.push('\n');
        }
    }
}

/// Writes the value of a field: on the same line if it is simple.
fn below(value: &Value, depth: usize, text: &mut String) {
    let nested = match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if nested {
        text.push('\n');
        indent(depth, text);
    } else {
        text.push(' ');
    }
    block(value, depth, text);
}

/// A plain name stays plain, unless YAML reads it as something else.
fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let reserved = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&name);
    if starts && !reserved && name.chars().all(plain) {
        name.to_owned()
    } else {
        Value::from(name).to_string()
    }
}

fn indent(depth: usize, text: &mut String) {
    text.push_str(&"  ".repeat(depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nests() {
        let value = serde_json::json!([{"a": "x: y", "no": 0, "b": [1, {"c": null}], "d": {}, "e": {"f": true}}, {"a": "no"}]);
        let expected = "- a: \"x: y\"\n  b:\n    - 1\n    - c: null\n  d: {}\n  e:\n    f: true\n  \"no\": 0\n- a: \"no\"\n";
        assert_eq!(render(&value), expected);
    }
}
