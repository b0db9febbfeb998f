//! Messages that are fetched and wait for the host, and the bounds on what they occupy.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::claim::Claim;
use super::key::ContentDigest;
use super::mailbox::Mailbox;

/// A message on its way from the server to the host.
pub(super) struct Fetched {
    pub(super) claim: Claim,
    pub(super) body: Body,
}

/// The bytes of a message.
pub(super) enum Body {
    /// All of them, and their digest.
    Whole(Held, ContentDigest),
    /// They come as the host takes them; `taken` asks for the first, and says what the host has.
    Pieces { taken: oneshot::Sender<Kept>, pieces: mpsc::Receiver<Piece> },
}

/// What the host has of a message from an earlier try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) octets: u64,
    /// The first and the last of them.
    pub(super) head: Bytes,
    pub(super) tail: Bytes,
}

/// A part of a message.
pub(super) enum Piece {
    /// Some bytes.
    Bytes(Held),
    /// That was all.
    End,
    /// What the host has is not the beginning of this message: it comes from its start.
    Anew,
    /// The rest cannot be had now, for this reason; what came is good.
    Lost(String),
    /// What came is not the message.
    Failed(String),
}

/// Bytes that count against the budget until they are dropped.
pub(super) struct Held {
    bytes: Bytes,
    meter: Arc<Meter>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.now.fetch_sub(len(&self.bytes), Ordering::Relaxed);
    }
}

/// How many bytes are held.
#[derive(Debug, Default)]
struct Meter {
    now: AtomicU64,
    peak: AtomicU64,
}

fn len(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The budget for bytes that are fetched and not handed over, counted in KiB.
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    whole: u32,
    meter: Arc<Meter>,
}

impl Budget {
    pub(super) fn new(bytes: u32) -> Self {
        let whole = (bytes / 1024).max(1);
        Budget {
            permits: Arc::new(Semaphore::new(usize::try_from(whole).unwrap_or(1))),
            whole,
            meter: Arc::default(),
        }
    }

    /// Waits until so many bytes may be fetched. What exceeds the whole budget gets all of it.
    /// Cancel-safe.
    pub(super) async fn reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let wanted = wanted.clamp(1, self.whole);
        // The semaphore is never closed.
        Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok()
    }

    /// Counts bytes that were fetched. They carry their part of the reservation.
    pub(super) fn hold(
        &self,
        bytes: Bytes,
        reservation: &mut Option<OwnedSemaphorePermit>,
    ) -> Held {
        let now = self.meter.now.fetch_add(len(&bytes), Ordering::Relaxed) + len(&bytes);
        self.meter.peak.fetch_max(now, Ordering::Relaxed);
        let part = usize::try_from(len(&bytes).div_ceil(1024)).unwrap_or(usize::MAX).max(1);
        let permit = reservation.as_mut().and_then(|all| {
            let part = part.min(all.num_permits());
            all.split(part)
        });
        Held { bytes, meter: Arc::clone(&self.meter), _permit: permit }
    }

    #[cfg(test)]
    /// The most bytes that were held at one time.
    pub(super) fn peak(&self) -> u64 {
        self.meter.peak.load(Ordering::Relaxed)
    }
}

/// Messages that wait for the host, oldest first. Its length is bounded by the budget and by the
/// number of messages in a batch.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Fetched>>,
    /// Wakes one of those who wait for a message, for each; all of them when they need not wait
    /// any more.
    pub(super) arrived: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Fetched>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, fetched: Fetched) {
        self.lock().push_back(fetched);
        self.arrived.notify_one();
    }

    /// The next one.
    pub(super) fn pop(&self) -> Option<Fetched> {
        self.lock().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Takes out everything.
    pub(super) fn withdraw_all(&self) -> Vec<Fetched> {
        std::mem::take(&mut *self.lock()).into()
    }

    /// Takes out what of a mailbox nobody has taken yet; dropping it gives it back.
    pub(super) fn withdraw(&self, mailbox: &Arc<Mailbox>) -> Vec<Fetched> {
        let mut queue = self.lock();
        let (out, stay) = std::mem::take(&mut *queue)
            .into_iter()
            .partition(|fetched| Arc::ptr_eq(fetched.claim.mailbox(), mailbox));
        *queue = stay;
        Vec::from(out)
    }
}
