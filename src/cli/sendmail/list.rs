//! `-bp`, `mailq`: the queue in the form that programs read which watch mail servers.

use super::whereabouts::Found;
use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::queue_list::{self, JsonArray, Listing};
use crate::cli::text::one_line;
use crate::session::{QueueRow, QueueRowState, RecipientRowState, StatusReport};

/// `mailq`.
pub(super) async fn list(found: &Found, console: &mut Console<'_>) -> Result<(), Failure> {
    let place = found.place();
    match console.json {
        true => queue_list::list(&place, console, &mut JsonArray::new(console.json_layout())).await,
        false => queue_list::list(&place, console, &mut Watched::default()).await,
    }
}

/// The form that watchers read, with the sum of what was listed.
#[derive(Default)]
struct Watched {
    messages: u64,
    size: u64,
}

impl Listing for Watched {
    fn page(&mut self, rows: &[QueueRow], _: Option<&StatusReport>) -> Result<String, Failure> {
        let mut text = match self.messages {
            0 => {
                let (id, rest) = ("-Queue ID-", "--Size-- ----Arrival Time----");
                format!("{id:-<27} {rest} -Sender/Recipient-------\n")
            }
            _ => String::new(),
        };
        for row in rows {
            self.messages += 1;
            self.size += row.size;
            text += &of_row(row);
            text.push('\n');
        }
        Ok(text)
    }

    fn end(&mut self) -> String {
        let word = match self.messages {
            0 => return "Mail queue is empty\n".to_owned(),
            1 => "Request",
            _ => "Requests",
        };
        format!("-- {} Kbytes in {} {word}.\n", self.size.div_ceil(1024), self.messages)
    }
}

/// A mark behind the id: `*` under way, `!` kept back.
fn mark(state: QueueRowState) -> char {
    match state {
        QueueRowState::Sending => '*',
        QueueRowState::Held => '!',
        _ => ' ',
    }
}

fn of_row(row: &QueueRow) -> String {
    let time = row.submitted.parse::<jiff::Timestamp>().map_or_else(
        |_| one_line(&row.submitted),
        |time| {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            zoned.strftime("%a %b %e %H:%M:%S").to_string()
        },
    );
    let from = if row.from.is_empty() { "MAILER-DAEMON" } else { &row.from };
    let id = format!("{}{}", row.id, mark(row.state));
    let mut text = format!("{id:<27} {:>8} {time:<21} {}\n", row.size, one_line(from));
    if let Some(error) = &row.last_error {
        text += &format!("{:>60}\n", format!("({})", one_line(error)));
    }
    let waits = |state| matches!(state, RecipientRowState::Pending | RecipientRowState::Deferred);
    for recipient in row.recipients.iter().filter(|recipient| waits(recipient.state)) {
        text += &format!("{:59} {}\n", "", one_line(&recipient.address));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::session::RecipientRow;

    #[test]
    fn the_queue_looks_as_watchers_expect() {
        assert_eq!(Watched::default().end(), "Mail queue is empty\n");
        let recipient = |address: &str, state| RecipientRow {
            address: address.to_owned(),
            state,
            reply: String::new(),
            queue_id: None,
        };
        let row = QueueRow {
            id: "01JABCDEFGHJKMNPQRSTVWXYZ0".to_owned(),
            state: QueueRowState::Held,
            transport: "work".to_owned(),
            from: String::new(),
            subject: "hi".to_owned(),
            size: 1500,
            submitted: "2026-01-02T03:04:05Z".to_owned(),
            attempts: 1,
            next_attempt: None,
            last_error: Some("450 4.2.1 later\nreally".to_owned()),
            recipients: vec![
                recipient("bob@example.org", RecipientRowState::Deferred),
                recipient("carl@example.org", RecipientRowState::Delivered),
            ],
        };
        let mut listing = Watched::default();
        let mut page = || listing.page(std::slice::from_ref(&row), None).unwrap();
        let pages = [page(), page(), listing.end()];
        let shown = pages.concat();
        let mut lines = shown.lines();
        assert_eq!(
            lines.next(),
            Some(
                "-Queue ID------------------ --Size-- ----Arrival Time---- -Sender/Recipient-------"
            )
        );
        let first = lines.next().unwrap_or_default();
        assert!(first.starts_with("01JABCDEFGHJKMNPQRSTVWXYZ0!     1500 "), "{first}");
        assert!(first.ends_with(" MAILER-DAEMON"), "{first}");
        assert!(lines.next().is_some_and(|line| line.ends_with("(450 4.2.1 later really)")));
        assert!(lines.next().is_some_and(|line| line.ends_with(" bob@example.org")));
        assert!(!shown.contains("carl"));
        assert!(shown.ends_with("\n-- 3 Kbytes in 2 Requests.\n"), "{shown}");
    }
}
