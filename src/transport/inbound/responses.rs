//! What responses mean: completions, lists, bodies, news.

use async_imap::imap_proto::{
    AttributeValue, MailboxDatum, Outcome, Response, ResponseCode, Status,
};

use super::fault::LaneFault;
use crate::mapi::SysTime;
use crate::net::{ImapReply, ReplyStatus, for_people, split_code};

/// A message of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Listed {
    pub(super) uid: u32,
    pub(super) size: u32,
    pub(super) date: Option<SysTime>,
}

/// Whether a response during IDLE may mean new mail. "Still here" does not.
pub(super) fn is_news(response: &Response<'_>) -> Result<bool, LaneFault> {
    match response {
        Response::Data { status: Status::Bye, outcome } => Err(bye(outcome)),
        Response::MailboxData(MailboxDatum::Exists(_) | MailboxDatum::Recent(_)) => Ok(true),
        _ => Ok(false),
    }
}

pub(super) fn completion(status: &Status, outcome: &Outcome<'_>) -> Result<ImapReply, LaneFault> {
    let status = match status {
        Status::Ok => ReplyStatus::Ok,
        Status::No => ReplyStatus::No,
        Status::Bad => ReplyStatus::Bad,
        Status::PreAuth | Status::Bye => {
            return Err(LaneFault::Protocol("a command ends with PREAUTH or BYE".into()));
        }
    };
    let text = outcome.information.as_deref().unwrap_or_default();
    // Codes the library does not know stand in the text.
    let (code, text) = match &outcome.code {
        None => split_code(text),
        Some(ResponseCode::Alert) => ("ALERT", text),
        Some(ResponseCode::TryCreate) => ("TRYCREATE", text),
        Some(ResponseCode::ReadOnly) => ("READ-ONLY", text),
        Some(_) => ("", text),
    };
    let reply = ImapReply { status, code: code.to_owned(), text: text.to_owned() };
    // Never about the mailbox or the message that was asked for.
    match reply.tells_of_a_lost_login() {
        true => Err(LaneFault::LoginLost(reply.words())),
        false => Ok(reply),
    }
}

pub(super) fn bye(outcome: &Outcome<'_>) -> LaneFault {
    let text = outcome.information.as_deref().unwrap_or_default();
    let (code, words) = split_code(text);
    match crate::net::throttle(code, words) {
        Some(throttle) => LaneFault::Throttled { words: for_people(text), throttle },
        None => LaneFault::Bye(for_people(text)),
    }
}

pub(super) fn lost(error: async_imap::error::Error) -> LaneFault {
    LaneFault::Lost(error.to_string())
}

pub(super) fn broken(error: std::io::Error) -> LaneFault {
    use std::io::ErrorKind::{InvalidData, Other};
    let words = for_people(&error.to_string());
    if matches!(error.kind(), InvalidData | Other) {
        LaneFault::Protocol(words)
    } else {
        LaneFault::Lost(words)
    }
}

pub(super) fn expect_ok(command: &'static str, reply: ImapReply) -> Result<(), LaneFault> {
    if reply.status == ReplyStatus::Ok { Ok(()) } else { Err(LaneFault::refused(command, reply)) }
}

pub(super) fn listed(response: &Response<'_>) -> Option<Listed> {
    let Response::Fetch(_, attributes) = response else { return None };
    let (mut uid, mut size, mut date) = (None, None, None);
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(number) => uid = Some(*number),
            AttributeValue::Rfc822Size(number) => size = Some(*number),
            AttributeValue::InternalDate(text) => date = internal_date(text),
            _ => {}
        }
    }
    Some(Listed { uid: uid?, size: size?, date })
}

pub(super) type Body<'a> = (u32, Option<u32>, Option<&'a [u8]>);

pub(super) fn body<'a>(response: &'a Response<'_>) -> Option<Body<'a>> {
    let Response::Fetch(_, attributes) = response else { return None };
    let (mut uid, mut found) = (None, None);
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(number) => uid = Some(*number),
            AttributeValue::BodySection { section: None, index, data } => {
                found = Some((*index, data.as_deref()));
            }
            _ => {}
        }
    }
    let (index, data) = found?;
    Some((uid?, index, data))
}

/// RFC 3501 `date-time`, the day padded with a blank or not.
pub(super) fn internal_date(text: &str) -> Option<SysTime> {
    let moment = jiff::fmt::strtime::parse("%d-%b-%Y %H:%M:%S %z", text.trim()).ok()?;
    moment.to_timestamp().ok().map(SysTime::from)
}

/// A name as a quoted string. Names with what cannot be quoted are no mailbox names in modified
/// UTF-7.
pub(super) fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for sign in name.chars().filter(|sign| !sign.is_control()) {
        if matches!(sign, '"' | '\\') {
            text.push('\\');
        }
        text.push(sign);
    }
    text.push('"');
    text
}

/// A mailbox name as the wire has it (RFC 3501 section 5.1.3).
pub(super) fn wire_name(name: &str) -> String {
    utf7_imap::encode_utf7_imap(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_dates_are_read() {
        // The example of RFC 3501 section 7.4.2 is 1996-07-17T09:44:25Z.
        let wanted = Some(SysTime::from_millis(837_596_665_000));
        assert_eq!(internal_date("17-Jul-1996 02:44:25 -0700"), wanted);
        assert_eq!(
            internal_date(" 7-Jul-1996 09:30:05 +0000"),
            internal_date("07-Jul-1996 09:30:05 +0000")
        );
        assert!(internal_date(" 7-Jul-1996 09:30:05 +0000").is_some());
        assert_eq!(internal_date("yesterday"), None);
    }

    #[test]
    fn names_are_quoted_and_encoded() {
        assert_eq!(quoted("INBOX"), "\"INBOX\"");
        assert_eq!(quoted("a\"b\\c\r\n"), "\"a\\\"b\\\\c\"");
        assert_eq!(wire_name("Entw\u{fc}rfe"), "Entw&APw-rfe");
        assert_eq!(wire_name("Tom & Jerry"), "Tom &- Jerry");
    }
}
