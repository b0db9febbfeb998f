//! Rows of the tree a page at a time, by the tables and indexes they stand in.

use std::collections::BTreeSet;
use std::ops::Bound;

use serde::de::DeserializeOwned;

use super::{Range, Store};
use crate::mapi::{EntryId, Priority, SysTime};
use crate::spool::codec::ReadError;
use crate::spool::{
    AccountKey, BodyId, DUE_ORDER, DuePage, FetchedRecord, Origin, OutboxRecord, OutboxState,
    SpoolError, keys,
};

/// Most rows that `due` looks at in one lane beside those it lists: a bound on what a caller who
/// leaves out everything can cost.
const MOST_SKIPPED: usize = 50_000;

/// The indexes in one of which each row of the queue stands.
const QUEUE_INDEXES: [u8; 3] = [keys::DUE, keys::DONE, keys::STILL];

impl Store {
    /// Records of a table by entry id.
    pub(in crate::spool) fn page<T: DeserializeOwned>(
        &self,
        table: u8,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, T)>, ReadError> {
        let mut page = Vec::new();
        for row in self.range(keys::prefix_after(vec![table], after)) {
            if page.len() >= limit {
                break;
            }
            let (key, head) = row?;
            if let Some(entry) = keys::parse_entry(&key)
                && let Some(record) = self.record_from(&key, head)?
            {
                page.push((entry, record));
            }
        }
        Ok(page)
    }

    /// Messages that have a row in Outbox or queue, in order.
    pub(in crate::spool) fn message_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let mut entries = BTreeSet::new();
        for table in [keys::OUTBOX, keys::QUEUE] {
            let range = keys::prefix_after(vec![table], after);
            entries.extend(self.entries(range, limit, keys::parse_entry)?);
        }
        // What is behind the shorter of the two pages may be incomplete.
        Ok(entries.into_iter().take(limit).collect())
    }

    /// Bodies that have a row, in order.
    pub(in crate::spool) fn body_page(
        &self,
        after: Option<&BodyId>,
        limit: usize,
    ) -> Result<Vec<BodyId>, SpoolError> {
        let after = after.map(|body| keys::body(*body));
        self.entries(keys::table_after(keys::BODY, after.as_deref()), limit, keys::parse_body)
    }

    /// Messages of the Outbox that wait.
    pub(in crate::spool) fn waiting_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, ReadError> {
        let mut page = Vec::new();
        for row in self.range(keys::prefix_after(vec![keys::WAITING], after)) {
            if page.len() >= limit {
                break;
            }
            let Some(entry) = keys::parse_entry(&row?.0) else { continue };
            // A batch may come between the index and the row.
            match self.record::<OutboxRecord>(&keys::outbox(&entry))? {
                Some(record) if matches!(record.state, OutboxState::Waiting { .. }) => {
                    page.push((entry, record));
                }
                _ => {}
            }
        }
        Ok(page)
    }

    /// Messages of the Outbox that are with a transport.
    pub(in crate::spool) fn deferred_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<(EntryId, OutboxRecord)>, ReadError> {
        let mut page = Vec::new();
        for row in self.range(keys::prefix_after(vec![keys::DEFERRED], after)) {
            if page.len() >= limit {
                break;
            }
            let Some(entry) = keys::parse_entry(&row?.0) else { continue };
            match self.record::<OutboxRecord>(&keys::outbox(&entry))? {
                Some(record) if matches!(record.state, OutboxState::Deferred { .. }) => {
                    page.push((entry, record));
                }
                _ => {}
            }
        }
        Ok(page)
    }

    /// Messages whose rows do not fit together.
    pub(in crate::spool) fn unsettled_page(
        &self,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        self.entries(keys::prefix_after(vec![keys::UNSETTLED], after), limit, keys::parse_entry)
    }

    /// The accounts that have rows in the queue: one look at each index for each of them.
    pub(in crate::spool) fn accounts(&self) -> Result<Vec<AccountKey>, SpoolError> {
        let mut accounts = BTreeSet::new();
        for table in QUEUE_INDEXES {
            let mut range = keys::table(table);
            while let Some((key, _)) = self.range(range.clone()).next().transpose()? {
                let Some(account) = keys::parse_account(&key) else { break };
                accounts.insert(account);
                let next = keys::successor(&keys::of_account(table, account));
                range.0 = next.map_or(Bound::Unbounded, Bound::Included);
            }
        }
        Ok(accounts.into_iter().collect())
    }

    /// Some messages in the queue of an account, in no order.
    pub(in crate::spool) fn of_account(
        &self,
        account: AccountKey,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let mut found = Vec::new();
        for table in QUEUE_INDEXES {
            let range = keys::prefix(keys::of_account(table, account));
            let left = limit.saturating_sub(found.len());
            let parse = match table {
                keys::DUE => |key: &[u8]| keys::parse_due(key).map(|(_, entry)| entry),
                _ => keys::parse_of_account,
            };
            found.extend(self.entries(range, left, parse)?);
        }
        Ok(found)
    }

    /// What is due; only rows of the due index of this account are read.
    pub(in crate::spool) fn due(
        &self,
        account: AccountKey,
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
    ) -> Result<DuePage, SpoolError> {
        let mut page = DuePage::default();
        for priority in DUE_ORDER {
            let left = limit.saturating_sub(page.entries.len());
            let next = self.due_lane((account, priority), now, left, skip, &mut page.entries)?;
            page.next = [page.next, next].into_iter().flatten().min();
        }
        Ok(page)
    }

    /// Adds what is due in one lane and returns when the first one not added will be.
    fn due_lane(
        &self,
        (account, priority): (AccountKey, Priority),
        now: SysTime,
        limit: usize,
        skip: &(dyn for<'a> Fn(&'a EntryId) -> bool + Send + Sync),
        entries: &mut Vec<EntryId>,
    ) -> Result<Option<SysTime>, SpoolError> {
        let mut listed = 0;
        let mut skipped = 0;
        for row in self.range(keys::prefix(keys::due_lane(account, priority))) {
            let Some((time, entry)) = keys::parse_due(&row?.0) else { continue };
            if skip(&entry) && skipped < MOST_SKIPPED {
                skipped += 1;
            } else if time > now || listed >= limit || skipped >= MOST_SKIPPED {
                return Ok(Some(time));
            } else {
                entries.push(entry);
                listed += 1;
            }
        }
        Ok(None)
    }

    /// Messages of an account that are done.
    pub(in crate::spool) fn done_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let range = keys::prefix_after(keys::of_account(keys::DONE, account), after);
        self.entries(range, limit, keys::parse_of_account)
    }

    /// Messages of an account that are claimed.
    pub(in crate::spool) fn claimed_page(
        &self,
        account: AccountKey,
        after: Option<&EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let range = keys::prefix_after(keys::of_account(keys::CLAIMED, account), after);
        self.entries(range, limit, keys::parse_of_account)
    }

    /// Messages of an account that expire by themselves, by their times.
    pub(in crate::spool) fn expiring_page(
        &self,
        account: AccountKey,
        after: Option<&(SysTime, EntryId)>,
        limit: usize,
    ) -> Result<Vec<(SysTime, EntryId)>, SpoolError> {
        let (start, end) = keys::prefix(keys::of_account(keys::EXPIRING, account));
        let after = after.map(|(time, entry)| keys::expiring(account, *time, entry));
        let range = (after.map_or(start, Bound::Excluded), end);
        self.entries(range, limit, keys::parse_expiring)
    }

    /// Histories that ended before `before`.
    pub(in crate::spool) fn ended_before(
        &self,
        before: SysTime,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let range =
            (Bound::Included(vec![keys::ENDED]), Bound::Excluded(keys::ended_bound(before)));
        self.entries(range, limit, |key| keys::parse_ended(key).map(|(_, entry)| entry))
    }

    /// Messages with a `Message-ID`, the latest first.
    pub(in crate::spool) fn by_message_id(
        &self,
        message_id: &str,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let rows = self.range_back(keys::prefix(keys::of_message_id(message_id))).take(limit);
        rows.filter_map(|row| row.map(|(key, _)| keys::parse_message_id(&key)).transpose())
            .collect()
    }

    /// Messages of the Outbox and of the history between two entry ids.
    pub(in crate::spool) fn known_between(
        &self,
        first: &EntryId,
        last: &EntryId,
        limit: usize,
    ) -> Result<Vec<EntryId>, SpoolError> {
        let mut known = BTreeSet::new();
        for table in [keys::OUTBOX, keys::HISTORY] {
            let range = keys::between(table, first, last);
            known.extend(self.entries(range, limit, keys::parse_entry)?);
        }
        Ok(known.into_iter().take(limit).collect())
    }

    fn entries<T>(
        &self,
        range: Range,
        limit: usize,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, SpoolError> {
        let rows = self.range(range);
        let parsed = rows.filter_map(|row| row.map(|(key, _)| parse(&key)).transpose());
        parsed.take(limit).collect()
    }

    /// Digests of a mailbox in the delivered table.
    pub(in crate::spool) fn delivered_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        limit: usize,
    ) -> Result<Vec<[u8; 16]>, SpoolError> {
        let rows = self.range(keys::prefix(keys::delivered_of(account, mailbox))).take(limit);
        rows.filter_map(|row| row.map(|(key, _)| keys::parse_delivered(&key)).transpose()).collect()
    }

    /// Rows of a mailbox in the doubtful table.
    pub(in crate::spool) fn doubtful_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        digest: Option<&[u8; 16]>,
        limit: usize,
    ) -> Result<Vec<([u8; 16], Origin)>, SpoolError> {
        let range = keys::prefix(keys::doubtful_of(account, mailbox, digest));
        let rows = self.range(range).take(limit);
        rows.filter_map(|row| row.map(|(key, _)| keys::parse_doubtful(&key)).transpose()).collect()
    }

    /// Rows of a mailbox in the fetched table.
    pub(in crate::spool) fn fetched_page(
        &self,
        account: AccountKey,
        mailbox: &str,
        from: Origin,
        limit: usize,
    ) -> Result<Vec<(u32, FetchedRecord)>, ReadError> {
        let (_, end) = keys::prefix(keys::fetched_of(account, mailbox, from.uid_validity));
        let start = Bound::Included(keys::fetched(account, mailbox, from));
        let mut page = Vec::new();
        for row in self.range((start, end)).take(limit) {
            let (key, head) = row?;
            if let Some(uid) = keys::parse_fetched(&key)
                && let Some(record) = self.record_from(&key, head)?
            {
                page.push((uid, record));
            }
        }
        Ok(page)
    }
}
