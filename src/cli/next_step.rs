//! What happens next with a message, and why, in words.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::text::{one_line, relative};
use crate::mapi::StatusCode;
use crate::session::{QueueRow, QueueRowState, StatusReport};

/// What is known beside the row.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// The status of the session; `None` when nobody works on the queue.
    pub(crate) status: Option<&'a StatusReport>,
    pub(crate) now: Timestamp,
    pub(crate) zone: &'a TimeZone,
}

impl Scene<'_> {
    /// What happens next with the message, and why.
    pub(crate) fn next_step(&self, row: &QueueRow) -> String {
        let next = row.next_attempt.as_deref();
        match row.state {
            QueueRowState::Finished | QueueRowState::Cancelled => String::new(),
            QueueRowState::Sending => "on its way".to_owned(),
            QueueRowState::Held => match row.last_error.as_deref() {
                Some(why) if why.starts_with("MAPI_E_") => {
                    format!("set aside: {}; `export` saves what is left of it", one_line(why))
                }
                _ => "held by you; `release` lets it go".to_owned(),
            },
            QueueRowState::InDoubt => match next {
                Some(next) => {
                    format!("may have been delivered; sent again {}", relative(next, self.now))
                }
                None => "may have been delivered; `retry` sends it again, `cancel` ends it".into(),
            },
            QueueRowState::Parked => "taken up again when the daemon runs".to_owned(),
            QueueRowState::Queued | QueueRowState::Deferred => self.waiting(row, next),
        }
    }

    fn waiting(&self, row: &QueueRow, next: Option<&str>) -> String {
        let ahead = next.filter(|next| self.is_ahead(next));
        if row.transport.is_empty()
            && let Some(next) = ahead
        {
            let (clock, left) = (self.clock(next), relative(next, self.now));
            return format!("sent at {clock} ({left}), as you said");
        }
        if self.status.is_none() {
            return "waits for `postrider run` or `postrider flush`".to_owned();
        }
        if let Some(why) = self.trouble(&row.transport) {
            return format!("waits for the account: {why}");
        }
        if self.is_closed(&row.transport) {
            return "waits: sending is switched off; `postrider notify begin-outbound` opens it"
                .to_owned();
        }
        let why = row.last_error.as_deref().map(one_line);
        match (ahead, why) {
            (Some(next), Some(why)) => format!("tried again {}: {why}", relative(next, self.now)),
            (Some(next), None) => format!("tried {}", relative(next, self.now)),
            (None, Some(why)) => format!("tried again now: {why}"),
            (None, None) => "next in line".to_owned(),
        }
    }

    /// Why a transport does not send.
    fn trouble(&self, transport: &str) -> Option<String> {
        let row = self.status?.rows.iter().find(|row| row.name == transport)?;
        row.sending_waits.as_deref().map(|why| self.plain_status(why))
    }

    fn is_closed(&self, transport: &str) -> bool {
        let row = self.status.and_then(|status| {
            status.rows.iter().find(|row| row.name == transport && !transport.is_empty())
        });
        row.is_some_and(|row| {
            let code = StatusCode::from_bits_retain(row.status_code);
            !code.intersects(StatusCode::OUTBOUND_ENABLED | StatusCode::OUTBOUND_FLUSH)
        })
    }

    /// `PR_STATUS_STRING` for people: without the codes, and times by the clock on the wall.
    pub(crate) fn plain_status(&self, text: &str) -> String {
        let sentences = text.split("; MAPI_E_").enumerate().map(|(place, sentence)| {
            let coded = place > 0 || sentence.starts_with("MAPI_E_");
            let bare =
                sentence.split_once(": ").filter(|_| coded).map_or(sentence, |(_, bare)| bare);
            self.with_clock(bare)
        });
        one_line(&sentences.collect::<Vec<_>>().join("; "))
    }

    fn with_clock(&self, sentence: &str) -> String {
        const MARK: &str = " (next attempt ";
        let Some((before, rest)) = sentence.split_once(MARK) else { return sentence.to_owned() };
        let Some((instant, after)) = rest.split_once(')') else { return sentence.to_owned() };
        format!("{before}, next try {}{after}", self.clock(instant))
    }

    fn is_ahead(&self, instant: &str) -> bool {
        instant.parse::<Timestamp>().is_ok_and(|then| then > self.now)
    }

    /// An instant by the clock on the wall, with as much of the date as it takes.
    pub(crate) fn clock(&self, instant: &str) -> String {
        let Ok(then) = instant.parse::<Timestamp>() else { return one_line(instant) };
        let (then, now) = (then.to_zoned(self.zone.clone()), self.now.to_zoned(self.zone.clone()));
        let days = then.date().duration_since(now.date()).as_hours() / 24;
        match days {
            0 => then.strftime("%H:%M").to_string(),
            -6..=6 => then.strftime("%a %H:%M").to_string(),
            _ => then.strftime("%Y-%m-%d %H:%M").to_string(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::fake::{FakeService, row};

    fn status(code: StatusCode, words: &str) -> StatusReport {
        let mut report = FakeService::default().report();
        for row in &mut report.rows {
            row.status_code = code.bits();
            row.status_string = words.to_owned();
        }
        report
    }

    fn said(row: &QueueRow, status: Option<&StatusReport>) -> String {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        Scene { status, now, zone: &TimeZone::UTC }.next_step(row)
    }

    #[test]
    fn each_row_says_what_happens_next_and_why() {
        let open = StatusCode::AVAILABLE | StatusCode::OUTBOUND_ENABLED;
        let ready = status(open, "ready");
        let change = |change: fn(&mut QueueRow)| {
            let mut row = row(1, QueueRowState::Deferred);
            row.last_error = Some("450 4.2.1 busy".to_owned());
            change(&mut row);
            row
        };
        let deferred = change(|row| row.next_attempt = Some("2026-01-02T03:16:05Z".to_owned()));
        let cases = [
            (deferred.clone(), "tried again in 12m: 450 4.2.1 busy"),
            (
                change(|row| row.next_attempt = Some("2026-01-02T03:04:00Z".to_owned())),
                "tried again now: 450 4.2.1 busy",
            ),
            (
                change(|row| {
                    (row.state, row.last_error, row.next_attempt) =
                        (QueueRowState::Queued, None, None)
                }),
                "next in line",
            ),
            (
                change(|row| {
                    (row.state, row.transport) = (QueueRowState::Queued, String::new());
                    row.next_attempt = Some("2026-01-02T08:00:00Z".to_owned());
                }),
                "sent at 08:00 (in 4h), as you said",
            ),
            (change(|row| row.state = QueueRowState::Sending), "on its way"),
            (change(|row| row.state = QueueRowState::Held), "held by you; `release` lets it go"),
            (
                change(|row| {
                    (row.state, row.last_error) =
                        (QueueRowState::Held, Some("MAPI_E_CORRUPT_DATA: body lost".to_owned()));
                }),
                "set aside: MAPI_E_CORRUPT_DATA: body lost; `export` saves what is left of it",
            ),
            (
                change(|row| (row.state, row.next_attempt) = (QueueRowState::InDoubt, None)),
                "may have been delivered; `retry` sends it again, `cancel` ends it",
            ),
            (
                change(|row| {
                    row.state = QueueRowState::InDoubt;
                    row.next_attempt = Some("2026-01-02T03:04:35Z".to_owned());
                }),
                "may have been delivered; sent again in 30s",
            ),
            (
                change(|row| row.state = QueueRowState::Parked),
                "taken up again when the daemon runs",
            ),
            (change(|row| row.state = QueueRowState::Finished), ""),
        ];
        for (row, expected) in cases {
            assert_eq!(said(&row, Some(&ready)), expected);
        }
        assert_eq!(said(&deferred, None), "waits for `postrider run` or `postrider flush`");
        let mut refused = status(
            open | StatusCode::FAILURE,
            "MAPI_E_LOGON_FAILED: login refused (next attempt 2026-01-02T14:03:00Z); \
             MAPI_E_NETWORK_ERROR: no route (next attempt 2026-01-03T14:03:00Z)",
        );
        // Trouble of receiving alone keeps nothing from leaving.
        assert_eq!(said(&deferred, Some(&refused)), "tried again in 12m: 450 4.2.1 busy");
        for row in &mut refused.rows {
            row.sending_waits = Some(row.status_string.clone());
        }
        assert_eq!(
            said(&deferred, Some(&refused)),
            "waits for the account: login refused, next try 14:03; no route, next try Sat 14:03"
        );
        let closed = status(StatusCode::AVAILABLE, "switched off");
        assert!(said(&deferred, Some(&closed)).starts_with("waits: sending is switched off"));
    }

    #[test]
    fn words_of_servers_steer_no_terminal() {
        let mut row = row(1, QueueRowState::Deferred);
        row.last_error = Some("450 \u{1b}[2J\r\nlater".to_owned());
        let ready = status(StatusCode::AVAILABLE | StatusCode::OUTBOUND_ENABLED, "ready");
        assert!(said(&row, Some(&ready)).ends_with("450 ?[2J later"));
    }
}
