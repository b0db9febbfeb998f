//! What becomes of addresses that mean something on this machine only: `root`, `www-data@localhost`.
//! No server takes them for senders, and mail to them would go to strangers.

use std::collections::BTreeMap;

use super::{HeaderFacts, Mailbox};

/// How far names of this machine are followed, and how many addresses may come of one.
const MOST_NAMES: usize = 100;

/// Which senders of a message are replaced by the identity of the account that sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// None.
    Never,
    /// Those of this machine.
    #[default]
    Local,
    /// All that are no identity or alias of the profile.
    All,
}

/// An account that sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountRule {
    /// Who sends.
    pub identity: Mailbox,
    /// Addresses of further senders that choose it.
    pub aliases: Vec<String>,
    /// Whom the identity replaces.
    pub rewrite: Rewrite,
}

impl AccountRule {
    fn has(&self, address: &str) -> bool {
        let own = std::iter::once(&self.identity.address).chain(&self.aliases);
        own.into_iter().any(|own| own.eq_ignore_ascii_case(address))
    }
}

/// The rules of a profile. Without accounts nothing is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Accounts in their order; a message of an unknown sender is from the first.
    pub accounts: Vec<AccountRule>,
    /// The name of this machine.
    pub host: String,
    /// Where mail for names of this machine goes: addresses, or further names. Names are in lower
    /// case.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Where mail for all other names of this machine goes; `None` for the first identity.
    pub default: Option<String>,
}

impl AddressRules {
    /// The account of a message: the one that has the first of these addresses that any has, else
    /// the first.
    pub fn account<'a>(&self, senders: impl IntoIterator<Item = &'a str>) -> Option<&AccountRule> {
        let has = |sender: &str| self.accounts.iter().find(|account| account.has(sender));
        senders.into_iter().find_map(has).or(self.accounts.first())
    }

    /// The account of a message with this reverse-path and this header.
    pub fn account_of(
        &self,
        envelope_from: Option<&str>,
        facts: &HeaderFacts,
    ) -> Option<&AccountRule> {
        let header = facts.originator().into_iter().chain(facts.from.first());
        let header = header.map(|mailbox| mailbox.address.as_str());
        self.account(envelope_from.into_iter().chain(header))
    }

    /// Whether an address is one of this machine: without a domain, at localhost or below it, in
    /// `localdomain`, at an address in brackets that leads back here, or at the machine's own name.
    /// The domains of the accounts are none of these.
    pub fn is_local(&self, address: &str) -> bool {
        let Some((_, domain)) = address.rsplit_once('@') else { return true };
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        if self.own_domains().any(|own| own.eq_ignore_ascii_case(&domain)) {
            return false;
        }
        let host = self.host.to_ascii_lowercase();
        let short = host.split('.').next().unwrap_or_default();
        matches!(domain.as_str(), "localhost" | "localdomain" | "[127.0.0.1]" | "[ipv6:::1]")
            || domain.ends_with(".localhost")
            || domain.ends_with(".localdomain")
            || (!host.is_empty() && (domain == host || domain == short))
    }

    fn own_domains(&self) -> impl Iterator<Item = &str> {
        let addresses = self
            .accounts
            .iter()
            .flat_map(|account| std::iter::once(&account.identity.address).chain(&account.aliases));
        // An alias such as root@localhost chooses an account and is no address of the world.
        addresses
            .filter_map(|address| Some(address.rsplit_once('@')?.1))
            .filter(|domain| domain.contains('.') && !domain.ends_with(".localdomain"))
    }

    /// The sender that takes the place of this one in a message of `account`; `None` when it
    /// stays. A name to show is kept.
    pub fn replaced(&self, sender: &Mailbox, account: &AccountRule) -> Option<Mailbox> {
        let address = sender.address.as_str();
        let is_identity = |one: &AccountRule| one.identity.address.eq_ignore_ascii_case(address);
        if self.accounts.iter().any(is_identity) {
            return None;
        }
        let is_replaced = match account.rewrite {
            Rewrite::Never => false,
            Rewrite::Local => self.is_local(address),
            Rewrite::All => {
                self.is_local(address) || !self.accounts.iter().any(|one| one.has(address))
            }
        };
        let identity = &account.identity;
        let name = if sender.name.is_empty() { &identity.name } else { &sender.name };
        is_replaced.then(|| Mailbox::new(name.as_str(), identity.address.as_str()))
    }

    /// Where mail for an address goes: to itself, or, when it is one of this machine, where its
    /// name leads. Empty when there are no rules for it.
    pub fn resolve(&self, address: &str) -> Vec<String> {
        let Some(first) = self.accounts.first() else { return Vec::new() };
        if !self.is_local(address) {
            return vec![address.to_owned()];
        }
        let default = || self.default.as_ref().unwrap_or(&first.identity.address).clone();
        let mut names = vec![local_part(address)];
        let (mut next, mut found) = (0, Vec::new());
        while let Some(name) = names.get(next).cloned() {
            next += 1;
            let Some(targets) = self.aliases.get(&name) else {
                if !found.contains(&default()) {
                    found.push(default());
                }
                continue;
            };
            for target in targets {
                let full = names.len() + found.len() >= MOST_NAMES;
                if !self.is_local(target) && !full {
                    found.push(target.clone());
                } else if self.is_local(target) && !full && !names.contains(&local_part(target)) {
                    names.push(local_part(target));
                }
            }
        }
        if found.is_empty() {
            found.push(default());
        }
        found
    }

    /// The entries of a list of recipients as others can read them; `None` when they are already.
    pub(super) fn readable(&self, list: &[Mailbox]) -> Option<Vec<Mailbox>> {
        if self.accounts.is_empty() || !list.iter().any(|one| self.is_local(&one.address)) {
            return None;
        }
        let entries = list.iter().flat_map(|mailbox| {
            let is_local = self.is_local(&mailbox.address);
            let name = match (mailbox.name.as_str(), is_local) {
                ("", true) => local_part(&mailbox.address),
                (name, _) => name.to_owned(),
            };
            let addresses = self.resolve(&mailbox.address).into_iter();
            addresses.map(move |address| Mailbox::new(name.clone(), address)).collect::<Vec<_>>()
        });
        Some(entries.collect())
    }
}

/// The name before the `@` in lower case, without quotes.
fn local_part(address: &str) -> String {
    let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
    local.trim_matches('"').to_ascii_lowercase()
}

#[cfg(test)]
#[path = "address_rules_tests.rs"]
mod tests;
