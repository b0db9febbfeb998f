//! An account from options alone: no question is ever asked.

use std::path::Path;

use super::account::AccountPlan;
use super::servers::{Found, place};
use super::{nothing_written, sign_in};
use crate::cli::args::{AccountArguments, Only};
use crate::cli::console::Console;
use crate::cli::exit::{Exit, Failure};
use crate::discovery::{
    Discoverer, MailDomain, OAuth2Service, Origin, Proposal, Provider, SignIn, read_autoconfig,
};
use crate::mapi::{MapiCode, MapiError};
use crate::profile::{IdentityProfile, NewOAuth2, NewPassword, Protocol, ServerUrl, parse_mailbox};

/// The largest configuration file that is read, in bytes; more is refused when it is parsed.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The account that the options describe.
pub(super) async fn account(
    arguments: &AccountArguments,
    discoverer: &Discoverer,
    console: &mut Console<'_>,
) -> Result<AccountPlan, Failure> {
    let Some(text) = &arguments.address else {
        return Err(Failure::usage("name your address with --address"));
    };
    let identity = address(text)?;
    let mut found = match servers(arguments)? {
        Some(found) => found,
        None => discovered(arguments, &identity, discoverer, console).await?,
    };
    match arguments.only {
        Some(Only::Send) => found.imap = None,
        Some(Only::Receive) => found.smtp = None,
        None => {}
    }
    if found.smtp.is_none() && found.imap.is_none() {
        return Err(nothing_written("there is no server in the direction that --only names"));
    }
    let ways = found.sign_in.clone();
    let plan = AccountPlan::of(identity, found, arguments)?;
    if plan.lacks_login() {
        if !ways.is_empty() && ways.iter().all(|way| *way == SignIn::OAuth2) {
            return Err(nothing_written(&sign_in::oauth2_only(plan.provider)));
        }
        return Err(Failure::usage(
            "say where the password comes from with --password-command, --password-env, \
             --password-file or --password-keyring, or sign in by OAuth2 with --client-id",
        ));
    }
    Ok(plan)
}

pub(super) fn address(text: &str) -> Result<IdentityProfile, Failure> {
    parse_mailbox(text).map_err(|why| {
        Failure::contract("make the profile", &MapiError::new(MapiCode::INVALID_PARAMETER, why))
    })
}

pub(super) fn password(arguments: &AccountArguments) -> Option<NewPassword> {
    arguments.source.given()
}

/// How the account signs in by OAuth2, as far as the options say that it does.
pub(super) fn oauth2(
    arguments: &AccountArguments,
    provider: Option<&Provider>,
) -> Result<Option<NewOAuth2>, Failure> {
    let given = &arguments.oauth2;
    let Some(client_id) = given.client_id.clone() else { return Ok(None) };
    let service = given.oauth2.map(OAuth2Service::from);
    let service = service.or_else(|| provider.and_then(|provider| provider.oauth2));
    let service = service.filter(|_| given.token_url.is_none());
    if service.is_none() && given.token_url.is_none() {
        return Err(Failure::usage(
            "--client-id: name who gives out the tokens, with --oauth2 google, --oauth2 microsoft \
             or --token-url and --auth-url",
        ));
    }
    let file = given.client_secret_file.clone().map(NewPassword::File);
    let secret = given.client_secret_command.clone().map(NewPassword::Command);
    Ok(Some(NewOAuth2 {
        provider: service.map(sign_in::provider_name),
        client_id,
        client_secret: secret.or(file),
        auth_url: given.auth_url.clone(),
        token_url: given.token_url.clone(),
        device_url: given.device_url.clone(),
        scopes: given.scopes.clone(),
    }))
}

/// The servers that are named; `None` when none is.
pub(super) fn servers(arguments: &AccountArguments) -> Result<Option<Found>, Failure> {
    let smtp = server(arguments.smtp.as_deref(), Protocol::Smtp)?;
    let imap = server(arguments.imap.as_deref(), Protocol::Imap)?;
    if smtp.is_none() && imap.is_none() {
        return Ok(None);
    }
    Ok(Some(Found { smtp, imap, ..Found::default() }))
}

fn server(text: Option<&str>, protocol: Protocol) -> Result<Option<ServerUrl>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let option = match protocol {
        Protocol::Smtp => "--smtp",
        Protocol::Imap => "--imap",
    };
    let wrong = |why: String| Failure::usage(format!("{option} {text}: {why}"));
    let url: ServerUrl = text.parse().map_err(wrong)?;
    if url.protocol != protocol {
        return Err(wrong("that is the other direction's server".to_owned()));
    }
    Ok(Some(url))
}

async fn discovered(
    arguments: &AccountArguments,
    identity: &IdentityProfile,
    discoverer: &Discoverer,
    console: &mut Console<'_>,
) -> Result<Found, Failure> {
    if !arguments.discover && arguments.autoconfig.is_none() {
        return Err(Failure::usage(
            "name a server with --smtp, --imap or both, or look for them with --discover",
        ));
    }
    let Some(domain) = MailDomain::of(&identity.address) else {
        let text = format!("{} has no domain to look up", identity.address);
        return Err(nothing_written(&text));
    };
    let proposal = match &arguments.autoconfig {
        Some(file) => autoconfig(file, &domain)?,
        None => {
            let found = discoverer.find(&domain).await;
            let Some(proposal) = found.proposal else {
                let troubles = found.troubles.iter();
                let whys: Vec<String> =
                    troubles.map(|one| format!(" ({}: {})", one.asked, one.why)).collect();
                return Err(nothing_written(&format!(
                    "no servers of {} were found{}; name them with --smtp and --imap",
                    domain.domain(),
                    whys.concat()
                )));
            };
            proposal
        }
    };
    let outside = proposal.hosts_to_confirm(&domain);
    if !outside.is_empty() {
        let options: Vec<String> = [("--smtp", &proposal.smtp), ("--imap", &proposal.imap)]
            .into_iter()
            .filter_map(|(option, server)| Some(format!("{option} {}", server.as_ref()?)))
            .collect();
        return Err(nothing_written(&format!(
            "{} lies outside of {}, and only unsigned DNS records name it; if it is right, say {}",
            outside.join(" and "),
            domain.domain(),
            options.join(" ")
        )));
    }
    for (what, server) in [("sends with", &proposal.smtp), ("receives from", &proposal.imap)] {
        if let Some(server) = server {
            console.note(format_args!("{what} {} ({})", place(server), proposal.origin));
        }
    }
    Ok(proposal.into())
}

/// Servers from a configuration file on this machine.
pub(super) fn autoconfig(file: &Path, domain: &MailDomain) -> Result<Proposal, Failure> {
    use std::io::Read;
    let shown = file.display();
    let failed = |error: std::io::Error| Failure::io(format_args!("read {shown}"), &error);
    let opened = std::fs::File::open(file).map_err(failed)?;
    let mut bytes = Vec::new();
    opened.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(failed)?;
    read_autoconfig(&bytes, domain, Origin::File(shown.to_string()))
        .map_err(|error| Failure::new(Exit::Data, format!("cannot use {shown}: {error}")))
}
