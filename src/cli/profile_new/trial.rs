//! Trying an account before it is written.

use std::time::Duration;

use async_trait::async_trait;

use super::account::{AccountPlan, ask_server_again};
use super::person::{Person, choose};
use super::{Helpers, MAILDIR, Target, certificate, nothing_written, sign_in, text};
use crate::cli::console::Console;
use crate::cli::exit::{Exit, Failure};
use crate::cli::text::one_line;
use crate::profile::{Profile, Protocol};
use crate::session::{CheckReport, Direction, check_profile};

/// How long one trial login may take: a person waits for it.
const PATIENCE: Duration = Duration::from_secs(90);

/// Tries logins.
#[async_trait]
pub(crate) trait Trial: Sync {
    /// Logs in to the servers of a profile.
    ///
    /// # Errors
    /// When the profile makes no sense.
    async fn check(&self, profile: &Profile) -> Result<Vec<CheckReport>, Failure>;
}

/// The servers themselves.
pub(crate) struct Servers;

#[async_trait]
impl Trial for Servers {
    async fn check(&self, profile: &Profile) -> Result<Vec<CheckReport>, Failure> {
        let reports = match tokio::time::timeout(PATIENCE, check_profile(profile)).await {
            Ok(reports) => reports,
            Err(_) => return Ok(late(profile)),
        };
        reports.map_err(|error| Failure::contract("check the profile", &error))
    }
}

/// What is told about servers that did not answer in time.
fn late(profile: &Profile) -> Vec<CheckReport> {
    let mut reports = Vec::new();
    for transport in &profile.transports {
        let smtp = transport.smtp.as_ref().map(|smtp| (Direction::Outbound, &smtp.server));
        let imap = transport.imap.as_ref().map(|imap| (Direction::Inbound, &imap.server));
        for (direction, server) in smtp.into_iter().chain(imap) {
            reports.push(CheckReport {
                transport: transport.name.clone(),
                direction,
                server: format!("{}:{}", server.host, server.port),
                ok: false,
                offers: Vec::new(),
                error: Some(format!("no answer within {} seconds", PATIENCE.as_secs())),
            });
        }
    }
    reports
}

/// Tries each server of a profile by itself, so that each answer can be shown when it comes.
pub(crate) async fn check_each(
    trial: &dyn Trial,
    profile: &Profile,
    mut begin: impl FnMut(&str) -> Result<(), Failure>,
    mut end: impl FnMut(&CheckReport) -> Result<(), Failure>,
) -> Result<Vec<CheckReport>, Failure> {
    let mut reports = Vec::new();
    for transport in &profile.transports {
        let mut halves = Vec::new();
        if let Some(smtp) = &transport.smtp {
            let server = format!("sends with {}:{}", smtp.server.host, smtp.server.port);
            halves.push((server, Half::Smtp));
        }
        if let Some(imap) = &transport.imap {
            let server = format!("receives from {}:{}", imap.server.host, imap.server.port);
            halves.push((server, Half::Imap));
        }
        for (server, half) in halves {
            begin(&server)?;
            let mut one = transport.clone();
            match half {
                Half::Smtp => one.imap = None,
                Half::Imap => one.smtp = None,
            }
            let part = Profile { transports: vec![one], ..profile.clone() };
            for report in trial.check(&part).await? {
                end(&report)?;
                reports.push(report);
            }
        }
    }
    Ok(reports)
}

enum Half {
    Smtp,
    Imap,
}

/// Tries the account, and lets a person change it until it works or is wanted as it is.
pub(super) async fn until_content(
    helpers: &mut Helpers<'_>,
    console: &mut Console<'_>,
    target: &Target,
    transport: &str,
    plan: &mut AccountPlan,
) -> Result<(), Failure> {
    loop {
        let profile = helpers.catalog.parse(target.profile(), &trial_text(target, transport, plan));
        let failed = match (profile, &mut helpers.person) {
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(person)) => {
                person.say(&format!("  {}: {}", error.key, one_line(&error.why)))?;
                if error.key.ends_with("ca_file") { Doubt::Certificate } else { Doubt::Servers }
            }
            (Ok(profile), None) => return alone(helpers.trial, console, &profile, plan).await,
            (Ok(profile), Some(person)) => {
                person.say("")?;
                let shown = std::cell::RefCell::new(&mut **person);
                let begin =
                    |server: &str| shown.borrow_mut().begin(&format!("Testing: {server} ... "));
                let end = |report: &CheckReport| {
                    let (verdict, why) = verdict(report);
                    shown.borrow_mut().say(verdict)?;
                    why.map_or(Ok(()), |why| shown.borrow_mut().say(&format!("  {why}")))
                };
                let reports = check_each(helpers.trial, &profile, begin, end).await?;
                match doubt(&reports) {
                    None => {
                        plan.tried = true;
                        return Ok(());
                    }
                    Some(doubt) => doubt,
                }
            }
        };
        let Some(person) = &mut helpers.person else { return Ok(()) };
        match what_now(failed, plan, *person)? {
            Next::Again => {}
            Next::Write => return Ok(()),
        }
    }
}

/// A profile with the account alone, as if the password stood in it.
fn trial_text(target: &Target, transport: &str, plan: &AccountPlan) -> zeroize::Zeroizing<String> {
    let alone = Target::New { profile: target.profile().clone(), default: false };
    text(&alone, plan.transport(transport), MAILDIR)
}

/// Without a person: all or nothing.
async fn alone(
    trial: &dyn Trial,
    console: &mut Console<'_>,
    profile: &Profile,
    plan: &mut AccountPlan,
) -> Result<(), Failure> {
    let reports = check_each(trial, profile, |_| Ok(()), |_| Ok(())).await?;
    for report in &reports {
        let direction = match report.direction {
            Direction::Inbound => "receives from",
            Direction::Outbound => "sends with",
            Direction::Delivery => "delivers to",
        };
        let (verdict, why) = verdict(report);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        console.note(format_args!("{direction} {}: {verdict}{why}", report.server));
    }
    match reports.iter().all(|report| report.ok) {
        true => {
            plan.tried = true;
            Ok(())
        }
        false => Err(Failure::new(
            Exit::Negative,
            "a trial login failed; nothing was written (without --check it is written untried)",
        )),
    }
}

/// How it went, and why it went wrong.
fn verdict(report: &CheckReport) -> (&'static str, Option<String>) {
    let why = report.error.as_deref().map(|error| {
        let words = error.split_once(": ").filter(|(code, _)| code.starts_with("MAPI_"));
        one_line(words.map_or(error, |(_, words)| words))
    });
    (if report.ok { "ok" } else { "failed" }, why)
}

/// What most probably has to be changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Password,
    Certificate,
    Servers,
    Network,
}

fn doubt(reports: &[CheckReport]) -> Option<Doubt> {
    let failed = reports.iter().filter(|report| !report.ok);
    let doubts = failed.map(|report| {
        let error = report.error.as_deref().unwrap_or_default();
        if error.contains("certificate is signed by nobody") || error.contains("fingerprint") {
            Doubt::Certificate
        } else if error.starts_with("MAPI_E_LOGON_FAILED") || error.starts_with("MAPI_E_NO_ACCESS")
        {
            Doubt::Password
        } else if error.contains("the network") {
            Doubt::Network
        } else {
            Doubt::Servers
        }
    });
    // The certificate comes before the login, and both before what else there is.
    let order = [Doubt::Certificate, Doubt::Servers, Doubt::Network, Doubt::Password];
    let doubts: Vec<Doubt> = doubts.collect();
    order.into_iter().find(|doubt| doubts.contains(doubt))
}

enum Next {
    Again,
    Write,
}

fn what_now(
    doubt: Doubt,
    plan: &mut AccountPlan,
    person: &mut dyn Person,
) -> Result<Next, Failure> {
    let suggestion = match doubt {
        Doubt::Password => "password",
        Doubt::Certificate => "certificate",
        Doubt::Servers => "servers",
        Doubt::Network => "again",
    };
    if doubt == Doubt::Password
        && let Some(provider) = plan.provider
        && let Some(help) = &provider.help
    {
        person.say(&format!("  About the password {} wants: {help}", provider.name))?;
    }
    let choices = ["again", "password", "user", "servers", "certificate", "write", "quit"];
    match choose(person, "What now", &choices, suggestion)? {
        "password" => {
            let user = plan.user().unwrap_or_default().to_owned();
            plan.password = Some(sign_in::ask_password(&user, person)?);
        }
        "user" => {
            let before = plan.user().unwrap_or(&plan.identity.address).to_owned();
            let user = person.ask("User name (- for no login)", &before)?;
            plan.set_user(Some(user.as_str()).filter(|user| *user != "-"));
            if !plan.wants_login() {
                plan.password = None;
            }
        }
        "servers" => {
            for protocol in [Protocol::Smtp, Protocol::Imap] {
                if plan.server(protocol).is_some() {
                    ask_server_again(plan, protocol, person)?;
                }
            }
            if plan.smtp.is_none() && plan.imap.is_none() {
                return Err(nothing_written("no server is left"));
            }
        }
        "certificate" => plan.trust = certificate::ask(person)?,
        "write" => return Ok(Next::Write),
        "quit" => return Err(nothing_written("as you wish")),
        _ => {}
    }
    Ok(Next::Again)
}
