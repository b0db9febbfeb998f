//! MAIL, RCPT and DATA: pipelined where the server offers it (RFC 2920), else step by step.

use lettre::Address;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter, RcptParameter};

use super::super::capabilities::SizeLimit;
use super::super::connection::Connection;
use super::super::reply::{Failure, Phase, Scope};
use super::{End, Sent, TextForm, Transacted, Work};
use crate::spool::{BodyKind, DsnReturn, QueueRecipient};

/// What the server said to the envelope.
pub(super) struct Answer {
    /// Recipients that will not get the message in this transaction.
    pub(super) refused: Vec<(usize, Sent)>,
    /// What it waits for.
    pub(super) next: Next,
}

/// What follows the envelope.
pub(super) enum Next {
    /// The text, for these recipients.
    Text(Vec<usize>),
    /// The final dot alone: it took DATA, but no recipient.
    LoneDot,
    /// Nothing; the connection is in step.
    Nothing,
}

/// Names the recipients and asks to send the text.
///
/// # Errors
/// The whole transaction when the connection is lost.
pub(super) async fn exchange(
    connection: &mut Connection,
    work: &Work<'_>,
    form: TextForm,
) -> Result<Answer, Box<Transacted>> {
    let mut dialogue = Dialogue::new(connection, work);
    match dialogue.run(form).await {
        Ok(next) => Ok(Answer { refused: dialogue.refused, next }),
        Err(end) => Err(Box::new(Transacted { outcomes: dialogue.refused, end })),
    }
}

/// The exchange under way.
struct Dialogue<'a, 'w> {
    connection: &'a mut Connection,
    work: &'a Work<'w>,
    /// Whether a failure may only mean that a kept connection had been closed.
    may_be_stale: bool,
    accepted: Vec<usize>,
    refused: Vec<(usize, Sent)>,
}

impl<'a, 'w> Dialogue<'a, 'w> {
    fn new(connection: &'a mut Connection, work: &'a Work<'w>) -> Self {
        let may_be_stale = connection.is_used();
        Dialogue { connection, work, may_be_stale, accepted: Vec::new(), refused: Vec::new() }
    }

    async fn run(&mut self, form: TextForm) -> Result<Next, End> {
        let reset = self.connection.begin();
        let mail = self.mail(form);
        if self.connection.capabilities().pipelining {
            self.pipelined(reset, mail).await
        } else {
            self.step_by_step(reset, mail).await
        }
    }

    async fn step_by_step(&mut self, reset: bool, mail: Mail) -> Result<Next, End> {
        let command = self.connection.deadlines().command;
        let deadlines = self.connection.deadlines().clone();
        if reset {
            self.write(Phase::Reset, Rset.to_string()).await?;
            self.read(Phase::Reset, command).await?.or_else(|failure| self.lost(failure))?;
        }
        self.write(Phase::Mail, mail.to_string()).await?;
        if let Err(failure) = self.read(Phase::Mail, deadlines.mail).await? {
            return self.refuse_all(failure);
        }
        for index in self.work.recipients {
            let Some(rcpt) = self.rcpt_or_refuse(*index) else { continue };
            self.write(Phase::Rcpt, rcpt.to_string()).await?;
            let answer = self.read(Phase::Rcpt, deadlines.rcpt).await?;
            self.recipient(*index, answer)?;
        }
        if self.accepted.is_empty() {
            self.connection.end_unfinished();
            return Ok(Next::Nothing);
        }
        self.write(Phase::Data, Data.to_string()).await?;
        match self.read_data(deadlines.data).await? {
            Ok(()) => Ok(Next::Text(std::mem::take(&mut self.accepted))),
            Err(failure) => self.refuse_accepted(failure),
        }
    }

    async fn pipelined(&mut self, reset: bool, mail: Mail) -> Result<Next, End> {
        let deadlines = self.connection.deadlines().clone();
        let mut group = String::new();
        if reset {
            group += &Rset.to_string();
        }
        group += &mail.to_string();
        let mut asked = Vec::with_capacity(self.work.recipients.len());
        for index in self.work.recipients {
            if let Some(rcpt) = self.rcpt_or_refuse(*index) {
                group += &rcpt.to_string();
                asked.push(*index);
            }
        }
        if asked.is_empty() {
            // Nothing was written, so RSET is owed as before at the most.
            self.connection.end_unfinished();
            return Ok(Next::Nothing);
        }
        group += &Data.to_string();
        self.write(Phase::Mail, group).await?;
        if reset {
            self.read(Phase::Reset, deadlines.command)
                .await?
                .or_else(|failure| self.lost(failure))?;
        }
        let mail = self.read(Phase::Mail, deadlines.mail).await?;
        if let Err(failure) = &mail
            && failure.verdict.scope == Scope::Network
        {
            return self.lost(failure.clone());
        }
        for index in asked {
            let answer = self.read(Phase::Rcpt, deadlines.rcpt).await?;
            if mail.is_ok() {
                self.recipient(index, answer)?;
            }
        }
        let data = self.read_data(deadlines.data).await?;
        match (mail, data) {
            // Whatever it means by that, it now waits for a text.
            (Err(failure), Ok(())) => {
                self.refuse_rest(&failure);
                Ok(Next::LoneDot)
            }
            (Err(failure), Err(_)) => self.refuse_all(failure),
            (Ok(()), Ok(())) if self.accepted.is_empty() => Ok(Next::LoneDot),
            (Ok(()), Ok(())) => Ok(Next::Text(std::mem::take(&mut self.accepted))),
            // Refused because no recipient was left: that says nothing new.
            (Ok(()), Err(_)) if self.accepted.is_empty() => {
                self.connection.end_unfinished();
                Ok(Next::Nothing)
            }
            (Ok(()), Err(failure)) => self.refuse_accepted(failure),
        }
    }

    async fn write(&mut self, phase: Phase, text: String) -> Result<(), End> {
        let deadline = self.connection.deadlines().command;
        match self.connection.write(phase, text.as_bytes(), deadline).await {
            Ok(()) => Ok(()),
            Err(failure) => self.lost(failure),
        }
    }

    /// Reads a reply: the outer result is the connection's, the inner one the server's.
    async fn read(
        &mut self,
        phase: Phase,
        deadline: std::time::Duration,
    ) -> Result<Result<(), Failure>, End> {
        let response = match self.connection.reply(phase, deadline).await {
            Ok(response) => response,
            Err(failure) => return self.lost(failure),
        };
        let reply = self.connection.words(&response);
        if (200..300).contains(&reply.code) {
            self.may_be_stale = false;
            return Ok(Ok(()));
        }
        // A kept connection that is closed with 421 was not refusing this message.
        if !(reply.code == 421 && self.may_be_stale) {
            self.may_be_stale = false;
        }
        Ok(Err(Failure::refused(phase, reply)))
    }

    async fn read_data(
        &mut self,
        deadline: std::time::Duration,
    ) -> Result<Result<(), Failure>, End> {
        let response = match self.connection.reply(Phase::Data, deadline).await {
            Ok(response) => response,
            Err(failure) => return self.lost(failure),
        };
        let reply = self.connection.words(&response);
        match reply.code {
            354 => Ok(Ok(())),
            400.. => Ok(Err(Failure::refused(Phase::Data, reply))),
            // Neither yes nor no: nobody knows what it waits for.
            _ => self.lost(Failure::refused(Phase::Data, reply)),
        }
    }

    fn lost<T>(&self, failure: Failure) -> Result<T, End> {
        Err(if self.may_be_stale { End::Stale } else { End::Broken(failure) })
    }

    fn recipient(&mut self, index: usize, answer: Result<(), Failure>) -> Result<(), End> {
        match answer {
            Ok(()) => self.accepted.push(index),
            Err(failure) if failure.verdict.scope == Scope::Network => return self.lost(failure),
            Err(failure) => self.refused.push((index, Sent::Refused(failure))),
        }
        Ok(())
    }

    /// MAIL was refused: so is everyone.
    fn refuse_all(&mut self, failure: Failure) -> Result<Next, End> {
        if failure.verdict.scope == Scope::Network {
            return self.lost(failure);
        }
        self.refuse_rest(&failure);
        self.connection.end_unfinished();
        Ok(Next::Nothing)
    }

    /// DATA was refused: so is everyone that was accepted before.
    fn refuse_accepted(&mut self, failure: Failure) -> Result<Next, End> {
        if failure.verdict.scope == Scope::Network {
            return self.lost(failure);
        }
        for index in std::mem::take(&mut self.accepted) {
            self.refused.push((index, Sent::Refused(failure.clone())));
        }
        self.connection.end_unfinished();
        Ok(Next::Nothing)
    }

    fn refuse_rest(&mut self, failure: &Failure) {
        for index in self.work.recipients {
            if !self.refused.iter().any(|(other, _)| other == index) {
                self.refused.push((*index, Sent::Refused(failure.clone())));
            }
        }
    }

    fn mail(&self, form: TextForm) -> Mail {
        let (offers, envelope) = (self.connection.capabilities(), self.work.envelope);
        let mut parameters = Vec::new();
        // A re-encoded text has another size, known only once it is sent.
        if offers.size != SizeLimit::Unknown
            && form == TextForm::AsKept
            && let Ok(size) = usize::try_from(self.work.size)
        {
            parameters.push(MailParameter::Size(size));
        }
        if envelope.body == BodyKind::EightBit && form == TextForm::AsKept {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        if envelope.smtputf8 {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if offers.dsn {
            let ret = envelope.ret.map(|ret| match ret {
                DsnReturn::Full => "FULL".to_owned(),
                DsnReturn::Headers => "HDRS".to_owned(),
            });
            let envid = Some(envelope.envid.clone()).filter(|envid| !envid.is_empty());
            for (keyword, value) in [("RET", ret), ("ENVID", envid)] {
                if value.is_some() {
                    parameters.push(MailParameter::Other { keyword: keyword.to_owned(), value });
                }
            }
        }
        Mail::new(address(&envelope.from), parameters)
    }

    fn rcpt_or_refuse(&mut self, index: usize) -> Option<Rcpt> {
        let rcpt = self.rcpt(index);
        if rcpt.is_none() && index < self.work.envelope.recipients.len() {
            let why = Failure::unsendable("5.1.3", "this is no address a server can be asked for");
            self.refused.push((index, Sent::Refused(why)));
        }
        rcpt
    }

    /// The command for one recipient; `None` for what is no address.
    fn rcpt(&self, index: usize) -> Option<Rcpt> {
        let recipient = self.work.envelope.recipients.get(index)?;
        let parameters =
            if self.connection.capabilities().dsn { dsn_parameters(recipient) } else { Vec::new() };
        Some(Rcpt::new(address(&recipient.address)?, parameters))
    }
}

/// The address as it is, where nothing in it can end the command or its path.
pub(super) fn address(text: &str) -> Option<Address> {
    let harmless = !text.chars().any(|c| c.is_control() || matches!(c, '<' | '>'))
        && text.len() <= MAX_PATH
        && (text.starts_with('"') || !text.contains(' '));
    let (user, domain) = text.rsplit_once('@').filter(|_| harmless)?;
    (!user.is_empty() && !domain.is_empty()).then(|| Address::new_dangerous(user, domain))
}

/// Far above the 256 of RFC 5321 section 4.5.3.1.3, and still one short line.
const MAX_PATH: usize = 1000;

/// RFC 3461 sections 4.1 and 4.2.
fn dsn_parameters(recipient: &QueueRecipient) -> Vec<RcptParameter> {
    let notify = recipient.notify.map(|notify| {
        let wishes: Vec<&str> =
            [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")]
                .into_iter()
                .filter_map(|(wished, word)| wished.then_some(word))
                .collect();
        if wishes.is_empty() { "NEVER".to_owned() } else { wishes.join(",") }
    });
    // What a client said of the original recipient is passed on as it came (section 5.2.1).
    let original = match &recipient.original {
        Some(original) => Some(original.as_str()),
        None => notify.is_some().then_some(recipient.address.as_str()),
    };
    let original = original.map(|original| format!("rfc822;{original}"));
    [("NOTIFY", notify), ("ORCPT", original)]
        .into_iter()
        // xtext has no form for what is not ASCII; RFC 6533 gives such addresses another type.
        .filter_map(|(keyword, value)| Some((keyword, value.filter(|value| value.is_ascii())?)))
        .map(|(keyword, value)| RcptParameter::Other {
            keyword: keyword.to_owned(),
            value: Some(value),
        })
        .collect()
}
