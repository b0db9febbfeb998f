//! What a provider wants as a password, and asking for it.

use super::nothing_written;
use super::person::{Person, agrees, choose};
use crate::cli::exit::Failure;
use crate::discovery::{OAuth2Service, Provider, SignIn};
use crate::profile::{self, NewOAuth2, NewPassword};

/// Says what has to be known before the first login. Where a password is of no use, asks for what
/// signing in by OAuth2 needs.
pub(super) fn explain(
    provider: Option<&Provider>,
    sign_in: &[SignIn],
    person: &mut dyn Person,
) -> Result<Option<NewOAuth2>, Failure> {
    if let Some(provider) = provider {
        person.say("")?;
        for line in &provider.advice {
            person.say(line)?;
        }
        if let Some(help) = &provider.help {
            person.say(&format!("  {help}"))?;
        }
    }
    let sign_in = provider.map_or(sign_in, |provider| provider.sign_in.as_slice());
    if !sign_in.contains(&SignIn::OAuth2) {
        return Ok(None);
    }
    let service = provider.and_then(|provider| provider.oauth2);
    let name = match service {
        Some(OAuth2Service::Google) => "Google",
        Some(OAuth2Service::Microsoft) => "Microsoft",
        None => "the provider",
    };
    if sign_in.iter().any(|way| *way != SignIn::OAuth2) {
        person.say(&format!(
            "(Or sign in with {name} by OAuth2: begin again with --client-id, see docs/oauth2.md.)"
        ))?;
        return Ok(None);
    }
    if let Some(service) = service {
        person
            .say(&format!("Signing in with {name} needs a client id of your own, which costs"))?;
        person.say("nothing; \"Getting a client id\" in docs/oauth2.md says how to get one.")?;
        let client_id = person.ask("Client id (Enter for none)", "")?;
        if !client_id.is_empty() {
            let secret = person.ask_secret("Client secret (not shown; Enter for none)")?;
            return Ok(Some(NewOAuth2 {
                provider: Some(provider_name(service)),
                client_id,
                client_secret: Some(secret)
                    .filter(|secret| !secret.is_empty())
                    .map(NewPassword::Text),
                ..NewOAuth2::default()
            }));
        }
    }
    match agrees(person, "Try a password all the same?", "no")? {
        true => Ok(None),
        false => Err(nothing_written(&oauth2_only(provider))),
    }
}

/// The name of a service in a profile.
pub(super) fn provider_name(service: OAuth2Service) -> profile::Provider {
    match service {
        OAuth2Service::Google => profile::Provider::Google,
        OAuth2Service::Microsoft => profile::Provider::Microsoft,
    }
}

/// What is said where only OAuth2 would do.
pub(super) fn oauth2_only(provider: Option<&Provider>) -> String {
    let name = provider.map_or("this provider", |provider| provider.name.as_str());
    format!(
        "{name} signs in by OAuth2 only: get a client id (docs/oauth2.md says how), give it by \
         --client-id, and then `postrider auth login`"
    )
}

/// Asks for the password of `user`, or where it comes from.
pub(crate) fn ask_password(user: &str, person: &mut dyn Person) -> Result<NewPassword, Failure> {
    let of = if user.is_empty() { String::new() } else { format!(" of {user}") };
    loop {
        let question = format!("Password{of} (not shown; Enter to take it from elsewhere)");
        let secret = person.ask_secret(&question)?;
        if !secret.is_empty() {
            return Ok(NewPassword::Text(secret));
        }
        let kinds = ["command", "file", "environment", "keyring", "type"];
        let kind = choose(person, "Where it comes from", &kinds, "command")?;
        let (question, make): (_, fn(String) -> NewPassword) = match kind {
            "command" => ("Command that prints the password", NewPassword::Command),
            "file" => ("File whose first line is the password", NewPassword::File),
            "environment" => ("Name of the variable", NewPassword::Env),
            "keyring" => ("User name of its entry (service postrider)", NewPassword::Keyring),
            _ => continue,
        };
        let answer = person.ask(question, "")?;
        if !answer.is_empty() {
            return Ok(make(answer));
        }
    }
}
