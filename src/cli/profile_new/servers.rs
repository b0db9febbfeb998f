//! Finding the servers, and asking for them where none are found.

use super::account::ask_use;
use super::person::{Person, agrees};
use crate::cli::exit::Failure;
use crate::discovery::{Discoverer, MailDomain, Origin, Proposal, Provider, SignIn};
use crate::net::TlsMode;
use crate::profile::{Protocol, ServerUrl, host_name, is_loopback};

/// Servers of an account, and what is known about them.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) smtp: Option<ServerUrl>,
    pub(super) imap: Option<ServerUrl>,
    pub(super) provider: Option<&'static Provider>,
    pub(super) sign_in: Vec<SignIn>,
}

impl From<Proposal> for Found {
    fn from(proposal: Proposal) -> Self {
        let Proposal { smtp, imap, provider, sign_in, .. } = proposal;
        Found { smtp, imap, provider, sign_in }
    }
}

/// Looks for the servers and shows them; `None` when there are none or they are not wanted.
pub(super) async fn find(
    discoverer: &Discoverer,
    domain: &MailDomain,
    person: &mut dyn Person,
) -> Result<Option<Found>, Failure> {
    person.say(&format!("Looking for the servers of {} ...", domain.domain()))?;
    let found = discoverer.find(domain).await;
    if found.proposal.is_none() {
        for trouble in &found.troubles {
            person.say(&format!("  {}: {}", trouble.asked, trouble.why))?;
        }
        person.say("  None were found; please name them.")?;
    }
    match found.proposal {
        Some(proposal) => confirm(proposal, domain, person),
        None => Ok(None),
    }
}

/// Shows servers and asks whether they are to be used.
pub(super) fn confirm(
    proposal: Proposal,
    domain: &MailDomain,
    person: &mut dyn Person,
) -> Result<Option<Found>, Failure> {
    let from = match (&proposal.origin, proposal.provider) {
        (Origin::Table, Some(provider)) => provider.name.clone(),
        (origin, Some(provider)) => format!("{} ({origin})", provider.name),
        (origin, None) => format!("Found by {origin}"),
    };
    person.say(&format!("{from}:"))?;
    for (what, server) in [("send with", &proposal.smtp), ("receive from", &proposal.imap)] {
        if let Some(server) = server {
            person.say(&format!("  {what:<13}{}", place(server)))?;
        }
    }
    let users: Vec<&str> = [&proposal.smtp, &proposal.imap]
        .into_iter()
        .flatten()
        .filter_map(|server| server.user.as_deref())
        .collect();
    match users.as_slice() {
        [one, other] if one != other => person.say(&format!("  user         {one}; {other}"))?,
        [one, ..] => person.say(&format!("  user         {one}"))?,
        [] => {}
    }
    for remark in &proposal.remarks {
        person.say(&format!("  note: {remark}"))?;
    }
    let outside = proposal.hosts_to_confirm(domain);
    if !outside.is_empty() {
        let hosts = outside.join(" and ");
        person.say(&format!("  {hosts}: outside of {}. Your password would", domain.domain()))?;
        person.say("  go there, and only unsigned DNS records say so.")?;
        if !agrees(person, "Do you know that this is right?", "no")? {
            return Ok(None);
        }
    }
    let mut found = Found::from(proposal);
    let both = found.smtp.is_some() && found.imap.is_some();
    let choice = if both {
        ask_use(person)?
    } else if agrees(person, "Use it?", "yes")? {
        "yes"
    } else {
        "others"
    };
    match choice {
        "send-only" => found.imap = None,
        "receive-only" => found.smtp = None,
        "yes" => {}
        _ => return Ok(None),
    }
    Ok(Some(found))
}

/// A server for people: `smtp.example.org, port 465, TLS`.
pub(super) fn place(server: &ServerUrl) -> String {
    let tls = match server.tls {
        TlsMode::Implicit => "TLS",
        TlsMode::StartTls => "STARTTLS",
        TlsMode::Plain => "not encrypted",
    };
    format!("{}, port {}, {tls}", server.host, server.port())
}

/// Asks for both servers.
pub(super) fn ask(address: &str, person: &mut dyn Person) -> Result<Found, Failure> {
    let domain = address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let guess = |service: &str| match domain.contains('.') {
        true => format!("{service}.{domain}"),
        false => domain.to_owned(),
    };
    let mut smtp = ask_one(Protocol::Smtp, &guess("smtp"), None, person)?;
    let mut imap = ask_one(Protocol::Imap, &guess("imap"), None, person)?;
    let servers = || smtp.iter().chain(&imap);
    let asked = servers().any(|server| server.user.is_none());
    if asked && servers().next().is_some() {
        let user = person.ask("User name (- for no login)", address)?;
        let user = Some(user).filter(|user| user != "-");
        for server in smtp.iter_mut().chain(&mut imap) {
            server.user = server.user.take().or_else(|| user.clone());
        }
    }
    let (provider, sign_in) = (None, Vec::new());
    Ok(Found { smtp, imap, provider, sign_in })
}

/// Asks for one server; `-` stands for none.
pub(super) fn ask_one(
    protocol: Protocol,
    suggestion: &str,
    user: Option<&str>,
    person: &mut dyn Person,
) -> Result<Option<ServerUrl>, Failure> {
    let question = match protocol {
        Protocol::Smtp => "Server to send with (host, host:port or URL; - for none)",
        Protocol::Imap => "Server to receive from (host, host:port or URL; - for none)",
    };
    loop {
        let answer = person.ask(question, suggestion)?;
        if answer == "-" {
            return Ok(None);
        }
        match read_server(&answer, protocol) {
            Ok(mut server) => {
                server.user = server.user.or_else(|| user.map(str::to_owned));
                return Ok(Some(server));
            }
            Err(why) => person.say(&format!("  {why}"))?,
        }
    }
}

/// Reads a URL, or a host with or without a port. What protects the connection follows from the
/// port; a port that is not usual is taken for TLS from the first byte.
fn read_server(text: &str, protocol: Protocol) -> Result<ServerUrl, String> {
    if text.contains("://") {
        let server: ServerUrl = text.parse()?;
        return match server.protocol == protocol {
            true => Ok(server),
            false => Err("that is the other direction's server".to_owned()),
        };
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let wrong = || "this cannot be a host, host:port or URL".to_owned();
    let host = host_name(host).map_err(|_| wrong())?.to_owned();
    let port =
        port.map(|port| port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong));
    let port = port.transpose()?;
    let tls = match (protocol, port) {
        (Protocol::Smtp, Some(587)) | (Protocol::Imap, Some(143)) => TlsMode::StartTls,
        // Port 25 of this machine is its own mail system; elsewhere it offers STARTTLS.
        (Protocol::Smtp, Some(25)) if is_loopback(&host) => TlsMode::Plain,
        (Protocol::Smtp, Some(25)) => TlsMode::StartTls,
        _ => TlsMode::Implicit,
    };
    Ok(ServerUrl { protocol, tls, user: None, host, port })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn people_write_servers_in_many_ways() {
        for (text, protocol, wanted) in [
            ("smtp.example.org", Protocol::Smtp, "smtps://smtp.example.org"),
            ("smtp.example.org:587", Protocol::Smtp, "smtp+starttls://smtp.example.org:587"),
            ("smtp.example.org:465", Protocol::Smtp, "smtps://smtp.example.org:465"),
            ("localhost:25", Protocol::Smtp, "smtp://localhost:25"),
            ("relay.lan:25", Protocol::Smtp, "smtp+starttls://relay.lan:25"),
            ("imap.example.org:143", Protocol::Imap, "imap+starttls://imap.example.org:143"),
            ("imap.example.org", Protocol::Imap, "imaps://imap.example.org"),
            ("::1", Protocol::Imap, "imaps://[::1]"),
            ("smtp://ann@localhost:2525", Protocol::Smtp, "smtp://ann@localhost:2525"),
        ] {
            assert_eq!(read_server(text, protocol).unwrap().to_string(), wanted, "{text}");
        }
        for text in ["", "a b", "h:0", "h:x", "ann@h", "imaps://h"] {
            assert!(read_server(text, Protocol::Smtp).is_err(), "{text}");
        }
    }
}
