//! Whether a module starts by itself when the daemon does.
//!
//! The boot setting counts once per boot of the machine; a daemon that returns under the same boot id goes on with
//! what was last asked for.

use std::io;
use std::path::Path;

use safe_failover::hard::Desired;
use safe_proto::spec::Boot;
use serde::{Deserialize, Serialize};

use crate::store::replace_file;

/// The record of the last decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Decided {
    /// Boot id, hexadecimal.
    #[serde(with = "hex")]
    boot_id: u128,
    /// The setting kept the module stopped; until somebody starts it.
    held: bool,
}

/// What to do when the daemon starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Start the module.
    pub(super) start: bool,
    /// This is the first start since the machine booted: `boot_delay` counts.
    pub(super) booted: bool,
}

/// Identity of this boot of the machine.
///
/// # Errors
/// The kernel does not say.
pub(super) fn boot_id() -> io::Result<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).map_err(io::Error::other)
}

/// Decides, and records the decision, if it is the first under this boot id.
pub(super) fn decide(record: &Path, boot_id: u128, setting: Boot, desired: Desired) -> Start {
    let resume = desired == Desired::Started;
    let before = std::fs::read(record).ok().and_then(|text| serde_json::from_slice::<Decided>(&text).ok());
    if let Some(before) = before.filter(|before| before.boot_id == boot_id) {
        return Start { start: resume && !before.held, booted: false };
    }
    let start = match setting {
        Boot::On => true,
        Boot::Off => false,
        Boot::Auto => resume,
    };
    write(record, Decided { boot_id, held: !start && resume });
    Start { start, booted: true }
}

/// Under this boot id there is nothing to decide any more: the module was installed, or started by somebody.
pub(super) fn settle(record: &Path, boot_id: u128) {
    write(record, Decided { boot_id, held: false });
}

fn write(record: &Path, decided: Decided) {
    let written =
        serde_json::to_vec(&decided).map_err(io::Error::other).and_then(|text| replace_file(record, &text));
    if let Err(error) = written {
        // On a full disk the setting may count once more for this boot.
        tracing::warn!(%error, file = %record.display(), "cannot record what the boot setting decided");
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(from)?, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_counts_once_per_boot() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("boot");
        let decide = |boot, setting, desired| {
            let Start { start, booted } = decide(&record, boot, setting, desired);
            (start, booted)
        };
        assert_eq!(decide(1, Boot::Off, Desired::Started), (false, true));
        assert_eq!(decide(1, Boot::Off, Desired::Started), (false, false));
        // Somebody starts it by hand.
        settle(&record, 1);
        assert_eq!(decide(1, Boot::Off, Desired::Started), (true, false));
        assert_eq!(decide(2, Boot::On, Desired::Stopped), (true, true));
        assert_eq!(decide(2, Boot::On, Desired::Stopped), (false, false));
        assert_eq!(decide(3, Boot::Auto, Desired::Started), (true, true));
        assert_eq!(decide(3, Boot::Auto, Desired::Stopped), (false, false));
    }

    #[test]
    fn this_boot_has_an_id() {
        assert_ne!(boot_id().unwrap(), 0);
    }
}
