//! `-bp`, `mailq`: the queue in the form that programs read which watch mail servers.

use super::whereabouts::Found;
use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::ids::all_rows;
use crate::cli::text::one_line;
use crate::session::{Logon, QueueRow, QueueRowState, RecipientRowState};

/// `mailq`.
pub(super) async fn list(found: &Found, console: &mut Console<'_>) -> Result<(), Failure> {
    let place = found.place();
    let rows = place.with("show the queue", Logon::None, async |access| {
        let rows = all_rows(access.service()).await;
        rows.map_err(|error| Failure::contract("show the queue", &error))
    });
    let rows = rows.await?;
    match console.json {
        true => console.document(&rows),
        false => console.bytes(text(&rows).as_bytes()),
    }
}

fn text(rows: &[QueueRow]) -> String {
    if rows.is_empty() {
        return "Mail queue is empty\n".to_owned();
    }
    let mut text =
        format!("{:-<27} --Size-- ----Arrival Time---- -Sender/Recipient-------\n", "-Queue ID-");
    let mut size = 0;
    for row in rows {
        size += row.size;
        text += &of_row(row);
        text.push('\n');
    }
    let word = if rows.len() == 1 { "Request" } else { "Requests" };
    text + &format!("-- {} Kbytes in {} {word}.\n", size.div_ceil(1024), rows.len())
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
mod tests {
    use super::*;
    use crate::session::RecipientRow;

    #[test]
    fn the_queue_looks_as_watchers_expect() {
        assert_eq!(text(&[]), "Mail queue is empty\n");
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
        let shown = text(&[row.clone(), row]);
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
