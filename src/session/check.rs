//! `profile check`: a trial login to every server of a profile.

use super::{CheckReport, Direction};
use crate::mapi::MapiResult;
use crate::profile::{Profile, sections};
use crate::transport::{ServerCheck, ServerRole, check_servers};

/// Logs in to every server of a profile once, in both directions, and tells what each offers or
/// why it did not work. Touches neither spool nor store; needs a tokio runtime.
///
/// # Errors
/// `MAPI_E_UNCONFIGURED` for a transport that makes no sense.
pub async fn check_profile(profile: &Profile) -> MapiResult<Vec<CheckReport>> {
    let mut reports = Vec::new();
    for section in sections(profile) {
        reports.extend(check_servers(&section).await?.into_iter().map(report));
    }
    Ok(reports)
}

fn report(check: ServerCheck) -> CheckReport {
    let direction = match check.role {
        ServerRole::Smtp => Direction::Outbound,
        ServerRole::Imap => Direction::Inbound,
    };
    let (offers, error) = match check.offers {
        Ok(offers) => (offers, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    CheckReport {
        transport: check.transport,
        direction,
        server: check.server,
        ok: error.is_none(),
        offers,
        error,
    }
}
