//! The first look at everything, in pages. What looks wrong is collected and handed to the
//! writer's thread for the second.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};

use sled::IVec;

use super::census::{Census, sum_of};
use super::find_bodies::{Condition, find_file, verify};
use super::judge::{Judge, Lost, Suspect, has_head, is_wrong_tombstone, needed};
use super::report::{CheckMode, CheckPhase, CheckProgress, CheckReport};
use crate::mapi::{EntryId, SysTime};
use crate::migrations;
use crate::spool::bodies::{BodyFolder, list};
use crate::spool::body_row::{BodyPlace, BodyRow, parse_file_name};
use crate::spool::codec::Rows;
use crate::spool::repair::{self, INDEXES, RECORDS, history_keys, index_keys, indexed, readable};
use crate::spool::store::{Range, Store};
use crate::spool::writer::{Request, Work};
use crate::spool::{BodyId, HistoryRecord, OutboxRecord, QueueRecord, SledSpool, SpoolError, keys};

/// Suspects looked at again at once: a bound on how long the writer has no time for others.
const AT_ONCE: usize = 64;

/// Rows or files between two words about how far it is.
const TICK: u64 = 1_000;

/// Most lost bodies, and most bodies without a row, that one check deals with; more are left to
/// the next. Bounds its memory to a few megabytes.
const MOST_KEPT: usize = 50_000;

/// Bodies counted one by one at a time.
const MOST_COUNTED: u64 = 200_000;

pub(super) struct Walk<'a> {
    spool: &'a SledSpool,
    store: Arc<Store>,
    folder: Arc<BodyFolder>,
    mode: CheckMode,
    progress: &'a dyn Fn(CheckProgress) -> ControlFlow<()>,
    at: CheckProgress,
    report: CheckReport,
    suspects: Vec<Suspect>,
    lost: Arc<Lost>,
    /// Bytes of small bodies that no row names, by what they are.
    spare: HashMap<BodyId, u64>,
    /// Places of small bodies that are damaged: nobody can tell whose they are.
    damaged_slots: HashSet<u64>,
    pinned: Vec<BodyId>,
    /// Files of bodies whose row was lost.
    found: HashSet<(BodyId, u64)>,
    unreadable: bool,
    buffer: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        spool: &'a SledSpool,
        mode: CheckMode,
        progress: &'a dyn Fn(CheckProgress) -> ControlFlow<()>,
    ) -> Result<Walk<'a>, SpoolError> {
        let store = spool.store()?;
        let schema = migrations::schema(store.tree())?;
        Ok(Walk {
            spool,
            store,
            folder: Arc::clone(spool.folder()),
            mode,
            progress,
            at: CheckProgress { phase: CheckPhase::Records, done: 0 },
            report: CheckReport { mode, schema, ..CheckReport::default() },
            suspects: Vec::new(),
            lost: Arc::default(),
            spare: HashMap::new(),
            damaged_slots: HashSet::new(),
            pinned: Vec::new(),
            found: HashSet::new(),
            unreadable: false,
            buffer: Vec::new(),
        })
    }

    pub(super) fn run(mut self) -> Result<CheckReport, SpoolError> {
        self.begin(CheckPhase::Records)?;
        self.records()?;
        self.odd_rows()?;
        self.begin(CheckPhase::Bodies)?;
        self.bodies()?;
        self.inline_bodies()?;
        self.begin(CheckPhase::Messages)?;
        self.messages()?;
        self.histories()?;
        self.begin(CheckPhase::Indexes)?;
        self.indexes()?;
        self.begin(CheckPhase::Files)?;
        self.tombstones()?;
        self.files()?;
        self.begin(CheckPhase::Counts)?;
        self.counts()?;
        self.report.quarantined = self.store.count_quarantined()?;
        Ok(self.report)
    }

    fn begin(&mut self, phase: CheckPhase) -> Result<(), SpoolError> {
        self.settle()?;
        self.at = CheckProgress { phase, done: 0 };
        self.say()
    }

    fn say(&self) -> Result<(), SpoolError> {
        // A spool that is being closed waits for nobody.
        self.spool.store()?;
        match (self.progress)(self.at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SpoolError::Abandoned),
        }
    }

    fn tick(&mut self) -> Result<(), SpoolError> {
        self.at.done += 1;
        if self.at.done.is_multiple_of(TICK) { self.say() } else { Ok(()) }
    }

    fn suspect(&mut self, suspect: Suspect) -> Result<(), SpoolError> {
        self.suspects.push(suspect);
        if self.suspects.len() < AT_ONCE { Ok(()) } else { self.settle() }
    }

    /// Has the suspects looked at again, and mended.
    fn settle(&mut self) -> Result<(), SpoolError> {
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() {
            return Ok(());
        }
        let judge = Judge {
            mode: self.mode,
            folder: Arc::clone(&self.folder),
            lost: Arc::clone(&self.lost),
            unreadable: self.unreadable,
            now: SysTime::from_millis(now_millis()),
        };
        let (reply, answer) = mpsc::channel();
        let work: Work = Box::new(move |desk| {
            let verdict = judge.judge(desk, suspects);
            Box::new(move |failed| {
                let _ = reply.send(match failed {
                    Some(error) if judge.mode == CheckMode::Repair => Err(error),
                    _ => verdict,
                });
            })
        });
        self.spool.send(Request::Work(work))?;
        let verdict = answer.recv().map_err(|_| self.spool.gone())??;
        self.report.set_aside += verdict.set_aside;
        verdict.findings.into_iter().for_each(|finding| self.report.add(finding));
        Ok(())
    }

    /// Walks a range; the work must not hold on to what it walks over.
    fn rows(
        &mut self,
        range: Range,
        mut work: impl FnMut(&mut Self, IVec, IVec) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        for row in self.store.range(range) {
            let (key, value) = row?;
            work(self, key, value)?;
            self.tick()?;
        }
        self.settle()
    }

    fn records(&mut self) -> Result<(), SpoolError> {
        for table in RECORDS {
            self.rows(keys::table(table), |this, key, head| {
                if repair::reason(this.store.as_ref(), &key, head)?.is_none() {
                    return Ok(());
                }
                // A long record may have been met half way.
                let found = this.report.found();
                this.suspect(Suspect::Row(key.to_vec()))?;
                this.settle()?;
                this.unreadable |=
                    this.report.found() > found && matches!(table, keys::OUTBOX | keys::QUEUE);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Rows of no table, and parts without a head.
    fn odd_rows(&mut self) -> Result<(), SpoolError> {
        self.rows(keys::table(keys::OVERFLOW), |this, key, part| {
            match has_head(this.store.as_ref(), &key, &part)? {
                true => Ok(()),
                false => this.suspect(Suspect::Row(key.to_vec())),
            }
        })?;
        for table in (0..=u8::MAX).filter(|table| !keys::TABLES.contains(table)) {
            self.rows(keys::table(table), |this, key, _| this.suspect(Suspect::Row(key.to_vec())))?;
        }
        Ok(())
    }

    fn lose(&mut self, body: BodyId, place: Option<BodyPlace>, why: String) {
        if self.lost.len() < MOST_KEPT {
            Arc::make_mut(&mut self.lost).insert(body, (place, why));
        }
    }

    fn bodies(&mut self) -> Result<(), SpoolError> {
        self.rows(keys::table(keys::BODY), |this, key, _| {
            let Some(body) = keys::parse_body(&key) else { return Ok(()) };
            let store = Arc::clone(&this.store);
            let row = || readable::<BodyRow>(store.as_ref(), &key);
            let Some(seen) = row()? else { return Ok(()) };
            if seen.users == BodyRow::PINNED && this.pinned.len() < MOST_KEPT {
                this.pinned.push(body);
            }
            this.report.bodies += 1;
            this.report.body_bytes += seen.size;
            match verify(&store, &this.folder, body, &seen, &mut this.buffer)? {
                Condition::Whole => {}
                Condition::Lost(why) => {
                    // It may have gone meanwhile.
                    if row()?.is_some_and(|row| row.place == seen.place) {
                        if let BodyPlace::Inline { slot } = seen.place {
                            this.damaged_slots.insert(slot);
                        }
                        this.lose(body, Some(seen.place), why);
                    }
                }
            }
            Ok(())
        })
    }

    fn inline_bodies(&mut self) -> Result<(), SpoolError> {
        self.rows(keys::table(keys::INLINE), |this, key, bytes| {
            let slot = keys::parse_inline(&key).unwrap_or(u64::MAX);
            let body = BodyId(*blake3::hash(bytes.get(1..).unwrap_or_default()).as_bytes());
            match readable::<BodyRow>(this.store.as_ref(), &keys::body(body))? {
                Some(row) if row.place == (BodyPlace::Inline { slot }) => Ok(()),
                _ if this.damaged_slots.contains(&slot) => Ok(()),
                None if this.spare.len() < MOST_KEPT => {
                    this.spare.insert(body, slot);
                    Ok(())
                }
                _ => this.suspect(Suspect::Inline(slot, body)),
            }
        })
    }

    fn messages(&mut self) -> Result<(), SpoolError> {
        let mut last: Option<EntryId> = None;
        loop {
            let page = self.store.message_page(last.as_ref(), 256)?;
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            for entry in page {
                self.report.messages += 1;
                self.message(&entry)?;
                self.tick()?;
            }
        }
        self.settle()?;
        // Nobody has asked for what is left of these.
        for (body, slot) in std::mem::take(&mut self.spare) {
            self.suspect(Suspect::Inline(slot, body))?;
        }
        self.settle()
    }

    fn message(&mut self, entry: &EntryId) -> Result<(), SpoolError> {
        let store = Arc::clone(&self.store);
        let outbox = readable::<OutboxRecord>(store.as_ref(), &keys::outbox(entry))?;
        let queue = readable::<QueueRecord>(store.as_ref(), &keys::queue(entry))?;
        for key in index_keys(entry, outbox.as_ref(), queue.as_ref()) {
            if store.value(&key)?.is_none() {
                self.suspect(Suspect::Message(entry.clone()))?;
                break;
            }
        }
        let named = outbox.iter().flat_map(OutboxRecord::bodies);
        for body in named.chain(queue.iter().map(|record| record.body)).collect::<BTreeSet<_>>() {
            if store.value(&keys::body(body))?.is_none() && !self.lost.contains_key(&body) {
                self.find(body, entry)?;
            }
        }
        let needed = needed(outbox.as_ref(), queue.as_ref());
        if needed.iter().any(|body| self.lost.contains_key(body)) {
            self.suspect(Suspect::Bodiless(entry.clone()))?;
        }
        Ok(())
    }

    /// Looks for a body whose row is missing.
    fn find(&mut self, body: BodyId, entry: &EntryId) -> Result<(), SpoolError> {
        let found = match self.spare.remove(&body) {
            Some(slot) => {
                let bytes = self.store.value(&keys::inline(slot))?;
                let size = bytes.map_or(0, |bytes| bytes.len().saturating_sub(1));
                let place = BodyPlace::Inline { slot };
                let size = u64::try_from(size).unwrap_or(0);
                Some(BodyRow { users: BodyRow::PINNED, size, place })
            }
            None => find_file(&self.folder, body, &mut self.buffer)?,
        };
        // The message may have gone meanwhile, and its body with it.
        let names = |record: Option<OutboxRecord>| {
            record.is_some_and(|record| record.bodies().any(|its| its == body))
        };
        let store = self.store.as_ref();
        let named = names(readable(store, &keys::outbox(entry))?)
            || readable::<QueueRecord>(store, &keys::queue(entry))?
                .is_some_and(|record| record.body == body);
        if !named || store.value(&keys::body(body))?.is_some() {
            return Ok(());
        }
        match found {
            Some(row) if self.found.len() < MOST_KEPT => {
                self.suspect(Suspect::Found(body, row))?;
                self.pinned.push(body);
                if let BodyPlace::File { number } = row.place {
                    self.found.insert((body, number));
                }
                self.settle()
            }
            Some(_) => Ok(()),
            None => {
                self.lose(body, None, "it is missing".to_owned());
                Ok(())
            }
        }
    }

    fn histories(&mut self) -> Result<(), SpoolError> {
        self.rows(keys::table(keys::HISTORY), |this, key, _| {
            this.report.histories += 1;
            let Some(entry) = keys::parse_entry(&key) else { return Ok(()) };
            let record = readable::<HistoryRecord>(this.store.as_ref(), &key)?;
            let wanted = record.map(|record| history_keys(&entry, &record).collect::<Vec<_>>());
            for key in wanted.unwrap_or_default() {
                if this.store.value(&key)?.is_none() {
                    return this.suspect(Suspect::History(entry));
                }
            }
            Ok(())
        })
    }

    fn indexes(&mut self) -> Result<(), SpoolError> {
        for table in INDEXES {
            self.rows(keys::table(table), |this, key, _| {
                if indexed(this.store.as_ref(), table, &key)?.as_deref() == Some(&*key) {
                    return Ok(());
                }
                this.suspect(Suspect::Index(key.to_vec()))
            })?;
        }
        Ok(())
    }

    fn tombstones(&mut self) -> Result<(), SpoolError> {
        self.rows(keys::table(keys::GONE), |this, key, _| {
            match is_wrong_tombstone(this.store.as_ref(), &key)? {
                true => this.suspect(Suspect::Tombstone(key.to_vec())),
                false => Ok(()),
            }
        })
    }

    fn files(&mut self) -> Result<(), SpoolError> {
        for name in self.folder.leftovers()? {
            self.suspect(Suspect::Staged(name))?;
        }
        self.settle()?;
        for folder in self.folder.folders()? {
            for name in list(&folder)? {
                self.tick()?;
                // What is no name of ours is nothing of ours.
                let Some((body, number)) = parse_file_name(&name) else { continue };
                let row = readable::<BodyRow>(self.store.as_ref(), &keys::body(body))?;
                if row.is_none_or(|row| row.place != BodyPlace::File { number })
                    && !self.found.contains(&(body, number))
                {
                    self.suspect(Suspect::File(body, number))?;
                }
            }
        }
        self.settle()
    }

    fn counts(&mut self) -> Result<(), SpoolError> {
        self.census(Census::of_all())?;
        let mut odd: BTreeSet<u16> = self
            .store
            .census()
            .as_ref()
            .map(Census::odd_sums)
            .unwrap_or_default()
            .into_iter()
            .collect();
        self.suspect(Suspect::Counts)?;
        self.settle()?;
        odd.extend(self.pinned.iter().map(|body| sum_of(*body)));
        let odd: Vec<u16> = odd.into_iter().collect();
        // As many sums at a time as hold a bounded number of bodies.
        let at_once = MOST_COUNTED.saturating_mul(1 << 16) / self.report.bodies.max(1);
        let at_once = usize::try_from(at_once).unwrap_or(usize::MAX).clamp(1, 1 << 16);
        for sums in odd.chunks(at_once) {
            let wanted: BTreeSet<u16> = sums.iter().copied().collect();
            self.census(Census::of_each(wanted.clone()))?;
            let miscounted = self.store.census().as_ref().map(Census::miscounted);
            let pinned = self.pinned.iter().copied().filter(|body| wanted.contains(&sum_of(*body)));
            let suspects: BTreeSet<BodyId> =
                miscounted.unwrap_or_default().into_iter().chain(pinned).collect();
            for body in suspects {
                self.suspect(Suspect::Users(body))?;
            }
            self.settle()?;
        }
        Ok(())
    }

    fn census(&mut self, census: Census) -> Result<(), SpoolError> {
        self.store.begin_census(census);
        while self.store.advance_census()? {
            self.say()?;
        }
        Ok(())
    }
}

/// The time, to be compared with leases.
fn now_millis() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok().and_then(|now| u64::try_from(now.as_millis()).ok()).unwrap_or(0)
}
