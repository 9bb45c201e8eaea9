//! Witnesses that a cluster knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClusterSettings, SettingsError, label, refuse};

/// Most witnesses, removed ones included.
const MAX_WITNESSES: usize = 16;
/// Longest target.
const MAX_TARGET: usize = 260;

/// A witness: the third machine that holds the records of modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessSettings {
    /// `HOST:PORT`, as `target` of an `[[arbiter]]`.
    pub target: String,
    /// Its name: a DNS label.
    pub name: String,
    /// Fingerprint of its CA, 64 hexadecimal digits.
    pub ca: String,
    /// Settings version in which this entry last changed: of two entries the later one counts.
    pub changed: u64,
    /// It was removed: kept so that a node which was away learns it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

impl ClusterSettings {
    /// Witnesses that count.
    pub fn witnesses(&self) -> impl Iterator<Item = &WitnessSettings> {
        self.witnesses.iter().filter(|witness| !witness.removed)
    }

    /// The next version, with this witness; the same, if it is known already.
    ///
    /// # Errors
    /// It is not usable, or there are too many.
    pub fn with_witness(&self, witness: WitnessSettings) -> Result<Self, SettingsError> {
        let known = self.witnesses().find(|known| known.target == witness.target);
        if known.is_some_and(|known| known.ca == witness.ca && known.name == witness.name) {
            return Ok(self.clone());
        }
        let mut next = self.clone();
        next.version += 1;
        let entry = WitnessSettings { changed: next.version, removed: false, ..witness };
        next.witnesses.retain(|known| known.target != entry.target);
        next.witnesses.push(entry);
        next.witnesses.sort_by(|a, b| a.target.cmp(&b.target));
        next.validate()?;
        Ok(next)
    }

    /// The next version, without the witness at this target.
    ///
    /// # Errors
    /// There is none.
    pub fn without_witness(&self, target: &str) -> Result<Self, SettingsError> {
        let mut next = self.clone();
        next.version += 1;
        let found = next.witnesses.iter_mut().find(|known| known.target == target && !known.removed);
        let found = found.ok_or_else(|| {
            refuse(format!("the cluster knows no witness {target}: `safectl witness status` lists them"))
        })?;
        (found.removed, found.changed) = (true, next.version);
        Ok(next)
    }

    pub(super) fn validate_witnesses(&self) -> Result<(), SettingsError> {
        if self.witnesses.len() > MAX_WITNESSES {
            return Err(refuse(format!(
                "a cluster knows at most {MAX_WITNESSES} witnesses, removed ones included"
            )));
        }
        for (index, witness) in self.witnesses.iter().enumerate() {
            label("witness", &witness.name)?;
            target(&witness.target)?;
            if witness.ca.len() != 64 || !witness.ca.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let message =
                    format!("witness {}: its fingerprint is not 64 hexadecimal digits", witness.target);
                return Err(refuse(message));
            }
            if self.witnesses[..index].iter().any(|other| other.target == witness.target) {
                return Err(refuse(format!("witness {} is named twice", witness.target)));
            }
        }
        Ok(())
    }
}

/// Checks a `HOST:PORT`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn target(text: &str) -> Result<(), SettingsError> {
    let good = |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    let split = text
        .rsplit_once(':')
        .filter(|(host, port)| good(host) && port.parse::<u16>().is_ok_and(|port| port > 0));
    if text.len() <= MAX_TARGET && split.is_some() {
        return Ok(());
    }
    let shown: String = text.chars().take(100).flat_map(char::escape_default).collect();
    Err(refuse(format!(
        "'{shown}' is not a place of a witness; write it as HOST:PORT, as in 192.168.1.9:9403"
    )))
}

/// Of each target the entry that changed last; of two that changed at once the one with the greater fingerprint, so that
/// all nodes choose the same.
pub(super) fn merge(newer: &[WitnessSettings], older: &[WitnessSettings]) -> Vec<WitnessSettings> {
    let mut merged: BTreeMap<&str, &WitnessSettings> = BTreeMap::new();
    let rank = |witness: &WitnessSettings| {
        (witness.changed, witness.removed, witness.ca.clone(), witness.name.clone())
    };
    for witness in newer.iter().chain(older) {
        let kept = merged.entry(&witness.target).or_insert(witness);
        if rank(witness) > rank(kept) {
            *kept = witness;
        }
    }
    merged.into_values().cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::{NodeSettings, Ports};

    fn one() -> ClusterSettings {
        let node = NodeSettings {
            name: "n1".to_owned(),
            addresses: BTreeMap::from([("default".to_owned(), [10, 0, 0, 1].into())]),
            joined: 1,
            changed: 1,
            key: "ab".repeat(32),
        };
        ClusterSettings::new("demo", vec!["default".to_owned()], Ports::default(), node).unwrap()
    }

    fn witness(target: &str) -> WitnessSettings {
        WitnessSettings {
            target: target.to_owned(),
            name: "witness".to_owned(),
            ca: "cd".repeat(32),
            changed: 0,
            removed: false,
        }
    }

    #[test]
    fn witnesses_are_added_and_removed_and_both_sides_agree() {
        let base = one();
        assert!(!base.to_json().contains("witnesses"), "settings without any are as before");
        let with = base.with_witness(witness("10.0.0.9:9403")).unwrap();
        assert_eq!(with.with_witness(witness("10.0.0.9:9403")).unwrap(), with);
        assert_eq!(ClusterSettings::parse(&with.to_json()).unwrap(), with);
        let apart = with.with_witness(witness("w:1")).unwrap();
        let without = with.without_witness("10.0.0.9:9403").unwrap();
        assert_eq!(apart.merge(&without), without.merge(&apart));
        let merged = apart.merge(&without);
        assert_eq!(merged.witnesses().map(|one| one.target.as_str()).collect::<Vec<_>>(), ["w:1"]);
        assert!(merged.without_witness("10.0.0.9:9403").is_err());
        let again = merged.with_witness(witness("10.0.0.9:9403")).unwrap();
        assert_eq!(again.merge(&without).witnesses().count(), 2);
    }

    #[test]
    fn targets_are_checked() {
        for bad in ["", "w", "w:0", ":1", "w:70000", "a b:1"] {
            assert!(one().with_witness(witness(bad)).is_err(), "{bad}");
        }
        assert!(one().with_witness(witness("[fd00::1]:9403")).is_ok());
    }
}
