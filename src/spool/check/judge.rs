//! The second look at what seemed wrong, in the writer's thread while nothing moves; and its
//! mending, which becomes durable as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use sled::IVec;

use super::SET_ASIDE;
use super::census::Census;
use super::report::{CheckMode, Finding, FindingKind, Remedy};
use crate::mapi::{EntryId, SysTime, tags};
use crate::spool::bodies::BodyFolder;
use crate::spool::body_row::{BodyPlace, BodyRow, file_name, parse_file_name};
use crate::spool::codec::{self, Rows};
use crate::spool::repair::{self, history_keys, index_keys, indexed, indexed_entry, readable};
use crate::spool::writer::Desk;
use crate::spool::{
    Batch, BodyId, Expect, HistoryRecord, Op, OutboxRecord, OutboxState, QueueRecord, QueueState,
    SpoolError, keys,
};

/// Something that looks wrong.
#[derive(Clone, Debug)]
pub(super) enum Suspect {
    /// A record that may be unreadable, a part without a head, or a row of no table.
    Row(Vec<u8>),
    /// An entry of an index that may lead nowhere.
    Index(Vec<u8>),
    /// A message that an index may lack.
    Message(EntryId),
    /// A history that its index may lack.
    History(EntryId),
    /// A message whose body is lost.
    Bodiless(EntryId),
    /// A body without a row, which was found with this one.
    Found(BodyId, BodyRow),
    /// A tombstone of a file that may be in use, or of none.
    Tombstone(Vec<u8>),
    /// The bytes of a small body of which no row may know.
    Inline(u64, BodyId),
    /// A body file of which no row may know.
    File(BodyId, u64),
    /// A name in `staging/`.
    Staged(String),
    /// A body whose users may be miscounted.
    Users(BodyId),
    /// The counts of messages.
    Counts,
}

/// Bodies that are lost, by what their rows were and why.
pub(super) type Lost = HashMap<BodyId, (Option<BodyPlace>, String)>;

/// What decides beside the rows.
pub(super) struct Judge {
    pub(super) mode: CheckMode,
    pub(super) folder: Arc<BodyFolder>,
    pub(super) lost: Arc<Lost>,
    /// Whether a record was met that cannot be read and may name bodies.
    pub(super) unreadable: bool,
    pub(super) now: SysTime,
}

/// What a second look came to.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) findings: Vec<Finding>,
    /// Messages that had been set aside before.
    pub(super) set_aside: u64,
}

impl Judge {
    /// Looks at each again and mends it if that is wanted.
    pub(super) fn judge(
        &self,
        desk: &mut Desk<'_>,
        suspects: Vec<Suspect>,
    ) -> Result<Verdict, SpoolError> {
        let mut verdict = Verdict::default();
        for suspect in suspects {
            let found = match suspect {
                Suspect::Row(key) => self.row(desk, &key)?,
                Suspect::Index(key) => self.index(desk, key)?,
                Suspect::Message(entry) => self.message(desk, &entry)?,
                Suspect::History(entry) => self.history(desk, &entry)?,
                Suspect::Bodiless(entry) => self.bodiless(desk, &entry, &mut verdict)?,
                Suspect::Found(body, row) => self.found(desk, body, row)?,
                Suspect::Tombstone(key) => self.tombstone(desk, key)?,
                Suspect::Inline(slot, body) => self.inline(desk, slot, body)?,
                Suspect::File(body, number) => self.file(desk, body, number)?,
                Suspect::Staged(name) => self.staged(&name)?,
                Suspect::Users(body) => self.users(desk, body)?,
                Suspect::Counts => self.counts(desk)?,
            };
            verdict.findings.extend(found);
        }
        Ok(verdict)
    }

    fn mends(&self) -> bool {
        self.mode == CheckMode::Repair
    }

    fn finding(
        &self,
        kind: FindingKind,
        what: String,
        detail: impl Into<String>,
    ) -> Option<Finding> {
        let remedy = if self.mends() { Remedy::Repaired } else { Remedy::Repairable };
        Some(Finding { kind, what, detail: detail.into(), remedy })
    }

    fn aside(&self, kind: FindingKind, what: String, detail: impl Into<String>) -> Option<Finding> {
        let remedy = if self.mends() { Remedy::SetAside } else { Remedy::Repairable };
        Some(Finding { kind, what, detail: detail.into(), remedy })
    }

    fn row(&self, desk: &mut Desk<'_>, key: &[u8]) -> Result<Option<Finding>, SpoolError> {
        let Some(head) = desk.value(key)? else { return Ok(None) };
        let table = key.first().copied().unwrap_or_default();
        let (kind, reason) = if table == keys::OVERFLOW {
            if has_head(desk, key, &head)? {
                return Ok(None);
            }
            (FindingKind::UnknownRow, "a part of a long record that is not there".to_owned())
        } else if keys::TABLES.contains(&table) {
            match repair::reason(desk, key, head.clone())? {
                Some(reason) => (FindingKind::UnreadableRecord, reason),
                None => return Ok(None),
            }
        } else {
            (FindingKind::UnknownRow, "a row of a table that does not exist".to_owned())
        };
        if self.mends() {
            self.quarantine(desk, key, &head, reason.clone())?;
        }
        Ok(self.aside(kind, keys::describe(key), reason))
    }

    fn quarantine(
        &self,
        desk: &mut Desk<'_>,
        key: &[u8],
        head: &IVec,
        reason: String,
    ) -> Result<(), SpoolError> {
        let rows = repair::quarantine_rows(desk, key, head, reason)?;
        for (key, value) in rows {
            match value {
                Some(value) => desk.put(key, value),
                None => desk.remove(key),
            }
        }
        desk.counters().quarantined += 1;
        Ok(())
    }

    fn index(&self, desk: &mut Desk<'_>, key: Vec<u8>) -> Result<Option<Finding>, SpoolError> {
        let table = key.first().copied().unwrap_or_default();
        if desk.value(&key)?.is_none() || indexed(desk, table, &key)?.as_ref() == Some(&key) {
            return Ok(None);
        }
        if let Some(entry) = indexed_entry(table, &key)
            && !self.mends()
            && is_unreadable(desk, &entry)?
        {
            // It goes with its record.
            return Ok(None);
        }
        let what = keys::describe(&key);
        if self.mends() {
            desk.remove(key);
        }
        Ok(self.finding(FindingKind::DanglingIndex, what, "no record leads there"))
    }

    fn message(&self, desk: &mut Desk<'_>, entry: &EntryId) -> Result<Option<Finding>, SpoolError> {
        if is_unreadable(desk, entry)? {
            return Ok(None);
        }
        let outbox = readable::<OutboxRecord>(desk, &keys::outbox(entry))?;
        let queue = readable::<QueueRecord>(desk, &keys::queue(entry))?;
        let wanted: Vec<_> = index_keys(entry, outbox.as_ref(), queue.as_ref()).collect();
        self.ensure(desk, wanted)
    }

    fn history(&self, desk: &mut Desk<'_>, entry: &EntryId) -> Result<Option<Finding>, SpoolError> {
        let history = readable::<HistoryRecord>(desk, &keys::history(entry))?;
        let wanted = history.map(|record| history_keys(entry, &record).collect::<Vec<_>>());
        self.ensure(desk, wanted.unwrap_or_default())
    }

    fn ensure(
        &self,
        desk: &mut Desk<'_>,
        wanted: Vec<Vec<u8>>,
    ) -> Result<Option<Finding>, SpoolError> {
        let mut missing = Vec::new();
        for key in wanted {
            if desk.value(&key)?.is_none() {
                missing.push(keys::describe(&key));
                if self.mends() {
                    desk.put(key, IVec::default());
                }
            }
        }
        let Some(first) = missing.first().cloned() else { return Ok(None) };
        Ok(self.finding(
            FindingKind::MissingIndex,
            first,
            format!("missing: {}", missing.join(", ")),
        ))
    }

    /// Puts a message on hold whose body is lost, unless it was before or needs none any more.
    fn bodiless(
        &self,
        desk: &mut Desk<'_>,
        entry: &EntryId,
        verdict: &mut Verdict,
    ) -> Result<Option<Finding>, SpoolError> {
        let outbox = readable::<OutboxRecord>(desk, &keys::outbox(entry))?;
        let queue = readable::<QueueRecord>(desk, &keys::queue(entry))?;
        let mut reason = None;
        for body in needed(outbox.as_ref(), queue.as_ref()) {
            let Some((place, why)) = self.lost.get(&body) else { continue };
            let row = readable::<BodyRow>(desk, &keys::body(body))?;
            if row.map(|row| row.place) == *place {
                reason =
                    Some(format!("{SET_ASIDE}: the stored message is damaged: body {body}: {why}"));
            }
        }
        let Some(reason) = reason else { return Ok(None) };
        if is_set_aside(outbox.as_ref(), queue.as_ref()) {
            verdict.set_aside += 1;
            return Ok(None);
        }
        let mut found = self.aside(FindingKind::DamagedBody, entry.to_string(), reason.clone());
        if let Some(QueueRecord { state: QueueState::Claimed(lease), .. }) = &queue
            && lease.expires > self.now
        {
            // The transport that sends it meets the damage and sets it aside itself.
            if let Some(found) = &mut found {
                found.remedy = Remedy::InUse;
            }
            return Ok(found);
        }
        if self.mends() {
            let batch = set_aside(entry, outbox, queue, reason);
            desk.apply(batch).map_err(unplanned)?;
            verdict.set_aside += 1;
        }
        Ok(found)
    }

    fn found(
        &self,
        desk: &mut Desk<'_>,
        body: BodyId,
        row: BodyRow,
    ) -> Result<Option<Finding>, SpoolError> {
        let key = keys::body(body);
        if desk.value(&key)?.is_some() {
            return Ok(None);
        }
        if self.mends() {
            // Pinned until it is counted who uses it.
            desk.put(key, codec::encode(&BodyRow { users: BodyRow::PINNED, ..row })?);
        }
        let what = format!("body {body}");
        Ok(self.finding(FindingKind::LostBodyRow, what, "its row is lost, its bytes are whole"))
    }

    fn tombstone(&self, desk: &mut Desk<'_>, key: Vec<u8>) -> Result<Option<Finding>, SpoolError> {
        if desk.value(&key)?.is_none() || !is_wrong_tombstone(desk, &key)? {
            return Ok(None);
        }
        let what = keys::describe(&key);
        if self.mends() {
            desk.remove(key);
        }
        Ok(self.finding(FindingKind::WrongTombstone, what, "the file is in use, or is none"))
    }

    /// Whether what no record names may all the same be needed.
    fn may_be_named(&self, desk: &Desk<'_>, body: BodyId) -> Result<bool, SpoolError> {
        Ok(self.unreadable
            || desk.value(&keys::quarantine(&keys::body(body)))?.is_some()
            || desk.store.has_quarantined_messages()?)
    }

    fn inline(
        &self,
        desk: &mut Desk<'_>,
        slot: u64,
        body: BodyId,
    ) -> Result<Option<Finding>, SpoolError> {
        let (key, row) = (keys::inline(slot), readable::<BodyRow>(desk, &keys::body(body))?);
        let named = row.is_some_and(|row| row.place == BodyPlace::Inline { slot });
        if named || desk.value(&key)?.is_none() || self.may_be_named(desk, body)? {
            return Ok(None);
        }
        let what = keys::describe(&key);
        if self.mends() {
            desk.remove(key);
        }
        Ok(self.finding(FindingKind::OrphanBody, what, format!("no row names body {body} there")))
    }

    fn file(
        &self,
        desk: &mut Desk<'_>,
        body: BodyId,
        number: u64,
    ) -> Result<Option<Finding>, SpoolError> {
        let name = file_name(body, number);
        let row = readable::<BodyRow>(desk, &keys::body(body))?;
        if row.is_some_and(|row| row.place == BodyPlace::File { number })
            // On its way in, or on its way out.
            || self.folder.is_staged(&name)
            || desk.value(&keys::gone(&name))?.is_some()
            // Asked last: what was given up is gone before its name in staging/ is.
            || std::fs::symlink_metadata(self.folder.path(body, number)).is_err()
            || self.may_be_named(desk, body)?
        {
            return Ok(None);
        }
        if self.mends() {
            desk.remove_file(body, number);
        }
        Ok(self.finding(FindingKind::OrphanBody, name, "no row names this file"))
    }

    fn staged(&self, name: &str) -> Result<Option<Finding>, SpoolError> {
        if !self.folder.leftovers()?.iter().any(|left| left == name) {
            return Ok(None);
        }
        if self.mends() {
            self.folder.unstage(name)?;
        }
        let what = format!("staging/{name}");
        Ok(self.finding(FindingKind::StagingLeftover, what, "nobody is writing it"))
    }

    fn users(&self, desk: &mut Desk<'_>, body: BodyId) -> Result<Option<Finding>, SpoolError> {
        let difference =
            desk.store.census().as_ref().map_or(0, |census| Census::difference(census, body));
        let key = keys::body(body);
        let Some(row) = readable::<BodyRow>(desk, &key)? else { return Ok(None) };
        let pinned = row.users == BodyRow::PINNED;
        let counted = if pinned { difference } else { i64::from(row.users) + difference };
        if (difference == 0 && !pinned)
            // What cannot be read may name it: it is kept, and kept for too many rather than lost.
            || ((difference <= 0 || pinned) && self.may_be_named(desk, body)?)
        {
            return Ok(None);
        }
        let what = format!("body {body}");
        if counted <= 0 {
            if self.mends() {
                match row.place {
                    BodyPlace::Inline { slot } => desk.remove(keys::inline(slot)),
                    BodyPlace::File { number } => desk.remove_file(body, number),
                }
                desk.remove(key);
            }
            return Ok(self.finding(FindingKind::UnusedBody, what, "no record uses it"));
        }
        let users = u32::try_from(counted).unwrap_or(BodyRow::PINNED);
        if self.mends() {
            desk.put(key, codec::encode(&BodyRow { users, ..row })?);
        }
        // A pin is a safe guess and no fault.
        let detail = format!("says {} users and has {counted}", row.users);
        Ok(self.finding(FindingKind::WrongUseCount, what, detail).filter(|_| !pinned))
    }

    fn counts(&self, desk: &mut Desk<'_>) -> Result<Option<Finding>, SpoolError> {
        let Some(counters) = desk.store.census().as_ref().map(Census::counters) else {
            return Ok(None);
        };
        let quarantined = desk.store.count_quarantined()?;
        let mut right = counters;
        right.quarantined = quarantined;
        let stored = *desk.counters();
        if stored == right || (self.unreadable && !self.mends()) {
            return Ok(None);
        }
        if self.mends() {
            *desk.counters() = right;
        }
        let detail = format!("{stored:?}, and there are {right:?}");
        Ok(self.finding(FindingKind::WrongCounts, "meta/counts".to_owned(), detail))
    }
}

/// A record that the plan of a mending met and could not read, or a failing tree.
fn unplanned(error: codec::ReadError) -> SpoolError {
    match error {
        codec::ReadError::Failed(error) => error,
        codec::ReadError::Unreadable { key, reason } => {
            SpoolError::Corrupt(format!("{}: {reason}", keys::describe(&key)))
        }
    }
}

/// Whether a row of the message is there and cannot be read.
fn is_unreadable(rows: &impl Rows, entry: &EntryId) -> Result<bool, SpoolError> {
    for key in [keys::outbox(entry), keys::queue(entry), keys::history(entry)] {
        if let Some(head) = rows.value(&key)?
            && repair::reason(rows, &key, head)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an overflow row belongs to a record.
pub(super) fn has_head(rows: &impl Rows, key: &[u8], part: &IVec) -> Result<bool, SpoolError> {
    let Some((record, number)) = keys::parse_overflow(key) else { return Ok(false) };
    let Some(head) = rows.value(record)? else { return Ok(false) };
    Ok(number < codec::overflow_rows(&head) && codec::belongs(&head, part))
}

/// Whether a tombstone names a file in use, or none at all.
pub(super) fn is_wrong_tombstone(rows: &impl Rows, key: &[u8]) -> Result<bool, SpoolError> {
    let name = key.get(1..).and_then(|name| std::str::from_utf8(name).ok());
    let Some((body, number)) = name.and_then(parse_file_name) else { return Ok(true) };
    let row = readable::<BodyRow>(rows, &keys::body(body))?;
    Ok(row.is_some_and(|row| row.place == BodyPlace::File { number }))
}

/// The bodies without which a message cannot be sent.
pub(super) fn needed(outbox: Option<&OutboxRecord>, queue: Option<&QueueRecord>) -> Vec<BodyId> {
    match (queue, outbox) {
        // The servers have it.
        (Some(QueueRecord { state: QueueState::Done, .. }), _) => Vec::new(),
        (Some(queue), _) => vec![queue.body],
        // With a transport that has it elsewhere, or has just finished with it.
        (None, Some(OutboxRecord { state: OutboxState::Deferred { .. }, .. })) => Vec::new(),
        (None, outbox) => outbox.into_iter().flat_map(OutboxRecord::bodies).collect(),
    }
}

fn is_set_aside(outbox: Option<&OutboxRecord>, queue: Option<&QueueRecord>) -> bool {
    match (queue, outbox) {
        (Some(queue), _) => {
            let still =
                matches!(queue.state, QueueState::Held | QueueState::InDoubt { resend: false, .. });
            still && queue.last_error.starts_with(SET_ASIDE)
        }
        (None, Some(outbox)) => {
            let why = outbox.props.text(tags::REPORT_TEXT).unwrap_or_default();
            outbox.state == OutboxState::Held && why.starts_with(SET_ASIDE)
        }
        (None, None) => false,
    }
}

/// Puts a message on hold, with the reason. One in doubt stays so, but is not sent again.
fn set_aside(
    entry: &EntryId,
    outbox: Option<OutboxRecord>,
    queue: Option<QueueRecord>,
    reason: String,
) -> Batch {
    let (entry, expect) = (entry.clone(), Expect::Any);
    match (queue, outbox) {
        (Some(mut record), _) => {
            record.state = match record.state {
                QueueState::InDoubt { since, .. } => QueueState::InDoubt { since, resend: false },
                _ => QueueState::Held,
            };
            record.last_error = reason;
            Batch::new().with(Op::PutQueue { entry, record: Box::new(record), expect })
        }
        (None, Some(mut record)) => {
            record.state = OutboxState::Held;
            record.props.set(tags::REPORT_TEXT, reason);
            Batch::new().with(Op::PutOutbox { entry, record: Box::new(record), expect })
        }
        (None, None) => Batch::new(),
    }
}
