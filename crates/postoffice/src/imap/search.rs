//! SEARCH (RFC 3501 section 6.4.4).

use std::time::SystemTime;

use imap_codec::imap_types::core::AString;
use imap_codec::imap_types::datetime::NaiveDate;
use imap_codec::imap_types::search::SearchKey;

use super::section::{split, values};
use super::sequence::Ranges;
use super::view::View;
use crate::mailbox::MailboxMessage;

/// A message under consideration.
pub(super) struct Candidate<'a> {
    pub(super) number: u32,
    pub(super) recent: bool,
    pub(super) message: &'a MailboxMessage,
}

/// A search key made definite.
pub(super) enum Criterion {
    All,
    And(Vec<Criterion>),
    Or(Box<Criterion>, Box<Criterion>),
    Not(Box<Criterion>),
    Numbers(Ranges),
    Uids(Ranges),
    Flag(String),
    Recent,
    /// Arrived at or after this time, seconds since 1970.
    Since(i64),
    Before(i64),
    Larger(u64),
    Smaller(u64),
    Field(Vec<u8>, Vec<u8>),
    Body(Vec<u8>),
    Text(Vec<u8>),
}

const DAY: i64 = 86_400;

impl Criterion {
    pub(super) fn all(keys: &[SearchKey<'_>], view: &View) -> Option<Self> {
        let all: Option<Vec<Self>> = keys.iter().map(|key| Self::new(key, view)).collect();
        all.map(Self::And)
    }

    /// `None` if the key is not offered.
    fn new(key: &SearchKey<'_>, view: &View) -> Option<Self> {
        let flag = |name: &str| Self::Flag(name.to_owned());
        let field = |name: &str, value: &AString<'_>| {
            Self::Field(name.as_bytes().to_vec(), lower(value.as_ref()))
        };
        Some(match key {
            SearchKey::And(keys) => Self::all(keys.as_ref(), view)?,
            SearchKey::Or(one, other) => {
                Self::Or(Box::new(Self::new(one, view)?), Box::new(Self::new(other, view)?))
            }
            SearchKey::Not(key) => Self::new(key, view)?.negated(),
            SearchKey::SequenceSet(set) => Self::Numbers(Ranges::new(set, view.largest(false))),
            SearchKey::Uid(set) => Self::Uids(Ranges::new(set, view.largest(true))),
            SearchKey::All => Self::All,
            SearchKey::Answered => flag("\\Answered"),
            SearchKey::Deleted => flag("\\Deleted"),
            SearchKey::Draft => flag("\\Draft"),
            SearchKey::Flagged => flag("\\Flagged"),
            SearchKey::Seen => flag("\\Seen"),
            SearchKey::Unanswered => flag("\\Answered").negated(),
            SearchKey::Undeleted => flag("\\Deleted").negated(),
            SearchKey::Undraft => flag("\\Draft").negated(),
            SearchKey::Unflagged => flag("\\Flagged").negated(),
            SearchKey::Unseen => flag("\\Seen").negated(),
            SearchKey::Keyword(name) => flag(name.inner()),
            SearchKey::Unkeyword(name) => flag(name.inner()).negated(),
            SearchKey::Recent => Self::Recent,
            SearchKey::Old => Self::Recent.negated(),
            SearchKey::New => Self::And(vec![Self::Recent, flag("\\Seen").negated()]),
            SearchKey::Since(date) => Self::Since(midnight(date)?),
            SearchKey::Before(date) => Self::Before(midnight(date)?),
            SearchKey::On(date) => {
                let start = midnight(date)?;
                Self::And(vec![Self::Since(start), Self::Before(start + DAY)])
            }
            SearchKey::Larger(size) => Self::Larger(u64::from(*size)),
            SearchKey::Smaller(size) => Self::Smaller(u64::from(*size)),
            SearchKey::Bcc(value) => field("Bcc", value),
            SearchKey::Cc(value) => field("Cc", value),
            SearchKey::From(value) => field("From", value),
            SearchKey::Subject(value) => field("Subject", value),
            SearchKey::To(value) => field("To", value),
            SearchKey::Header(name, value) => {
                Self::Field(name.as_ref().to_vec(), lower(value.as_ref()))
            }
            SearchKey::Body(text) => Self::Body(lower(text.as_ref())),
            SearchKey::Text(text) => Self::Text(lower(text.as_ref())),
            _ => return None,
        })
    }

    fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    pub(super) fn fits(&self, candidate: &Candidate<'_>) -> bool {
        let message = candidate.message;
        let size = message.bytes.len() as u64;
        match self {
            Self::All => true,
            Self::And(criteria) => criteria.iter().all(|criterion| criterion.fits(candidate)),
            Self::Or(one, other) => one.fits(candidate) || other.fits(candidate),
            Self::Not(criterion) => !criterion.fits(candidate),
            Self::Numbers(ranges) => ranges.contains(candidate.number),
            Self::Uids(ranges) => ranges.contains(message.uid),
            Self::Flag(flag) => message.flags.contains(flag) || message.has_flag(flag),
            Self::Recent => candidate.recent,
            Self::Since(time) => seconds(message.internal_date) >= *time,
            Self::Before(time) => seconds(message.internal_date) < *time,
            Self::Larger(limit) => size > *limit,
            Self::Smaller(limit) => size < *limit,
            Self::Field(name, value) => {
                values(&message.bytes, name).iter().any(|found| contains(found, value))
            }
            Self::Body(text) => contains(&lower(split(&message.bytes).1), text),
            Self::Text(text) => contains(&lower(&message.bytes), text),
        }
    }
}

fn midnight(date: &NaiveDate) -> Option<i64> {
    date.as_ref().and_hms_opt(0, 0, 0).map(|midnight| midnight.and_utc().timestamp())
}

fn seconds(time: SystemTime) -> i64 {
    time::OffsetDateTime::from(time).unix_timestamp()
}

fn lower(text: &[u8]) -> Vec<u8> {
    text.to_ascii_lowercase()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use imap_codec::CommandCodec;
    use imap_codec::decode::Decoder;
    use imap_codec::imap_types::command::CommandBody;

    use super::*;
    use crate::mailbox::Store;

    fn search(query: &str) -> Option<Vec<u32>> {
        let mut store = Store::new(1);
        store.add_user("ann");
        let inbox = store.mailbox_mut("ann", "INBOX").unwrap();
        let day = |number: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(number * 86_400 + 60);
        for (text, flag, at) in [
            ("Subject: One\r\nMessage-ID: <1@x>\r\n\r\nhay", "\\Seen", day(0)),
            ("Subject: two\r\nMessage-ID: <2@x>\r\n\r\nNeedle", "$Junk", day(1)),
            ("Subject: on\r\n e\r\n\r\nlong hay with a one", "\\Deleted", day(2)),
        ] {
            inbox.append(text.as_bytes().into(), [flag.to_owned()].into(), at);
        }
        inbox.recent_from = 3;
        let view = View::new("INBOX".to_owned(), inbox, false);
        let line = format!("a UID SEARCH {query}\r\n");
        let Ok((_, command)) = CommandCodec::default().decode(line.as_bytes()) else {
            panic!("{query}");
        };
        let CommandBody::Search { criteria, .. } = command.body else { panic!("{query}") };
        let criterion = Criterion::all(criteria.as_ref(), &view)?;
        let fits = |message: &&MailboxMessage| {
            let recent = message.uid >= view.recent_from;
            let number = view.number(message.uid).unwrap();
            criterion.fits(&Candidate { number, recent, message })
        };
        Some(inbox.messages.values().filter(fits).map(|message| message.uid).collect())
    }

    #[test]
    fn every_key_finds_what_it_should() {
        for (query, found) in [
            ("ALL", vec![1, 2, 3]),
            ("UNSEEN", vec![2, 3]),
            ("SEEN", vec![1]),
            ("NOT DELETED", vec![1, 2]),
            ("KEYWORD $junk", vec![2]),
            ("UNKEYWORD $Junk", vec![1, 3]),
            ("2:*", vec![2, 3]),
            ("UID 1,3:9", vec![1, 3]),
            ("OR SEEN DELETED", vec![1, 3]),
            ("(SEEN ALL) 1", vec![1]),
            ("RECENT", vec![3]),
            ("OLD", vec![1, 2]),
            ("SINCE 2-Jan-1970", vec![2, 3]),
            ("BEFORE 2-Jan-1970", vec![1]),
            ("ON 2-Jan-1970", vec![2]),
            ("LARGER 40", vec![2]),
            ("SMALLER 10", vec![]),
            ("SUBJECT one", vec![1]),
            ("SUBJECT \"on e\"", vec![3]),
            ("HEADER Message-ID <2@x>", vec![2]),
            ("HEADER Message-ID \"\"", vec![1, 2]),
            ("BODY needle", vec![2]),
            ("TEXT ONE", vec![1, 3]),
        ] {
            assert_eq!(search(query), Some(found), "{query}");
        }
        assert_eq!(search("SENTON 2-Jan-1970"), None);
    }
}
