//! One type for instants on the wall clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant of the wall clock in milliseconds since 1970-01-01T00:00:00Z, MAPI's `PT_SYSTIME`
/// in the unit the spool stores. Shown and parsed as RFC 3339.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
pub struct SysTime(u64);

impl SysTime {
    /// The epoch; sorts before every real instant.
    pub const EPOCH: SysTime = SysTime(0);
    /// The last instant that can be shown as RFC 3339; stands for "never".
    pub const MAX: SysTime = SysTime(253_402_207_200_000);

    /// The instant `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        SysTime(millis)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// `self + duration`, never past [`SysTime::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        SysTime(self.0.saturating_add(millis).min(Self::MAX.0))
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn saturating_since(self, earlier: SysTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same instant for the calendar arithmetic of `jiff`.
    pub fn to_timestamp(self) -> jiff::Timestamp {
        i64::try_from(self.0.min(Self::MAX.0))
            .ok()
            .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

impl From<jiff::Timestamp> for SysTime {
    /// Instants before 1970 become the epoch.
    fn from(timestamp: jiff::Timestamp) -> Self {
        SysTime(u64::try_from(timestamp.as_millisecond()).unwrap_or(0))
    }
}

impl fmt::Display for SysTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = jiff::Timestamp::from_second(self.to_timestamp().as_second())
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{seconds}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_rfc_3339() {
        assert_eq!(SysTime::from_millis(1_700_000_000_123).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(SysTime::EPOCH.to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(SysTime::MAX.to_string(), "9999-12-30T22:00:00Z");
    }

    #[test]
    fn arithmetic_saturates() {
        let now = SysTime::from_millis(5_000);
        assert_eq!(now.saturating_add(Duration::from_secs(2)).as_millis(), 7_000);
        assert_eq!(now.saturating_add(Duration::MAX), SysTime::MAX);
        assert_eq!(SysTime::EPOCH.saturating_since(now), Duration::ZERO);
        assert_eq!(now.saturating_since(SysTime::EPOCH), Duration::from_secs(5));
    }
}
