//! `trace`.

use super::access::Place;
use super::console::Console;
use super::exit::Failure;
use super::queue::{recipient_state_name, state_name};
use super::text::{one_line, relative, size};
use crate::session::{Logon, TraceReport, TraceStepKind};

/// `trace ID`.
pub(crate) async fn trace(
    place: &Place,
    console: &mut Console<'_>,
    id: &str,
) -> Result<(), Failure> {
    let report = place.with("trace the message", Logon::None, async |access| {
        let report = access.service().trace(id).await;
        report.map_err(|error| Failure::contract("trace the message", &error))
    });
    let report = report.await?;
    if console.json { console.document(&report) } else { print(&report, console) }
}

fn print(report: &TraceReport, console: &mut Console<'_>) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
    for (name, value) in [
        ("id", report.id.as_str()),
        ("message id", &report.message_id),
        ("subject", &report.subject),
        ("size", &size(report.size)),
        ("state", state_name(report.state)),
        ("transport", &report.transport),
    ] {
        console.line(format_args!("{:14}{}", format!("{name}:"), one_line(value)))?;
    }
    for recipient in &report.recipients {
        let state = recipient_state_name(recipient.state);
        let address = one_line(&recipient.address);
        console.line(format_args!("{:14}{address} ({state})", "to:"))?;
    }
    console.line("")?;
    for step in &report.steps {
        let whom = match step.step {
            TraceStepKind::Delivered | TraceStepKind::Failed | TraceStepKind::Reported => {
                whom(&step.recipients)
            }
            _ => String::new(),
        };
        console.line(format_args!("{}  {}{whom}", step.time, one_line(&step.text)))?;
    }
    if let Some(next) = &report.next_attempt {
        console.line(format_args!("{next}  next attempt ({})", relative(next, now)))?;
    }
    if report.left_out > 0 {
        console.note(format_args!("{} steps in the middle are not kept", report.left_out));
    }
    Ok(())
}

/// For whom a step was, shortened when they are many.
fn whom(recipients: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = recipients.iter().take(SHOWN).map(|one| one_line(one)).collect();
    match (shown.is_empty(), recipients.len().saturating_sub(SHOWN)) {
        (true, _) => String::new(),
        (false, 0) => format!(" [{}]", shown.join(", ")),
        (false, more) => format!(" [{} and {more} more]", shown.join(", ")),
    }
}
