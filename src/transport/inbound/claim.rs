//! A message that is wanted, and the claim of whoever works on it.

use std::sync::Arc;

use super::cursor::Ending;
use super::key::ContentDigest;
use super::mailbox::Mailbox;
use super::moment::Moment;
use super::responses::Listed;
use crate::mapi::SysTime;
use crate::spi::Repetition;
use crate::spool::{FetchedRecord, Origin};

/// A message to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) uid: u32,
    pub(super) size: u32,
    pub(super) date: Option<SysTime>,
    pub(super) repetition: Repetition,
    /// How often it failed.
    pub(super) tries: u32,
    /// Not to be tried before.
    pub(super) not_before: Moment,
    /// Not to be asked for together with others, or not whole.
    pub(super) manner: Manner,
}

/// How a message is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// With others.
    Together,
    /// Alone: something went wrong when it was asked for with others.
    Alone,
    /// In pieces: it is large, or its size was not what was announced.
    Pieces,
}

/// What became of a message that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It is tried again.
    Again,
    /// It was set aside.
    SetAside,
    /// Its mailbox was rebuilt meanwhile.
    Forgotten,
}

/// A message that somebody works on. Dropping it gives it back; dropping it in a panic counts as
/// a failed try, so that a message that breaks its reader is set aside in the end.
pub(super) struct Claim {
    mailbox: Arc<Mailbox>,
    uid_validity: u32,
    /// The place its key in the store is made from.
    origin: Origin,
    wanted: Wanted,
    settled: bool,
}

/// Tries after which a message is set aside that panics whoever reads it.
const MOST_PANICS: u32 = 3;

impl std::ops::Deref for Claim {
    type Target = Wanted;

    fn deref(&self) -> &Wanted {
        &self.wanted
    }
}

impl Claim {
    pub(super) fn new(mailbox: Arc<Mailbox>, uid_validity: u32, wanted: Wanted) -> Self {
        let origin = Origin { uid_validity, uid: wanted.uid };
        Claim { mailbox, uid_validity, origin, wanted, settled: false }
    }

    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The place its key in the store is made from.
    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    /// It is to be saved under the key of this place. Another place than its own is one under
    /// which it may have been saved.
    pub(super) fn save_as(&mut self, origin: Origin) {
        if origin != self.origin {
            self.origin = origin;
            self.may_be_saved();
        }
    }

    /// Notes what it is before it is saved; [`Mailbox::commit`] writes it.
    pub(super) fn note(&self, digest: ContentDigest) {
        let record = FetchedRecord { digest, origin: self.origin };
        self.mailbox.note(self.uid_validity, self.wanted.uid, record);
    }

    /// Whether the disk has that note.
    pub(super) fn is_noted(&self, digest: ContentDigest) -> bool {
        self.mailbox.is_noted(self.wanted.uid, FetchedRecord { digest, origin: self.origin })
    }

    /// It is to be asked for in this manner; no try is counted.
    pub(super) fn back_as(mut self, manner: Manner) {
        self.wanted.manner = self.wanted.manner.max(manner);
    }

    /// It is to be tried again then; no try is counted.
    pub(super) fn back_at(mut self, not_before: Moment) {
        self.wanted.not_before = not_before;
    }

    /// It may have been saved.
    pub(super) fn may_be_saved(&mut self) {
        self.wanted.repetition = Repetition::Possible;
    }

    /// It has ended. What that changes on disk is written by [`Mailbox::commit`]. It counts as
    /// being on its way until the result is dropped.
    pub(super) fn end(mut self, ending: Ending) -> Ended {
        self.settled = true;
        let mut state = self.mailbox.state();
        if state.is_current(self.uid_validity)
            && let Some(progress) = &mut state.progress
        {
            progress.end(self.wanted.uid, ending);
        }
        drop(state);
        Ended {
            mailbox: Arc::clone(&self.mailbox),
            uid_validity: self.uid_validity,
            uid: self.wanted.uid,
        }
    }

    /// Counts a failed try; after `most` of them it is set aside.
    pub(super) fn fail(mut self, again: Moment, most: u32, words: &str) -> Failed {
        self.count(again, most, words)
    }

    fn count(&mut self, again: Moment, most: u32, words: &str) -> Failed {
        self.settled = true;
        let mut state = self.mailbox.state();
        if !state.is_current(self.uid_validity) || !state.in_flight.remove(&self.wanted.uid) {
            return Failed::Forgotten;
        }
        let mut wanted = self.wanted.clone();
        wanted.tries += 1;
        if wanted.tries >= most
            && state.progress.as_mut().is_some_and(|it| it.end(wanted.uid, Ending::SetAside))
        {
            words.clone_into(&mut state.set_aside_words);
            return Failed::SetAside;
        }
        wanted.not_before = again;
        wanted.manner = wanted.manner.max(Manner::Alone);
        state.wanted.insert(wanted.uid, wanted);
        Failed::Again
    }
}

/// A message that has ended and is not on disk as such.
pub(super) struct Ended {
    mailbox: Arc<Mailbox>,
    uid_validity: u32,
    uid: u32,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut state = self.mailbox.state();
        if state.is_current(self.uid_validity) {
            state.in_flight.remove(&self.uid);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if std::thread::panicking() {
            if self.wanted.manner == Manner::Together {
                self.wanted.manner = Manner::Alone;
            } else {
                let words = "the server's answer could not be read";
                self.count(Moment::PAST, MOST_PANICS, words);
                return;
            }
        }
        let mut state = self.mailbox.state();
        if state.is_current(self.uid_validity) && state.in_flight.remove(&self.wanted.uid) {
            state.wanted.insert(self.wanted.uid, self.wanted.clone());
        }
    }
}

impl Manner {
    pub(super) fn max(self, other: Manner) -> Manner {
        match (self, other) {
            (Manner::Pieces, _) | (_, Manner::Pieces) => Manner::Pieces,
            (Manner::Alone, _) | (_, Manner::Alone) => Manner::Alone,
            (Manner::Together, Manner::Together) => Manner::Together,
        }
    }
}

impl Wanted {
    pub(super) fn new(listed: &Listed, repetition: Repetition, small: u32) -> Self {
        Wanted {
            uid: listed.uid,
            size: listed.size,
            date: listed.date,
            repetition,
            tries: 0,
            not_before: Moment::PAST,
            manner: if listed.size > small { Manner::Pieces } else { Manner::Together },
        }
    }
}
