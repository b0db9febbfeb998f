//! `[transport.oauth2]`: how an account signs in by OAuth 2.0.

use std::sync::Arc;

use super::load::Surroundings;
use super::reader::{Found, Item, TableReader};
use super::server_table::read_named_password;
use super::transport_table::profile_path;
use super::{OAuth2Profile, Password};
use crate::net::Trust;
use crate::oauth2::{Client, ClientSettings, Endpoint, Endpoints, Provider, RedirectUri};
use crate::spi::SecretSource;

/// Microsoft's directory for every kind of account.
const COMMON_TENANT: &str = "common";

pub(super) fn read_oauth2(
    mut table: TableReader<'_>,
    surroundings: &Surroundings<'_>,
) -> Found<OAuth2Profile> {
    let provider = table.text("provider")?;
    let provider = provider.map(|name| {
        name.read(|name| {
            Provider::from_name(name)
                .ok_or("it must be \"google\" or \"microsoft\"; name others by their token_url")
        })
    });
    let provider = provider.transpose()?.map(|provider| provider.value);
    let tenant = table.text("tenant")?.map(|tenant| tenant.read(tenant_name)).transpose()?;
    if let (Some(tenant), false) = (&tenant, provider == Some(Provider::Microsoft)) {
        return Err(tenant.problem("it is for provider = \"microsoft\""));
    }
    let tenant = tenant.map_or(COMMON_TENANT, |tenant| tenant.value);
    let known = provider.map(|provider| provider.endpoints(tenant)).unwrap_or_default();
    let Endpoints { auth_url, token_url, device_url, revoke_url, scopes, redirect, extra } = known;
    let Some(token_url) = endpoint(&mut table, "token_url", token_url.as_deref())? else {
        let example = "write provider = \"google\" or \"microsoft\", or token_url = \"https://..\"";
        return Err(table.missing("token_url", example));
    };
    let auth_url = endpoint(&mut table, "auth_url", auth_url.as_deref())?;
    let device_url = endpoint(&mut table, "device_url", device_url.as_deref())?;
    let revoke_url = endpoint(&mut table, "revoke_url", revoke_url.as_deref())?;
    if auth_url.is_none() && device_url.is_none() {
        let example = "nobody could sign in: write auth_url, device_url or both";
        return Err(table.missing("auth_url", example));
    }
    let Some(client_id) = table.text("client_id")? else {
        let example =
            "register a client with the provider and write its id; docs/oauth2.md says how";
        return Err(table.missing("client_id", example));
    };
    let client_id = client_id.read(printable)?.value.to_owned();
    let client_secret =
        read_named_password(&mut table, "client_secret", surroundings)?.map(|item| item.value);
    let scopes = match table.texts("scopes")? {
        None => scopes,
        Some(list) => {
            let read = |scope: Item<&str>| Ok(scope.read(printable)?.value.to_owned());
            list.value.into_iter().map(read).collect::<Found<Vec<_>>>()?
        }
    };
    let redirect = match table.text("redirect_uri")? {
        None => redirect,
        Some(uri) => uri.read(RedirectUri::parse)?.value,
    };
    let trust = match table.text("ca_file")? {
        None => Trust::Platform,
        Some(file) => Trust::CaFile(file.read(|text| profile_path(text, surroundings))?.value),
    };
    table.finish()?;
    Ok(OAuth2Profile {
        provider,
        client_id,
        client_secret,
        token_url,
        auth_url,
        device_url,
        revoke_url,
        scopes,
        redirect,
        extra,
        trust,
    })
}

/// An address of the profile, else the one that is known.
fn endpoint(
    table: &mut TableReader<'_>,
    key: &'static str,
    known: Option<&str>,
) -> Found<Option<Endpoint>> {
    match table.text(key)? {
        Some(url) => Ok(Some(url.read(str::parse::<Endpoint>)?.value)),
        None => Ok(known.and_then(|url| url.parse().ok())),
    }
}

fn printable(text: &str) -> Result<&str, &'static str> {
    let sensible =
        (1..=1000).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if sensible { Ok(text) } else { Err("it must be letters, digits and signs without spaces") }
}

fn tenant_name(text: &str) -> Result<&str, &'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let sensible = (1..=200).contains(&text.len()) && text.chars().all(fits);
    if sensible { Ok(text) } else { Err("it must be the name or the number of a directory") }
}

impl OAuth2Profile {
    /// What asks the authorization server. A command that prints the client secret does not see
    /// the environment variables `hidden`.
    pub(crate) fn client(&self, hidden: &[String]) -> Client {
        let secret =
            |password: &Password| -> Arc<dyn SecretSource> { password.source_hiding(hidden) };
        Client::new(ClientSettings {
            client_id: self.client_id.clone(),
            client_secret: self.client_secret.as_ref().map(secret),
            token_url: self.token_url.clone(),
            auth_url: self.auth_url.clone(),
            device_url: self.device_url.clone(),
            revoke_url: self.revoke_url.clone(),
            scopes: self.scopes.clone(),
            redirect: self.redirect.clone(),
            extra: self.extra,
            trust: self.trust.clone(),
        })
    }
}
