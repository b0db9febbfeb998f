//! One `[[transport]]` of a profile.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{parse_address, parse_mailbox};
use super::load::{Surroundings, parse_duration};
use super::oauth2_table::read_oauth2;
use super::reader::{Found, Item, TableReader, TextOrTable};
use super::server_table::{LoginParts, check_cleartext, host_name, read_login_parts, read_server};
use super::{
    AfterProfile, ImapProfile, Login, Password, RewriteProfile, SmtpProfile, TransportProfile,
};
use crate::net::Server;

/// The mechanisms a login can be asked to use.
const PASSWORD_MECHANISMS: [&str; 5] =
    ["scram-sha-256-plus", "scram-sha-256", "plain", "login", "cram-md5"];

/// The mechanisms that show a token.
const TOKEN_MECHANISMS: [&str; 2] = ["oauthbearer", "xoauth2"];

/// The login by the certificate of the TLS handshake.
const EXTERNAL: &str = "external";

/// Most hosts that can stand in for the first one.
const MOST_FALLBACKS: usize = 8;

const DEFAULT_POLL: Duration = Duration::from_secs(60);

pub(super) fn read_transport<'a>(
    mut table: TableReader<'a>,
    surroundings: &Surroundings<'_>,
) -> Found<(Item<&'a str>, TransportProfile)> {
    let Some(name) = table.text("name")? else {
        return Err(table.missing("name", "write name = \"work\" or whatever you call it"));
    };
    let name = name.read(transport_name)?;
    let Some(identity) = table.text("identity")? else {
        let example = "write identity = \"Ann Example <ann@example.org>\"";
        return Err(table.missing("identity", example));
    };
    let identity = identity.read(parse_mailbox)?.value;
    let aliases = table.texts("aliases")?.map(|list| list.value).unwrap_or_default();
    let aliases = aliases.into_iter().map(|alias| Ok(alias.read(parse_address)?.value));
    let aliases = aliases.collect::<Found<Vec<_>>>()?;
    let rewrite = read_rewrite(&mut table)?;
    let oauth2 = table.table("oauth2")?.map(|oauth2| read_oauth2(oauth2, surroundings));
    let oauth2 = oauth2.transpose()?;
    // Who signs in by OAuth 2.0 is known by the address.
    let signs_in = oauth2.is_some().then_some(identity.address.as_str());
    let smtp = table.table("smtp")?.map(|smtp| read_smtp(smtp, signs_in, surroundings));
    let smtp = smtp.transpose()?;
    let smtp_login = smtp.as_ref().and_then(|smtp| smtp.login.as_ref());
    let imap = table.table("imap")?.map(|imap| read_imap(imap, smtp_login, signs_in, surroundings));
    let imap = imap.transpose()?;
    if smtp.is_none() && imap.is_none() {
        return Err(table.problem(
            "the transport does nothing; write [transport.smtp] to send, [transport.imap] to \
             receive, or both",
        ));
    }
    table.finish()?;
    let name_of = name.value.to_owned();
    let transport =
        TransportProfile { name: name_of, identity, aliases, rewrite, smtp, imap, oauth2 };
    Ok((name, transport))
}

fn read_rewrite(table: &mut TableReader<'_>) -> Found<RewriteProfile> {
    let Some(rewrite) = table.text("rewrite")? else { return Ok(RewriteProfile::default()) };
    let rewrite = rewrite.read(|text| match text {
        "local" => Ok(RewriteProfile::Local),
        "all" => Ok(RewriteProfile::All),
        "never" => Ok(RewriteProfile::Never),
        _ => Err("it must be \"local\", \"all\" or \"never\""),
    })?;
    Ok(rewrite.value)
}

fn transport_name(name: &str) -> Result<&str, &'static str> {
    let sensible = (1..=64).contains(&name.len()) && !name.chars().any(char::is_control);
    if sensible { Ok(name) } else { Err("it must have 1 to 64 bytes and no control characters") }
}

fn read_smtp(
    mut table: TableReader<'_>,
    signs_in: Option<&str>,
    surroundings: &Surroundings<'_>,
) -> Found<SmtpProfile> {
    let server = read_server(&mut table, surroundings, smtp_port)?;
    let parts = read_login_parts(&mut table, surroundings)?;
    let external = wants_external(&mut table, &server.value, &parts)?;
    let login = match (parts.user, parts.password) {
        (user, None) if external => {
            let user = user.map(|user| user.value).unwrap_or_default();
            Some(Login { user, password: Password::Certificate })
        }
        (Some(user), Some(password)) => Some(Login { user: user.value, password: password.value }),
        (user, None) if signs_in.is_some() => {
            let user = user.map(|user| user.value).or_else(|| signs_in.map(str::to_owned));
            user.map(|user| Login { user, password: Password::SignIn })
        }
        (None, None) => None,
        (Some(_), None) => {
            let example = "write password = { command = \"...\" } or leave out user";
            return Err(table.missing("password", example));
        }
        (None, Some(_)) => return Err(table.missing("user", "a password needs a user")),
    };
    check_cleartext(&mut table, &server, login.is_some())?;
    let auth = read_auth(&mut table, login.as_ref())?;
    let fallback = read_fallback(&mut table, &server.value, login.is_some())?;
    let profile = SmtpProfile {
        server: server.value,
        login,
        auth,
        connections: read_connections(&mut table)?,
        fallback,
        messages_per_minute: read_limit(&mut table, "messages_per_minute", 10_000)?,
        recipients_per_message: read_limit(&mut table, "recipients_per_message", 100)?,
    };
    table.finish()?;
    Ok(profile)
}

/// The hosts for when the first one is out of reach. What is demanded of the first one is demanded
/// of each: in particular, no password goes to one of them unprotected.
fn read_fallback(
    table: &mut TableReader<'_>,
    first: &Server,
    has_login: bool,
) -> Found<Vec<Server>> {
    let Some(list) = table.texts("fallback")? else { return Ok(Vec::new()) };
    if list.value.len() > MOST_FALLBACKS {
        return Err(list.problem(format!("it must name at most {MOST_FALLBACKS} hosts")));
    }
    let mut servers = vec![first.clone()];
    for item in list.value {
        let server = item.read(|text| {
            let server = first.beside(text)?;
            host_name(&server.host)?;
            Ok::<_, String>(server)
        })?;
        if servers.contains(&server.value) {
            return Err(server.problem(format!("{} is there twice", server.value.place())));
        }
        check_cleartext(table, &server, has_login)?;
        servers.push(server.value);
    }
    servers.remove(0);
    Ok(servers)
}

fn read_limit(table: &mut TableReader<'_>, key: &'static str, most: u64) -> Found<Option<u64>> {
    let Some(number) = table.number(key)? else { return Ok(None) };
    let allowed = |number: u64| match (1..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("it must be between 1 and {most}")),
    };
    Ok(Some(number.read(allowed)?.value))
}

pub(super) fn smtp_port(tls: crate::net::TlsMode) -> u16 {
    match tls {
        crate::net::TlsMode::Implicit => 465,
        crate::net::TlsMode::StartTls => 587,
        crate::net::TlsMode::Plain => 25,
    }
}

pub(super) fn imap_port(tls: crate::net::TlsMode) -> u16 {
    match tls {
        crate::net::TlsMode::Implicit => 993,
        crate::net::TlsMode::StartTls | crate::net::TlsMode::Plain => 143,
    }
}

fn read_imap(
    mut table: TableReader<'_>,
    smtp_login: Option<&Login>,
    signs_in: Option<&str>,
    surroundings: &Surroundings<'_>,
) -> Found<ImapProfile> {
    let server = read_server(&mut table, surroundings, imap_port)?;
    let parts = read_login_parts(&mut table, surroundings)?;
    let external = wants_external(&mut table, &server.value, &parts)?;
    // A certificate is each server's own affair.
    let smtp_login =
        smtp_login.filter(|login| !external && !matches!(login.password, Password::Certificate));
    let user = parts.user.map(|user| user.value).or_else(|| external.then(String::new));
    let password = parts.password.map(|password| password.value);
    let password = password.or_else(|| external.then_some(Password::Certificate));
    let password = password.or_else(|| signs_in.map(|_| Password::SignIn));
    let user = user.or_else(|| smtp_login.map(|login| login.user.clone()));
    let Some(user) = user.or_else(|| signs_in.map(str::to_owned)) else {
        return Err(table.missing("user", "receiving needs a user and a password"));
    };
    let Some(password) = password.or_else(|| smtp_login.map(|login| login.password.clone())) else {
        return Err(table.missing("password", "write password = { command = \"...\" }"));
    };
    check_cleartext(&mut table, &server, true)?;
    let login = Login { user, password };
    let auth = read_auth(&mut table, Some(&login))?;
    let poll_interval = match table.text("poll_interval")? {
        Some(text) => text.read(poll_interval)?.value,
        None => DEFAULT_POLL,
    };
    let profile = ImapProfile {
        server: server.value,
        login,
        auth,
        mailboxes: read_mailboxes(&mut table)?,
        push: table.switch("push")?.unwrap_or(true),
        poll_interval,
        after: read_after(&mut table)?,
        connections: read_connections(&mut table)?,
        sent_mailbox: read_sent_mailbox(&mut table)?,
        saves_sent: table.switch("saves_sent")?,
        compress: table.switch("compress")?,
    };
    table.finish()?;
    Ok(profile)
}

fn read_sent_mailbox(table: &mut TableReader<'_>) -> Found<Option<String>> {
    let Some(name) = table.text("sent_mailbox")? else { return Ok(None) };
    Ok(Some(name.read(mailbox_name)?.value.to_owned()))
}

fn poll_interval(text: &str) -> Result<Duration, &'static str> {
    let duration = parse_duration(text)?;
    let second = Duration::from_secs(1);
    if duration < second { Err("it must be at least \"1s\"") } else { Ok(duration) }
}

fn read_mailboxes(table: &mut TableReader<'_>) -> Found<Vec<String>> {
    let Some(list) = table.texts("mailboxes")? else { return Ok(vec!["INBOX".to_owned()]) };
    if list.value.is_empty() {
        return Err(list.problem("it names no mailbox; write [\"INBOX\"] or leave it out"));
    }
    let mut mailboxes: Vec<String> = Vec::new();
    for item in list.value {
        let item = item.read(mailbox_name)?;
        let inbox = item.value.eq_ignore_ascii_case("INBOX");
        let name = if inbox { "INBOX" } else { item.value };
        if mailboxes.iter().any(|other| other == name) {
            return Err(item.problem(format!("the mailbox {name} is there twice")));
        }
        mailboxes.push(name.to_owned());
    }
    Ok(mailboxes)
}

fn mailbox_name(name: &str) -> Result<&str, &'static str> {
    let sensible = (1..=1000).contains(&name.len()) && !name.chars().any(char::is_control);
    if sensible { Ok(name) } else { Err("it must be a mailbox name without control characters") }
}

fn read_after(table: &mut TableReader<'_>) -> Found<AfterProfile> {
    let wrong = "it must be \"keep\", \"seen\", \"delete\" or { move = \"Archive\" }";
    match table.text_or_table("after", wrong)? {
        None => Ok(AfterProfile::Keep),
        Some(TextOrTable::Text(text)) => Ok(text
            .read(|text| match text {
                "keep" => Ok(AfterProfile::Keep),
                "seen" => Ok(AfterProfile::Seen),
                "delete" => Ok(AfterProfile::Delete),
                _ => Err(wrong),
            })?
            .value),
        Some(TextOrTable::Table(place, mut inner)) => {
            let mailbox = inner.text("move")?;
            inner.finish()?;
            let mailbox = mailbox.ok_or_else(|| place.problem(wrong))?;
            Ok(AfterProfile::Move(mailbox.read(mailbox_name)?.value.to_owned()))
        }
    }
}

/// Whether the certificate that is shown is the login.
fn wants_external(table: &mut TableReader<'_>, server: &Server, parts: &LoginParts) -> Found<bool> {
    let Some(auth) = table.text("auth")? else { return Ok(false) };
    if !auth.value.eq_ignore_ascii_case(EXTERNAL) {
        return Ok(false);
    }
    if server.client.is_none() {
        return Err(auth.problem("external needs client_cert and client_key"));
    }
    match &parts.password {
        None => Ok(true),
        Some(password) => Err(password.problem("with auth = \"external\" there is no password")),
    }
}

/// The mechanism to use. A token may also be what a password command prints.
fn read_auth(table: &mut TableReader<'_>, login: Option<&Login>) -> Found<Option<String>> {
    let Some(auth) = table.text("auth")? else { return Ok(None) };
    let signs_in = login.is_some_and(|login| matches!(login.password, Password::SignIn));
    let auth = auth.read(|text| {
        let lower = text.to_ascii_lowercase();
        let known = |all: &[&str]| all.contains(&lower.as_str());
        if lower == EXTERNAL {
            // Looked at with the login.
            return Ok(lower);
        }
        match (known(&TOKEN_MECHANISMS), known(&PASSWORD_MECHANISMS)) {
            (true, _) => Ok(lower),
            (_, true) if !signs_in => Ok(lower),
            (_, true) => Err("the account signs in by [transport.oauth2]; possible are \
                              oauthbearer and xoauth2"
                .to_owned()),
            _ => Err(format!(
                "possible are {}, {} and {EXTERNAL}",
                PASSWORD_MECHANISMS.join(", "),
                TOKEN_MECHANISMS.join(", "),
            )),
        }
    })?;
    Ok(Some(auth.value))
}

fn read_connections(table: &mut TableReader<'_>) -> Found<Option<u64>> {
    let Some(number) = table.number("connections")? else { return Ok(None) };
    let allowed = |number: &u64| (1..=100).contains(number);
    let wrong = "it must be between 1 and 100";
    Ok(Some(number.read(|number| Some(number).filter(allowed).ok_or(wrong))?.value))
}

/// A path of the profile: `~` and variables expanded, relative to the profile's folder.
pub(super) fn profile_path(text: &str, at: &Surroundings<'_>) -> Result<PathBuf, String> {
    Ok(at.folder.join(at.environment.expand(text)?))
}
