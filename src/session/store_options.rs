//! From the profile to the options of its store.

use std::collections::HashMap;
use std::path::Path;

use crate::mapi::{MapiCode, MapiError, MapiResult};
use crate::profile::{Profile, ReceiverProfile, SentProfile};
use crate::spi::ProfileSection;
use crate::store::{CopyTo, HandOptions, LmtpAddress, OwedOptions, Receiver, StoreOptions};
use crate::transport::sent_folder;

/// The folder for what is on its way to a program or an LMTP server, below the state folder.
const STAGING: &str = "incoming";

/// The folder for sent copies that a server is to get, below the state folder.
const OWED: &str = "owed-sent";

/// Where the copies of each transport go that are not kept in the Maildir.
fn copies(profile: &Profile, sections: &[ProfileSection]) -> HashMap<String, CopyTo> {
    let mut copies = HashMap::new();
    for (transport, section) in profile.transports.iter().zip(sections) {
        let to = match sent_folder(section) {
            Ok(Some(_)) => CopyTo::Server,
            Ok(None) if transport.imap.is_some() => CopyTo::Nowhere,
            // One that cannot be logged on sends nothing; its status row says why.
            Ok(None) | Err(_) => continue,
        };
        copies.insert(transport.name.clone(), to);
    }
    copies
}

/// The options of a profile's store.
///
/// # Errors
/// `MAPI_E_UNCONFIGURED` for an LMTP address that is none.
pub(super) fn of(
    profile: &Profile,
    sections: &[ProfileSection],
    state_folder: &Path,
) -> MapiResult<StoreOptions> {
    let store = &profile.store;
    // Where the server gets them, those of an account without one are kept in the Maildir.
    let sent = store.sent != SentProfile::Nowhere && store.maildir.is_some();
    let mut options = StoreOptions { sent, ..StoreOptions::default() };
    if store.sent == SentProfile::Server {
        let folder = state_folder.join(OWED);
        options.owed = Some(OwedOptions { folder, transports: copies(profile, sections) });
    }
    if let Some(maildir) = &store.maildir {
        options.maildir.clone_from(maildir);
    }
    if let Some(hand) = hand(profile)? {
        options.hand = Some((hand, state_folder.join(STAGING)));
    }
    Ok(options)
}

/// To whom received mail is handed instead of being kept in a Maildir.
///
/// # Errors
/// `MAPI_E_UNCONFIGURED` for an LMTP address that is none.
pub(super) fn hand(profile: &Profile) -> MapiResult<Option<HandOptions>> {
    let Some(hand) = &profile.store.hand else { return Ok(None) };
    let receiver = match &hand.receiver {
        ReceiverProfile::Program(words) => {
            // No program of the user needs to see the passwords of the accounts.
            let hidden = profile.password_variables();
            Receiver::Program { words: words.clone(), hidden }
        }
        ReceiverProfile::Lmtp(address) => {
            Receiver::Lmtp(address.parse::<LmtpAddress>().map_err(|why| {
                let words = format!("the profile key store.lmtp: {why}");
                MapiError::new(MapiCode::UNCONFIGURED, words)
            })?)
        }
    };
    Ok(Some(HandOptions {
        receiver,
        recipient: hand.recipient.clone(),
        timeout: hand.timeout,
        at_once: usize::try_from(hand.connections).unwrap_or(usize::MAX),
    }))
}
