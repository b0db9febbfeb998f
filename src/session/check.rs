//! `profile check`: a trial login to every server of a profile.

use super::{CheckReport, Direction, store_options};
use crate::mapi::MapiResult;
use crate::profile::{Profile, sections};
use crate::store::{HandCheck, check_hand, host_name};
use crate::transport::{ServerCheck, ServerRole, check_servers};

/// Logs in to every server of a profile once, in both directions, and tells what each offers or
/// why it did not work; then whether the program or the LMTP server that gets received mail would
/// take it. Touches neither spool nor store, and hands nothing over; needs a tokio runtime.
///
/// # Errors
/// `MAPI_E_UNCONFIGURED` for a transport that makes no sense.
pub async fn check_profile(profile: &Profile) -> MapiResult<Vec<CheckReport>> {
    let mut reports = Vec::new();
    for section in sections(profile) {
        reports.extend(check_servers(&section).await?.into_iter().map(report));
    }
    if let Some(hand) = store_options::hand(profile)? {
        let HandCheck { receiver, offers } = check_hand(&hand, &host_name()).await;
        let (offers, error) = match offers {
            Ok(offers) => (offers, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        reports.push(CheckReport {
            transport: "store".to_owned(),
            direction: Direction::Delivery,
            server: receiver,
            ok: error.is_none(),
            offers,
            error,
        });
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
