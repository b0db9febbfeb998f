//! Reports for the sender, put into INBOX (SP-4).

use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::LocalStore;
use super::hand::Letter;
use super::maildir::{FileState, Look, MaildirError, Origin, Place, Token};
use super::outbox::update;
use crate::mapi::{
    EntryId, MapiCode, MapiResult, PropList, Recipient, ReportOutcome, SysTime, tags,
};
use crate::mime::report::{
    MAX_RETURNED, Original, ReportAction, ReportFields, ReportedRecipient, report,
};
use crate::mime::{MAX_HEADER, Mailbox};
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
                self.put_one(&report, &made, &recipients).await?;
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
        for step in earlier.filter(|step| step.outcome == outcome) {
            groups.push((Begun { step: step.clone(), look: Look::Everywhere }, Vec::new()));
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
            groups.push((Begun { step, look }, fresh));
        }
        Ok(groups)
    }

    async fn note_report(&self, entry: &EntryId, step: &ReportStep) -> MapiResult<Noted> {
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

    async fn put_one(
        &self,
        about: &Report,
        begun: &Begun,
        recipients: &[&(Recipient, RecipientReport)],
    ) -> MapiResult<()> {
        let key = key(&about.original, &begun.step);
        let token = Token::of(Origin::Report, &key);
        // From what happened and not from the clock, so that a repeat has the same name.
        let time = recipients.iter().map(|(_, one)| one.time).max().unwrap_or(SysTime::EPOCH);
        let submitted = about.original_props.time(tags::CLIENT_SUBMIT_TIME).unwrap_or(time);
        let recipients = recipients.iter().map(|(row, one)| reported(row, one)).collect();
        let fields = self.fields(about, begun.step.outcome, recipients, &key, submitted);
        let original = self.returned(about).await?;
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
        let Some(hand) = &self.hand else {
            let maildir = Arc::clone(&self.maildir);
            return Ok(self.blocking(move || maildir.deliver(draft, &place)).await??);
        };
        // A report has no sender to whom another report could go (RFC 5321 section 4.5.5).
        let Place { mailbox, token, look, .. } = place;
        hand.deliver(draft, Letter { sender: String::new(), mailbox, token, look }).await
    }

    fn fields(
        &self,
        about: &Report,
        outcome: ReportOutcome,
        recipients: Vec<ReportedRecipient>,
        key: &[u8],
        submitted: SysTime,
    ) -> ReportFields {
        let props = &about.original_props;
        let text = |tag| props.text(tag).unwrap_or_default().to_owned();
        let id = blake3::hash(key).to_hex();
        ReportFields {
            action: match outcome {
                ReportOutcome::Failed | ReportOutcome::Delayed => ReportAction::Failed,
                ReportOutcome::Delivered => ReportAction::Delivered,
                ReportOutcome::Relayed => ReportAction::Relayed,
            },
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
            recipients,
        }
    }

    /// The original from the Outbox, or as much of it as is returned.
    async fn returned(&self, about: &Report) -> MapiResult<Returned> {
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
        let whole = content.size <= MAX_RETURNED as u64;
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
struct Begun {
    step: ReportStep,
    /// Where it is looked for before it is made.
    look: Look,
}

/// Whether a report could be noted.
enum Noted {
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
fn is_report(props: &PropList) -> bool {
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
