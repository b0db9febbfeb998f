//! MAIL and RCPT as they are written for a message, with what the server offers.

use std::fmt::Write as _;

use lettre::Address;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter, RcptParameter};

use super::super::capabilities::{Capabilities, SizeLimit};
use super::TextForm;
use crate::spool::{BodyKind, DsnReturn, Envelope, QueueRecipient};

/// The command that begins a transaction for a message of `size` octets as it is kept.
pub(super) fn mail(offers: &Capabilities, envelope: &Envelope, size: u64, form: TextForm) -> Mail {
    let mut parameters = Vec::new();
    // A re-encoded text has another size, known only once it is sent.
    if offers.size != SizeLimit::Unknown
        && form == TextForm::AsKept
        && let Ok(size) = usize::try_from(size)
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

/// The command for one recipient; `None` for what is no address.
pub(super) fn rcpt(offers: &Capabilities, envelope: &Envelope, index: usize) -> Option<Rcpt> {
    let recipient = envelope.recipients.get(index)?;
    let parameters = if offers.dsn { dsn_parameters(recipient) } else { Vec::new() };
    Some(Rcpt::new(address(&recipient.address)?, parameters))
}

/// The commands up to DATA, to be written at once (RFC 2920).
pub(super) struct Group {
    pub(super) text: String,
    /// Whom it names, by index: those among the recipients whose addresses can be told.
    pub(super) asked: Vec<usize>,
}

impl Group {
    pub(super) fn new(
        offers: &Capabilities,
        envelope: &Envelope,
        size: u64,
        recipients: &[usize],
        form: TextForm,
    ) -> Self {
        let mut text = mail(offers, envelope, size, form).to_string();
        let mut asked = Vec::with_capacity(recipients.len());
        for index in recipients {
            if let Some(rcpt) = rcpt(offers, envelope, *index) {
                // A string takes everything.
                let _ = write!(text, "{rcpt}");
                asked.push(*index);
            }
        }
        let _ = write!(text, "{Data}");
        Group { text, asked }
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
