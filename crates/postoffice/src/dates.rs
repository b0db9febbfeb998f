//! The date formats of the two protocols.

use time::{Month, OffsetDateTime};

fn month(date: OffsetDateTime) -> &'static str {
    match date.month() {
        Month::January => "Jan",
        Month::February => "Feb",
        Month::March => "Mar",
        Month::April => "Apr",
        Month::May => "May",
        Month::June => "Jun",
        Month::July => "Jul",
        Month::August => "Aug",
        Month::September => "Sep",
        Month::October => "Oct",
        Month::November => "Nov",
        Month::December => "Dec",
    }
}

/// `date-time` of RFC 5322 section 3.3, in UTC.
pub(crate) fn rfc5322(date: OffsetDateTime) -> String {
    let (hour, minute, second) = date.to_hms();
    format!(
        "{} {} {} {hour:02}:{minute:02}:{second:02} +0000",
        date.day(),
        month(date),
        date.year()
    )
}

/// `date-time` of RFC 3501 section 9, in UTC, without the quotes.
pub(crate) fn imap(date: OffsetDateTime) -> String {
    let (hour, minute, second) = date.to_hms();
    format!(
        "{:>2}-{}-{} {hour:02}:{minute:02}:{second:02} +0000",
        date.day(),
        month(date),
        date.year()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_each_protocol_has_them() {
        let date = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(86_400 * 31 + 3661);
        assert_eq!(rfc5322(date), "1 Feb 1970 01:01:01 +0000");
        assert_eq!(imap(date), " 1-Feb-1970 01:01:01 +0000");
    }
}
