//! `send`.

use std::io::IsTerminal;
use std::pin::Pin;

use tokio::io::AsyncRead;

use super::access::{Access, LOCK_WAIT, Place};
use super::args::SendArguments;
use super::compose::{body, check_body, envelope, message};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::queue::recipient_state_name;
use super::reading::{Reading, size_of_input};
use super::send_time::Times;
use super::text::one_line;
use crate::mapi::{EntryId, MapiCode, MapiError};
use crate::session::Logon;
use crate::session::{QueueRow, QueueRowState, RecipientRowState};

/// How often a wait goes on behind a daemon that was restarted or reloaded.
const MOST_RESTARTS: u32 = 5;

/// `send`.
pub(crate) async fn send(
    place: &Place,
    console: &mut Console<'_>,
    arguments: &SendArguments,
) -> Result<(), Failure> {
    let times = Times::of(arguments, &jiff::Zoned::now())?;
    if arguments.raw {
        return send_raw(place, console, arguments, times).await;
    }
    let body = read_body(arguments, console).await?;
    let submission = message(arguments, body, times)?;
    place
        .with("send", logon(arguments), async |access| {
            let accepted = access.service().submit(submission.clone()).await;
            let entry = accepted.map_err(|error| Failure::contract("send", &error))?;
            tell(access, console, arguments, &entry).await
        })
        .await
}

/// Without a daemon a message is only queued, unless its outcome is to be waited for.
fn logon(arguments: &SendArguments) -> Logon {
    if arguments.wait { Logon::Full } else { Logon::None }
}

async fn send_raw(
    place: &Place,
    console: &mut Console<'_>,
    arguments: &SendArguments,
    times: Times,
) -> Result<(), Failure> {
    let envelope = envelope(arguments, times)?;
    let mut input = Some(tokio::io::stdin());
    place
        .with("send", logon(arguments), async |access| {
            // Standard input can be read once: what a daemon has begun to read is lost with it.
            let input = input.take().ok_or_else(|| {
                Failure::new(Exit::TryAgain, "cannot send: the daemon went away; try again")
            })?;
            let input: Pin<Box<dyn AsyncRead + Send>> = match console.shows_progress {
                true => Box::pin(Reading::new(input, size_of_input())),
                false => Box::pin(input),
            };
            let accepted = access.service().submit_raw(envelope.clone(), input).await;
            let entry = accepted.map_err(|error| Failure::contract("send", &error))?;
            tell(access, console, arguments, &entry).await
        })
        .await
}

/// The body: that of the option, else standard input; none when there is HTML and nobody typed
/// anything.
async fn read_body(
    arguments: &SendArguments,
    console: &mut Console<'_>,
) -> Result<Option<String>, Failure> {
    if let Some(text) = &arguments.body {
        check_body(text)?;
        return Ok(Some(text.clone()));
    }
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal && arguments.html.is_some() {
        return Ok(None);
    }
    if is_terminal {
        console.note("type the message and end it with Ctrl-D");
    }
    let read = tokio::task::spawn_blocking(|| body(std::io::stdin().lock())).await;
    let text = read.map_err(|error| Failure::new(Exit::Internal, error.to_string()))??;
    Ok(Some(text).filter(|text| !text.is_empty() || arguments.html.is_none()))
}

/// Prints the entry id and, where it is waited for, the outcome.
async fn tell(
    access: &Access,
    console: &mut Console<'_>,
    arguments: &SendArguments,
    entry: &EntryId,
) -> Result<(), Failure> {
    if !access.is_daemon() && !arguments.wait {
        console.note(
            "no daemon is running; the message waits in the queue for `postrider run` or \
             `postrider flush`",
        );
    }
    if !(console.json && arguments.wait) {
        if console.json {
            console.document(&serde_json::json!({ "id": entry.to_string() }))?;
        } else {
            console.line(entry)?;
        }
        // The caller may want the id long before the outcome.
        console.flush()?;
    }
    if arguments.wait { outcome(access, console, entry).await } else { Ok(()) }
}

async fn outcome(
    access: &Access,
    console: &mut Console<'_>,
    entry: &EntryId,
) -> Result<(), Failure> {
    let row = wait(access, entry).await;
    let row = row.map_err(|error| {
        Failure::contract(&format!("wait for {entry}, which is accepted"), &error).accepted()
    })?;
    print_outcome(&row, console)
}

/// Waits for the end of the message, also across a restart of the daemon.
async fn wait(access: &Access, entry: &EntryId) -> Result<QueueRow, MapiError> {
    let mut restarts = 0;
    loop {
        let answer = access.service().wait(entry, None).await;
        let went_away = answer.as_ref().is_err_and(|error| {
            matches!(error.code(), MapiCode::NETWORK_ERROR | MapiCode::END_OF_SESSION)
        });
        if !went_away || !access.is_daemon() || restarts >= MOST_RESTARTS {
            return answer;
        }
        restarts += 1;
        tokio::time::sleep(LOCK_WAIT / MOST_RESTARTS).await;
    }
}

fn print_outcome(row: &QueueRow, console: &mut Console<'_>) -> Result<(), Failure> {
    if console.json {
        console.document(row)?;
    } else {
        for recipient in &row.recipients {
            console.line(format_args!(
                "{}\t{}\t{}",
                one_line(&recipient.address),
                recipient_state_name(recipient.state),
                one_line(&recipient.reply)
            ))?;
        }
    }
    let all_delivered =
        row.recipients.iter().all(|recipient| recipient.state == RecipientRowState::Delivered);
    if row.state == QueueRowState::Finished && all_delivered {
        return Ok(());
    }
    if row.state == QueueRowState::Cancelled {
        console.note(format_args!("{} was cancelled ({})", row.id, MapiCode::CANCEL));
    }
    Err(Failure::silent(Exit::Negative))
}
