//! The search: the table, then the domain's own word, then a guess.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};

use super::autoconfig::read_autoconfig;
use super::proposal::{MailDomain, Origin, Proposal};
use super::providers::provider_of_domain;
use super::records::{SERVICES, SrvRecord, from_mx, from_srv};
use super::{Dns, HttpsWeb, Reach, Reached, SystemDns, TlsReach, Web};
use crate::net::TlsMode;
use crate::profile::{Protocol, ServerUrl};

/// How long the domain is asked, and how long is guessed.
const DEADLINE: Duration = Duration::from_secs(12);

/// Finds the servers of addresses.
#[derive(Clone)]
pub struct Discoverer {
    dns: Option<Arc<dyn Dns>>,
    web: Arc<dyn Web>,
    reach: Arc<dyn Reach>,
}

/// Something that did not work on the way; no reason to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What was asked.
    pub asked: String,
    /// What came of it, for people.
    pub why: String,
}

/// What a search brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The servers; `None` when nothing was found.
    pub proposal: Option<Proposal>,
    /// What did not work.
    pub troubles: Vec<Trouble>,
}

impl Discoverer {
    /// A search over these ways to the world; `dns` is `None` where there is no resolver.
    pub fn new(dns: Option<Arc<dyn Dns>>, web: Arc<dyn Web>, reach: Arc<dyn Reach>) -> Self {
        Discoverer { dns, web, reach }
    }

    /// A search with the resolver of the system, HTTPS and TLS. Needs a tokio runtime.
    pub fn system() -> Self {
        let dns = SystemDns::new().ok().map(|dns| Arc::new(dns) as Arc<dyn Dns>);
        Self::new(dns, Arc::new(HttpsWeb::default()), Arc::new(TlsReach::default()))
    }

    /// Looks for the servers of an address. Takes at most half a minute; dropping the future ends
    /// every question.
    pub async fn find(&self, address: &MailDomain) -> Discovery {
        if let Some(provider) = provider_of_domain(address.domain()) {
            let proposal = Proposal::of_provider(provider, Origin::Table, address);
            return Discovery { proposal: Some(proposal), troubles: Vec::new() };
        }
        let mut troubles = Vec::new();
        let mut found = Proposal::empty(Origin::Guess);
        // Each for itself: who does not answer takes nothing away from who did.
        let (autoconfig, records) = join(
            tokio::time::timeout(DEADLINE, self.autoconfig(address)),
            tokio::time::timeout(DEADLINE, self.records(address)),
        )
        .await;
        for (asked, answer) in [("web servers", autoconfig), ("name servers", records)] {
            match answer {
                Ok((proposals, more)) => {
                    proposals.into_iter().for_each(|proposal| found.complete(proposal));
                    troubles.extend(more);
                }
                Err(_) => troubles.push(Trouble {
                    asked: format!("the {asked} of {}", address.domain()),
                    why: "they did not answer in time".to_owned(),
                }),
            }
        }
        if !found.is_whole() {
            found.complete(self.guess(address, &found).await);
        }
        found.recognise();
        let proposal = (!found.is_empty()).then_some(found);
        Discovery { proposal, troubles }
    }

    async fn autoconfig(&self, address: &MailDomain) -> (Vec<Proposal>, Vec<Trouble>) {
        let domain = address.domain();
        // Only this address is told to the domain that gave it out.
        let local: String = address.local_part().bytes().map(percent).collect();
        let urls = [
            format!(
                "https://autoconfig.{domain}/mail/config-v1.1.xml?emailaddress={local}%40{domain}"
            ),
            format!("https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml"),
        ];
        let answers = join_all(urls.iter().map(|url| self.web.get(url))).await;
        let (mut proposals, mut troubles) = (Vec::new(), Vec::new());
        for (url, answer) in urls.iter().zip(answers) {
            let shown = url.split('?').next().unwrap_or_default().to_owned();
            match answer {
                Ok(None) => {}
                // Most domains have no such host: that is no trouble worth a word.
                Err(_) => {}
                Ok(Some(bytes)) => {
                    let origin = Origin::Autoconfig(shown.clone());
                    match read_autoconfig(&bytes, address, origin) {
                        Ok(proposal) => proposals.push(proposal),
                        // A web server that answers every path with a page of its own.
                        Err(
                            super::AutoconfigError::NotXml(_)
                            | super::AutoconfigError::NotAutoconfig,
                        ) => {}
                        Err(error) => {
                            troubles.push(Trouble { asked: shown, why: error.to_string() });
                        }
                    }
                }
            }
        }
        proposals.truncate(1);
        (proposals, troubles)
    }

    async fn records(&self, address: &MailDomain) -> (Vec<Proposal>, Vec<Trouble>) {
        let domain = address.domain();
        let Some(dns) = &self.dns else {
            let why = "the system names no name servers".to_owned();
            return (Vec::new(), vec![Trouble { asked: format!("the records of {domain}"), why }]);
        };
        let names = SERVICES.map(|(service, ..)| format!("{service}.{domain}."));
        let fqdn = format!("{domain}.");
        let (answers, exchangers) =
            join(join_all(names.iter().map(|name| dns.srv(name))), dns.mx(&fqdn)).await;
        let (mut services, mut failed): (Vec<Vec<SrvRecord>>, _) = (Vec::new(), None);
        for answer in answers {
            services.push(answer.unwrap_or_else(|error| {
                failed = Some(error);
                Vec::new()
            }));
        }
        let mut proposals = vec![from_srv(&services, address)];
        match exchangers {
            Ok(records) => proposals.extend(from_mx(&records, address)),
            Err(error) => failed = Some(error),
        }
        proposals.retain(|proposal| !proposal.is_empty());
        let troubles = failed.map(|error| Trouble {
            asked: format!("the records of {domain}"),
            why: error.to_string(),
        });
        (proposals, troubles.into_iter().collect())
    }

    /// Tries the usual names for what is missing.
    async fn guess(&self, address: &MailDomain, found: &Proposal) -> Proposal {
        let mut guess = Proposal::empty(Origin::Guess);
        let wanted = |protocol| found.server(protocol).is_none();
        let candidates: Vec<ServerUrl> =
            candidates(address).into_iter().filter(|server| wanted(server.protocol)).collect();
        let looks = join_all(candidates.iter().map(|server| self.reach.reach(server)));
        let Ok(reached) = tokio::time::timeout(DEADLINE, looks).await else { return guess };
        // A server that proves who it is comes before one that does not.
        for trusted in [true, false] {
            for (server, reached) in candidates.iter().zip(&reached) {
                let remark = match reached {
                    Reached::Ready if trusted => None,
                    Reached::Untrusted(why) if !trusted => Some(why.clone()),
                    _ => continue,
                };
                let place = match server.protocol {
                    Protocol::Smtp => &mut guess.smtp,
                    Protocol::Imap => &mut guess.imap,
                };
                if place.is_none() {
                    *place = Some(server.clone());
                    guess.remarks.extend(remark);
                }
            }
        }
        guess
    }
}

/// The usual names and ports, the best first.
fn candidates(address: &MailDomain) -> Vec<ServerUrl> {
    let domain = address.domain();
    let mut candidates = Vec::new();
    for (protocol, own, ports) in [
        (Protocol::Smtp, "smtp", [(465, TlsMode::Implicit), (587, TlsMode::StartTls)]),
        (Protocol::Imap, "imap", [(993, TlsMode::Implicit), (143, TlsMode::StartTls)]),
    ] {
        for (port, tls) in ports {
            for host in [format!("{own}.{domain}"), format!("mail.{domain}"), domain.to_owned()] {
                let user = Some(address.address().to_owned());
                candidates.push(ServerUrl { protocol, tls, user, host, port: Some(port) });
            }
        }
    }
    candidates
}

/// A byte of a local part in the query of an address.
fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}
