//! An SMTP session: reading commands, replying in batches, and what stands outside transactions.

use std::borrow::Cow;

use smtp_proto::{Error as ParseError, Request};

use super::transaction::Transaction;
use super::{Reply, ViolationKind};
use crate::config::{AuthPolicy, SmtpExtension};
use crate::connection::{Connection, End, Flow, Line};
use crate::faults::{Deed, Moment, NamedFault, Phase, SmtpAction, SmtpPhase};
use crate::sabotage::{Outcome, verb};
use crate::transcript::Speaker;

/// Longest command line taken: RFC 5321 says 512, extensions add; AUTH may be longest (RFC 4954 section 4).
const COMMAND: usize = 12_288;

pub(crate) struct Session {
    pub(super) connection: Connection,
    pub(super) helo: Option<String>,
    pub(super) user: Option<String>,
    pub(super) transaction: Option<Transaction>,
}

/// Speaks SMTP on a fresh connection until it ends.
pub(crate) async fn serve(mut connection: Connection, implicit_tls: bool) -> Flow {
    connection.open(implicit_tls).await?;
    let session = Session { connection, helo: None, user: None, transaction: None };
    session.run().await
}

impl Session {
    async fn run(mut self) -> Flow {
        self.greet().await?;
        loop {
            let line = self.connection.line(COMMAND).await?;
            match line {
                Line::Whole(line) => self.command(&line).await?,
                Line::TooLong => {
                    self.violation(ViolationKind::Syntax, "command line too long");
                    self.reply(&Reply::new(500, "5.5.2", "line too long")).await?;
                }
            }
        }
    }

    async fn greet(&mut self) -> Flow {
        let greeting = Phase::Smtp(SmtpPhase::Greeting);
        let outcome = self.connection.fault(greeting, Moment::Before, "").await?;
        if !self.connection.buffered().is_empty() {
            self.violation(ViolationKind::EarlyTalk, "before the greeting");
        }
        let host = self.connection.shared.config.hostname.clone();
        let reply = Reply::new(220, "", format!("{host} ESMTP postoffice"));
        self.conclude(outcome, reply).await
    }

    async fn command(&mut self, line: &[u8]) -> Flow {
        self.connection.record(Speaker::Client, line);
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\r', '\n']);
        let verb = verb(self.connection.protocol, text);
        self.connection.shared.count_command(self.connection.protocol, &verb);
        if !line.ends_with(b"\r\n") {
            self.violation(ViolationKind::BareLf, text);
            return self.reply(&Reply::new(500, "5.5.2", "line must end in CRLF")).await;
        }
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request.into_owned(),
            Err(error) => return self.unparsed(text, &error).await,
        };
        self.check_pipelining(&request, text);
        // The octets of a chunk follow whatever the reply will be.
        if let Request::Bdat { chunk_size, is_last } = request {
            return self.bdat(chunk_size, is_last, text).await;
        }
        let phase = phase(&request);
        let outcome = self.connection.fault(Phase::Smtp(phase), Moment::Before, text).await?;
        if !matches!(outcome, Outcome::Proceed) {
            return self.instead(outcome).await;
        }
        self.execute(request, phase, text).await
    }

    async fn execute(&mut self, request: Request<String>, phase: SmtpPhase, text: &str) -> Flow {
        let reply = match request {
            Request::Ehlo { host } => self.ehlo(host),
            Request::Helo { host } => {
                self.transaction = None;
                self.helo = Some(host);
                Reply::new(250, "", self.connection.shared.config.hostname.clone())
            }
            Request::StartTls => return self.start_tls().await,
            Request::Auth { mechanism, initial_response } => {
                self.auth(mechanism, &initial_response).await?
            }
            Request::Mail { from } => match self.named(&from.address, SmtpPhase::Mail).await? {
                Outcome::Proceed => self.mail(&from, text),
                outcome => return self.instead(outcome).await,
            },
            Request::Rcpt { to } => match self.named(&to.address, SmtpPhase::Rcpt).await? {
                Outcome::Proceed => self.rcpt(to, text),
                outcome => return self.instead(outcome).await,
            },
            Request::Data => return self.data().await,
            Request::Rset => {
                self.transaction = None;
                Reply::new(250, "2.0.0", "flushed")
            }
            Request::Noop { .. } => Reply::new(250, "2.0.0", "ok"),
            Request::Vrfy { .. } => Reply::new(252, "2.1.5", "send some mail, I will try"),
            Request::Help { .. } => Reply::new(214, "2.0.0", "see RFC 5321"),
            Request::Quit => {
                self.answer(phase, Reply::new(221, "2.0.0", "bye"), text).await?;
                self.connection.close().await;
                return Err(End::Closed);
            }
            _ => Reply::new(502, "5.5.1", "not implemented"),
        };
        self.answer(phase, reply, text).await
    }

    fn ehlo(&mut self, host: String) -> Reply {
        let connection = &self.connection;
        let shared = &connection.shared;
        let offers = |extension| shared.offers(extension);
        if !offers(SmtpExtension::Ehlo) {
            return Reply::new(502, "5.5.1", "not implemented");
        }
        let mut reply = Reply::new(250, "", shared.config.hostname.clone());
        for (extension, keyword) in [
            (SmtpExtension::Pipelining, "PIPELINING"),
            (SmtpExtension::EightBitMime, "8BITMIME"),
            (SmtpExtension::SmtpUtf8, "SMTPUTF8"),
            (SmtpExtension::Dsn, "DSN"),
            (SmtpExtension::Chunking, "CHUNKING"),
            (SmtpExtension::EnhancedStatusCodes, "ENHANCEDSTATUSCODES"),
        ] {
            if offers(extension) {
                reply = reply.line(keyword);
            }
        }
        if offers(SmtpExtension::Size) {
            reply = reply.line(format!("SIZE {}", shared.config.limits.message_size));
        }
        if offers(SmtpExtension::StartTls) && !connection.is_tls() {
            reply = reply.line("STARTTLS");
        }
        let mechanisms = self.mechanisms();
        if self.auth_offered() && !mechanisms.is_empty() {
            let names: Vec<&str> = mechanisms.iter().map(|mechanism| mechanism.name()).collect();
            reply = reply.line(format!("AUTH {}", names.join(" ")));
        }
        self.transaction = None;
        self.helo = Some(host);
        reply
    }

    async fn start_tls(&mut self) -> Flow {
        if self.connection.is_tls() || !self.connection.shared.offers(SmtpExtension::StartTls) {
            self.violation(ViolationKind::NotOffered, "STARTTLS");
            return self.reply(&Reply::new(502, "5.5.1", "not offered")).await;
        }
        self.answer(SmtpPhase::StartTls, Reply::new(220, "2.0.0", "go ahead"), "").await?;
        let in_clear = self.connection.secure().await?;
        if in_clear > 0 {
            let detail = format!("{in_clear} octets");
            self.violation(ViolationKind::PlaintextBehindStartTls, &detail);
        }
        // Nothing learnt in clear counts any more (RFC 3207 section 4.2).
        self.helo = None;
        self.user = None;
        self.transaction = None;
        Ok(())
    }

    async fn unparsed(&mut self, text: &str, error: &ParseError) -> Flow {
        let phase = Phase::Smtp(SmtpPhase::Other);
        let outcome = self.connection.fault(phase, Moment::Before, text).await?;
        let (code, enhanced, meaning): (u16, &str, Cow<'_, str>) = match error {
            ParseError::UnknownCommand => (500, "5.5.1", "unknown command".into()),
            ParseError::InvalidSenderAddress => (501, "5.1.7", "bad sender address".into()),
            ParseError::InvalidRecipientAddress => (501, "5.1.3", "bad recipient address".into()),
            ParseError::SyntaxError { syntax } => (501, "5.5.4", (*syntax).into()),
            ParseError::InvalidParameter { param } => (501, "5.5.4", (*param).into()),
            ParseError::UnsupportedParameter { param } => (555, "5.5.4", param.as_str().into()),
            _ => (500, "5.5.2", "cannot parse that".into()),
        };
        self.violation(ViolationKind::Syntax, text);
        self.conclude(outcome, Reply::new(code, enhanced, meaning)).await
    }

    /// Whether the client may have sent more behind this command already (RFC 2920 section 3.1).
    fn check_pipelining(&mut self, request: &Request<String>, text: &str) {
        if self.connection.buffered().is_empty() {
            return;
        }
        let last_of_group = match request {
            Request::Ehlo { .. }
            | Request::Helo { .. }
            | Request::Data
            | Request::Auth { .. }
            | Request::Vrfy { .. }
            | Request::Noop { .. }
            | Request::Quit => true,
            // What is behind STARTTLS is noticed there; octets behind BDAT are its chunk.
            Request::StartTls | Request::Bdat { .. } => return,
            _ => false,
        };
        let offered = self.connection.shared.offers(SmtpExtension::Pipelining);
        if last_of_group || !offered {
            self.violation(ViolationKind::Pipelining, text);
        }
    }

    // ----- replies -----

    pub(super) fn violation(&self, kind: ViolationKind, detail: &str) {
        let shared = &self.connection.shared;
        shared.violation(self.connection.id, kind, detail.chars().take(200).collect());
    }

    /// Whether the client has to log in first.
    pub(super) fn login_needed(&self) -> bool {
        self.user.is_none() && self.connection.shared.config.auth != AuthPolicy::Optional
    }

    /// A fault asked for by the name in an address.
    pub(super) async fn named(&mut self, address: &str, phase: SmtpPhase) -> Flow<Outcome> {
        if !self.connection.shared.config.named_faults {
            return Ok(Outcome::Proceed);
        }
        match crate::faults::named_fault(address, phase) {
            Some(fault) if fault.phase == phase => self.suffer_named(fault).await,
            _ => Ok(Outcome::Proceed),
        }
    }

    pub(super) async fn suffer_named(&mut self, fault: NamedFault) -> Flow<Outcome> {
        let hit = self.connection.shared.faults.named(Deed::Smtp(fault.action), None);
        self.connection.suffer(hit).await
    }

    /// Queues a reply; 421 closes.
    pub(super) async fn reply(&mut self, reply: &Reply) -> Flow {
        let enhanced = self.connection.shared.offers(SmtpExtension::EnhancedStatusCodes);
        self.connection.say(&reply.encode(enhanced));
        if reply.code == 421 {
            self.connection.close().await;
            return Err(End::Closed);
        }
        Ok(())
    }

    /// Replies to a command that had its effect, unless a fault spoils that.
    pub(super) async fn answer(&mut self, phase: SmtpPhase, reply: Reply, subject: &str) -> Flow {
        let phase = Phase::Smtp(phase);
        let outcome = self.connection.fault(phase, Moment::After, subject).await?;
        self.conclude(outcome, reply).await
    }

    /// Replies as meant if the fault lets it, else as the fault has it.
    pub(super) async fn conclude(&mut self, outcome: Outcome, reply: Reply) -> Flow {
        match outcome {
            Outcome::Proceed | Outcome::Imap(_) => self.reply(&reply).await,
            outcome => self.instead(outcome).await,
        }
    }

    /// What a fault has in place of the reply.
    pub(super) async fn instead(&mut self, outcome: Outcome) -> Flow {
        match outcome {
            Outcome::Smtp(SmtpAction::Reply(reply)) => self.reply(&reply).await,
            Outcome::Smtp(SmtpAction::ReplyAndClose(reply)) => {
                self.reply(&reply).await?;
                self.connection.close().await;
                Err(End::Closed)
            }
            _ => Ok(()),
        }
    }
}

fn phase(request: &Request<String>) -> SmtpPhase {
    match request {
        Request::Ehlo { .. } | Request::Helo { .. } => SmtpPhase::Ehlo,
        Request::StartTls => SmtpPhase::StartTls,
        Request::Auth { .. } => SmtpPhase::Auth,
        Request::Mail { .. } => SmtpPhase::Mail,
        Request::Rcpt { .. } => SmtpPhase::Rcpt,
        Request::Data | Request::Bdat { .. } => SmtpPhase::Data,
        Request::Rset => SmtpPhase::Rset,
        Request::Quit => SmtpPhase::Quit,
        _ => SmtpPhase::Other,
    }
}
