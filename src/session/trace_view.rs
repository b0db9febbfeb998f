//! From the rows of a message to its story.

use super::queue_view::{self, Traffic};
use super::{QueueRow, TraceReport, TraceStep, TraceStepKind};
use crate::mapi::{EntryId, ReportOutcome, SysTime, tags};
use crate::spool::{
    AttemptPhase, AttemptStep, AttemptStepEnd, Envelope, HistoryEnd, HistoryRecord, OutboxRecord,
    OutboxState, QueueRecord, RecipientState, Reply, ReportStep, StatusReportStep, Step, StepKind,
    TiedBy, Trace,
};

/// The rows of one message; more than one on its way from one to the next.
pub(super) struct Rows<'a> {
    pub(super) outbox: Option<&'a OutboxRecord>,
    pub(super) queue: Option<&'a QueueRecord>,
    pub(super) history: Option<&'a HistoryRecord>,
}

/// What they tell; `None` when there are none.
pub(super) fn report(entry: &EntryId, rows: &Rows<'_>, traffic: Traffic) -> Option<TraceReport> {
    let row = row_of(entry, rows, traffic)?;
    let mut trace = Trace::default();
    let noted = [
        rows.history.map(|record| record.trace.clone()),
        rows.queue.map(|record| record.trace.clone()),
        rows.outbox.map(OutboxRecord::noted),
    ];
    noted.into_iter().flatten().for_each(|noted| trace.merge(noted));
    let envelope = rows.queue.map(|record| &record.envelope);
    let envelope = envelope.or(rows.history.map(|record| &record.envelope));
    let submitted = rows.submitted();
    let mut timed = vec![(submitted, submission(&row, submitted))];
    timed.extend(rows.outbox.and_then(not_before).filter(|_| rows.queue.is_none()));
    timed.extend(trace.steps().iter().map(|step| (step.at, told(step, rows))));
    timed.extend(envelope.map(outcomes).unwrap_or_default());
    timed.extend(rows.history.map(|history| (history.ended, end(history))));
    // Steps of one instant stay in the order in which they were put together here.
    timed.sort_by_key(|(at, _)| *at);
    Some(TraceReport {
        message_id: rows.message_id(),
        steps: timed.into_iter().map(|(_, step)| step).collect(),
        left_out: trace.left_out(),
        id: row.id,
        state: row.state,
        transport: row.transport,
        from: row.from,
        subject: row.subject,
        size: row.size,
        submitted: row.submitted,
        next_attempt: row.next_attempt,
        recipients: row.recipients,
    })
}

impl Rows<'_> {
    fn submitted(&self) -> SysTime {
        let queue = self.queue.map(|record| record.submitted);
        let outbox = self.outbox.map(|record| record.submitted);
        let history = self.history.map(|record| record.submitted);
        outbox.or(queue).or(history).unwrap_or(SysTime::EPOCH)
    }

    fn message_id(&self) -> String {
        let queue = self.queue.map(|record| record.message_id.clone());
        let history = self.history.map(|record| record.message_id.clone());
        let outbox = self.outbox.and_then(|record| record.props.text(tags::INTERNET_MESSAGE_ID));
        queue.or(history).or(outbox.map(str::to_owned)).unwrap_or_default()
    }

    /// The address of a recipient by the number of its row.
    fn address(&self, row: u32) -> Option<String> {
        let outbox = self.outbox.into_iter().flat_map(|record| &record.recipients);
        let outbox = outbox.map(|one| (one.row, &one.address));
        let envelopes = self
            .queue
            .map(|record| &record.envelope)
            .into_iter()
            .chain(self.history.map(|record| &record.envelope));
        let transports = envelopes.flat_map(|envelope| &envelope.recipients);
        let transports = transports.map(|one| (one.row, &one.address));
        outbox.chain(transports).find(|(its, _)| *its == row).map(|(_, address)| address.clone())
    }
}

fn row_of(entry: &EntryId, rows: &Rows<'_>, traffic: Traffic) -> Option<QueueRow> {
    match (rows.outbox, rows.queue, rows.history) {
        (Some(outbox), Some(queue), _) => {
            Some(queue_view::outgoing_row(entry, outbox, Some(queue), traffic))
        }
        (_, _, Some(history)) => Some(queue_view::ended_row(entry, history)),
        (Some(outbox), None, None) => Some(queue_view::outgoing_row(entry, outbox, None, traffic)),
        (None, Some(queue), None) => Some(queue_view::queued_row(entry, queue, traffic)),
        (None, None, None) => None,
    }
}

fn step(at: SysTime, kind: TraceStepKind, text: String) -> TraceStep {
    TraceStep {
        time: at.to_string(),
        step: kind,
        text,
        attempt: None,
        host: None,
        tls: None,
        class: None,
        replies: Vec::new(),
        recipients: Vec::new(),
    }
}

fn submission(row: &QueueRow, at: SysTime) -> TraceStep {
    let from = if row.from.is_empty() { "the null sender" } else { &row.from };
    let whom = recipients(row.recipients.len());
    step(
        at,
        TraceStepKind::Submitted,
        format!("submitted by {from}, {} bytes for {whom}", row.size),
    )
}

fn recipients(count: usize) -> String {
    match count {
        1 => "1 recipient".to_owned(),
        count => format!("{count} recipients"),
    }
}

fn not_before(outbox: &OutboxRecord) -> Option<(SysTime, TraceStep)> {
    let OutboxState::Waiting { not_before } = &outbox.state else { return None };
    let text = format!("is handed to a transport at {not_before}");
    let at = outbox.submitted;
    (*not_before > at).then(|| (at, step(at, TraceStepKind::NotBefore, text)))
}

/// The outcomes of recipients: those of one instant with the same reply together.
fn outcomes(envelope: &Envelope) -> Vec<(SysTime, TraceStep)> {
    let mut told: Vec<(SysTime, TraceStep)> = Vec::new();
    for recipient in &envelope.recipients {
        let (at, kind, reply, attempt) = match &recipient.state {
            RecipientState::Delivered { at, reply } => (*at, TraceStepKind::Delivered, reply, None),
            RecipientState::Failed { at, reply, attempt } => {
                (*at, TraceStepKind::Failed, reply, (*attempt > 0).then_some(*attempt))
            }
            RecipientState::Pending | RecipientState::Deferred { .. } => continue,
        };
        let replies = Vec::from_iter(Some(reply.to_string()).filter(|words| !words.is_empty()));
        let same = told
            .iter_mut()
            .find(|(when, one)| *when == at && one.step == kind && one.replies == replies);
        match same {
            Some((_, one)) => one.recipients.push(recipient.address.clone()),
            None => {
                let mut one = step(at, kind, outcome_text(kind, reply));
                one.attempt = attempt;
                one.host = Some(reply.host.clone()).filter(|host| !host.is_empty());
                one.replies = replies;
                one.recipients.push(recipient.address.clone());
                told.push((at, one));
            }
        }
    }
    told
}

fn outcome_text(kind: TraceStepKind, reply: &Reply) -> String {
    let what = match kind {
        TraceStepKind::Delivered => "delivered",
        _ => "failed",
    };
    let words = reply.to_string();
    match (reply.host.is_empty(), words.is_empty()) {
        (_, true) => what.to_owned(),
        (true, false) => format!("{what}: {words}"),
        (false, false) => format!("{what}: {} said {words}", reply.host),
    }
}

fn end(history: &HistoryRecord) -> TraceStep {
    match history.end {
        HistoryEnd::Finished => {
            step(history.ended, TraceStepKind::Finished, "finished, left the queue".to_owned())
        }
        HistoryEnd::Cancelled => {
            step(history.ended, TraceStepKind::Cancelled, "cancelled, left the queue".to_owned())
        }
    }
}

/// A step that was noted, in words.
fn told(noted: &Step, rows: &Rows<'_>) -> TraceStep {
    let plain = |kind, text: &str| step(noted.at, kind, text.to_owned());
    match &noted.what {
        StepKind::Accepted { transport } => {
            plain(TraceStepKind::Accepted, &format!("accepted by the transport {transport}"))
        }
        StepKind::Attempt(attempt) => attempted(noted.at, attempt),
        StepKind::Untried { why, times } => {
            let often = if *times > 1 { format!(" ({times} times)") } else { String::new() };
            let text = format!("the account cannot be used{often}: {why}");
            TraceStep { replies: vec![why.clone()], ..plain(TraceStepKind::Untried, &text) }
        }
        StepKind::Interrupted { number } => TraceStep {
            attempt: Some(*number),
            ..plain(
                TraceStepKind::Interrupted,
                &format!("attempt {number} was cut off: the program ended"),
            )
        },
        StepKind::LeftInDoubt { number } => TraceStep {
            attempt: Some(*number),
            ..plain(
                TraceStepKind::InDoubt,
                &format!(
                    "attempt {number} was cut off at its end: the program ended, in doubt, the \
                     server may have taken it"
                ),
            )
        },
        StepKind::Held => plain(TraceStepKind::Held, "put on hold by the user"),
        StepKind::Released => plain(TraceStepKind::Released, "released by the user"),
        StepKind::Hurried => plain(TraceStepKind::Hurried, "made due by the user"),
        StepKind::GivenBack => {
            plain(TraceStepKind::GivenBack, "given back at the end of a session")
        }
        StepKind::TakenUp => plain(TraceStepKind::TakenUp, "taken up again in a new session"),
        StepKind::Reported(report) => reported(noted.at, report, rows),
        StepKind::StatusReport(report) => status_report(noted.at, report),
    }
}

fn attempted(at: SysTime, attempt: &AttemptStep) -> TraceStep {
    let mut words = vec![format!("attempt {}", attempt.number)];
    if !attempt.host.is_empty() {
        let tls = if attempt.tls.is_empty() { "in clear" } else { &attempt.tls };
        words.push(format!("to {} ({tls})", attempt.host));
    }
    let mut text = words.join(" ");
    let mut facts = Vec::new();
    if attempt.delivered > 0 {
        let taken = usize::try_from(attempt.delivered).unwrap_or(usize::MAX);
        facts.push(format!("{} taken", recipients(taken)));
    }
    for refusal in &attempt.refusals {
        let count = usize::try_from(refusal.recipients).unwrap_or(usize::MAX);
        let phase = phase_name(refusal.phase);
        facts.push(format!("{} refused at {phase}: {}", recipients(count), refusal.reply));
    }
    let kind = match &attempt.end {
        AttemptStepEnd::Answered => TraceStepKind::Attempt,
        AttemptStepEnd::Broken { phase, why } => {
            facts.push(format!("broken off at {}: {why}", phase_name(*phase)));
            TraceStepKind::Attempt
        }
        AttemptStepEnd::InDoubt { why } => {
            facts.push(format!("in doubt, the server may have taken it: {why}"));
            TraceStepKind::InDoubt
        }
        AttemptStepEnd::Postponed => {
            facts.push("the account cannot be used, it does not count".to_owned());
            TraceStepKind::Attempt
        }
    };
    if !facts.is_empty() {
        text = format!("{text}: {}", facts.join("; "));
    }
    TraceStep {
        attempt: Some(attempt.number),
        host: Some(attempt.host.clone()).filter(|host| !host.is_empty()),
        tls: Some(attempt.tls.clone()).filter(|tls| !tls.is_empty()),
        replies: attempt.refusals.iter().map(|refusal| refusal.reply.clone()).collect(),
        ..step(at, kind, text)
    }
}

fn phase_name(phase: AttemptPhase) -> &'static str {
    match phase {
        AttemptPhase::Connecting => "the beginning of the session",
        AttemptPhase::Mail => "MAIL",
        AttemptPhase::Rcpt => "RCPT",
        AttemptPhase::Data => "DATA",
        AttemptPhase::Text => "the text",
        AttemptPhase::Dot => "the end of the message",
    }
}

fn reported(at: SysTime, report: &ReportStep, rows: &Rows<'_>) -> TraceStep {
    let what = match report.outcome {
        ReportOutcome::Failed => "non-delivery",
        ReportOutcome::Delivered => "delivery",
        ReportOutcome::Delayed => "delay",
        ReportOutcome::Relayed => "relay",
    };
    TraceStep {
        // The greatest number stands for the report that a message that was late went after all.
        attempt: Some(report.attempt).filter(|number| (1..u32::MAX).contains(number)),
        class: Some(report.class.clone()),
        recipients: report.rows.iter().filter_map(|row| rows.address(*row)).collect(),
        ..step(
            at,
            TraceStepKind::Reported,
            format!("a report of {what} was put into INBOX ({})", report.class),
        )
    }
}

fn status_report(at: SysTime, report: &StatusReportStep) -> TraceStep {
    let by = match report.tied_by {
        TiedBy::EnvelopeId => "its envelope id",
        TiedBy::MessageId => "the Message-ID in it",
        TiedBy::Reference => "its reference and a recipient",
    };
    let mta = report.reporting_mta.split_once(';').map_or(&*report.reporting_mta, |(_, name)| name);
    let mta = mta.trim();
    let who = if mta.is_empty() { "somebody" } else { mta };
    let mut lines: Vec<String> = report
        .recipients
        .iter()
        .map(|line| {
            let facts = [&line.action, &line.status, &line.diagnostic];
            let facts: Vec<&str> =
                facts.into_iter().map(String::as_str).filter(|fact| !fact.is_empty()).collect();
            format!("{} {}", line.address, facts.join(" "))
        })
        .collect();
    if report.more > 0 {
        lines.push(format!("and {} more", report.more));
    }
    let text = format!(
        "{who} reports: {} ({}, known by {by}; anybody can send such a report)",
        lines.join("; "),
        report.class
    );
    TraceStep {
        host: Some(mta.to_owned()).filter(|host| !host.is_empty()),
        class: Some(report.class.clone()),
        replies: report.recipients.iter().map(|line| line.diagnostic.clone()).collect(),
        recipients: report.recipients.iter().map(|line| line.address.clone()).collect(),
        ..step(at, TraceStepKind::StatusReport, text)
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
