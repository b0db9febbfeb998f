//! Sums over all messages and bodies that stay exact while rows change under the walk.
//!
//! The walk counts in order of the keys and in pages; the writer, before it applies a group, hands
//! over what it will change, and what stands before the walk's position is counted anew. So at
//! the end the sums are those of one instant, however busy the spool was.
//!
//! Users of bodies: 65,536 sums, each over the bodies whose digest begins alike, of digest times
//! (records that name it less users its row says). A sum that is not zero holds a body that is
//! miscounted; a second census counts just those one by one. That keeps the memory of a check
//! bounded.

use std::collections::{BTreeSet, HashMap};

use sled::IVec;

use crate::mapi::EntryId;
use crate::spool::body_row::BodyRow;
use crate::spool::codec::{RowChanges, Rows};
use crate::spool::counts::{Counters, class};
use crate::spool::repair::readable;
use crate::spool::store::Store;
use crate::spool::{BodyId, OutboxRecord, QueueRecord, SpoolError, keys};

/// Rows counted at once.
const PAGE: usize = 256;

/// Number of the sums.
const SUMS: usize = 1 << 16;

/// Up to where it was counted.
#[derive(Debug)]
enum Position<T> {
    Start,
    At(T),
    End,
}

impl<T: Ord> Position<T> {
    fn has_passed(&self, key: &T) -> bool {
        match self {
            Position::Start => false,
            Position::At(last) => key <= last,
            Position::End => true,
        }
    }

    fn last(&self) -> Option<&T> {
        match self {
            Position::At(last) => Some(last),
            Position::Start | Position::End => None,
        }
    }
}

/// How users of bodies are counted.
#[derive(Debug)]
enum Users {
    /// In sums.
    Sums(Vec<u128>),
    /// One by one, for the bodies of some sums.
    Each { wanted: BTreeSet<u16>, bodies: HashMap<BodyId, i64> },
}

/// A count that goes on.
#[derive(Debug)]
pub(in crate::spool) struct Census {
    messages: Position<EntryId>,
    bodies: Position<BodyId>,
    counters: Counters,
    users: Users,
    /// Why it is of no use.
    spoiled: Option<SpoolError>,
}

/// The two rows of a message.
type Message = (Option<OutboxRecord>, Option<QueueRecord>);

fn message(rows: &impl Rows, entry: &EntryId) -> Result<Message, SpoolError> {
    Ok((readable(rows, &keys::outbox(entry))?, readable(rows, &keys::queue(entry))?))
}

/// The rows as they will be.
struct After<'a>(&'a Store, &'a RowChanges);

impl Rows for After<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<IVec>, SpoolError> {
        match self.1.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.0.value(key),
        }
    }
}

impl Census {
    /// Counts everything, bodies in sums.
    pub(super) fn of_all() -> Census {
        Self::with(Users::Sums(vec![0; SUMS]))
    }

    /// Counts everything, and the bodies of these sums one by one.
    pub(super) fn of_each(wanted: BTreeSet<u16>) -> Census {
        Self::with(Users::Each { wanted, bodies: HashMap::new() })
    }

    fn with(users: Users) -> Census {
        Census {
            messages: Position::Start,
            bodies: Position::Start,
            counters: Counters::default(),
            users,
            spoiled: None,
        }
    }

    /// Counts a page. Returns whether there is more. To be called while nothing is applied.
    pub(in crate::spool) fn advance(&mut self, store: &Store) -> Result<bool, SpoolError> {
        if let Some(error) = self.spoiled.take() {
            return Err(error);
        }
        if !matches!(self.messages, Position::End) {
            let page = store.message_page(self.messages.last(), PAGE)?;
            for entry in &page {
                self.count(message(store, entry)?, 1);
            }
            self.messages = page.into_iter().next_back().map_or(Position::End, Position::At);
            return Ok(true);
        }
        if !matches!(self.bodies, Position::End) {
            let page = store.body_page(self.bodies.last(), PAGE)?;
            for body in &page {
                self.count_body(*body, readable(store, &keys::body(*body))?, 1);
            }
            self.bodies = page.into_iter().next_back().map_or(Position::End, Position::At);
            return Ok(true);
        }
        Ok(false)
    }

    /// Counts anew what a group changes of what was counted. To be called before it is applied.
    pub(in crate::spool) fn observe(&mut self, store: &Store, rows: &RowChanges) {
        if let Err(error) = self.recount(store, rows) {
            self.spoiled = Some(error);
        }
    }

    fn recount(&mut self, store: &Store, rows: &RowChanges) -> Result<(), SpoolError> {
        let after = After(store, rows);
        let mut entries = BTreeSet::new();
        for key in rows.keys() {
            match key.first().copied() {
                Some(keys::OUTBOX | keys::QUEUE) => entries.extend(keys::parse_entry(key)),
                Some(keys::BODY) => {
                    let Some(body) = keys::parse_body(key) else { continue };
                    if self.bodies.has_passed(&body) {
                        self.count_body(body, readable(store, key)?, -1);
                        self.count_body(body, readable(&after, key)?, 1);
                    }
                }
                _ => {}
            }
        }
        for entry in
            entries.iter().filter(|entry| self.messages.has_passed(entry)).collect::<Vec<_>>()
        {
            self.count(message(store, entry)?, -1);
            self.count(message(&after, entry)?, 1);
        }
        Ok(())
    }

    fn count(&mut self, (outbox, queue): Message, sign: i64) {
        let class = class(outbox.as_ref(), queue.as_ref());
        match sign {
            1 => self.counters.change(None, class),
            _ => self.counters.change(class, None),
        }
        let bodies = outbox.iter().flat_map(OutboxRecord::bodies);
        for body in bodies.chain(queue.iter().map(|record| record.body)) {
            self.users.add(body, sign);
        }
    }

    fn count_body(&mut self, body: BodyId, row: Option<BodyRow>, sign: i64) {
        // A pinned row says nothing about its users.
        if let Some(row) = row.filter(|row| row.users != BodyRow::PINNED) {
            self.users.add(body, -sign * i64::from(row.users));
        }
    }

    /// How many messages are in which state; what is in quarantine is not counted.
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// The sums that are not zero.
    pub(super) fn odd_sums(&self) -> Vec<u16> {
        match &self.users {
            Users::Sums(sums) => {
                let odd = (0_u16..=u16::MAX).zip(sums).filter(|(_, sum)| **sum != 0);
                odd.map(|(number, _)| number).collect()
            }
            Users::Each { .. } => Vec::new(),
        }
    }

    /// Bodies of the wanted sums whose users are not what their rows say.
    pub(super) fn miscounted(&self) -> Vec<BodyId> {
        match &self.users {
            Users::Sums(_) => Vec::new(),
            Users::Each { bodies, .. } => {
                let odd = bodies.iter().filter(|(_, difference)| **difference != 0);
                odd.map(|(body, _)| *body).collect()
            }
        }
    }

    /// Records that name a body less the users its row says.
    pub(super) fn difference(&self, body: BodyId) -> i64 {
        match &self.users {
            Users::Sums(_) => 0,
            Users::Each { bodies, .. } => bodies.get(&body).copied().unwrap_or(0),
        }
    }
}

/// The sum to which a body belongs.
pub(super) fn sum_of(body: BodyId) -> u16 {
    let [first, second, ..] = body.0;
    u16::from_be_bytes([first, second])
}

impl Users {
    fn add(&mut self, body: BodyId, delta: i64) {
        match self {
            Users::Sums(sums) => {
                let number =
                    body.0.last_chunk::<16>().map_or(1, |bytes| u128::from_be_bytes(*bytes));
                let by = number.wrapping_mul(i128::from(delta).cast_unsigned());
                if let Some(sum) = sums.get_mut(usize::from(sum_of(body))) {
                    *sum = sum.wrapping_add(by);
                }
            }
            Users::Each { wanted, bodies } => {
                if wanted.contains(&sum_of(body)) {
                    *bodies.entry(body).or_default() += delta;
                }
            }
        }
    }
}
