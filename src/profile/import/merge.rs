//! Accounts of several files that are two halves of one: msmtp sends, mbsync receives.

use super::ImportedAccount;

/// Joins accounts of the same address where one only sends and the other only receives; the first
/// one keeps its name and place.
pub fn merge(accounts: Vec<ImportedAccount>) -> Vec<ImportedAccount> {
    let mut merged: Vec<ImportedAccount> = Vec::new();
    for account in accounts {
        let fits = |other: &&mut ImportedAccount| {
            let address = |account: &ImportedAccount| {
                account.identity.as_ref().map(|who| who.address.to_ascii_lowercase())
            };
            let same = address(other).is_some() && address(other) == address(&account);
            let halves = (other.smtp.is_none() && account.imap.is_none())
                || (other.imap.is_none() && account.smtp.is_none());
            same && halves
        };
        match merged.iter_mut().find(fits) {
            Some(other) => {
                other.smtp = other.smtp.take().or(account.smtp);
                other.imap = other.imap.take().or(account.imap);
                other.first |= account.first;
            }
            None => merged.push(account),
        }
    }
    // The one to use when none is named comes first.
    merged.sort_by_key(|account| !account.first);
    merged
}
