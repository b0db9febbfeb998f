//! `--at`, `--in` and `--expires`: when a message may be sent.

use jiff::civil;
use jiff::{Timestamp, Zoned};

use super::args::SendArguments;
use super::exit::Failure;
use crate::mapi::SysTime;

/// The times of a message (OB-19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// Sent not before.
    pub(crate) not_before: Option<SysTime>,
    /// Not wanted after.
    pub(crate) expires: Option<SysTime>,
}

impl Times {
    /// What the options say, seen from `now`.
    pub(crate) fn of(arguments: &SendArguments, now: &Zoned) -> Result<Self, Failure> {
        let not_before = send_time(arguments.at.as_deref(), arguments.after.as_deref(), now)?;
        let expires = arguments.expires.as_deref().map(|text| expiry(text, now)).transpose()?;
        match (not_before, expires) {
            (Some(begin), Some(end)) if end <= begin => Err(Failure::usage(
                "the message expires before it may be sent; give --expires a later time",
            )),
            _ => Ok(Times { not_before, expires }),
        }
    }
}

/// The end of a message's life: an instant, or a duration from now.
fn expiry(text: &str, now: &Zoned) -> Result<SysTime, Failure> {
    let after = |duration| SysTime::from(now.timestamp()).saturating_add(duration);
    let duration = || humantime::parse_duration(text.trim()).ok().map(after);
    instant(text, now).or_else(duration).ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} is neither a time nor a duration; write 2026-01-31T15:00:00Z, \
             \"2026-01-31 15:00\", 15:00, 2h or 1d"
        ))
    })
}

/// The instant `--at` or `--in` names, seen from `now`; `None` without both.
fn send_time(
    at: Option<&str>,
    after: Option<&str>,
    now: &Zoned,
) -> Result<Option<SysTime>, Failure> {
    match (at, after) {
        (Some(text), _) => instant(text, now).map(Some).ok_or_else(|| {
            Failure::usage(format!(
                "{text:?} is no time to send at; write 2026-01-31T15:00:00Z, \"2026-01-31 15:00\" \
                 or 15:00"
            ))
        }),
        (None, Some(text)) => {
            let duration = humantime::parse_duration(text).map_err(|_| {
                Failure::usage(format!("{text:?} is no duration; write 90s, 10m, 2h or 1d"))
            })?;
            Ok(Some(SysTime::from(now.timestamp()).saturating_add(duration)))
        }
        (None, None) => Ok(None),
    }
}

/// RFC 3339, a date and time of the local time zone, or a time: the next of that name.
fn instant(text: &str, now: &Zoned) -> Option<SysTime> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.into());
    }
    if text.contains('-') {
        let local = text.parse::<civil::DateTime>().ok()?;
        return Some(local.to_zoned(now.time_zone().clone()).ok()?.timestamp().into());
    }
    let time = text.parse::<civil::Time>().ok()?;
    let today = now.date().to_datetime(time).to_zoned(now.time_zone().clone()).ok()?;
    if today > *now {
        return Some(today.timestamp().into());
    }
    let tomorrow = now.date().tomorrow().ok()?.to_datetime(time);
    Some(tomorrow.to_zoned(now.time_zone().clone()).ok()?.timestamp().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    fn now() -> Zoned {
        "2026-01-31T14:00:00+01:00[Europe/Vienna]".parse().unwrap()
    }

    fn at(text: &str) -> String {
        send_time(Some(text), None, &now()).unwrap().unwrap().to_string()
    }

    #[test]
    fn times_are_read_in_three_forms() {
        assert_eq!(at("2026-02-01T08:00:00Z"), "2026-02-01T08:00:00Z");
        assert_eq!(at("2026-02-01T08:00:00+02:00"), "2026-02-01T06:00:00Z");
        assert_eq!(at("2026-07-01 08:00"), "2026-07-01T06:00:00Z");
        assert_eq!(at("2026-07-01T08:00:30"), "2026-07-01T06:00:30Z");
        assert_eq!(at("15:00"), "2026-01-31T14:00:00Z");
        assert_eq!(at("14:00"), "2026-02-01T13:00:00Z");
        assert_eq!(at(" 07:30:15 "), "2026-02-01T06:30:15Z");
    }

    #[test]
    fn durations_count_from_now() {
        let later = send_time(None, Some("1h 30m"), &now()).unwrap().unwrap();
        assert_eq!(later.to_string(), "2026-01-31T14:30:00Z");
        assert_eq!(send_time(None, None, &now()), Ok(None));
    }

    #[test]
    fn the_end_is_a_time_or_a_duration_and_comes_behind_the_beginning() {
        let times = |arguments: SendArguments| Times::of(&arguments, &now());
        let end = |text: &str| SendArguments {
            expires: Some(text.to_owned()),
            ..SendArguments::default()
        };
        let expires = |text| times(end(text)).unwrap().expires.unwrap().to_string();
        assert_eq!(expires("15:00"), "2026-01-31T14:00:00Z");
        assert_eq!(expires("2026-02-01T08:00:00Z"), "2026-02-01T08:00:00Z");
        assert_eq!(expires("2h"), "2026-01-31T15:00:00Z");
        assert_eq!(times(end("whenever")).unwrap_err().exit, Exit::Usage);
        let never = SendArguments { at: Some("16:00".to_owned()), ..end("15:00") };
        assert_eq!(times(never).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn what_is_no_time_is_wrong_usage() {
        for text in ["", "soon", "25:00", "2026-13-01", "2026-02-30 10:00", "-5"] {
            assert_eq!(
                send_time(Some(text), None, &now()).unwrap_err().exit,
                Exit::Usage,
                "{text}"
            );
        }
        for text in ["", "soon", "-5m", "5"] {
            assert_eq!(
                send_time(None, Some(text), &now()).unwrap_err().exit,
                Exit::Usage,
                "{text}"
            );
        }
    }
}
