//! `status`: the status table, the queue and what happens next.

use futures_util::StreamExt;

use super::access::Place;
use super::args::StatusArguments;
use super::console::Console;
use super::exit::{Exit, Failure};
use super::next_step::Scene;
use super::table::{Mood, Table};
use super::text::{one_line, relative};
use crate::mapi::StatusCode;
use crate::profile::sign_in_command;
use crate::session::Logon;
use crate::session::{InboundMode, InboundState, OwedCopiesView, StatusReport, StatusRowView};
use crate::spi::StatusRowKind;

/// `status`.
pub(crate) async fn status(
    place: &Place,
    console: &mut Console<'_>,
    arguments: &StatusArguments,
) -> Result<(), Failure> {
    if arguments.watch {
        return watch(place, console).await;
    }
    let (report, from_daemon) = place
        .with("show the status", Logon::None, async |access| {
            let report = access.service().status().await;
            let report = report.map_err(|error| Failure::contract("show the status", &error))?;
            Ok((report, access.is_daemon()))
        })
        .await?;
    if !from_daemon {
        console.note("no daemon is running; `postrider run` starts it");
    }
    if console.json {
        console.document(&report)?;
    } else {
        print(&report, console)?;
    }
    match report.needs_sign_in.first() {
        None => Ok(()),
        Some(transport) => {
            let command = sign_in_command(&report.profile, transport);
            console.note(format_args!("{transport} needs sign-in: run `{command}`"));
            Err(Failure::silent(Exit::Negative))
        }
    }
}

/// Shows each change until the daemon ends or a signal comes.
async fn watch(place: &Place, console: &mut Console<'_>) -> Result<(), Failure> {
    place
        .with("watch the status", Logon::None, async |access| {
            if !access.is_daemon() {
                console.note("no daemon is running; nothing will change");
            }
            let reports = access.service().watch_status().await;
            let mut reports =
                reports.map_err(|error| Failure::contract("watch the status", &error))?;
            while let Some(report) = reports.next().await {
                if console.json {
                    console.document_line(&report)?;
                } else {
                    if console.terminal.width.is_some() {
                        // Home and clear: one screen that changes, not a roll of screens.
                        console.bytes(b"\x1b[H\x1b[2J")?;
                    }
                    print(&report, console)?;
                    console.line("")?;
                }
                console.flush()?;
            }
            Ok(())
        })
        .await
}

fn print(report: &StatusReport, console: &mut Console<'_>) -> Result<(), Failure> {
    let zone = jiff::tz::TimeZone::system();
    let now = jiff::Timestamp::now();
    let scene = Scene { status: Some(report), now, zone: &zone };
    if console.terminal.width.is_some() {
        // For people: what the flags mean instead of all their names.
        let mut table = Table::new(&["NAME", "OUT", "IN", "STATUS"]);
        for row in &report.rows {
            let (out, into) = match row.kind {
                StatusRowKind::Transport => direction_words(row),
                StatusRowKind::Spooler => ("", ""),
            };
            table.moody_row([
                (row.name.clone(), Mood::Plain),
                (out.to_owned(), Mood::Plain),
                (into.to_owned(), Mood::Plain),
                (scene.plain_status(&row.status_string), row_mood(row)),
            ]);
        }
        table.print(console)?;
    } else {
        let mut table = Table::new(&["NAME", "TYPE", "STATUS", "FLAGS"]);
        for row in &report.rows {
            table.row([
                row.name.clone(),
                kind_name(row.kind).to_owned(),
                row.status_string.clone(),
                flag_words(row),
            ]);
        }
        table.print(console)?;
    }
    let queue = &report.queue;
    console.line(format_args!(
        "\nqueue: {} queued, {} sending, {} deferred, {} in doubt, {} held",
        queue.queued, queue.sending, queue.deferred, queue.in_doubt, queue.held
    ))?;
    if let Some(instant) = &report.next_attempt {
        let is_past = instant.parse::<jiff::Timestamp>().is_ok_and(|then| then <= now);
        let (seen_from_now, clock) = (relative(instant, now), scene.clock(instant));
        match is_past {
            true => console.line("next attempt: as soon as it can be")?,
            false => console.line(format_args!("next attempt: {seen_from_now} ({clock})"))?,
        }
    }
    if let Some(error) = &report.last_error {
        // On a terminal the table above has said it.
        let is_shown = report.rows.iter().any(|row| row.status_string == *error);
        if !(is_shown && console.terminal.width.is_some()) {
            console.line(format_args!("last error: {}", one_line(error)))?;
        }
    }
    for owed in &report.owed_copies {
        console.line(owed_words(owed))?;
    }
    if report.inbound.is_empty() {
        return Ok(());
    }
    console.line("")?;
    let mut table = Table::new(&["TRANSPORT", "MAILBOX", "MODE", "LAST UID", "PENDING"]);
    for mailbox in &report.inbound {
        table.row([
            mailbox.transport.clone(),
            mailbox.mailbox.clone(),
            mode_name(mailbox.mode).to_owned(),
            mailbox.last_uid.to_string(),
            mailbox.pending.to_string(),
        ]);
    }
    table.print(console)?;
    for mailbox in report.inbound.iter().filter(|mailbox| !mailbox.set_aside.is_empty()) {
        console.line(set_aside_words(mailbox))?;
    }
    Ok(())
}

/// Sent copies that their server has not got.
fn owed_words(owed: &OwedCopiesView) -> String {
    let word = if owed.count == 1 { "copy" } else { "copies" };
    let why = owed.why.as_deref().map(|why| format!(": {}", one_line(why))).unwrap_or_default();
    format!(
        "sent mail: {} {word} not on the server of {} yet{why}",
        owed.count,
        one_line(&owed.transport)
    )
}

/// Which messages of a mailbox wait for a person to look at them.
fn set_aside_words(mailbox: &InboundState) -> String {
    let uids: Vec<String> = mailbox.set_aside.iter().map(u32::to_string).collect();
    let why = mailbox.set_aside_why.as_deref().map(one_line);
    format!(
        "set aside in {} of {}: UID {}{}",
        one_line(&mailbox.mailbox),
        one_line(&mailbox.transport),
        uids.join(", "),
        why.map(|why| format!(" ({why})")).unwrap_or_default(),
    )
}

fn kind_name(kind: StatusRowKind) -> &'static str {
    match kind {
        StatusRowKind::Transport => "transport",
        StatusRowKind::Spooler => "spooler",
    }
}

fn mode_name(mode: InboundMode) -> &'static str {
    match mode {
        InboundMode::Idle => "idle",
        InboundMode::Poll => "poll",
        InboundMode::Off => "off",
    }
}

/// What a transport does in each direction: outbound, inbound.
pub(crate) fn direction_words(row: &StatusRowView) -> (&'static str, &'static str) {
    let code = StatusCode::from_bits_retain(row.status_code);
    let out = match () {
        () if code.contains(StatusCode::OUTBOUND_ACTIVE) => "sending",
        () if code.contains(StatusCode::OUTBOUND_FLUSH) => "flushing",
        () if code.contains(StatusCode::OUTBOUND_ENABLED) => "on",
        () => "off",
    };
    let into = match () {
        () if code.contains(StatusCode::INBOUND_ACTIVE) => "receiving",
        () if code.contains(StatusCode::INBOUND_FLUSH) => "looking",
        () if code.contains(StatusCode::INBOUND_ENABLED) => "on",
        () => "off",
    };
    (out, into)
}

pub(crate) fn row_mood(row: &StatusRowView) -> Mood {
    let code = StatusCode::from_bits_retain(row.status_code);
    if code.contains(StatusCode::FAILURE) {
        Mood::Bad
    } else if code.contains(StatusCode::OFFLINE) {
        Mood::Waiting
    } else if code.contains(StatusCode::AVAILABLE) {
        Mood::Good
    } else {
        Mood::Plain
    }
}

/// The flags without what they all have in common.
fn flag_words(row: &StatusRowView) -> String {
    let words = row.flags.iter().map(|flag| flag.strip_prefix("STATUS_").unwrap_or(flag));
    words.map(|word| word.to_ascii_lowercase().replace('_', "-")).collect::<Vec<_>>().join(" ")
}
