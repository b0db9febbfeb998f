//! SRV and MX records read as servers (RFC 2782, RFC 6186, RFC 8314).

use super::proposal::{MailDomain, Origin, Proposal};
use super::providers::provider_of_exchanger;
use crate::net::TlsMode;
use crate::profile::{Protocol, ServerUrl, host_name};

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    /// Lower is tried first.
    pub priority: u16,
    /// Higher is chosen more often among equals.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host; `.` for "this service does not exist here".
    pub target: String,
}

/// An MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxRecord {
    /// Lower is tried first.
    pub preference: u16,
    /// Host.
    pub exchange: String,
}

/// The services that are looked up, the best first for each protocol (RFC 8314 section 5.1: TLS
/// from the first byte before STARTTLS).
pub(super) const SERVICES: [(&str, Protocol, TlsMode); 4] = [
    ("_submissions._tcp", Protocol::Smtp, TlsMode::Implicit),
    ("_submission._tcp", Protocol::Smtp, TlsMode::StartTls),
    ("_imaps._tcp", Protocol::Imap, TlsMode::Implicit),
    ("_imap._tcp", Protocol::Imap, TlsMode::StartTls),
];

/// The record to use: of the lowest priority the heaviest. Servers are configured once, so the
/// lot of RFC 2782 would only make what is written depend on chance.
fn choose(records: &[SrvRecord]) -> Option<&SrvRecord> {
    let usable = records.iter().filter(|record| {
        let target = record.target.trim_end_matches('.');
        record.port != 0 && host_name(target).is_ok()
    });
    usable.min_by_key(|record| (record.priority, u16::MAX - record.weight))
}

/// What the SRV records say; `answers` in the order of [`SERVICES`].
pub(super) fn from_srv(answers: &[Vec<SrvRecord>], address: &MailDomain) -> Proposal {
    let mut proposal = Proposal::empty(Origin::Srv);
    for ((_, protocol, tls), records) in SERVICES.into_iter().zip(answers) {
        let Some(record) = choose(records) else { continue };
        let server = ServerUrl {
            protocol,
            tls,
            // RFC 6186 section 4: the whole address first.
            user: Some(address.address().to_owned()),
            host: record.target.trim_end_matches('.').to_ascii_lowercase(),
            port: Some(record.port),
        };
        let place = match protocol {
            Protocol::Smtp => &mut proposal.smtp,
            Protocol::Imap => &mut proposal.imap,
        };
        place.get_or_insert(server);
    }
    proposal
}

/// What the mail exchangers say: the provider that runs the first one the table knows.
pub(super) fn from_mx(records: &[MxRecord], address: &MailDomain) -> Option<Proposal> {
    let mut sorted: Vec<&MxRecord> = records.iter().collect();
    sorted.sort_by_key(|record| record.preference);
    let known = |record: &&MxRecord| {
        let host = record.exchange.trim_end_matches('.').to_ascii_lowercase();
        provider_of_exchanger(&host).map(|provider| (provider, host))
    };
    let (provider, host) = sorted.iter().find_map(known)?;
    Some(Proposal::of_provider(provider, Origin::Mx(host), address))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> SrvRecord {
        SrvRecord { priority, weight, port, target: target.to_owned() }
    }

    fn ann() -> MailDomain {
        MailDomain::of("ann@example.org").unwrap()
    }

    #[test]
    fn priority_then_weight() {
        let records = [
            srv(20, 0, 465, "late.example.org."),
            srv(10, 1, 465, "light.example.org."),
            srv(10, 9, 465, "Heavy.example.org."),
        ];
        let found = from_srv(&[records.to_vec(), vec![], vec![], vec![]], &ann());
        let smtp = found.smtp.unwrap();
        assert_eq!(smtp.to_string(), "smtps://ann@example.org@heavy.example.org:465");
        assert!(found.imap.is_none());
    }

    #[test]
    fn implicit_tls_comes_before_starttls() {
        let one = |port, target| vec![srv(0, 1, port, target)];
        let answers = [
            one(465, "smtp.example.org."),
            one(587, "smtp.example.org."),
            one(993, "imap.example.org."),
            one(143, "imap.example.org."),
        ];
        let found = from_srv(&answers, &ann());
        assert_eq!(found.smtp.unwrap().port, Some(465));
        assert_eq!(found.imap.unwrap().tls, TlsMode::Implicit);
        // "." says that there is no such service (RFC 6186 section 3.4).
        let answers = [one(0, "."), one(587, "smtp.example.org."), one(0, "."), vec![]];
        let found = from_srv(&answers, &ann());
        assert_eq!(found.smtp.unwrap().tls, TlsMode::StartTls);
        assert!(found.imap.is_none());
    }

    #[test]
    fn targets_outside_the_domain_are_to_be_confirmed() {
        let answers = [
            vec![srv(0, 1, 465, "smtp.example.org.")],
            vec![],
            vec![srv(0, 1, 993, "imap.hoster.example.")],
            vec![],
        ];
        let found = from_srv(&answers, &ann());
        assert_eq!(found.hosts_to_confirm(&ann()), ["imap.hoster.example"]);
        let answers = [vec![srv(0, 1, 465, "badexample.org.")], vec![], vec![], vec![]];
        let found = from_srv(&answers, &ann());
        assert_eq!(found.hosts_to_confirm(&ann()), ["badexample.org"]);
    }

    #[test]
    fn a_target_cannot_be_anything_but_a_host() {
        for target in ["", ".", "a b.", "h:25.", "h\u{1b}[2J.", "user@h."] {
            let answers = [vec![srv(0, 1, 465, target)], vec![], vec![], vec![]];
            assert!(from_srv(&answers, &ann()).is_empty(), "{target:?}");
        }
    }

    #[test]
    fn a_hosted_domain_is_recognised_by_its_exchanger() {
        let mx = |preference, exchange: &str| MxRecord { preference, exchange: exchange.into() };
        let records = [mx(20, "mx.example.org."), mx(10, "ASPMX.L.GOOGLE.COM.")];
        let found = from_mx(&records, &ann()).unwrap();
        assert_eq!(found.provider.unwrap().id, "gmail");
        assert_eq!(found.imap.as_ref().unwrap().user.as_deref(), Some("ann@example.org"));
        assert_eq!(found.hosts_to_confirm(&ann()), ["smtp.gmail.com", "imap.gmail.com"]);
        assert!(from_mx(&[mx(10, "mx.example.org.")], &ann()).is_none());
    }
}
