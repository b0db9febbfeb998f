//! The dialogue with one client (RFC 5321, RFC 6409).

use std::sync::Arc;

use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, Error as ParseError, MailFrom, RcptTo, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::auth::{Credentials, Malformed};
use super::content::{BareNewline, DotDecoder, NewlineCheck, Step};
use super::envelope::{Envelope, mail_first, qualified};
use super::receive::Intake;
use super::reply::{Reply, Then, bad_sequence, closing, of_bare_newline, of_error, syntax};
use super::server::Context;
use super::wire::{End, Line, Wire};
use crate::mime::date;

/// Commands that make no sense before the client is sent away.
const MOST_ERRORS: u32 = 20;

/// Refused logins before the client is sent away.
const MOST_REFUSALS: u32 = 3;

/// How a client introduced itself.
#[derive(Clone, Debug)]
struct Greeted {
    name: String,
    protocol: &'static str,
}

/// A transaction: from MAIL to the end of the content.
#[derive(Default)]
struct Transaction {
    envelope: Envelope,
    /// What came in chunks (RFC 3030).
    chunks: Option<Chunks>,
}

struct Chunks {
    intake: Intake,
    newlines: NewlineCheck,
}

/// One client.
pub(super) struct Session<S> {
    wire: Wire<S>,
    context: Arc<Context>,
    greeted: Option<Greeted>,
    logged_in: bool,
    refusals: u32,
    errors: u32,
    transaction: Option<Transaction>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    pub(super) fn new(stream: S, context: Arc<Context>) -> Self {
        Session {
            wire: Wire::new(stream, context.settings.silence),
            context,
            greeted: None,
            logged_in: false,
            refusals: 0,
            errors: 0,
            transaction: None,
        }
    }

    /// Serves the client until one of the two ends it. Between two commands `ending` ends it.
    pub(super) async fn run(mut self, ending: CancellationToken) {
        match self.dialogue(&ending).await {
            End::Gone | End::Closed => {}
            End::Silent => self.wire.say(&closing("nothing came for too long")),
        }
        self.wire.close().await;
    }

    async fn dialogue(&mut self, ending: &CancellationToken) -> End {
        let greeting = format!("{} ESMTP postrider", self.context.host);
        self.wire.say(&Reply::new(220, "", greeting));
        loop {
            let line = tokio::select! {
                line = self.wire.line() => line,
                () = ending.cancelled() => {
                    self.wire.say(&closing("the service is stopping"));
                    return End::Closed;
                }
            };
            let done = match line {
                Ok(Line::Whole(line)) => self.command(&line).await,
                Ok(Line::TooLong) => {
                    let reply = Reply::new(500, "5.5.2", "that line is too long");
                    self.answer(&reply)
                }
                Err(end) => return end,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Queues a reply; some end the connection.
    fn answer(&mut self, reply: &Reply) -> Result<(), End> {
        self.wire.say(reply);
        if matches!(reply.code(), 500..=504 | 555) {
            self.errors += 1;
        }
        if self.errors > MOST_ERRORS {
            self.wire.say(&Reply::new(421, "4.7.0", "too many errors"));
            return Err(End::Closed);
        }
        match reply.then() {
            Then::GoOn => Ok(()),
            Then::Close => Err(End::Closed),
        }
    }

    async fn command(&mut self, line: &[u8]) -> Result<(), End> {
        if !line.ends_with(b"\r\n") {
            return self.answer(&Reply::new(500, "5.5.2", "lines end in CRLF"));
        }
        let line = qualified(line);
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request.into_owned(),
            Err(error) => return self.answer(&unparsed(&error)),
        };
        let reply = match request {
            Request::Ehlo { host } => self.ehlo(host),
            Request::Helo { host } => {
                self.greet(host, "SMTP");
                Reply::new(250, "", self.context.host.clone())
            }
            Request::Auth { mechanism, initial_response } => {
                self.auth(mechanism, &initial_response).await?
            }
            Request::Mail { from } => self.mail(&from),
            Request::Rcpt { to } => self.rcpt(&to),
            Request::Data => return self.data().await,
            Request::Bdat { chunk_size, is_last } => return self.bdat(chunk_size, is_last).await,
            Request::Rset => {
                self.transaction = None;
                Reply::new(250, "2.0.0", "forgotten")
            }
            Request::Noop { .. } => Reply::new(250, "2.0.0", "ok"),
            Request::Vrfy { .. } => Reply::new(252, "2.5.0", "send it and see"),
            Request::Help { .. } => Reply::new(214, "2.0.0", "RFC 5321 and RFC 6409"),
            Request::Quit => Reply::new(221, "2.0.0", "bye"),
            _ => Reply::new(502, "5.5.1", "that is not offered"),
        };
        self.answer(&reply)
    }

    fn greet(&mut self, name: String, protocol: &'static str) {
        self.transaction = None;
        self.greeted = Some(Greeted { name, protocol });
    }

    fn ehlo(&mut self, name: String) -> Reply {
        self.greet(name, "ESMTP");
        let settings = &self.context.settings;
        let latest = self.context.clock.now().saturating_add(settings.future_release);
        let reply = Reply::new(250, "", self.context.host.clone())
            .line("PIPELINING")
            .line(format!("SIZE {}", settings.size))
            .line("8BITMIME")
            .line("SMTPUTF8")
            .line("ENHANCEDSTATUSCODES")
            .line("CHUNKING")
            .line("DSN")
            .line(format!("FUTURERELEASE {} {latest}", settings.future_release.as_secs()));
        match settings.login {
            Some(_) => reply.line("AUTH PLAIN LOGIN"),
            None => reply,
        }
    }

    fn must_log_in(&self) -> bool {
        self.context.settings.login.is_some() && !self.logged_in
    }

    fn mail(&mut self, from: &MailFrom<String>) -> Reply {
        if self.greeted.is_none() {
            return bad_sequence("EHLO comes first");
        }
        if self.must_log_in() {
            return Reply::new(530, "5.7.0", "log in first");
        }
        if self.transaction.is_some() {
            return bad_sequence("there is a transaction already");
        }
        match Envelope::mail(from, &self.context.settings, self.context.clock.now()) {
            Ok(envelope) => {
                self.transaction = Some(Transaction { envelope, chunks: None });
                Reply::new(250, "2.1.0", "ok")
            }
            Err(reply) => reply,
        }
    }

    fn rcpt(&mut self, to: &RcptTo<String>) -> Reply {
        match &mut self.transaction {
            None => mail_first(),
            Some(Transaction { chunks: Some(_), .. }) => bad_sequence("the content has begun"),
            Some(Transaction { envelope, .. }) => match envelope.rcpt(to, &self.context.settings) {
                Ok(()) => Reply::new(250, "2.1.5", "ok"),
                Err(reply) => reply,
            },
        }
    }

    // ----- content -----

    async fn data(&mut self) -> Result<(), End> {
        let ready = match &self.transaction {
            None => Err(mail_first()),
            Some(Transaction { chunks: Some(_), .. }) => Err(bad_sequence("go on with BDAT")),
            Some(Transaction { envelope, .. }) => envelope.complete(),
        };
        if let Err(reply) = ready {
            return self.answer(&reply);
        }
        let envelope = self.transaction.take().unwrap_or_default().envelope;
        let mut intake = self.intake(envelope);
        self.wire.say(&Reply::new(354, "", "end with <CRLF>.<CRLF>"));
        self.wire.flush().await?;
        self.wire.content_begins();
        let mut dots = DotDecoder::new();
        loop {
            if !self.wire.has_input() {
                self.wire.fill().await?;
            }
            let before = intake.buffer().len();
            let step = dots.push(self.wire.input(), intake.buffer());
            let added = intake.buffer().len() - before;
            let used = match step {
                Step::More => self.wire.input().len(),
                Step::End { used } => used,
            };
            self.wire.skip(used);
            intake.added(added).await;
            if let Step::End { .. } = step {
                self.wire.content_ends();
                return self.end_of_content(intake, dots.bare_newline()).await;
            }
            if intake.is_endless() {
                self.wire.say(&Reply::new(552, "5.3.4", "that is far too much"));
                return Err(End::Closed);
            }
        }
    }

    /// BDAT (RFC 3030). The octets of a chunk follow whatever the reply will be.
    async fn bdat(&mut self, size: usize, last: bool) -> Result<(), End> {
        let ready = match &self.transaction {
            None => Err(mail_first()),
            Some(Transaction { chunks: Some(_), .. }) => Ok(()),
            Some(Transaction { envelope, .. }) => envelope.complete(),
        };
        if let Err(reply) = ready {
            self.discard(size).await?;
            return self.answer(&reply);
        }
        let mut transaction = self.transaction.take().unwrap_or_default();
        let mut chunks = match transaction.chunks.take() {
            Some(chunks) => chunks,
            None => {
                let intake = self.intake(std::mem::take(&mut transaction.envelope));
                Chunks { intake, newlines: NewlineCheck::default() }
            }
        };
        let mut left = size;
        self.wire.content_begins();
        while left > 0 {
            if !self.wire.has_input() {
                self.wire.fill().await?;
            }
            let octets = self.wire.take(left);
            left -= octets.len();
            chunks.newlines.push(&octets);
            chunks.intake.buffer().extend_from_slice(&octets);
            chunks.intake.added(octets.len()).await;
            if chunks.intake.is_endless() {
                self.wire.say(&Reply::new(552, "5.3.4", "that is far too much"));
                return Err(End::Closed);
            }
        }
        self.wire.content_ends();
        if last {
            return self.end_of_content(chunks.intake, chunks.newlines.finish()).await;
        }
        transaction.chunks = Some(chunks);
        self.transaction = Some(transaction);
        self.answer(&Reply::new(250, "2.0.0", format!("{size} octets")))
    }

    async fn discard(&mut self, size: usize) -> Result<(), End> {
        if size as u64 > self.context.settings.size {
            self.wire.say(&Reply::new(552, "5.3.4", "that chunk is too large"));
            return Err(End::Closed);
        }
        let mut left = size;
        self.wire.content_begins();
        while left > 0 {
            if !self.wire.has_input() {
                self.wire.fill().await?;
            }
            left -= self.wire.take(left).len();
        }
        self.wire.content_ends();
        Ok(())
    }

    fn intake(&self, envelope: Envelope) -> Intake {
        let context = &self.context;
        let service = Arc::clone(&context.service);
        Intake::new(service, envelope.submission(), self.trace_field(), context.settings.size)
    }

    /// The trace field that a server adds (RFC 5321 section 4.4).
    fn trace_field(&self) -> String {
        let fit = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        let (name, protocol) = match &self.greeted {
            Some(Greeted { name, protocol }) => (name.as_str(), *protocol),
            None => ("unknown", "SMTP"),
        };
        let name: String = name.chars().filter(fit).take(255).collect();
        let name = if name.is_empty() { "unknown" } else { name.as_str() };
        let login = if self.logged_in { "A" } else { "" };
        let (host, date) = (&self.context.host, date(self.context.clock.now()));
        format!("Received: from {name}\r\n\tby {host} with {protocol}{login};\r\n\t{date}\r\n")
    }

    async fn end_of_content(
        &mut self,
        intake: Intake,
        bare: Option<BareNewline>,
    ) -> Result<(), End> {
        let reply = match bare {
            Some(bare) => of_bare_newline(bare),
            None => match intake.finish().await {
                Ok(entry) => Reply::new(250, "2.0.0", format!("queued as {entry}")),
                Err(error) => of_error(&error),
            },
        };
        self.answer(&reply)
    }

    // ----- login -----

    async fn auth(&mut self, mechanism: u64, initial: &str) -> Result<Reply, End> {
        let context = Arc::clone(&self.context);
        let Some(login) = &context.settings.login else {
            return Ok(Reply::new(502, "5.5.1", "there is no login here"));
        };
        if self.logged_in || self.transaction.is_some() {
            return Ok(bad_sequence("not now"));
        }
        let given = match mechanism {
            AUTH_PLAIN => {
                let message = match initial {
                    "" => self.ask("").await?,
                    given => Some(given.to_owned()),
                };
                message.map(|message| Credentials::plain(&message))
            }
            AUTH_LOGIN => {
                let user = match initial {
                    "" => self.ask("VXNlcm5hbWU6").await?,
                    given => Some(given.to_owned()),
                };
                match user {
                    None => None,
                    Some(user) => {
                        let password = self.ask("UGFzc3dvcmQ6").await?;
                        password.map(|password| Credentials::login(&user, &password))
                    }
                }
            }
            _ => return Ok(Reply::new(504, "5.5.4", "PLAIN and LOGIN are offered")),
        };
        let credentials = match given {
            None => return Ok(syntax("the login was given up")),
            Some(Err(Malformed)) => return Ok(Reply::new(501, "5.5.2", "that is no login")),
            Some(Ok(credentials)) => credentials,
        };
        Ok(match credentials.match_login(login).await {
            Some(true) => {
                self.logged_in = true;
                Reply::new(235, "2.7.0", "welcome")
            }
            None => Reply::new(454, "4.7.0", "the login cannot be checked now"),
            Some(false) => {
                self.refusals += 1;
                match self.refusals < MOST_REFUSALS {
                    true => Reply::new(535, "5.7.8", "wrong user or password"),
                    false => Reply::new(421, "4.7.0", "too many wrong logins"),
                }
            }
        })
    }

    /// One step of a login; `None` when the client gives it up.
    async fn ask(&mut self, challenge: &str) -> Result<Option<String>, End> {
        self.wire.say(&Reply::new(334, "", challenge));
        match self.wire.line().await? {
            Line::TooLong => Ok(Some(String::new())),
            Line::Whole(line) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches(['\r', '\n']);
                Ok(Some(text.to_owned()).filter(|text| text != "*"))
            }
        }
    }
}

fn unparsed(error: &ParseError) -> Reply {
    match error {
        ParseError::UnknownCommand => Reply::new(500, "5.5.1", "there is no such command"),
        ParseError::InvalidSenderAddress => Reply::new(501, "5.1.7", "that is no address"),
        ParseError::InvalidRecipientAddress => Reply::new(501, "5.1.3", "that is no address"),
        ParseError::SyntaxError { syntax: wanted } => syntax(*wanted),
        ParseError::InvalidParameter { param } => syntax(format!("{param} is not right")),
        ParseError::UnsupportedParameter { param } => {
            Reply::new(555, "5.5.4", format!("{param} is not offered"))
        }
        _ => Reply::new(500, "5.5.2", "that cannot be read"),
    }
}
