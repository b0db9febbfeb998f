//! `queue`, `cancel`, `hold`, `release`, `retry`, `export`.

use serde::Serialize;
use tokio::io::AsyncReadExt;

use super::access::{Access, Place};
use super::args::{QueueCommand, RetryArguments};
use super::console::Console;
use super::exit::Failure;
use super::layout::wrap;
use super::next_step::Scene;
use super::queue_list::{self, JsonArray};
use super::queue_pages::resolve;
use super::queue_view::Readable;
use super::table::{Mood, Table};
use super::text::{one_line, relative, size};
use crate::mapi::{EntryId, MapiCode, MapiResult};
use crate::session::Logon;
use crate::session::{QueueRow, QueueRowState, RecipientRowState, Service, StatusReport};

/// What is done to each message of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Cancel,
    Hold,
    Release,
    Retry,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Cancel => "cancel",
            Verb::Hold => "hold",
            Verb::Release => "release",
            Verb::Retry => "retry",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Verb::Cancel => "cancelled",
            Verb::Hold => "held",
            Verb::Release => "released",
            Verb::Retry => "due now",
        }
    }

    async fn apply(self, service: &dyn Service, entry: &EntryId) -> MapiResult<()> {
        match self {
            Verb::Cancel => service.cancel(entry).await,
            Verb::Hold => service.hold(entry).await,
            Verb::Release => service.release(entry).await,
            Verb::Retry => service.retry(Some(entry)).await.map(drop),
        }
    }
}

/// The answer about one message, as JSON.
#[derive(Debug, Serialize)]
struct Answer {
    id: String,
    code: u32,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip)]
    failure: Option<Failure>,
}

impl Answer {
    fn new(id: String, failure: Option<Failure>) -> Self {
        let code = match &failure {
            None => MapiCode::S_OK,
            Some(failure) => failure.code.unwrap_or(MapiCode::CALL_FAILED),
        };
        let detail = failure.as_ref().and_then(Failure::line);
        Answer { id, code: code.0, name: code.to_string(), detail, failure }
    }
}

/// `queue`.
pub(crate) async fn queue(
    place: &Place,
    console: &mut Console<'_>,
    command: Option<&QueueCommand>,
) -> Result<(), Failure> {
    match command {
        None | Some(QueueCommand::List) if console.json => {
            queue_list::list(place, console, &mut JsonArray::new(console.json_layout())).await
        }
        None | Some(QueueCommand::List) => {
            let mut listing = Readable::new(console.terminal);
            queue_list::list(place, console, &mut listing).await?;
            if listing.is_empty() {
                console.note("the queue is empty");
            }
            Ok(())
        }
        Some(QueueCommand::Show(id)) => {
            let shown = place.with("show the message", Logon::None, async |access| {
                let entry = resolve(access.service(), &id.id).await?;
                let failed = |error| Failure::contract(&format!("show {entry}"), &error);
                let row = access.service().queue_row(&entry).await.map_err(failed)?;
                let status = match access.is_daemon() {
                    true => Some(access.service().status().await.map_err(failed)?),
                    false => None,
                };
                Ok((row, status))
            });
            let (row, status) = shown.await?;
            match console.json {
                true => console.document(&row),
                false => print_row(&row, status.as_ref(), console),
            }
        }
    }
}

/// `cancel`, `hold`, `release` and `retry ID...`: each message is tried whatever became of the
/// others; the first failure names the exit code.
pub(crate) async fn each(
    place: &Place,
    console: &mut Console<'_>,
    verb: Verb,
    ids: &[String],
) -> Result<(), Failure> {
    let mut answers: Vec<Answer> = Vec::new();
    let ended = place.with(verb.word(), Logon::Offline, async |access| {
        // After a change of the daemon it goes on where it was.
        while let Some(id) = ids.get(answers.len()) {
            answers.push(match one(access, verb, id).await {
                Ok(entry) => Answer::new(entry.to_string(), None),
                Err(lost) if lost.code == Some(MapiCode::NETWORK_ERROR) => return Err(lost),
                Err(failure) => Answer::new(id.clone(), Some(failure)),
            });
        }
        Ok(())
    });
    let ended = ended.await;
    if console.json {
        console.document(&answers)?;
    }
    for answer in &answers {
        match &answer.failure {
            Some(failure) => console.complain(failure),
            None if console.json => {}
            None => console.line(format_args!("{} {}", answer.id, verb.done()))?,
        }
    }
    ended?;
    let first = answers.iter().find_map(|answer| answer.failure.as_ref());
    first.map_or(Ok(()), |failure| Err(Failure::silent(failure.exit)))
}

async fn one(access: &Access, verb: Verb, id: &str) -> Result<EntryId, Failure> {
    let entry = resolve(access.service(), id).await?;
    let answer = verb.apply(access.service(), &entry).await;
    let what = format!("{} {entry}", verb.word());
    answer.map(|()| entry).map_err(|error| Failure::contract(&what, &error))
}

/// `retry`.
pub(crate) async fn retry(
    place: &Place,
    console: &mut Console<'_>,
    arguments: &RetryArguments,
) -> Result<(), Failure> {
    if !arguments.all {
        return each(place, console, Verb::Retry, &arguments.ids).await;
    }
    let count = place.with("retry", Logon::Offline, async |access| {
        let count = access.service().retry(None).await;
        count.map_err(|error| Failure::contract("retry", &error))
    });
    let count = count.await?;
    if console.json {
        console.document(&serde_json::json!({ "count": count }))
    } else {
        console.line(format_args!("{count} due now"))
    }
}

/// `export`.
pub(crate) async fn export(
    place: &Place,
    console: &mut Console<'_>,
    id: &str,
) -> Result<(), Failure> {
    let mut written = false;
    let exported = place.with("export", Logon::None, async |access| {
        let entry = resolve(access.service(), id).await?;
        let what = format!("export {entry}");
        let content = access.service().export(&entry).await;
        let mut content = content.map_err(|error| Failure::contract(&what, &error))?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = content.read(&mut buffer).await;
            let read = read.map_err(|error| Failure::io(&what, &error))?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            written = true;
            console.bytes(bytes)?;
        }
    });
    let result = exported.await;
    if result.is_err() && written {
        console.note("what was written so far is not the whole message");
    }
    result
}

pub(crate) fn state_name(state: QueueRowState) -> &'static str {
    match state {
        QueueRowState::Queued => "queued",
        QueueRowState::Sending => "sending",
        QueueRowState::Deferred => "deferred",
        QueueRowState::InDoubt => "in-doubt",
        QueueRowState::Held => "held",
        QueueRowState::Parked => "parked",
        QueueRowState::Finished => "finished",
        QueueRowState::Cancelled => "cancelled",
    }
}

pub(crate) fn state_mood(state: QueueRowState) -> Mood {
    match state {
        QueueRowState::Queued | QueueRowState::Cancelled => Mood::Plain,
        QueueRowState::Sending | QueueRowState::Finished => Mood::Good,
        QueueRowState::Deferred | QueueRowState::Held | QueueRowState::Parked => Mood::Waiting,
        QueueRowState::InDoubt => Mood::Bad,
    }
}

/// The name of a recipient's state, as in the JSON.
pub(crate) fn recipient_state_name(state: RecipientRowState) -> &'static str {
    match state {
        RecipientRowState::Pending => "pending",
        RecipientRowState::Delivered => "delivered",
        RecipientRowState::Deferred => "deferred",
        RecipientRowState::Failed => "failed",
    }
}

fn print_row(
    row: &QueueRow,
    status: Option<&StatusReport>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let zone = jiff::tz::TimeZone::system();
    let now = jiff::Timestamp::now();
    let happens = Scene { status, now, zone: &zone }.next_step(row);
    let instant = |text: &str| format!("{text} ({})", relative(text, now));
    let from = if row.from.is_empty() { "<>" } else { &row.from };
    let next = row.next_attempt.as_deref().map_or_else(|| "none planned".to_owned(), instant);
    for (name, value) in [
        ("id", row.id.as_str()),
        ("state", state_name(row.state)),
        ("transport", &row.transport),
        ("from", from),
        ("subject", &row.subject),
        ("size", &size(row.size)),
        ("submitted", &instant(&row.submitted)),
        ("attempts", &row.attempts.to_string()),
        ("next attempt", &next),
        ("last error", row.last_error.as_deref().unwrap_or("none")),
        ("what next", if happens.is_empty() { "nothing: it has ended" } else { &happens }),
    ] {
        let value = one_line(value);
        let parts = match console.terminal.width {
            Some(width) => wrap(&value, usize::from(width).saturating_sub(14)),
            None => vec![value],
        };
        for (place, part) in parts.iter().enumerate() {
            let name = if place == 0 { format!("{name}:") } else { String::new() };
            console.line(format_args!("{name:14}{part}"))?;
        }
    }
    let mut table = Table::new(&["RECIPIENT", "STATE", "REPLY"]);
    for recipient in &row.recipients {
        let mood = match recipient.state {
            RecipientRowState::Pending => Mood::Plain,
            RecipientRowState::Delivered => Mood::Good,
            RecipientRowState::Deferred => Mood::Waiting,
            RecipientRowState::Failed => Mood::Bad,
        };
        table.moody_row([
            (recipient.address.clone(), Mood::Plain),
            (recipient_state_name(recipient.state).to_owned(), mood),
            (recipient.reply.clone(), Mood::Plain),
        ]);
    }
    table.print(console)
}
