//! What differs between two versions of a module, and what of it a module that runs can take.

use std::collections::BTreeMap;

use super::ModuleSpec;

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As in `heartbeat.timeout`; a table that may be there several times as a whole, as in `[[address]]`.
    pub key: String,
    /// What it was; for tables the names of those that are there.
    pub before: String,
    /// What it is to be.
    pub after: String,
    /// Why the module must be stopped for it; none: it need not be.
    pub stop: Option<&'static str>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.before == self.after {
            // The same names with other keys.
            return f.write_str(&self.key);
        }
        let shown = |text: &'static str, value: &str| {
            if value.is_empty() { text.to_owned() } else { value.to_owned() }
        };
        write!(f, "{}: {} -> {}", self.key, shown("none", &self.before), shown("none", &self.after))
    }
}

const KIND: &str = "another kind of module begins anew";
const NODES: &str = "its nodes meet again only after a start";
const DIRECTORIES: &str = "what is replicated, and how, is settled at a start";

/// Tables that may be there several times, and what tells one from another.
const TABLES: [(&str, &str); 6] = [
    ("replicate", "path"),
    ("address", "ip"),
    ("arbiter", "target"),
    ("process", "name"),
    ("check", "name"),
    ("rule", "label"),
];

impl ModuleSpec {
    /// Everything that `next` says otherwise, but for the name: a module keeps the one under which it is installed.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Vec<Change> {
        let (before, after) = (keys(self), keys(next));
        let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut changes = Vec::new();
        for key in names {
            let (old, new) = (before.get(key), after.get(key));
            if old.map(|one| &one.1) == new.map(|one| &one.1) || key == "module.name" {
                continue;
            }
            let shown = |one: Option<&(String, String)>| one.map(|one| one.0.clone()).unwrap_or_default();
            let stop = match key.as_str() {
                "module.kind" => Some(KIND),
                "module.nodes" => Some(NODES),
                "[[replicate]]" => Some(DIRECTORIES),
                _ => None,
            };
            changes.push(Change { key: key.clone(), before: shown(old), after: shown(new), stop });
        }
        changes
    }
}

/// Every key with what is shown of it and all that it says.
fn keys(spec: &ModuleSpec) -> BTreeMap<String, (String, String)> {
    let mut keys = BTreeMap::new();
    // What was read from TOML can be written as TOML.
    let Ok(toml::Value::Table(tables)) = toml::Value::try_from(spec) else { return keys };
    for (table, value) in tables {
        if let Some((_, name)) = TABLES.iter().find(|(known, _)| *known == table) {
            let names: Vec<&str> = value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|one| one.get(*name).and_then(toml::Value::as_str))
                .collect();
            keys.insert(format!("[[{table}]]"), (names.join(", "), value.to_string()));
        } else if let toml::Value::Table(table_keys) = value {
            for (key, value) in table_keys {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                keys.insert(format!("{table}.{key}"), (shown.clone(), shown));
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> ModuleSpec {
        let head = "[module]\nname = \"db\"\nkind = \"mirror\"\nnodes = [\"n1\", \"n2\"]\n";
        ModuleSpec::parse(&format!("{head}{text}")).unwrap()
    }

    fn changes(before: &str, after: &str) -> Vec<(String, bool)> {
        let changes = spec(before).changes(&spec(after));
        changes.iter().map(|change| (change.to_string(), change.stop.is_some())).collect()
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        assert!(changes("", "").is_empty());
        assert!(changes("", "[heartbeat]\ntimeout = \"3s\"").is_empty(), "the default, written down");
    }

    #[test]
    fn a_running_module_takes_most_things() {
        let after = "boot = \"on\"\n[heartbeat]\ntimeout = \"1s\"\n[[address]]\nip = \"10.0.0.9/24\"\n\
                     [[rule]]\nlabel = \"r\"\nif = \"check.tcp.db == down\"\nthen = \"swap\"\n[env]\nA = \"1\"\n";
        assert_eq!(
            changes("", after),
            [
                "[[address]]: none -> 10.0.0.9/24",
                "[[rule]]: none -> r",
                "env.A: none -> 1",
                "heartbeat.timeout: 3s -> 1s",
                "module.boot: auto -> on",
            ]
            .map(|text| (text.to_owned(), false))
        );
    }

    #[test]
    fn what_is_replicated_does_not_change_under_way() {
        let one = "[[replicate]]\npath = \"/srv/a\"\n";
        assert_eq!(changes("", one), [("[[replicate]]: none -> /srv/a".to_owned(), true)]);
        let fsync = "[[replicate]]\npath = \"/srv/a\"\nsync = \"fsync\"\n";
        assert_eq!(changes(one, fsync), [("[[replicate]]".to_owned(), true)]);
    }

    #[test]
    fn arbiters_come_go_and_are_exchanged() {
        let witness = |target: &str| format!("[[arbiter]]\nkind = \"witness\"\ntarget = \"{target}\"\n");
        let ping = "[[arbiter]]\nkind = \"ping\"\ntarget = \"10.0.0.1\"\n";
        let stop = |before: &str, after: &str| changes(before, after)[0].1;
        let (one, other) = (witness("w1:9403"), witness("w2:9403"));
        assert!(!stop(&one, &other));
        assert!(!stop("", &one) && !stop(&one, "") && !stop(ping, &one) && !stop(&one, ping));
    }
}
