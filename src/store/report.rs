//! Reports for the sender, put into INBOX (SP-4).

use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::hand::Letter;
use super::maildir::{FileState, Look, MaildirError, Origin, Place, Token};
use super::outbox::update;
use super::{LocalStore, delay};
use crate::mapi::{
    EntryId, MapiCode, MapiResult, PropList, Recipient, ReportOutcome, SysTime, tags,
};
use crate::mime::report::{
    MAX_RETURNED, Original, ReportAction, ReportFields, ReportedRecipient, report,
};
use crate::mime::{MAX_HEADER, Mailbox};
use crate::observe::Family;
use crate::spi::{RecipientReport, Report, ReportKind};
use crate::spool::{ReportMade, ReportStep};

/// The original as far as it is returned.
enum Returned {
    Whole(Vec<u8>),
    Beginning(Vec<u8>),
    Missing,
}

impl LocalStore {
    /// Puts the reports into INBOX: one for failures, one for deliveries. The same report again
    /// changes nothing, and nobody is reported twice. Nothing is reported about a report, nor to
    /// who did not want it.
    pub(super) async fn put_report(&self, report: Report) -> MapiResult<()> {
        if is_report(&report.original_props) {
            return Ok(());
        }
        for kind in [ReportKind::Failure, ReportKind::Delivery, ReportKind::Relay] {
            let wanted = |(row, one): &&(Recipient, RecipientReport)| {
                one.kind == kind
                    && match kind {
                        ReportKind::Failure => row.wants_failure_report(&report.original_props),
                        ReportKind::Delivery | ReportKind::Relay => {
                            row.wants_delivery_report(&report.original_props)
                        }
                    }
            };
            let recipients: Vec<_> = report.recipients.iter().filter(wanted).collect();
            for (made, recipients) in self.begun(&report, kind, recipients).await? {
                let time = recipients.iter().map(|(_, one)| one.time).max();
                // From what happened and not from the clock, so that a repeat has the same name.
                let time = time.unwrap_or(SysTime::EPOCH);
                let recipients = recipients.iter().map(|(row, one)| reported(row, one)).collect();
                self.put_one(&report, &made, recipients, time).await?;
            }
        }
        Ok(())
    }

    /// Divides recipients into those of reports that were begun before, which are only completed,
    /// and the others, who get a report that is noted before it is made. So a crash at any point
    /// leads neither to a second report about somebody nor to none.
    async fn begun<'a>(
        &self,
        about: &Report,
        kind: ReportKind,
        recipients: Vec<&'a (Recipient, RecipientReport)>,
    ) -> MapiResult<Vec<(Begun, Vec<&'a (Recipient, RecipientReport)>)>> {
        let mut groups: Vec<(Begun, Vec<&'a (Recipient, RecipientReport)>)> = Vec::new();
        if recipients.is_empty() {
            return Ok(groups);
        }
        let outcome = outcome_of(kind);
        let record = match self.outbox.record(&about.original).await {
            Ok(record) => Some(record),
            Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => None,
            Err(error) => return Err(error),
        };
        let earlier = record.iter().flat_map(|record| &record.reports).map(|made| &made.report);
        let told_when_it_happened =
            |step: &&ReportStep| step.outcome == outcome && step.attempt != delay::AFTER_ALL;
        for step in earlier.filter(told_when_it_happened) {
            groups.push((Begun::new(step.clone(), Look::Everywhere), Vec::new()));
        }
        let mut fresh = Vec::new();
        for recipient in recipients {
            let row = recipient.0.row;
            match groups.iter_mut().find(|(begun, _)| begun.step.rows.contains(&row)) {
                Some((_, group)) => group.push(recipient),
                None => fresh.push(recipient),
            }
        }
        groups.retain(|(_, group)| !group.is_empty());
        if !fresh.is_empty() {
            let mut rows: Vec<u32> = fresh.iter().map(|(row, _)| row.row).collect();
            rows.sort_unstable();
            let class = about.original_props.text(tags::MESSAGE_CLASS).unwrap_or_default();
            let class = outcome.message_class(class);
            let step = ReportStep { outcome, attempt: about.attempt, rows, class };
            let look = match self.note_report(&about.original, &step).await? {
                Noted::Yes => Look::Here,
                // Without a row nothing tells whether it was made before.
                Noted::NoRow => Look::Everywhere,
            };
            groups.push((Begun::new(step, look), fresh));
        }
        Ok(groups)
    }

    pub(super) async fn note_report(
        &self,
        entry: &EntryId,
        step: &ReportStep,
    ) -> MapiResult<Noted> {
        let at = self.clock.now();
        let noted = update(self.spool.as_ref(), entry, |record| {
            record.reports.push(ReportMade { at, report: step.clone() });
            Ok(true)
        });
        match noted.await {
            Ok(()) => Ok(Noted::Yes),
            Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => Ok(Noted::NoRow),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn put_one(
        &self,
        about: &Report,
        begun: &Begun,
        recipients: Vec<ReportedRecipient>,
        time: SysTime,
    ) -> MapiResult<()> {
        let key = key(&about.original, &begun.step);
        let token = Token::of(Origin::Report, &key);
        let submitted = about.original_props.time(tags::CLIENT_SUBMIT_TIME).unwrap_or(time);
        let fields = self.fields(about, begun, recipients, &key, submitted);
        let original = self.returned(about, begun.action).await?;
        let place = Place {
            mailbox: "INBOX".to_owned(),
            token,
            time,
            state: FileState::New,
            look: begun.look,
        };
        let maildir = Arc::clone(&self.maildir);
        let draft = self.blocking(move || {
            let original = match &original {
                Returned::Whole(bytes) => Original::Whole(bytes),
                Returned::Beginning(bytes) => Original::Beginning(bytes),
                Returned::Missing => Original::Missing,
            };
            let mut draft = maildir.draft()?;
            draft.write(&report(&fields, original))?;
            Ok::<_, MaildirError>(draft)
        });
        let draft = draft.await??;
        match &self.hand {
            None => {
                let maildir = Arc::clone(&self.maildir);
                self.blocking(move || maildir.deliver(draft, &place)).await??;
            }
            Some(hand) => {
                // A report has no sender to whom another one could go (RFC 5321 section 4.5.5).
                let Place { mailbox, token, look, .. } = place;
                hand.deliver(draft, Letter { sender: String::new(), mailbox, token, look }).await?;
            }
        }
        let kind = match begun.action {
            ReportAction::Failed => "failed",
            ReportAction::Delayed => "delayed",
            ReportAction::Delivered => "delivered",
            ReportAction::Relayed | ReportAction::RelayedAfterAll => "relayed",
        };
        self.options.observer.counters().add(Family::Reports, &[("kind", kind)], 1);
        tracing::info!(entry = %about.original, kind, "A report is delivered");
        Ok(())
    }

    fn fields(
        &self,
        about: &Report,
        begun: &Begun,
        recipients: Vec<ReportedRecipient>,
        key: &[u8],
        submitted: SysTime,
    ) -> ReportFields {
        let props = &about.original_props;
        let text = |tag| props.text(tag).unwrap_or_default().to_owned();
        let id = blake3::hash(key).to_hex();
        ReportFields {
            action: begun.action,
            host: self.host.clone(),
            from: Mailbox::new("Mail Delivery System", format!("mailer-daemon@{}", self.host)),
            to: addressee(props),
            date: self.clock.now(),
            message_id: format!("<{}@{}>", id.get(..26).unwrap_or_default(), self.host),
            subject: text(tags::SUBJECT),
            original_id: text(tags::INTERNET_MESSAGE_ID),
            envelope_id: match props.text(tags::ENVELOPE_ID) {
                Some(given) => given.to_owned(),
                // What our transports send as ENVID.
                None => about.original.to_string(),
            },
            submitted,
            will_retry_until: begun.until,
            recipients,
        }
    }

    /// The original from the Outbox, or as much of it as is returned. Only who is not reached at
    /// all gets the whole of it back.
    async fn returned(&self, about: &Report, action: ReportAction) -> MapiResult<Returned> {
        let content = match self.outbox.content(&about.original).await {
            Ok(content) => content,
            // The report is due all the same.
            Err(error) => {
                let entry = &about.original;
                tracing::warn!(%entry, %error, "A report goes without its original");
                return match error.code() {
                    MapiCode::END_OF_SESSION => Err(error),
                    _ => Ok(Returned::Missing),
                };
            }
        };
        let late = matches!(action, ReportAction::Delayed | ReportAction::RelayedAfterAll);
        let whole = content.size <= MAX_RETURNED as u64 && !late;
        let limit = if whole { content.size } else { MAX_HEADER as u64 };
        let mut bytes = Vec::new();
        if let Err(error) = content.reader.take(limit).read_to_end(&mut bytes).await {
            let entry = &about.original;
            tracing::warn!(%entry, %error, "A report goes without its original");
            return Ok(Returned::Missing);
        }
        Ok(if whole { Returned::Whole(bytes) } else { Returned::Beginning(bytes) })
    }
}

/// A report that was noted, or could not be.
pub(super) struct Begun {
    pub(super) step: ReportStep,
    /// What it tells of.
    pub(super) action: ReportAction,
    /// Where it is looked for before it is made.
    pub(super) look: Look,
    /// How long a message that is late is tried.
    pub(super) until: Option<SysTime>,
}

impl Begun {
    /// One of those that are told when they happen.
    fn new(step: ReportStep, look: Look) -> Self {
        let action = match step.outcome {
            ReportOutcome::Failed => ReportAction::Failed,
            ReportOutcome::Delayed => ReportAction::Delayed,
            ReportOutcome::Delivered => ReportAction::Delivered,
            ReportOutcome::Relayed => ReportAction::Relayed,
        };
        Begun { step, action, look, until: None }
    }
}

/// Whether a report could be noted.
pub(super) enum Noted {
    Yes,
    /// The message has left the Outbox.
    NoRow,
}

fn outcome_of(kind: ReportKind) -> ReportOutcome {
    match kind {
        ReportKind::Failure => ReportOutcome::Failed,
        ReportKind::Delivery => ReportOutcome::Delivered,
        ReportKind::Relay => ReportOutcome::Relayed,
    }
}

/// What makes it the same report: the message, the attempt, and whom it is about. An attempt that
/// was taken back has its number used again, and the host has failures of its own, so that the
/// number alone would hide the second report behind the first.
fn key(original: &EntryId, step: &ReportStep) -> Vec<u8> {
    let letter = match step.outcome {
        ReportOutcome::Failed => "ndr",
        ReportOutcome::Delivered => "dr",
        ReportOutcome::Delayed => "delayed",
        ReportOutcome::Relayed => "relay",
    };
    let mut key = format!("{letter} {} {:?} ", step.attempt, step.rows).into_bytes();
    key.extend_from_slice(original.as_bytes());
    key
}

fn reported(row: &Recipient, one: &RecipientReport) -> ReportedRecipient {
    ReportedRecipient {
        mailbox: Mailbox::new(&row.display_name, &row.address),
        status: one.status.clone(),
        diagnostic: one.diagnostic.clone(),
        remote_mta: one.remote_mta.clone(),
        time: one.time,
    }
}

/// Nothing is reported about what is a report itself, by its class or by its null sender
/// (RFC 5321 section 4.5.5).
pub(super) fn is_report(props: &PropList) -> bool {
    let class = props.text(tags::MESSAGE_CLASS).unwrap_or_default();
    class.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("REPORT."))
        || props.text(tags::ENVELOPE_SENDER) == Some("")
}

/// The sender: whoever the envelope names, else who submitted it, else the author.
fn addressee(props: &PropList) -> Mailbox {
    let name = props.text(tags::SENDER_NAME).unwrap_or_default();
    let sender = props.text(tags::SENDER_EMAIL_ADDRESS);
    match props.text(tags::ENVELOPE_SENDER).or(sender) {
        Some(address) if sender == Some(address) => Mailbox::new(name, address),
        Some(address) => Mailbox::new("", address),
        None => Mailbox::new(
            props.text(tags::SENT_REPRESENTING_NAME).unwrap_or_default(),
            props.text(tags::SENT_REPRESENTING_EMAIL_ADDRESS).unwrap_or("postmaster@localhost"),
        ),
    }
}
