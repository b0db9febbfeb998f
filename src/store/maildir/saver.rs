//! Saving messages that come at the same time with the syncs of one: threads that take whatever
//! waits, write it all, sync the file system once, move it all and sync the folder once.
//!
//! That is a third of the work of as many threads that sync a file each, but it waits for what other
//! programs have written on the same file system, too, and hears of their errors. So it is done only
//! while little waits to be written, is left alone for some minutes after it took long, and for good
//! after an error. Meanwhile each message is saved by itself.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, OwnedFd};
use tokio::sync::oneshot;

use super::folder::PartOf;
use super::shared_sync::Failure;
use super::{Draft, Maildir, MaildirError, Place, Token};
use crate::spool::disk::{Disk, FileSystemSync};

/// Most messages that are saved together.
const MOST: usize = 64;

/// One writes a batch while the other waits for the disk.
const THREADS: usize = 2;

/// How long another message is waited for, once one has come.
const GATHER: Duration = Duration::from_micros(200);

/// Fewer messages have their files synced one by one.
const FEW: usize = 4;

/// A sync of the file system that takes longer is not tried again for `REST_AFTER_SLOW`.
const SLOW: Duration = Duration::from_millis(500);
const REST_AFTER_SLOW: Duration = Duration::from_secs(5 * 60);

/// How long it is left alone when other programs write much.
const REST_BESIDE_OTHERS: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Saver {
    jobs: Mutex<Option<Sender<Job>>>,
    /// Held by who syncs the file system: it tells of an error once, so two at a time could hear of
    /// each other's.
    syncing: Mutex<()>,
    /// Changed by who holds `syncing`.
    rest: Mutex<Rest>,
}

/// Whether each message is saved by itself now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    No,
    /// A sync of the file system runs since then.
    Syncing(Instant),
    Until(Instant),
    ForGood,
}

impl Rest {
    fn is_over(self, now: Instant) -> bool {
        match self {
            Rest::No => true,
            // Those that come now need not wait for it.
            Rest::Syncing(since) => now.saturating_duration_since(since) <= SLOW,
            Rest::Until(end) => end <= now,
            Rest::ForGood => false,
        }
    }

    fn until(now: Instant, time: Duration) -> Self {
        now.checked_add(time).map_or(Rest::ForGood, Rest::Until)
    }

    /// What follows from a sync that took so long.
    fn after(took: Duration, now: Instant) -> Self {
        match took > SLOW {
            true => Rest::until(now, REST_AFTER_SLOW),
            false => Rest::No,
        }
    }
}

/// What became of a message that was to be saved with others.
#[derive(Debug)]
pub(in crate::store) enum Together {
    /// It is in its place, durably.
    Saved,
    /// It has to be written and delivered by itself.
    Text(Vec<u8>),
    /// It is written and has to be delivered by itself.
    Draft(Box<Draft>),
}

type Outcome = Result<Together, MaildirError>;

/// A message that is to be saved, and who waits for that.
#[derive(Debug)]
struct Job {
    maildir: Arc<Maildir>,
    text: Vec<u8>,
    place: Place,
    done: Waiting,
}

/// Who waits for a message. Who has left finds it by its token.
#[derive(Debug)]
struct Waiting(oneshot::Sender<Outcome>);

impl Waiting {
    fn answer(self, outcome: Outcome) {
        let _ = self.0.send(outcome);
    }
}

impl Saver {
    /// One for messages below `folder`, unless each has to be saved by itself there.
    pub(super) fn for_folder(disk: &dyn Disk, folder: &OwnedFd) -> Option<Self> {
        let apt = disk.file_system_sync(folder.as_fd()) != FileSystemSync::Never;
        apt.then(Saver::default)
    }

    /// Hands a job to the threads, which begin with the first one.
    fn send(&self, job: Job) -> Result<(), Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get_or_insert_with(start).send(job).map_err(|unsent| unsent.0)
    }

    fn rests(&self) -> bool {
        !self.rest.lock().unwrap_or_else(PoisonError::into_inner).is_over(Instant::now())
    }

    /// Room cannot be made here.
    fn rest_for_good(&self) {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.rest(Rest::ForGood);
    }

    fn rest(&self, rest: Rest) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}

impl Maildir {
    /// Saves a message with others that come now, unless it has to be saved by itself. Who leaves
    /// finds it saved or not.
    pub(in crate::store) async fn save_together(
        self: &Arc<Self>,
        text: Vec<u8>,
        place: &Place,
    ) -> Outcome {
        let Some(saver) = self.saver.as_ref().filter(|saver| !saver.rests()) else {
            return Ok(Together::Text(text));
        };
        let (done, outcome) = oneshot::channel();
        let (maildir, place) = (Arc::clone(self), place.clone());
        match saver.send(Job { maildir, text, place, done: Waiting(done) }) {
            Ok(()) => outcome.await.unwrap_or_else(|_| Err(broken())),
            Err(Job { text, .. }) => Ok(Together::Text(text)),
        }
    }
}

fn broken() -> MaildirError {
    MaildirError::new("save a message", io::Error::other("it broke down"))
}

/// Starts the threads. Without any, what is sent to them comes back.
fn start() -> Sender<Job> {
    let (sender, jobs) = mpsc::channel();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..THREADS {
        let jobs = Arc::clone(&jobs);
        let thread = std::thread::Builder::new().name("maildir".into());
        if let Err(error) = thread.spawn(move || run(&jobs)) {
            tracing::warn!(%error, "No thread for the Maildir");
        }
    }
    sender
}

/// Until the Maildir is dropped.
fn run(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let batch = gather(&jobs.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(batch) = batch else { return };
        batch.finish();
    }
}

/// The messages that come next, written.
fn gather(jobs: &Receiver<Job>) -> Option<Batch> {
    let mut batch = Batch::begin(jobs.recv().ok()?);
    while batch.written.len() < MOST
        && let Ok(job) = jobs.recv_timeout(GATHER)
    {
        batch.write(job);
    }
    Some(batch)
}

/// Messages that are saved together.
struct Batch {
    maildir: Arc<Maildir>,
    written: Vec<Written>,
}

/// A message in `tmp`.
struct Written {
    draft: Draft,
    place: Place,
    done: Waiting,
}

/// Messages that are in the same part of a folder, but for the sync of that.
struct Settled {
    part: PartOf,
    mailbox: String,
    messages: Vec<(Token, Waiting)>,
}

impl Batch {
    fn begin(first: Job) -> Self {
        let mut batch = Batch { maildir: Arc::clone(&first.maildir), written: Vec::new() };
        batch.write(first);
        batch
    }

    fn write(&mut self, job: Job) {
        let Job { text, place, done, .. } = job;
        match self.maildir.written(&text, &place) {
            Ok(Some(draft)) => self.written.push(Written { draft, place, done }),
            Ok(None) => done.answer(Ok(Together::Saved)),
            Err(error) if error.is_unsupported() => {
                self.maildir.saver.iter().for_each(Saver::rest_for_good);
                done.answer(Ok(Together::Text(text)));
            }
            Err(error) => done.answer(Err(error)),
        }
    }

    fn finish(self) {
        let Batch { maildir, written } = self;
        let mut settled = Vec::new();
        for Written { draft, place, done } in maildir.sync_written(written) {
            match maildir.settle_among(&mut settled, draft, &place) {
                Ok(among) => among.messages.push((place.token, done)),
                Err(error) => done.answer(Err(error)),
            }
        }
        for Settled { part, mailbox, messages } in settled {
            let sync = || part.sync(maildir.disk.as_ref(), &mailbox);
            let synced = maildir.usable().and_then(|()| maildir.heed(sync()));
            let failure = synced.as_ref().err().map(|error| Failure::of(&error.source));
            for (token, done) in messages {
                if let Some(failure) = &failure {
                    let what = format!("sync {mailbox}");
                    done.answer(Err(MaildirError::sync(what, failure.error())));
                    continue;
                }
                maildir.index.add(token);
                done.answer(Ok(Together::Saved));
            }
        }
    }
}

impl Maildir {
    /// A message in `tmp`, not durable yet; nothing where it is in its place already.
    fn written(&self, text: &[u8], place: &Place) -> Result<Option<Draft>, MaildirError> {
        self.usable()?;
        if self.has(place)? {
            return Ok(None);
        }
        let mut draft = self.draft()?;
        draft.make_room(text.len())?;
        draft.write(text)?;
        draft.stamp(place.time)?;
        Ok(Some(draft))
    }

    /// Makes the octets durable of those it returns. The others are answered.
    fn sync_written(&self, written: Vec<Written>) -> Vec<Written> {
        let Some(saver) = self.saver.as_ref().filter(|_| written.len() >= FEW) else {
            return self.sync_each(written);
        };
        let _syncing = saver.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let tmp = self.tmp.as_fd();
        let busy = || self.disk.file_system_sync(tmp) != FileSystemSync::Now;
        let rests = saver.rests();
        if rests || busy() {
            if !rests {
                saver.rest(Rest::until(Instant::now(), REST_BESIDE_OTHERS));
            }
            for Written { draft, done, .. } in written {
                done.answer(Ok(Together::Draft(Box::new(draft))));
            }
            return Vec::new();
        }
        let began = Instant::now();
        saver.rest(Rest::Syncing(began));
        let Err(error) = self.disk.sync_file_system(tmp) else {
            saver.rest(Rest::after(began.elapsed(), Instant::now()));
            return written;
        };
        // Of these files or of others: from here on each tells for itself.
        tracing::warn!(%error, "Syncing the file system of the Maildir failed");
        saver.rest(Rest::ForGood);
        let failure = Failure::of(&error);
        for Written { done, .. } in written {
            done.answer(Err(MaildirError::sync("sync the file system", failure.error())));
        }
        Vec::new()
    }

    fn sync_each(&self, written: Vec<Written>) -> Vec<Written> {
        let mut synced = Vec::with_capacity(written.len());
        for one in written {
            match self.usable().and_then(|()| self.heed(one.draft.sync_octets())) {
                Ok(()) => synced.push(one),
                Err(error) => one.done.answer(Err(error)),
            }
        }
        synced
    }

    /// Moves a message to its place. Whether the folder is still the one of its name is looked at
    /// once for all of a batch.
    fn settle_among<'a>(
        &self,
        settled: &'a mut Vec<Settled>,
        draft: Draft,
        place: &Place,
    ) -> Result<&'a mut Settled, MaildirError> {
        self.usable()?;
        let is = |one: &Settled| one.mailbox == place.mailbox && one.part.state == place.state;
        let at = match settled.iter().position(is) {
            Some(at) => at,
            None => {
                let (part, mailbox) = (self.part_of(place)?, place.mailbox.clone());
                settled.push(Settled { part, mailbox, messages: Vec::new() });
                settled.len() - 1
            }
        };
        let among = settled.get_mut(at).ok_or_else(broken)?;
        self.settle(draft, place, &among.part)?;
        Ok(among)
    }
}

#[cfg(test)]
mod tests;
