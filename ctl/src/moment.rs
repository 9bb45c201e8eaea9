//! Points in time as they are shown: RFC 3339, UTC.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

/// Unix milliseconds; 0: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment(pub(crate) i64);

impl Moment {
    pub(crate) fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// `2026-11-22T14:42:00.123Z`
    pub(crate) fn rfc3339(self) -> Option<String> {
        let date = self.date()?;
        let (day, clock, milli) = (day(date), clock(date), date.millisecond());
        Some(format!("{day}T{clock}.{milli:03}Z"))
    }

    /// `2026-11-22 14:42:00`
    pub(crate) fn short(self) -> String {
        self.date().map_or_else(|| "-".to_owned(), |date| format!("{} {}", day(date), clock(date)))
    }

    /// `14:42:00`
    pub(crate) fn clock(self) -> String {
        self.date().map_or_else(|| "-".to_owned(), clock)
    }

    fn date(self) -> Option<OffsetDateTime> {
        if self.0 <= 0 {
            return None;
        }
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok()
    }
}

fn day(date: OffsetDateTime) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

fn clock(date: OffsetDateTime) -> String {
    format!("{:02}:{:02}:{:02}", date.hour(), date.minute(), date.second())
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.rfc3339().serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        assert_eq!(Moment(1_795_358_520_123).rfc3339().as_deref(), Some("2026-11-22T14:42:00.123Z"));
        assert_eq!(Moment::from_seconds(1_795_358_520).short(), "2026-11-22 14:42:00");
        assert_eq!(Moment(0).rfc3339(), None);
        assert_eq!(Moment(0).short(), "-");
    }
}
