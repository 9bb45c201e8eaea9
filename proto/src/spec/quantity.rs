//! Durations and sizes as people write them: `300ms`, `10m`, `10GiB`.

use std::time::Duration;

/// Units of time, longest name first where one ends with another.
const TIMES: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Units of size.
const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads a duration: a whole number and a unit (`us ms s m h d`), or several of them (`1h30m`).
///
/// # Errors
/// What was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("{text:?} is not a duration; write a number and a unit, such as \"300ms\", \"10s\" or \"5m\"")
    };
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(wrong)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        total = number.checked_mul(*factor).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = next;
    }
    Ok(Duration::from_micros(total))
}

/// Writes a duration in the largest unit that holds it exactly; the inverse of [`parse_duration`].
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    if micros == 0 {
        return "0s".to_owned();
    }
    TIMES
        .iter()
        .rev()
        .find(|(_, factor)| micros.is_multiple_of(*factor))
        .map_or_else(|| format!("{micros}us"), |(unit, factor)| format!("{}{unit}", micros / factor))
}

/// Reads a size: a whole number and a unit (`B KiB MiB GiB TiB kB MB GB TB`).
///
/// # Errors
/// What was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is not a size; write a number and a unit, such as \"512MiB\" or \"10GiB\"");
    let (number, unit) = split_number(text.trim()).ok_or_else(wrong)?;
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

/// Writes a size in the largest binary unit that holds it exactly; the inverse of [`parse_size`].
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let binary = SIZES.iter().take(4).rev().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    binary.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// Serde of a [`Duration`] as text.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Serde of a number of bytes as text.
pub(super) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde calls")]
    pub(crate) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_size(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        super::parse_size(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Serde of a switch written `on` or `off`.
pub(super) mod switch {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde calls")]
    pub(crate) fn serialize<S: Serializer>(value: &bool, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if *value { "on" } else { "off" })
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        match String::deserialize(from)?.as_str() {
            "on" => Ok(true),
            "off" => Ok(false),
            other => Err(D::Error::custom(format!("{other:?} is neither \"on\" nor \"off\""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, ms) in [("300ms", 300), ("3s", 3_000), ("10m", 600_000), ("24h", 86_400_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
            assert_eq!(
                parse_duration(&format_duration(Duration::from_millis(ms))),
                Ok(Duration::from_millis(ms))
            );
        }
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500ms");
        for bad in ["", "3", "s", "3 parsecs", "-1s", "1.5s", "99999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_read_and_write() {
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("5 MB"), Ok(5_000_000));
        assert_eq!(format_size(10 << 30), "10GiB");
        assert_eq!(format_size(1), "1B");
        for bad in ["", "10", "10G", "GiB", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }
}
