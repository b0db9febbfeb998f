//! MAIL and RCPT (RFC 5321 section 4.1.1.2 and 4.1.1.3) with their extensions.

use smtp_proto::{MailFrom, RcptTo};

use super::content::{Declared, Inspector};
use super::session::Session;
use super::{BodyType, Envelope, MailParameters, Recipient, Reply, ViolationKind};
use crate::config::SmtpExtension;
use crate::message::BodySink;

/// A transaction under way.
pub(crate) struct Transaction {
    pub(super) envelope: Envelope,
    /// The chunks that have come by BDAT.
    pub(super) chunks: Option<Content>,
}

/// Message data as it comes.
pub(super) struct Content {
    pub(super) sink: BodySink,
    pub(super) inspector: Inspector,
}

impl Content {
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.inspector.look(chunk);
        self.sink.push(chunk);
    }
}

impl Session {
    pub(super) fn mail(&mut self, from: &MailFrom<String>, text: &str) -> Reply {
        let Some(helo) = self.helo.clone() else {
            self.violation(ViolationKind::BadSequence, text);
            return Reply::new(503, "5.5.1", "say hello first");
        };
        if self.transaction.is_some() {
            self.violation(ViolationKind::BadSequence, text);
            return Reply::new(503, "5.5.1", "sender already given");
        }
        if self.login_needed() {
            return Reply::new(530, "5.7.0", "authentication required");
        }
        let parameters = MailParameters::read(from, text);
        if let Some(refusal) = self.parameter_refusal(&parameters, from, text) {
            return refusal;
        }
        if !from.address.is_ascii() && !parameters.smtputf8 {
            self.violation(ViolationKind::Utf8Undeclared, text);
            return Reply::new(553, "5.6.7", "address needs SMTPUTF8");
        }
        let limit = self.connection.shared.config.limits.message_size;
        if parameters.size.is_some_and(|size| size > limit) {
            return Reply::new(552, "5.3.4", "message too big");
        }
        self.transaction = Some(Transaction {
            envelope: Envelope {
                connection: self.connection.id,
                helo,
                tls: self.connection.is_tls(),
                user: self.user.clone(),
                from: from.address.clone(),
                mail_command: text.to_owned(),
                parameters,
                recipients: Vec::new(),
                chunked: false,
            },
            chunks: None,
        });
        Reply::new(250, "2.1.0", "sender ok")
    }

    fn parameter_refusal(
        &mut self,
        parameters: &MailParameters,
        from: &MailFrom<String>,
        text: &str,
    ) -> Option<Reply> {
        let offers = |extension| self.connection.shared.offers(extension);
        let not_offered = (parameters.size.is_some() && !offers(SmtpExtension::Size))
            || (parameters.body.is_some() && !offers(SmtpExtension::EightBitMime))
            || (parameters.smtputf8 && !offers(SmtpExtension::SmtpUtf8))
            || ((parameters.ret.is_some() || parameters.envid.is_some())
                && !offers(SmtpExtension::Dsn))
            || (parameters.auth.is_some() && !offers(SmtpExtension::Auth))
            || MailParameters::binary(from);
        not_offered.then(|| {
            self.violation(ViolationKind::NotOffered, text);
            Reply::new(555, "5.5.4", "parameter not offered")
        })
    }

    pub(super) fn rcpt(&mut self, to: RcptTo<String>, text: &str) -> Reply {
        let Some(transaction) = &self.transaction else {
            self.violation(ViolationKind::BadSequence, text);
            return Reply::new(503, "5.5.1", "sender first");
        };
        let shared = &self.connection.shared;
        if transaction.envelope.recipients.len() >= shared.config.limits.recipients {
            return Reply::new(452, "4.5.3", "too many recipients");
        }
        let utf8 = transaction.envelope.parameters.smtputf8;
        let recipient = Recipient::read(to, text);
        let dsn = recipient.notify.is_some() || recipient.orcpt.is_some();
        if dsn && !shared.offers(SmtpExtension::Dsn) {
            self.violation(ViolationKind::NotOffered, text);
            return Reply::new(555, "5.5.4", "parameter not offered");
        }
        if !recipient.address.is_ascii() && !utf8 {
            self.violation(ViolationKind::Utf8Undeclared, text);
            return Reply::new(553, "5.6.7", "address needs SMTPUTF8");
        }
        if !shared.takes(&recipient.address) {
            return Reply::new(550, "5.1.1", "no such user");
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.envelope.recipients.push(recipient);
        }
        Reply::new(250, "2.1.5", "recipient ok")
    }

    /// What receives the data of the present transaction.
    pub(super) fn content(&self, envelope: &Envelope) -> Content {
        let limits = &self.connection.shared.config.limits;
        let utf8 = envelope.parameters.smtputf8;
        let eight_bit = envelope.parameters.body == Some(BodyType::EightBitMime);
        Content {
            sink: BodySink::new(limits.kept_body_size, limits.message_size),
            // A UTF-8 header is 8-bit data; RFC 6531 section 3.6 still wants BODY=8BITMIME then.
            inspector: Inspector::new(Declared { eight_bit, utf8 }),
        }
    }
}
