//! Asking for records with the resolver of the system.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{ResolverBuilder, TokioResolver};

use super::records::{MxRecord, SrvRecord};
use crate::net::for_people;

/// How long one try of a question may take; each is tried twice.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Most records that are looked at; more than any answer of a sensible domain.
const MOST_RECORDS: usize = 32;

/// Asks for records. A name without any is no error.
#[async_trait]
pub trait Dns: Send + Sync {
    /// The SRV records of a name.
    ///
    /// # Errors
    /// When the name servers did not answer, or in another way.
    async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, DnsError>;

    /// The MX records of a domain.
    ///
    /// # Errors
    /// When the name servers did not answer, or in another way.
    async fn mx(&self, domain: &str) -> Result<Vec<MxRecord>, DnsError>;
}

/// Why a question has no answer, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsError(pub String);

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DnsError {}

/// The name servers of the system (`/etc/resolv.conf`), without its search list and without
/// validation.
pub struct SystemDns(TokioResolver);

impl SystemDns {
    /// The name servers of the system.
    ///
    /// # Errors
    /// When the system's configuration names none or cannot be read.
    pub fn new() -> Result<Self, DnsError> {
        let builder = TokioResolver::builder_tokio().map_err(|error| told(&error))?;
        Self::build(builder)
    }

    /// One name server at a place of its own.
    ///
    /// # Errors
    /// When no resolver can be made of it.
    pub fn at(server: SocketAddr) -> Result<Self, DnsError> {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        udp.port = server.port();
        tcp.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![udp, tcp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let provider = TokioRuntimeProvider::default();
        Self::build(TokioResolver::builder_with_config(config, provider))
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<Self, DnsError> {
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = 1;
        options.use_hosts_file = ResolveHosts::Never;
        options.ndots = 0;
        Ok(SystemDns(builder.build().map_err(|error| told(&error))?))
    }
}

impl fmt::Debug for SystemDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemDns")
    }
}

#[async_trait]
impl Dns for SystemDns {
    async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, DnsError> {
        let found = answered(self.0.srv_lookup(name).await)?;
        let record = |data: RData| match data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii(),
            }),
            _ => None,
        };
        Ok(found.into_iter().filter_map(record).collect())
    }

    async fn mx(&self, domain: &str) -> Result<Vec<MxRecord>, DnsError> {
        let found = answered(self.0.mx_lookup(domain).await)?;
        let record = |data: RData| match data {
            RData::MX(mx) => {
                Some(MxRecord { preference: mx.preference, exchange: mx.exchange.to_ascii() })
            }
            _ => None,
        };
        Ok(found.into_iter().filter_map(record).collect())
    }
}

fn answered(answer: Result<Lookup, NetError>) -> Result<Vec<RData>, DnsError> {
    match answer {
        Ok(lookup) => {
            let records = lookup.answers().iter().take(MOST_RECORDS);
            Ok(records.map(|record| record.data.clone()).collect())
        }
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(told(&error)),
    }
}

fn told(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError("the name servers did not answer in time".to_owned()),
        other => DnsError(for_people(&format!("the name servers cannot be asked: {other}"))),
    }
}
