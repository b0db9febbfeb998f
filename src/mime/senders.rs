//! The fields of a header that address rules change, while the header is written.

use super::address::parse_list;
use super::address_rules::{AccountRule, AddressRules, Rewrite};
use super::header::Field;
use super::normalise::{Origin, header_lines, mailboxes_field};
use super::{HeaderFacts, Mailbox, MimeError};

/// Writes the fields with addresses by the rules of the account that sends.
pub(super) struct Senders<'a> {
    rules: &'a AddressRules,
    /// `None` when nothing is to be changed.
    account: Option<&'a AccountRule>,
    /// Whether somebody sends a message of somebody else again: its `From` is not ours.
    resent: bool,
    has_reply_to: bool,
    /// Authors that were replaced and can be answered.
    answerable: Vec<Mailbox>,
}

impl<'a> Senders<'a> {
    pub(super) fn new(origin: &'a Origin, facts: &HeaderFacts) -> Self {
        let account = origin.rules.account_of(origin.envelope_from.as_deref(), facts);
        Senders {
            rules: &origin.rules,
            account: account.filter(|account| account.rewrite != Rewrite::Never),
            resent: facts.resent_from.is_some() || facts.resent_recipients.is_some(),
            has_reply_to: false,
            answerable: Vec::new(),
        }
    }

    /// Writes a field when it is changed; answers whether it did.
    pub(super) fn field(
        &mut self,
        field: &Field<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, MimeError> {
        self.has_reply_to |= field.is("reply-to");
        let Some(account) = self.account else { return Ok(false) };
        let is = |names: &[&str]| names.iter().any(|name| field.is(name));
        if field.is("from") && !self.resent {
            return self.author(account, field, out);
        }
        if is(&["sender", "resent-from", "resent-sender"]) && !(self.resent && field.is("sender")) {
            let list = parse_list(&field.text()).mailboxes;
            return Ok(write(field.name, self.replace(account, &list), out));
        }
        if is(&["to", "cc", "resent-to", "resent-cc"]) {
            let list = parse_list(&field.text()).mailboxes;
            return Ok(write(field.name, self.rules.readable(&list), out));
        }
        Ok(false)
    }

    /// `From`. What it was stays in the message, under another name.
    fn author(
        &mut self,
        account: &AccountRule,
        field: &Field<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, MimeError> {
        let list = parse_list(&field.text()).mailboxes;
        let replaced = self.replace(account, &list);
        // Without an address it is none, and gets one with the other things that are missing.
        if replaced.is_none() && !list.is_empty() {
            return Ok(false);
        }
        out.extend_from_slice(b"X-Original-From:");
        header_lines(field.raw_value(), out)?;
        write("From", replaced, out);
        let usable = |one: &Mailbox| {
            self.rules.replaced(one, account).is_some() && !self.rules.is_local(&one.address)
        };
        self.answerable.extend(list.iter().filter(|one| usable(one)).cloned());
        Ok(true)
    }

    /// The list with what the rules replace; `None` when that is nothing.
    fn replace(&self, account: &AccountRule, list: &[Mailbox]) -> Option<Vec<Mailbox>> {
        let mut changed = false;
        let mut result: Vec<Mailbox> = Vec::with_capacity(list.len());
        for mailbox in list {
            let replaced = self.rules.replaced(mailbox, account);
            changed |= replaced.is_some();
            let mailbox = replaced.unwrap_or_else(|| mailbox.clone());
            if !result.iter().any(|other| other.address == mailbox.address) {
                result.push(mailbox);
            }
        }
        changed.then_some(result)
    }

    /// Writes `Reply-To` where an author was replaced who can be answered.
    pub(super) fn reply_to(&self, out: &mut Vec<u8>) {
        if !self.answerable.is_empty() && !self.has_reply_to {
            out.extend_from_slice(mailboxes_field("Reply-To", &self.answerable).as_bytes());
        }
    }
}

/// Writes a field anew if there is something new.
fn write(name: &str, list: Option<Vec<Mailbox>>, out: &mut Vec<u8>) -> bool {
    let Some(list) = list else { return false };
    // Nothing of a name may become a line of the header.
    let clean = |one: &Mailbox| {
        let name: String = one.name.chars().filter(|c| !c.is_control()).collect();
        Mailbox::new(name, one.address.as_str())
    };
    let list: Vec<Mailbox> = list.iter().map(clean).collect();
    out.extend_from_slice(mailboxes_field(name, &list).as_bytes());
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mapi::SysTime;
    use crate::mime::{Defaults, Normaliser};

    fn written(rewrite: Rewrite, envelope_from: Option<&str>, header: &str) -> String {
        let identity = Mailbox::new("Ann Example", "ann@example.org");
        let account = AccountRule { identity: identity.clone(), aliases: Vec::new(), rewrite };
        let rules = AddressRules { accounts: vec![account], ..AddressRules::default() };
        let origin = Origin {
            rules,
            envelope_from: envelope_from.map(str::to_owned),
            received: String::new(),
        };
        let defaults = Defaults {
            from: Some(identity),
            date: SysTime::from_millis(1_700_000_000_000),
            message_id: "<id@example.org>".to_owned(),
        };
        let mut filter = Normaliser::with_origin(defaults, origin);
        let mut out = Vec::new();
        filter
            .push(format!("Date: x\r\nMessage-ID: <1@b>\r\n{header}\r\n\r\n").as_bytes(), &mut out)
            .unwrap();
        filter.finish(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let text = text.strip_prefix("Date: x\r\nMessage-ID: <1@b>\r\n").unwrap();
        text.trim_end().replace("\r\n", "\n")
    }

    #[test]
    fn authors_of_this_machine_become_the_identity() {
        for (header, wanted) in [
            (
                "From: root (Cron Daemon)",
                "X-Original-From: root (Cron Daemon)\nFrom: Cron Daemon <ann@example.org>",
            ),
            (
                "FROM:\r\n root@localhost",
                "X-Original-From:\n root@localhost\nFrom: Ann Example <ann@example.org>",
            ),
            ("From: Ann <ann@example.org>", "From: Ann <ann@example.org>"),
            ("From: bob@example.com", "From: bob@example.com"),
            (
                "From: root, www-data@localhost, bob@example.com",
                "X-Original-From: root, www-data@localhost, bob@example.com\n\
                 From: Ann Example <ann@example.org>, bob@example.com",
            ),
            (
                "From: nobody\r\nSender: root@localhost",
                "X-Original-From: nobody\nFrom: Ann Example <ann@example.org>\n\
                 Sender: Ann Example <ann@example.org>",
            ),
            // No address at all.
            ("From: <>", "X-Original-From: <>\nFrom: Ann Example <ann@example.org>"),
            // What others wrote is not ours.
            (
                "From: root\r\nResent-From: ann@example.org",
                "From: root\nResent-From: ann@example.org",
            ),
            (
                "From: root\r\nResent-From: root",
                "From: root\nResent-From: Ann Example <ann@example.org>",
            ),
        ] {
            assert_eq!(written(Rewrite::Local, None, header), wanted, "{header}");
            let never = written(Rewrite::Never, None, header);
            assert!(!never.contains("X-Original") || header == "From: <>", "{never}");
        }
    }

    #[test]
    fn authors_of_elsewhere_are_replaced_on_request_and_answered_where_they_are() {
        let bob = "From: Bob <bob@example.com>";
        let replaced = "X-Original-From: Bob <bob@example.com>\nFrom: Bob <ann@example.org>";
        assert_eq!(
            written(Rewrite::All, None, bob),
            format!("{replaced}\nReply-To: Bob <bob@example.com>")
        );
        let answered = format!("{bob}\r\nReply-To: desk@example.com");
        assert_eq!(
            written(Rewrite::All, Some("bob@example.com"), &answered),
            format!("{replaced}\nReply-To: desk@example.com")
        );
        assert_eq!(written(Rewrite::All, None, "From: root").matches("Reply-To").count(), 0);
    }

    #[test]
    fn recipients_of_this_machine_are_written_for_others() {
        assert_eq!(
            written(Rewrite::Local, None, "From: ann@example.org\r\nTo: root\r\nCc: bob@x.org"),
            "From: ann@example.org\nTo: root <ann@example.org>\nCc: bob@x.org"
        );
        let group = "From: ann@example.org\r\nTo: undisclosed-recipients:;";
        assert_eq!(written(Rewrite::Local, None, group), group.replace("\r\n", "\n"));
    }
}
