//! `queue`, `cancel`, `hold`, `release`, `retry`, `export`.

use serde::Serialize;
use tokio::io::AsyncReadExt;

use super::access::{Access, Place};
use super::args::{QueueCommand, RetryArguments};
use super::console::Console;
use super::exit::Failure;
use super::ids::{all_rows, resolve};
use super::table::{Mood, Table};
use super::text::{one_line, relative, size};
use crate::mapi::{EntryId, MapiCode, MapiResult};
use crate::session::Logon;
use crate::session::{QueueRow, QueueRowState, RecipientRowState, Service};

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
        None | Some(QueueCommand::List) => {
            let rows = place.with("show the queue", Logon::None, async |access| {
                let rows = all_rows(access.service()).await;
                rows.map_err(|error| Failure::contract("show the queue", &error))
            });
            let rows = rows.await?;
            if console.json { console.document(&rows) } else { print_rows(&rows, console) }
        }
        Some(QueueCommand::Show(id)) => {
            let row = place.with("show the message", Logon::None, async |access| {
                let entry = resolve(access.service(), &id.id).await?;
                let row = access.service().queue_row(&entry).await;
                row.map_err(|error| Failure::contract(&format!("show {entry}"), &error))
            });
            let row = row.await?;
            if console.json { console.document(&row) } else { print_row(&row, console) }
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

fn state_mood(state: QueueRowState) -> Mood {
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

/// What happens next with a message, and why.
fn next_and_why(row: &QueueRow, now: jiff::Timestamp) -> String {
    let next = match (&row.next_attempt, row.state) {
        (Some(instant), QueueRowState::Deferred | QueueRowState::Queued) => relative(instant, now),
        (_, QueueRowState::Held) => "when released".to_owned(),
        (Some(instant), QueueRowState::InDoubt) => format!("again {}", relative(instant, now)),
        (None, QueueRowState::InDoubt) => "when released or retried".to_owned(),
        _ => String::new(),
    };
    match (&row.last_error, next.is_empty()) {
        (Some(error), false) => format!("{next}: {error}"),
        (Some(error), true) => error.clone(),
        (None, _) => next,
    }
}

fn print_rows(rows: &[QueueRow], console: &mut Console<'_>) -> Result<(), Failure> {
    if rows.is_empty() {
        console.note("the queue is empty");
        return Ok(());
    }
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&["ID", "STATE", "TO", "SUBJECT", "SIZE", "AGE", "TRIES", "NEXT"]);
    for row in rows {
        let to = match row.recipients.as_slice() {
            [] => String::new(),
            [only] => only.address.clone(),
            [first, others @ ..] => format!("{} +{}", first.address, others.len()),
        };
        table.moody_row([
            (row.id.clone(), Mood::Plain),
            (state_name(row.state).to_owned(), state_mood(row.state)),
            (to, Mood::Plain),
            (row.subject.clone(), Mood::Plain),
            (size(row.size), Mood::Plain),
            (relative(&row.submitted, now), Mood::Plain),
            (row.attempts.to_string(), Mood::Plain),
            (next_and_why(row, now), Mood::Plain),
        ]);
    }
    table.print(console)
}

fn print_row(row: &QueueRow, console: &mut Console<'_>) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
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
    ] {
        console.line(format_args!("{:14}{}", format!("{name}:"), one_line(value)))?;
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
