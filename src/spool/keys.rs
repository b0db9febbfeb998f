//! The key space: one sled tree, tables told apart by the first byte of the key, so that one
//! batch changes several tables at once.
//!
//! | byte | key | value |
//! | --- | --- | --- |
//! | `o` | outbox / E | [`OutboxRecord`](super::OutboxRecord) |
//! | `w` | waiting / E | empty; index of outbox rows that wait |
//! | `e` | deferred / E | empty; index of outbox rows that are with a transport |
//! | `u` | unsettled / E | empty; index of messages whose outbox and queue rows do not fit together |
//! | `q` | queue / E | [`QueueRecord`](super::QueueRecord) |
//! | `d` | due / account 8, lane 1, time 8, E | empty; index of queue rows with a schedule |
//! | `f` | done / account 8, E | empty; index of queue rows the servers are finished with |
//! | `l` | claimed / account 8, E | empty; index of queue rows that somebody works on |
//! | `s` | still / account 8, E | empty; index of queue rows that are neither scheduled nor done |
//! | `h` | history / E | [`HistoryRecord`](super::HistoryRecord) |
//! | `t` | ended / time 8, E | empty; index of histories |
//! | `k` | message id / digest 16, E | empty; index of queue rows and histories by Message-ID |
//! | `b` | body / digest 32 | [`BodyRow`](super::body_row::BodyRow): users, size and place |
//! | `i` | inline / slot 8 | format byte, then the bytes of a small body |
//! | `g` | gone / name of a body file | empty; the file has no row any more and is to be unlinked |
//! | `c` | cursor / account 8, mailbox | [`CursorRecord`](super::CursorRecord) |
//! | `r` | delivered / account 8, mailbox hash 8, digest 16 | a count |
//! | `v` | fetched / account 8, mailbox hash 8, UIDVALIDITY 4, UID 4 | [`FetchedRecord`](super::FetchedRecord) |
//! | `y` | doubtful / account 8, mailbox hash 8, digest 16, UIDVALIDITY 4, UID 4 | empty |
//! | `x` | overflow / key of the record, number 2 | the rest of a record too large for one value |
//! | `z` | quarantine / key as it was | what could not be read, and why |
//! | `m` | meta / name | `schema`, `counts`, `folded` |
//!
//! E is the entry id, always last, so that keys need no separators. Numbers are big-endian, so
//! that their order is that of the bytes. The lane is the priority, urgent first. The bytes of
//! inline bodies stand apart from their digest: user counts change without rewriting them, and
//! new ones are always added at the end of the tree's range instead of at a random place.
//!
//! No value is larger than [`codec::MAX_VALUE`](super::codec::MAX_VALUE): sled moves tree nodes
//! above an eighth of a megabyte into files which it does not sync.

use std::ops::Bound;

use super::{AccountKey, BodyId, DUE_ORDER, Origin};
use crate::mapi::{EntryId, Priority, SysTime};

pub(super) const OUTBOX: u8 = b'o';
pub(super) const WAITING: u8 = b'w';
pub(super) const DEFERRED: u8 = b'e';
pub(super) const UNSETTLED: u8 = b'u';
pub(super) const QUEUE: u8 = b'q';
pub(super) const DUE: u8 = b'd';
pub(super) const DONE: u8 = b'f';
pub(super) const CLAIMED: u8 = b'l';
pub(super) const STILL: u8 = b's';
pub(super) const EXPIRING: u8 = b'p';
pub(super) const HISTORY: u8 = b'h';
pub(super) const ENDED: u8 = b't';
pub(super) const MESSAGE_ID: u8 = b'k';
pub(super) const BODY: u8 = b'b';
pub(super) const INLINE: u8 = b'i';
pub(super) const GONE: u8 = b'g';
pub(super) const CURSOR: u8 = b'c';
pub(super) const DELIVERED: u8 = b'r';
pub(super) const FETCHED: u8 = b'v';
pub(super) const DOUBTFUL: u8 = b'y';
pub(super) const OVERFLOW: u8 = b'x';
pub(super) const QUARANTINE: u8 = b'z';
pub(super) const META: u8 = b'm';

/// Where the counters stand.
pub(super) const COUNTS_KEY: &[u8] = b"mcounts";

/// Where the number of the last journal file stands that the tree has taken over: eight bytes.
pub(super) const FOLDED_KEY: &[u8] = b"mfolded";

/// What keys of damaged places in journals begin with.
pub(super) const JOURNAL: &[u8] = b"mjournal/";

/// What a damaged place in a journal file is set aside as.
pub(super) fn journal(number: u64, octet: usize) -> Vec<u8> {
    format!("mjournal/{number:016x}/{octet}").into_bytes()
}

/// Whether a key is one of [`journal`].
pub(super) fn is_journal(key: &[u8]) -> bool {
    key.starts_with(JOURNAL)
}

/// A key of several parts behind its table.
fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(super) fn outbox(entry: &EntryId) -> Vec<u8> {
    key(OUTBOX, &[entry.as_bytes()])
}

pub(super) fn waiting(entry: &EntryId) -> Vec<u8> {
    key(WAITING, &[entry.as_bytes()])
}

pub(super) fn deferred(entry: &EntryId) -> Vec<u8> {
    key(DEFERRED, &[entry.as_bytes()])
}

pub(super) fn unsettled(entry: &EntryId) -> Vec<u8> {
    key(UNSETTLED, &[entry.as_bytes()])
}

pub(super) fn queue(entry: &EntryId) -> Vec<u8> {
    key(QUEUE, &[entry.as_bytes()])
}

/// The place of a priority in the order of sending.
fn lane(priority: Priority) -> u8 {
    let place = DUE_ORDER.iter().position(|other| *other == priority);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

pub(super) fn due(
    account: AccountKey,
    priority: Priority,
    time: SysTime,
    entry: &EntryId,
) -> Vec<u8> {
    let time = time.as_millis().to_be_bytes();
    key(DUE, &[&account.0, &[lane(priority)], &time, entry.as_bytes()])
}

/// All of an account in an index whose keys begin with it.
pub(super) fn of_account(table: u8, account: AccountKey) -> Vec<u8> {
    key(table, &[&account.0])
}

/// The account in a key of an index whose keys begin with it.
pub(super) fn parse_account(key: &[u8]) -> Option<AccountKey> {
    let (_, rest) = key.split_first()?;
    rest.first_chunk().map(|account| AccountKey(*account))
}

/// All of one lane of an account.
pub(super) fn due_lane(account: AccountKey, priority: Priority) -> Vec<u8> {
    key(DUE, &[&account.0, &[lane(priority)]])
}

/// Time and entry id of a key of the due index.
pub(super) fn parse_due(key: &[u8]) -> Option<(SysTime, EntryId)> {
    let (_, rest) = key.split_first_chunk::<10>()?;
    parse_time(rest)
}

pub(super) fn still(account: AccountKey, entry: &EntryId) -> Vec<u8> {
    key(STILL, &[&account.0, entry.as_bytes()])
}

pub(super) fn expiring(account: AccountKey, time: SysTime, entry: &EntryId) -> Vec<u8> {
    key(EXPIRING, &[&account.0, &time.as_millis().to_be_bytes(), entry.as_bytes()])
}

/// Time and entry id of a key of the index of what expires.
pub(super) fn parse_expiring(key: &[u8]) -> Option<(SysTime, EntryId)> {
    let (_, rest) = key.split_first_chunk::<9>()?;
    parse_time(rest)
}

pub(super) fn done(account: AccountKey, entry: &EntryId) -> Vec<u8> {
    key(DONE, &[&account.0, entry.as_bytes()])
}

pub(super) fn claimed(account: AccountKey, entry: &EntryId) -> Vec<u8> {
    key(CLAIMED, &[&account.0, entry.as_bytes()])
}

/// The entry id of a key of an index by account and entry id.
pub(super) fn parse_of_account(key: &[u8]) -> Option<EntryId> {
    let (_, rest) = key.split_first_chunk::<9>()?;
    EntryId::from_bytes(rest).ok()
}

pub(super) fn history(entry: &EntryId) -> Vec<u8> {
    key(HISTORY, &[entry.as_bytes()])
}

pub(super) fn ended(time: SysTime, entry: &EntryId) -> Vec<u8> {
    key(ENDED, &[&time.as_millis().to_be_bytes(), entry.as_bytes()])
}

/// The first key of the ended index that is not before `time`.
pub(super) fn ended_bound(time: SysTime) -> Vec<u8> {
    key(ENDED, &[&time.as_millis().to_be_bytes()])
}

/// Time and entry id of a key of the ended index.
pub(super) fn parse_ended(key: &[u8]) -> Option<(SysTime, EntryId)> {
    let (_, rest) = key.split_first()?;
    parse_time(rest)
}

/// All messages with this `Message-ID`.
pub(super) fn of_message_id(message_id: &str) -> Vec<u8> {
    let bare = message_id.trim().trim_start_matches('<').trim_end_matches('>').trim();
    let digest = blake3::hash(bare.as_bytes());
    key(MESSAGE_ID, &[digest.as_bytes().first_chunk::<16>().unwrap_or(&[0; 16])])
}

pub(super) fn message_id(message_id: &str, entry: &EntryId) -> Vec<u8> {
    let mut key = of_message_id(message_id);
    key.extend_from_slice(entry.as_bytes());
    key
}

/// The entry id of a key of the index of Message-IDs.
pub(super) fn parse_message_id(key: &[u8]) -> Option<EntryId> {
    let (_, rest) = key.split_first_chunk::<17>()?;
    EntryId::from_bytes(rest).ok()
}

/// The keys of a table from one entry id to another, both included.
pub(super) fn between(
    table: u8,
    first: &EntryId,
    last: &EntryId,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let bound = |entry: &EntryId| Bound::Included(key(table, &[entry.as_bytes()]));
    (bound(first), bound(last))
}

fn parse_time(bytes: &[u8]) -> Option<(SysTime, EntryId)> {
    let (time, entry) = bytes.split_first_chunk::<8>()?;
    let time = SysTime::from_millis(u64::from_be_bytes(*time));
    Some((time, EntryId::from_bytes(entry).ok()?))
}

/// The entry id of a key whose table is followed by nothing but it.
pub(super) fn parse_entry(key: &[u8]) -> Option<EntryId> {
    let (_, rest) = key.split_first()?;
    EntryId::from_bytes(rest).ok()
}

pub(super) fn body(body: BodyId) -> Vec<u8> {
    key(BODY, &[&body.0])
}

/// The body of a key of its row.
pub(super) fn parse_body(key: &[u8]) -> Option<BodyId> {
    let (_, rest) = key.split_first()?;
    <[u8; 32]>::try_from(rest).ok().map(BodyId)
}

pub(super) fn inline(slot: u64) -> Vec<u8> {
    key(INLINE, &[&slot.to_be_bytes()])
}

/// The slot of a key of an inline body.
pub(super) fn parse_inline(key: &[u8]) -> Option<u64> {
    let (_, rest) = key.split_first()?;
    rest.first_chunk::<8>().map(|slot| u64::from_be_bytes(*slot))
}

pub(super) fn gone(file: &str) -> Vec<u8> {
    key(GONE, &[file.as_bytes()])
}

pub(super) fn cursor(account: AccountKey, mailbox: &str) -> Vec<u8> {
    key(CURSOR, &[&account.0, mailbox.as_bytes()])
}

/// A mailbox in a key whose rest is to be of one length.
fn mailbox_hash(mailbox: &str) -> [u8; 8] {
    blake3::hash(mailbox.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default()
}

pub(super) fn delivered(account: AccountKey, mailbox: &str, digest: &[u8; 16]) -> Vec<u8> {
    key(DELIVERED, &[&account.0, &mailbox_hash(mailbox), digest])
}

/// All that was delivered from a mailbox.
pub(super) fn delivered_of(account: AccountKey, mailbox: &str) -> Vec<u8> {
    key(DELIVERED, &[&account.0, &mailbox_hash(mailbox)])
}

/// The digest of a key of the delivered table.
pub(super) fn parse_delivered(key: &[u8]) -> Option<[u8; 16]> {
    let (_, rest) = key.split_first_chunk::<17>()?;
    <[u8; 16]>::try_from(rest).ok()
}

pub(super) fn fetched(account: AccountKey, mailbox: &str, at: Origin) -> Vec<u8> {
    let numbers = [at.uid_validity.to_be_bytes(), at.uid.to_be_bytes()];
    key(FETCHED, &[&account.0, &mailbox_hash(mailbox), numbers.as_flattened()])
}

/// All that was fetched from a mailbox under one UIDVALIDITY.
pub(super) fn fetched_of(account: AccountKey, mailbox: &str, uid_validity: u32) -> Vec<u8> {
    key(FETCHED, &[&account.0, &mailbox_hash(mailbox), &uid_validity.to_be_bytes()])
}

/// The UID of a key of the fetched table.
pub(super) fn parse_fetched(key: &[u8]) -> Option<u32> {
    let (_, rest) = key.split_first_chunk::<21>()?;
    Some(u32::from_be_bytes(rest.try_into().ok()?))
}

pub(super) fn doubtful(
    account: AccountKey,
    mailbox: &str,
    digest: &[u8; 16],
    origin: Origin,
) -> Vec<u8> {
    let numbers = [origin.uid_validity.to_be_bytes(), origin.uid.to_be_bytes()];
    key(DOUBTFUL, &[&account.0, &mailbox_hash(mailbox), digest, numbers.as_flattened()])
}

/// All that is doubtful of a mailbox, or of one digest in it.
pub(super) fn doubtful_of(
    account: AccountKey,
    mailbox: &str,
    digest: Option<&[u8; 16]>,
) -> Vec<u8> {
    let digest = digest.map_or(&[][..], |digest| digest.as_slice());
    key(DOUBTFUL, &[&account.0, &mailbox_hash(mailbox), digest])
}

/// Digest and origin of a key of the doubtful table.
pub(super) fn parse_doubtful(key: &[u8]) -> Option<([u8; 16], Origin)> {
    let (_, rest) = key.split_first_chunk::<17>()?;
    let (digest, rest) = rest.split_first_chunk::<16>()?;
    let (uid_validity, uid) = rest.split_first_chunk::<4>()?;
    let origin = Origin {
        uid_validity: u32::from_be_bytes(*uid_validity),
        uid: u32::from_be_bytes(uid.try_into().ok()?),
    };
    Some((*digest, origin))
}

/// The `number`th part of the rest of the record at `record`.
pub(super) fn overflow(record: &[u8], number: u16) -> Vec<u8> {
    key(OVERFLOW, &[record, &number.to_be_bytes()])
}

pub(super) fn quarantine(original: &[u8]) -> Vec<u8> {
    key(QUARANTINE, &[original])
}

/// The key as it was of a row in quarantine; a key that was damaged again stands there with its
/// table byte repeated.
pub(super) fn parse_quarantine(key: &[u8]) -> &[u8] {
    let start = key.iter().position(|byte| *byte != QUARANTINE).unwrap_or(key.len());
    key.get(start..).unwrap_or_default()
}

/// The record and the number of a key of an overflow row.
pub(super) fn parse_overflow(key: &[u8]) -> Option<(&[u8], u16)> {
    let (_, rest) = key.split_first()?;
    let (record, number) = rest.split_last_chunk::<2>()?;
    Some((record, u16::from_be_bytes(*number)))
}

/// All tables.
pub(super) const TABLES: [u8; 23] = [
    EXPIRING, BODY, CURSOR, DUE, DEFERRED, DONE, GONE, HISTORY, INLINE, MESSAGE_ID, CLAIMED, META,
    OUTBOX, QUEUE, DELIVERED, STILL, ENDED, UNSETTLED, FETCHED, WAITING, OVERFLOW, DOUBTFUL,
    QUARANTINE,
];

/// All keys of one table.
pub(super) fn table(table: u8) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    prefix(vec![table])
}

/// All keys that begin with `prefix`.
pub(super) fn prefix(prefix: Vec<u8>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let end = successor(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(prefix), end)
}

/// The keys that begin with `prefix` and stand behind the key `after`.
pub(super) fn table_after(table: u8, after: Option<&[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let (start, end) = prefix(vec![table]);
    (after.map_or(start, |after| Bound::Excluded(after.to_vec())), end)
}

/// The keys that begin with `prefix` and stand behind `after`.
pub(super) fn prefix_after(
    prefix: Vec<u8>,
    after: Option<&EntryId>,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let end = successor(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
    match after {
        None => (Bound::Included(prefix), end),
        Some(after) => {
            let mut start = prefix;
            start.extend_from_slice(after.as_bytes());
            (Bound::Excluded(start), end)
        }
    }
}

/// The first key behind all that begin with `prefix`.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// A key in words: table, and entry id or hexadecimal.
pub(super) fn describe(key: &[u8]) -> String {
    let Some((table, rest)) = key.split_first() else { return "(empty key)".to_owned() };
    let name = match *table {
        OUTBOX => "outbox",
        WAITING => "waiting",
        DEFERRED => "deferred",
        UNSETTLED => "unsettled",
        QUEUE => "queue",
        DUE => "due",
        DONE => "done",
        CLAIMED => "claimed",
        STILL => "still",
        EXPIRING => "expiring",
        HISTORY => "history",
        ENDED => "ended",
        MESSAGE_ID => "message-id",
        BODY => "body",
        INLINE => "inline",
        GONE => "gone",
        CURSOR => "cursor",
        DELIVERED => "delivered",
        FETCHED => "fetched",
        DOUBTFUL => "doubtful",
        OVERFLOW => "overflow",
        QUARANTINE => "quarantine",
        META => "meta",
        _ => "unknown",
    };
    let rest = match *table {
        OUTBOX | QUEUE | HISTORY | WAITING | DEFERRED | UNSETTLED => {
            EntryId::from_bytes(rest).map(|e| e.to_string()).ok()
        }
        META | GONE => std::str::from_utf8(rest).map(str::to_owned).ok(),
        _ => None,
    }
    .unwrap_or_else(|| rest.iter().map(|byte| format!("{byte:02x}")).collect());
    format!("{name}/{rest}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn entry(bytes: &[u8]) -> EntryId {
        EntryId::from_bytes(bytes).unwrap()
    }

    #[test]
    fn due_keys_sort_by_lane_then_time() {
        let account = AccountKey::of("smtp");
        let at = |priority, millis| {
            due(account, priority, SysTime::from_millis(millis), &entry(b"some message"))
        };
        let sorted = [
            at(Priority::Urgent, 1),
            at(Priority::Urgent, 300),
            at(Priority::Normal, 0),
            at(Priority::NonUrgent, 0),
        ];
        assert!(sorted.is_sorted());
        let (time, parsed) = parse_due(&at(Priority::Urgent, 300)).unwrap();
        assert_eq!((time.as_millis(), parsed), (300, entry(b"some message")));
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(successor(b"o"), Some(b"p".to_vec()));
        assert_eq!(successor(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(successor(&[255]), None);
    }

    #[test]
    fn keys_are_described_for_people() {
        let own = EntryId::from_ulid(ulid::Ulid::from_parts(7, 9));
        assert_eq!(describe(&queue(&own)), format!("queue/{own}"));
        assert_eq!(describe(&[CURSOR, 1, 255]), "cursor/01ff");
        assert_eq!(describe(&[]), "(empty key)");
    }

    #[test]
    fn what_is_no_key_of_a_table_is_not_parsed() {
        assert_eq!(parse_due(b"d12345678"), None);
        assert_eq!(parse_expiring(b"p12345678"), None);
        assert_eq!(parse_ended(b"t1234567"), None);
        assert_eq!(parse_of_account(b"f12345678"), None);
        assert_eq!(parse_entry(b"o"), None);
        assert_eq!(parse_fetched(b"v12345678"), None);
        assert_eq!(parse_delivered(b"r12345678"), None);
        assert_eq!(parse_doubtful(b"y12345678"), None);
    }

    #[test]
    fn keys_of_fetched_messages_sort_by_uid_and_are_parsed() {
        let account = AccountKey::of("in");
        let at = |uid_validity, uid| fetched(account, "INBOX", Origin { uid_validity, uid });
        assert!([at(1, 9), at(2, 1), at(2, 300)].is_sorted());
        assert!(at(2, 300).starts_with(&fetched_of(account, "INBOX", 2)));
        assert_eq!(parse_fetched(&at(2, 300)), Some(300));
        let origin = Origin { uid_validity: 7, uid: 8 };
        let key = doubtful(account, "INBOX", &[5; 16], origin);
        assert!(key.starts_with(&doubtful_of(account, "INBOX", Some(&[5; 16]))));
        assert_eq!(parse_doubtful(&key), Some(([5; 16], origin)));
        assert_eq!(parse_delivered(&delivered(account, "INBOX", &[6; 16])), Some([6; 16]));
    }
}
