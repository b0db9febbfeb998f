//! What a provider wants as a password, and asking for it.

use super::nothing_written;
use super::person::{Person, agrees, choose};
use crate::cli::exit::Failure;
use crate::discovery::{OAuth2Service, Provider, SignIn};
use crate::profile::NewPassword;

/// Says what has to be known before the first login; stops where a password is of no use.
pub(super) fn explain(
    provider: Option<&Provider>,
    sign_in: &[SignIn],
    person: &mut dyn Person,
) -> Result<(), Failure> {
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
        return Ok(());
    }
    let service = match provider.and_then(|provider| provider.oauth2) {
        Some(OAuth2Service::Google) => "Google",
        Some(OAuth2Service::Microsoft) => "Microsoft",
        None => "the provider",
    };
    if sign_in.iter().any(|way| *way != SignIn::OAuth2) {
        person.say(&format!("(Or sign in with {service} by OAuth2: `postrider auth login`.)"))?;
        return Ok(());
    }
    person.say(&format!("Signing in with {service} is done by `postrider auth login`."))?;
    match agrees(person, "Try a password all the same?", "no")? {
        true => Ok(()),
        false => Err(nothing_written(&oauth2_only(provider))),
    }
}

/// What is said where only OAuth2 would do.
pub(super) fn oauth2_only(provider: Option<&Provider>) -> String {
    let name = provider.map_or("this provider", |provider| provider.name.as_str());
    format!("{name} signs in by OAuth2 only; see `postrider auth login`")
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
        let kinds = ["command", "file", "environment", "type"];
        let kind = choose(person, "From a command, a file or the environment", &kinds, "command")?;
        let (question, make): (_, fn(String) -> NewPassword) = match kind {
            "command" => ("Command that prints the password", NewPassword::Command),
            "file" => ("File whose first line is the password", NewPassword::File),
            "environment" => ("Name of the variable", NewPassword::Env),
            _ => continue,
        };
        let answer = person.ask(question, "")?;
        if !answer.is_empty() {
            return Ok(make(answer));
        }
    }
}
