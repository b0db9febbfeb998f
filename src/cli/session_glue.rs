//! The session of a profile as the commands want it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::access::{LOCK_WAIT, Opener, OwnSession};
use crate::mapi::{MapiError, MapiResult};
use crate::observe::Observer;
use crate::profile::{Profile, ProfileError};
use crate::session::{
    FsckReport, FsckRequest, Logon, Service, Session, SessionOptions, fsck_unreadable,
};

/// How long a message on the wire may take when a command or the daemon ends.
const GRACE: Duration = Duration::from_secs(10);

/// Opens the spool of a profile in this process.
pub(crate) struct SpoolOpener {
    /// The profile, or why it cannot be used.
    pub(crate) profile: Result<Profile, ProfileError>,
    pub(crate) state_folder: PathBuf,
    /// Counts on from one session to the next.
    pub(crate) observer: Observer,
}

#[async_trait]
impl Opener for SpoolOpener {
    async fn open(&self, logon: Logon, lock_wait: Duration) -> MapiResult<Box<dyn OwnSession>> {
        let options = SessionOptions {
            lock_wait,
            observer: self.observer.clone(),
            ..SessionOptions::new(&self.state_folder).logon(logon)
        };
        let profile = self.profile.as_ref().map_err(|error| MapiError::from(error.clone()))?;
        let session = Session::open(profile, options).await?;
        Ok(Box::new(Opened(Arc::new(session))))
    }

    async fn fsck_unreadable(&self, why: &str, request: FsckRequest) -> MapiResult<FsckReport> {
        fsck_unreadable(&self.state_folder, why, request, LOCK_WAIT).await
    }
}

struct Opened(Arc<Session>);

#[async_trait]
impl OwnSession for Opened {
    fn service(&self) -> Arc<dyn Service> {
        Arc::clone(&self.0) as Arc<dyn Service>
    }

    async fn shutdown(self: Box<Self>) {
        if let Err(error) = self.0.shutdown(GRACE).await {
            tracing::warn!(%error, "The session did not end in good order");
        }
    }
}
