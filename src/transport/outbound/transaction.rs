//! One mail transaction: MAIL, RCPT for each recipient, DATA, the text, the final dot; with an
//! outcome per recipient.

mod ahead;
mod commands;
mod envelope;

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::body::{DotStuffer, TextReader};
use super::connection::{Behind, Connection, Unwritten};
use super::journal::Journal;
use super::progress::{Progress, Stage, Stopped};
use super::reply::{Failure, Fault, Phase, Scope};
use crate::mapi::EntryId;
use crate::spool::{BodyKind, Envelope, Reply};
use envelope::Next;

pub(crate) use ahead::{Ahead, Follow};

/// Most recipients of one transaction: what every server must take (RFC 5321 section
/// 4.5.3.1.8). The commands of so many fit the buffers of any TCP stack, so that a pipelined
/// envelope cannot block on replies nobody reads.
pub(crate) const MAX_RECIPIENTS: usize = 100;

/// Where the text of a message comes from.
#[async_trait]
pub(crate) trait TextSource: Send + Sync {
    /// Opens the text from its start.
    ///
    /// # Errors
    /// See [`TextError`].
    async fn open(&self, form: TextForm) -> Result<Pin<Box<dyn AsyncRead + Send>>, TextError>;
}

/// How a text is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextForm {
    /// Byte for byte as it is kept.
    AsKept,
    /// Without octets above 127 (RFC 6152 section 3).
    SevenBit,
}

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextError {
    /// It is missing or not what it was: no attempt will ever send it, and the message is set
    /// aside.
    Damaged(String),
    /// It cannot be read now.
    Unreadable(String),
}

impl From<std::io::Error> for TextError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::InvalidData {
            TextError::Damaged(error.to_string())
        } else {
            TextError::Unreadable(error.to_string())
        }
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Damaged(why) => Failure::damaged(&why),
            TextError::Unreadable(why) => {
                let why = format!("the stored message cannot be read: {why}");
                Failure::fault(Phase::Body, Fault::Internal, "", &why)
            }
        }
    }
}

/// What to send.
pub(crate) struct Work<'a> {
    /// The message.
    pub(crate) entry: &'a EntryId,
    /// The envelope.
    pub(crate) envelope: &'a Envelope,
    /// Which of its recipients, by index; at most [`MAX_RECIPIENTS`].
    pub(crate) recipients: &'a [usize],
    /// Size of the text as it is kept.
    pub(crate) size: u64,
    /// The text.
    pub(crate) text: &'a dyn TextSource,
    /// Who makes durable how far it is.
    pub(crate) journal: &'a dyn Journal,
    /// Who follows over the connection when this is the last transaction of the message.
    pub(crate) follow: Option<&'a dyn Follow>,
}

/// What became of one recipient of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The server took responsibility, with this reply to the final dot.
    Delivered(Reply),
    /// It did not.
    Refused(Failure),
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In step; the connection serves the next.
    InStep,
    /// The connection is to be dropped. Recipients without an outcome were not reached.
    Broken(Failure),
    /// A connection that was kept turned out to be closed before the server said anything: the
    /// message was not tried.
    Stale,
    /// The reply to the final dot did not come: only the server knows what became of the
    /// recipients without an outcome.
    InDoubt(Failure),
    /// Stopped before the final dot; the connection is to be dropped.
    Stopped,
}

/// Outcome of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transacted {
    /// What became of recipients, by index. Those that are missing keep their state.
    pub(crate) outcomes: Vec<(usize, Sent)>,
    /// How it ended.
    pub(crate) end: End,
}

impl Transacted {
    fn nobody(end: End) -> Self {
        Transacted { outcomes: Vec::new(), end }
    }

    fn all_refused(work: &Work<'_>, failure: &Failure, end: End) -> Self {
        let outcomes =
            work.recipients.iter().map(|index| (*index, Sent::Refused(failure.clone()))).collect();
        Transacted { outcomes, end }
    }
}

/// Sends one message to some of its recipients.
///
/// Cancel-safe in that a dropped future leaves the connection unusable; whether the final dot was
/// out is told by `progress`.
pub(crate) async fn transact(
    connection: &mut Connection,
    work: &Work<'_>,
    progress: &Progress,
) -> Transacted {
    tokio::select! {
        biased;
        () = progress.dropped() => Transacted::nobody(cut(connection, progress)),
        transacted = run(connection, work, progress) => transacted,
    }
}

/// What a connection that was cut from outside leaves behind.
fn cut(connection: &mut Connection, progress: &Progress) -> End {
    connection.begin();
    match progress.stage() {
        Stage::DotOut => {
            End::InDoubt(connection.fault(Phase::Dot, Fault::Closed, "the connection was given up"))
        }
        Stage::Stoppable | Stage::Over | Stage::Stopped => End::Stopped,
    }
}

async fn run(connection: &mut Connection, work: &Work<'_>, progress: &Progress) -> Transacted {
    let written = match connection.take_behind() {
        Behind::Nothing => None,
        Behind::Envelope(ahead) if ahead.is_of(work.entry) => Some(ahead),
        // The server waits for the text of another message.
        Behind::Envelope(_) | Behind::Part => return Transacted::nobody(End::Stale),
    };
    let unfit = |failure: &Failure| {
        let end = match &written {
            None => End::InStep,
            Some(_) => End::Broken(failure.clone()),
        };
        Transacted::all_refused(work, failure, end)
    };
    let form = match fitness(connection, work.envelope, work.size) {
        Ok(form) => form,
        Err(failure) => return unfit(&failure),
    };
    // Opened first: a text that cannot be read should not bother the server.
    let text = match work.text.open(form).await {
        Ok(reader) => TextReader::new(reader),
        Err(error) => return unfit(&error.into()),
    };
    let answer = match &written {
        None => envelope::exchange(connection, work, form).await,
        // Its recipients have not changed since, or the answers would be given to the wrong ones.
        Some(ahead) if ahead.recipients() != work.recipients => {
            return Transacted::nobody(End::Stale);
        }
        Some(ahead) => envelope::resume(connection, work, ahead.recipients()).await,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(broken) => return *broken,
    };
    let mut outcomes = answer.refused;
    let end = match answer.next {
        Next::Nothing => End::InStep,
        Next::LoneDot => lone_dot(connection).await,
        Next::Text(accepted) => {
            // Who was refused may belong into a further transaction.
            let follow = work.follow.filter(|_| outcomes.is_empty());
            let sent = send_text(connection, text, progress, work.journal, follow).await;
            conclude(connection, sent, &accepted, &mut outcomes)
        }
    };
    Transacted { outcomes, end }
}

/// Whether the server takes such a message at all, and in which form.
fn fitness(connection: &Connection, envelope: &Envelope, size: u64) -> Result<TextForm, Failure> {
    let offers = connection.capabilities();
    let host = connection.host();
    if offers.size.refuses(size) {
        let why = format!("the message has {size} bytes, more than {host} takes");
        return Err(Failure::unsendable("5.3.4", &why));
    }
    if envelope.smtputf8 && !offers.smtp_utf8 {
        let why = format!("an address or header needs SMTPUTF8, which {host} does not offer");
        return Err(Failure::unsendable("5.6.7", &why));
    }
    let from = envelope.from.as_str();
    if !from.is_empty() && commands::address(from).is_none() {
        return Err(Failure::unsendable("5.1.7", "the sender is no address a server can be told"));
    }
    Ok(match envelope.body {
        BodyKind::EightBit if !offers.eight_bit_mime => TextForm::SevenBit,
        BodyKind::EightBit | BodyKind::SevenBit => TextForm::AsKept,
    })
}

/// RFC 2920 section 3.1: a server that answered 354 without a recipient gets the final dot alone.
async fn lone_dot(connection: &mut Connection) -> End {
    let deadline = connection.deadlines().dot;
    match connection.command(Phase::Dot, ".\r\n", deadline).await {
        Ok(_) => {
            connection.end();
            End::InStep
        }
        Err(failure) => End::Broken(failure),
    }
}

/// How the sending of a text ended.
enum TextSent {
    /// The server answered the final dot.
    Answered(Reply),
    /// The connection broke before the final dot.
    Broken(Failure),
    /// It broke before the final dot, and this was the server's reason.
    Interrupted(Failure),
    /// The text could not be read, or the journal not be written; the final dot was not sent.
    Unread(Failure),
    /// No reply to the final dot.
    Lost(Failure),
    /// Stopped before the final dot.
    Stopped,
}

/// Sends the text. The journal is on its way to the disk while the last piece is on its way to the
/// server, so that it costs no time of its own and a crash in a long text leaves no doubt; only the
/// end of the text, with the final dot, waits for both.
async fn send_text(
    connection: &mut Connection,
    text: TextReader,
    progress: &Progress,
    journal: &dyn Journal,
    follow: Option<&dyn Follow>,
) -> TextSent {
    let deadline = connection.deadlines().block;
    let closing = match send_lines(connection, text, journal).await {
        Ok(closing) => closing,
        Err(sent) => return sent,
    };
    if let Err(Stopped) = progress.cross_dot() {
        return TextSent::Stopped;
    }
    let mut ahead = follow.and_then(|follow| follow.next(connection));
    let commands = ahead.as_mut().map(Ahead::take_commands).unwrap_or_default();
    let mut deadline_of_reply = connection.deadlines().dot;
    match connection.write_both(Phase::Body, &closing, &commands, deadline).await {
        Ok(()) => connection.wrote_behind(ahead.map_or(Behind::Nothing, Behind::Envelope)),
        // The end of what was to be written did not leave, so the server has no message.
        Err(Unwritten::First(failure)) => return interrupted(connection, failure).await,
        Err(Unwritten::Second) => {
            connection.wrote_behind(Behind::Part);
            // A server that is gone may have answered first.
            deadline_of_reply = connection.deadlines().quit;
        }
    }
    match connection.reply(Phase::Dot, deadline_of_reply).await {
        Ok(response) => TextSent::Answered(connection.words(&response)),
        Err(failure) => TextSent::Lost(failure),
    }
}

/// Makes durable that the final dot may be out. A disk that takes longer than the server waits
/// for the next line is an attempt that failed.
async fn note(host: String, journal: &dyn Journal, deadline: Duration) -> Result<(), TextSent> {
    match tokio::time::timeout(deadline, journal.dot_may_be_out()).await {
        Ok(noted) => noted.map_err(TextSent::Unread),
        Err(_) => {
            let why = format!("the disk was slower than {host} waits");
            Err(TextSent::Unread(Failure::fault(Phase::Body, Fault::Internal, "", &why)))
        }
    }
}

/// Sends the text up to its end, which is returned: what must not be sent before the journal says
/// so, and nobody may stop the message any more. The journal does when this returns.
async fn send_lines(
    connection: &mut Connection,
    mut text: TextReader,
    journal: &dyn Journal,
) -> Result<Vec<u8>, TextSent> {
    let mut stuffer = DotStuffer::new();
    let mut wire = Vec::new();
    loop {
        let piece = match text.next().await {
            Ok(piece) => piece,
            Err(error) => return Err(TextSent::Unread(TextError::from(error).into())),
        };
        wire.clear();
        stuffer.push(piece, &mut wire);
        if TextReader::is_last(piece) {
            break;
        }
        send_piece(connection, &wire).await?;
    }
    if journal.says_so_already() {
        // Then nothing waits, and the last piece leaves together with its end.
        stuffer.finish(&mut wire);
        return Ok(wire);
    }
    let (host, deadline) = (connection.host().to_owned(), connection.deadlines().block);
    tokio::try_join!(note(host, journal, deadline), send_piece(connection, &wire))?;
    wire.clear();
    stuffer.finish(&mut wire);
    Ok(wire)
}

async fn send_piece(connection: &mut Connection, wire: &[u8]) -> Result<(), TextSent> {
    let deadline = connection.deadlines().block;
    match connection.write(Phase::Body, wire, deadline).await {
        Ok(()) => Ok(()),
        Err(failure) => Err(interrupted(connection, failure).await),
    }
}

/// A server that closes in the middle of a text often says why first.
async fn interrupted(connection: &mut Connection, failure: Failure) -> TextSent {
    let deadline = connection.deadlines().quit;
    match connection.reply(Phase::Dot, deadline).await {
        Ok(response) if !response.is_positive() => {
            let reply = connection.words(&response);
            TextSent::Interrupted(Failure::refused(Phase::Dot, reply))
        }
        _ => TextSent::Broken(failure),
    }
}

fn conclude(
    connection: &mut Connection,
    sent: TextSent,
    accepted: &[usize],
    outcomes: &mut Vec<(usize, Sent)>,
) -> End {
    let mut all = |sent: Sent| outcomes.extend(accepted.iter().map(|i| (*i, sent.clone())));
    match sent {
        TextSent::Answered(reply) if (200..300).contains(&reply.code) => {
            all(Sent::Delivered(reply));
            connection.end();
            End::InStep
        }
        TextSent::Answered(reply) if reply.code >= 400 => {
            let failure = Failure::refused(Phase::Dot, reply);
            let broken = failure.verdict.scope == Scope::Network;
            all(Sent::Refused(failure.clone()));
            if broken {
                return End::Broken(failure);
            }
            connection.end();
            End::InStep
        }
        TextSent::Answered(reply) => {
            // A 3xx here is no answer to the question whether the message was taken.
            let why = format!("the final dot was answered with {reply}");
            End::InDoubt(connection.fault(Phase::Dot, Fault::Garbage, &why))
        }
        TextSent::Interrupted(failure) => {
            all(Sent::Refused(failure.clone()));
            End::Broken(failure)
        }
        // Whatever was sent of it must not become a message.
        TextSent::Unread(failure) => {
            all(Sent::Refused(failure.clone()));
            End::Broken(failure)
        }
        TextSent::Broken(failure) => End::Broken(failure),
        TextSent::Lost(failure) => End::InDoubt(failure),
        TextSent::Stopped => End::Stopped,
    }
}

#[cfg(test)]
#[path = "transaction/tests.rs"]
mod tests;
