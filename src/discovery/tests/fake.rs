//! Ways to the world that answer what a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::discovery::{
    Discoverer, Dns, DnsError, MxRecord, Reach, Reached, SrvRecord, Web, WebError,
};
use crate::profile::ServerUrl;

/// What becomes of a question to the name servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Resolver {
    #[default]
    Answers,
    Fails,
    Silent,
}

impl Resolver {
    async fn ask(self) -> Result<(), DnsError> {
        match self {
            Resolver::Answers => Ok(()),
            Resolver::Fails => Err(DnsError("the name servers did not answer in time".to_owned())),
            Resolver::Silent => std::future::pending().await,
        }
    }
}

/// A world in which only what was put there exists.
#[derive(Default)]
pub(super) struct World {
    pub(super) srv: BTreeMap<&'static str, SrvRecord>,
    pub(super) mx: Vec<MxRecord>,
    pub(super) files: BTreeMap<String, String>,
    pub(super) servers: BTreeMap<&'static str, Reached>,
    pub(super) resolver: Resolver,
    pub(super) heard: Mutex<BTreeSet<String>>,
}

impl World {
    pub(super) fn discoverer(self) -> (Arc<World>, Discoverer) {
        let world = Arc::new(self);
        let (dns, web, reach) = (Arc::clone(&world), Arc::clone(&world), Arc::clone(&world));
        let discoverer = Discoverer::new(Some(dns), web, reach);
        (world, discoverer)
    }

    /// Everything that was asked for.
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, what: &str) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned());
    }
}

#[async_trait]
impl Dns for World {
    async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, DnsError> {
        self.note(name);
        self.resolver.ask().await?;
        Ok(self.srv.get(name).cloned().into_iter().collect())
    }

    async fn mx(&self, domain: &str) -> Result<Vec<MxRecord>, DnsError> {
        self.note(domain);
        self.resolver.ask().await?;
        Ok(self.mx.clone())
    }
}

#[async_trait]
impl Web for World {
    async fn get(&self, url: &str) -> Result<Option<Vec<u8>>, WebError> {
        self.note(url);
        Ok(self.files.get(url).map(|text| text.clone().into_bytes()))
    }
}

#[async_trait]
impl Reach for World {
    async fn reach(&self, server: &ServerUrl) -> Reached {
        let place = format!("{}:{}", server.host, server.port());
        self.note(&place);
        self.servers.get(place.as_str()).cloned().unwrap_or(Reached::Nothing)
    }
}
