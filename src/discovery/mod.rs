//! Finding the servers of an address: a bundled table of the large providers, the domain's own
//! autoconfiguration file, SRV and MX records (RFC 6186, RFC 8314), and then a guess.
//!
//! `providers`, `autoconfig`, `records` and `proposal` only read and decide; `dns`, `web` and
//! `reach` are the three ways to the world, each behind a trait, so that everything else runs
//! without a network. No credential is used here: what is found is a [`Proposal`], which a person
//! confirms, or a script by naming the servers itself.

mod autoconfig;
mod dns;
mod proposal;
mod providers;
mod reach;
mod records;
mod search;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
mod web;

pub use autoconfig::{AutoconfigError, read_autoconfig};
pub use dns::{Dns, DnsError, SystemDns};
pub use proposal::{MailDomain, Origin, Proposal, SignIn};
pub use providers::{Limits, OAuth2Service, Provider, UserForm, provider_of_domain, providers};
pub use reach::{Reach, Reached, TlsReach};
pub use records::{MxRecord, SrvRecord};
pub use search::{Discoverer, Discovery, Trouble};
pub use web::{HttpsWeb, Web, WebError};
