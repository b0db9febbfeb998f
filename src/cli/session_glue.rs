//! The session of a profile as the commands want it.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::access::{Logon, Opener, OwnSession};
use crate::mapi::{MapiCode, MapiResult};
use crate::profile::Profile;
use crate::session::CheckReport;

/// Opens the spool of a profile in this process.
pub(crate) struct SpoolOpener {
    pub(crate) profile: Profile,
    pub(crate) state_folder: PathBuf,
}

#[async_trait]
impl Opener for SpoolOpener {
    async fn open(&self, _: Logon, _: Duration) -> MapiResult<Box<dyn OwnSession>> {
        let _ = (&self.profile, &self.state_folder);
        Err(MapiCode::NO_SUPPORT.into())
    }
}

pub(crate) async fn check(_: &Profile) -> MapiResult<Vec<CheckReport>> {
    Err(MapiCode::NO_SUPPORT.into())
}
