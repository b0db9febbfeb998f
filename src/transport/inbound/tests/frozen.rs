//! A spool that dies at a chosen commit, as a process would.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::spool::{Batch, Durable, Spool, SpoolError};
use crate::transport::wrapped_spool::{Ways, Wrapped};

/// Passes everything on to another spool, until so many batches were committed.
pub(super) type Frozen = Wrapped<Frost>;

/// The ways of [`Frozen`].
pub(super) struct Frost {
    inner: Arc<dyn Spool>,
    left: AtomicU32,
    pub(super) commits: AtomicU32,
    /// How long a commit takes at least.
    pub(super) delay: Duration,
}

impl Frozen {
    pub(super) fn after(inner: Arc<dyn Spool>, commits: u32) -> Arc<Self> {
        Arc::new(Self::new(inner, commits, Duration::ZERO))
    }

    pub(super) fn slow(inner: Arc<dyn Spool>, delay: Duration) -> Arc<Self> {
        Arc::new(Self::new(inner, u32::MAX, delay))
    }

    fn new(inner: Arc<dyn Spool>, commits: u32, delay: Duration) -> Self {
        Wrapped(Frost { inner, left: AtomicU32::new(commits), commits: AtomicU32::new(0), delay })
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

#[async_trait]
impl Ways for Frost {
    fn inner(&self) -> &Arc<dyn Spool> {
        &self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Durable, SpoolError> {
        let take = |left: u32| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return Err(SpoolError::Closed);
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        self.inner.commit(batch).await
    }
}
