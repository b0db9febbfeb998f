//! MAIL, RCPT and DATA: pipelined where the server offers it (RFC 2920), else step by step.

use std::time::Duration;

use lettre::transport::smtp::commands::{Data, Rset};

use super::super::connection::Connection;
use super::super::reply::{Failure, Phase, Scope};
use super::commands::{self, Group};
use super::{End, Sent, TextForm, Transacted, Work};

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
    let next = dialogue.run(form).await;
    dialogue.close(next)
}

/// Goes on with an envelope that was written behind the final dot of another message and names
/// these recipients; see [`exchange`]. The connection is out of step.
pub(super) async fn resume(
    connection: &mut Connection,
    work: &Work<'_>,
    asked: &[usize],
) -> Result<Answer, Box<Transacted>> {
    let mut dialogue = Dialogue::new(connection, work);
    dialogue.resumed = true;
    let next = dialogue.answers(asked).await;
    dialogue.close(next)
}

/// The exchange under way.
struct Dialogue<'a, 'w> {
    connection: &'a mut Connection,
    work: &'a Work<'w>,
    /// Whether a failure may only mean that a kept connection had been closed.
    may_be_stale: bool,
    /// Its commands were written before their time: a refusal of MAIL may be about that.
    resumed: bool,
    accepted: Vec<usize>,
    refused: Vec<(usize, Sent)>,
}

impl<'a, 'w> Dialogue<'a, 'w> {
    fn new(connection: &'a mut Connection, work: &'a Work<'w>) -> Self {
        let may_be_stale = connection.is_used();
        let (accepted, refused) = (Vec::new(), Vec::new());
        Dialogue { connection, work, may_be_stale, resumed: false, accepted, refused }
    }

    fn close(self, next: Result<Next, End>) -> Result<Answer, Box<Transacted>> {
        match next {
            Ok(next) => Ok(Answer { refused: self.refused, next }),
            Err(end) => Err(Box::new(Transacted { outcomes: self.refused, end })),
        }
    }

    async fn run(&mut self, form: TextForm) -> Result<Next, End> {
        let reset = self.connection.begin();
        if self.connection.capabilities().pipelining {
            self.pipelined(reset, form).await
        } else {
            self.step_by_step(reset, form).await
        }
    }

    async fn step_by_step(&mut self, reset: bool, form: TextForm) -> Result<Next, End> {
        let command = self.connection.deadlines().command;
        let deadlines = self.connection.deadlines().clone();
        if reset {
            self.write(Phase::Reset, Rset.to_string()).await?;
            self.read(Phase::Reset, command).await?.or_else(|failure| self.lost(failure))?;
        }
        let (offers, envelope) = (self.connection.capabilities(), self.work.envelope);
        let mail = commands::mail(offers, envelope, self.work.size, form);
        self.write(Phase::Mail, mail.to_string()).await?;
        if let Err(failure) = self.read(Phase::Mail, deadlines.mail).await? {
            return self.refuse_all(failure);
        }
        for index in self.work.recipients {
            let Some(rcpt) = commands::rcpt(self.connection.capabilities(), envelope, *index)
            else {
                self.refuse_unnamed(*index);
                continue;
            };
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

    async fn pipelined(&mut self, reset: bool, form: TextForm) -> Result<Next, End> {
        let work = self.work;
        let offers = self.connection.capabilities();
        let group = Group::new(offers, work.envelope, work.size, work.recipients, form);
        for index in work.recipients.iter().filter(|index| !group.asked.contains(index)) {
            self.refuse_unnamed(*index);
        }
        if group.asked.is_empty() {
            // Nothing was written, so RSET is owed as before at the most.
            self.connection.end_unfinished();
            return Ok(Next::Nothing);
        }
        if reset {
            self.write(Phase::Reset, format!("{Rset}{}", group.text)).await?;
            let deadline = self.connection.deadlines().command;
            self.read(Phase::Reset, deadline).await?.or_else(|failure| self.lost(failure))?;
        } else {
            self.write(Phase::Mail, group.text).await?;
        }
        self.answers(&group.asked).await
    }

    /// Reads the replies to a group that asked for these recipients.
    async fn answers(&mut self, asked: &[usize]) -> Result<Next, End> {
        let deadlines = self.connection.deadlines().clone();
        let mail = self.read(Phase::Mail, deadlines.mail).await?;
        if self.resumed && mail.is_err() {
            // Asked again over another connection, whose answer counts.
            return Err(End::Stale);
        }
        if let Err(failure) = &mail
            && failure.verdict.scope == Scope::Network
        {
            return self.lost(failure.clone());
        }
        for index in asked.iter().copied() {
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
    async fn read(&mut self, phase: Phase, deadline: Duration) -> Result<Result<(), Failure>, End> {
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

    async fn read_data(&mut self, deadline: Duration) -> Result<Result<(), Failure>, End> {
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

    /// There is no command for a recipient.
    fn refuse_unnamed(&mut self, index: usize) {
        if index < self.work.envelope.recipients.len() {
            let why = Failure::unsendable("5.1.3", "this is no address a server can be asked for");
            self.refused.push((index, Sent::Refused(why)));
        }
    }
}
