//! DATA (RFC 5321 section 4.1.1.4), BDAT (RFC 3030) and the acceptance of messages.

use std::sync::Arc;
use std::time::SystemTime;

use smtp_proto::request::receiver::DataReceiver;
use time::OffsetDateTime;

use super::session::Session;
use super::transaction::{Content, Transaction};
use super::{Envelope, Reply, ViolationKind};
use crate::config::{BareNewlines, Protocol, SmtpExtension};
use crate::connection::{End, Flow};
use crate::faults::{Hit, Moment, NamedFault, Phase, SmtpPhase, named_fault};
use crate::sabotage::Outcome;
use crate::state::Shared;
use crate::transcript::Speaker;

/// Octets of data taken from the buffer at once.
const CHUNK: usize = 64 << 10;

/// A message whose final dot has not come. Dropping it, whatever ended the session, counts it as broken off.
struct Unfinished {
    shared: Arc<Shared>,
    begun: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.begun {
            self.shared.count(Protocol::Smtp, |counters| counters.broken_off += 1);
        }
    }
}

impl Session {
    pub(super) async fn data(&mut self) -> Flow {
        if let Some(refusal) = self.data_refusal("DATA") {
            return self.reply(&refusal).await;
        }
        match self.named_of_recipients(SmtpPhase::Data, Moment::Before).await? {
            Outcome::Proceed => {}
            outcome => return self.instead(outcome).await,
        }
        let Some(transaction) = self.transaction.take() else {
            return Ok(());
        };
        if transaction.chunks.is_some() {
            self.violation(ViolationKind::BadSequence, "DATA after BDAT");
            return self.reply(&Reply::new(503, "5.5.1", "DATA after BDAT")).await;
        }
        let reply = Reply::new(354, "", "end with <CRLF>.<CRLF>");
        self.answer(SmtpPhase::Data, reply, "DATA").await?;
        let content = self.receive(&transaction.envelope).await?;
        self.final_dot(transaction.envelope, content).await
    }

    fn data_refusal(&mut self, verb: &str) -> Option<Reply> {
        let reply = match &self.transaction {
            None => Reply::new(503, "5.5.1", "sender and recipients first"),
            Some(transaction) if transaction.envelope.recipients.is_empty() => {
                return Some(Reply::new(554, "5.5.1", "no valid recipients"));
            }
            Some(_) => return None,
        };
        self.violation(ViolationKind::BadSequence, verb);
        Some(reply)
    }

    /// Everything up to the final dot.
    async fn receive(&mut self, envelope: &Envelope) -> Flow<Content> {
        let mut content = self.content(envelope);
        let mut receiver = DataReceiver::new();
        let mut clean = Vec::with_capacity(CHUNK);
        // The data begins at the start of a line: only so is a first dot seen as stuffed or final.
        receiver.ingest(&mut b"\r\n".iter(), &mut clean);
        clean.clear();
        let mut fault = self.body_fault(envelope);
        let shared = Arc::clone(&self.connection.shared);
        let mut unfinished = Unfinished { shared, begun: false };
        loop {
            if self.connection.buffered().is_empty() {
                self.connection.fill().await?;
            }
            unfinished.begun = true;
            let buffered = self.connection.buffered();
            let mut rest = buffered.get(..CHUNK).unwrap_or(buffered).iter();
            let offered = rest.len();
            let done = receiver.ingest(&mut rest, &mut clean);
            let used = offered - rest.len();
            // A last CR may belong to the final dot's line: the receiver takes it back then.
            let kept = usize::from(!done && clean.ends_with(b"\r"));
            let certain = clean.len() - kept;
            content.push(clean.get(..certain).unwrap_or_default());
            clean.drain(..certain);
            self.connection.skip(used);
            self.strike_body(&mut fault, &content).await?;
            if done {
                unfinished.begun = false;
                self.connection.record(Speaker::Client, b".");
                return Ok(content);
            }
        }
    }

    /// The fault that waits amid the data, by rule or by a recipient's name.
    fn body_fault(&self, envelope: &Envelope) -> Option<Hit> {
        let shared = &self.connection.shared;
        let phase = Phase::Smtp(SmtpPhase::Body);
        shared.faults.strike(phase, Moment::Before, &envelope.subject()).or_else(|| {
            let fault = self.name_among(envelope, SmtpPhase::Body, Moment::Before)?;
            Some(shared.faults.named(crate::faults::Deed::Smtp(fault.action), None))
        })
    }

    async fn strike_body(&mut self, fault: &mut Option<Hit>, content: &Content) -> Flow {
        let size = content.sink.size();
        let Some(hit) = fault.take_if(|hit| size > 0 && size >= hit.at_byte.unwrap_or(1)) else {
            return Ok(());
        };
        match self.connection.suffer(hit).await? {
            Outcome::Proceed => Ok(()),
            outcome => {
                // A reply amid the data cannot be followed by another: the connection is over.
                self.instead(outcome).await?;
                self.connection.close().await;
                Err(End::Closed)
            }
        }
    }

    pub(super) async fn bdat(&mut self, size: usize, last: bool, text: &str) -> Flow {
        let offered = self.connection.shared.offers(SmtpExtension::Chunking);
        let refusal = if offered {
            self.data_refusal(text)
        } else {
            self.violation(ViolationKind::NotOffered, text);
            Some(Reply::new(502, "5.5.1", "not implemented"))
        };
        let phase = Phase::Smtp(SmtpPhase::Data);
        let outcome = match &refusal {
            None => self.connection.fault(phase, Moment::Before, text).await?,
            Some(_) => Outcome::Proceed,
        };
        let mut transaction = self.transaction.take();
        let mut content = match &mut transaction {
            Some(transaction) => match transaction.chunks.take() {
                Some(content) => content,
                None => self.content(&transaction.envelope),
            },
            None => self.content(&Envelope::default()),
        };
        self.chunk(size, &mut content, transaction.as_ref()).await?;
        if let Some(refusal) = refusal {
            self.transaction = transaction;
            return self.reply(&refusal).await;
        }
        if !matches!(outcome, Outcome::Proceed) {
            return self.instead(outcome).await;
        }
        let Some(mut transaction) = transaction else {
            return Ok(());
        };
        transaction.envelope.chunked = true;
        if last {
            return self.final_dot(transaction.envelope, content).await;
        }
        transaction.chunks = Some(content);
        self.transaction = Some(transaction);
        let reply = Reply::new(250, "2.0.0", format!("{size} octets received"));
        self.answer(SmtpPhase::Data, reply, text).await
    }

    async fn chunk(
        &mut self,
        size: usize,
        content: &mut Content,
        transaction: Option<&Transaction>,
    ) -> Flow {
        let mut fault = match transaction {
            Some(transaction) => self.body_fault(&transaction.envelope),
            None => None,
        };
        let mut left = size;
        while left > 0 {
            if self.connection.buffered().is_empty() {
                self.connection.fill().await?;
            }
            let chunk = self.connection.take(left.min(CHUNK));
            left -= chunk.len();
            content.push(&chunk);
            self.strike_body(&mut fault, content).await?;
        }
        Ok(())
    }

    /// The data is complete: accept or refuse it.
    async fn final_dot(&mut self, envelope: Envelope, content: Content) -> Flow {
        let subject = envelope.subject();
        let phase = Phase::Smtp(SmtpPhase::FinalDot);
        let mut outcome = self.connection.fault(phase, Moment::Before, &subject).await?;
        let named = self.name_among(&envelope, SmtpPhase::FinalDot, Moment::Before);
        if let (Outcome::Proceed, Some(fault)) = (&outcome, named) {
            outcome = self.suffer_named(fault).await?;
        }
        if !matches!(outcome, Outcome::Proceed) {
            return self.instead(outcome).await;
        }
        let after = self.name_among(&envelope, SmtpPhase::FinalDot, Moment::After);
        let reply = self.judge(envelope, content);
        if let (250, Some(fault)) = (reply.code, after) {
            let outcome = self.suffer_named(fault).await?;
            return self.conclude(outcome, reply).await;
        }
        self.answer(SmtpPhase::FinalDot, reply, &subject).await
    }

    fn judge(&mut self, envelope: Envelope, content: Content) -> Reply {
        if content.sink.too_big() {
            return Reply::new(552, "5.3.4", "message too big");
        }
        let size = content.sink.size();
        if envelope.parameters.size.is_some_and(|declared| declared < size) {
            let detail = format!("{}: {size} octets came", envelope.mail_command);
            self.violation(ViolationKind::SizeUnderstated, &detail);
        }
        let found = content.inspector.finish();
        let bare = |kind| matches!(kind, ViolationKind::BareCr | ViolationKind::BareLf);
        let bare_newline = found.iter().any(|(kind, _)| bare(*kind));
        for (kind, detail) in found {
            self.violation(kind, &detail);
        }
        let config = &self.connection.shared.config;
        if bare_newline && config.bare_newlines == BareNewlines::Reject {
            return Reply::new(550, "5.6.0", "bare CR or LF in the message");
        }
        let received = config.received_header.then(|| received(&envelope, &config.hostname));
        let id = self.connection.shared.accept(envelope, content.sink.finish(), received);
        Reply::new(250, "2.0.0", format!("accepted as {id}"))
    }

    async fn named_of_recipients(&mut self, phase: SmtpPhase, moment: Moment) -> Flow<Outcome> {
        let named = self
            .transaction
            .as_ref()
            .and_then(|transaction| self.name_among(&transaction.envelope, phase, moment));
        match named {
            Some(fault) => self.suffer_named(fault).await,
            None => Ok(Outcome::Proceed),
        }
    }

    fn name_among(
        &self,
        envelope: &Envelope,
        phase: SmtpPhase,
        moment: Moment,
    ) -> Option<NamedFault> {
        if !self.connection.shared.config.named_faults {
            return None;
        }
        envelope
            .recipients
            .iter()
            .filter_map(|to| named_fault(&to.address, SmtpPhase::Rcpt))
            .find(|fault| fault.phase == phase && fault.moment == moment)
    }
}

/// A trace field as RFC 5321 section 4.4 has it.
fn received(envelope: &Envelope, by: &str) -> String {
    let with = match (envelope.tls, envelope.user.is_some()) {
        (false, false) => "ESMTP",
        (true, false) => "ESMTPS",
        (false, true) => "ESMTPA",
        (true, true) => "ESMTPSA",
    };
    let date = crate::dates::rfc5322(OffsetDateTime::from(SystemTime::now()));
    format!("Received: from {}\r\n by {by} with {with};\r\n {date}\r\n", envelope.helo)
}
