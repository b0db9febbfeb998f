//! The configuration entry of a message service (LG-8).

use async_trait::async_trait;

use super::ProfileSection;
use crate::mapi::{MapiError, MapiResult};

/// The configuration entry of a message service, which a host may call when one of the service's
/// providers answers `MAPI_E_UNCONFIGURED`: it asks whoever knows for what is missing (a user, a
/// vault) and the host tries the logon once more. A host without one reports the error (LG-8).
#[async_trait]
pub trait ServiceEntry: Send + Sync {
    /// Completes the section of the transport called `name`, whose logon failed with `error`; the
    /// words of the error name the missing key. Answers the whole section.
    ///
    /// May take its time, for a person to type; the transports behind this one wait meanwhile.
    ///
    /// # Errors
    /// `MAPI_E_USER_CANCEL` when the user gave up, or why else it cannot be done. The service is
    /// then not logged on.
    async fn configure(
        &self,
        name: &str,
        section: ProfileSection,
        error: &MapiError,
    ) -> MapiResult<ProfileSection>;
}
