//! The configuration file of a domain, as Thunderbird and others read it
//! (`config-v1.1.xml`; draft-ietf-mailmaint-autoconfig).

use std::fmt;

use roxmltree::{Document, Node};

use super::proposal::{MailDomain, Origin, Proposal, SignIn};
use crate::net::TlsMode;
use crate::profile::{Protocol, ServerUrl, host_name, is_loopback};

/// The largest file that is read, in bytes.
pub(super) const LARGEST_FILE: usize = 256 * 1024;

/// Most nodes of a file; real ones have a few hundred.
const MOST_NODES: u32 = 20_000;

/// Why a configuration file is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AutoconfigError {
    /// It is not XML, or it is too large; with the reason.
    NotXml(String),
    /// It is XML of another kind.
    NotAutoconfig,
    /// It names no server that can be used; with the reason.
    NoServer(String),
}

impl fmt::Display for AutoconfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AutoconfigError::NotXml(why) => write!(f, "it cannot be read: {why}"),
            AutoconfigError::NotAutoconfig => f.write_str("it is no mail configuration"),
            AutoconfigError::NoServer(why) => {
                write!(f, "it names no server that can be used: {why}")
            }
        }
    }
}

impl std::error::Error for AutoconfigError {}

/// Reads a configuration file for an address. Of several servers the first that is protected by
/// TLS is taken, because the file lists them in the order of the provider's choice; one without
/// TLS only on this machine.
///
/// # Errors
/// [`AutoconfigError`], when neither direction is left.
pub fn read_autoconfig(
    bytes: &[u8],
    address: &MailDomain,
    origin: Origin,
) -> Result<Proposal, AutoconfigError> {
    if bytes.len() > LARGEST_FILE {
        return Err(AutoconfigError::NotXml("it is too large".to_owned()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| AutoconfigError::NotXml("it is not UTF-8".to_owned()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Without DTDs no entity can grow.
    let options = roxmltree::ParsingOptions {
        nodes_limit: MOST_NODES,
        ..roxmltree::ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| AutoconfigError::NotXml(crate::net::for_people(&error.to_string())))?;
    let root = document.root_element();
    if !root.has_tag_name("clientConfig") {
        return Err(AutoconfigError::NotAutoconfig);
    }
    let provider = children(root, "emailProvider").next().ok_or(AutoconfigError::NotAutoconfig)?;
    let mut proposal = Proposal::empty(origin);
    let imap = children(provider, "incomingServer").filter(|node| is_type(node, "imap"));
    let smtp = children(provider, "outgoingServer").filter(|node| is_type(node, "smtp"));
    let mut refused = Vec::new();
    let imap = first_usable(imap, Protocol::Imap, address, &mut refused);
    let smtp = first_usable(smtp, Protocol::Smtp, address, &mut refused);
    if let Some((server, sign_in)) = imap {
        proposal.imap = Some(server);
        proposal.sign_in = sign_in;
    } else if children(provider, "incomingServer").any(|node| is_type(&node, "pop3")) {
        proposal.remarks.push("mail is offered by POP3 too, which is not used here".to_owned());
    }
    if let Some((server, sign_in)) = smtp {
        if server.user.is_none() {
            proposal.remarks.push(format!("{} wants no login", server.host));
        }
        proposal.smtp = Some(server);
        if proposal.sign_in.is_empty() {
            proposal.sign_in = sign_in;
        }
    }
    if proposal.is_empty() {
        let why = if refused.is_empty() {
            "there is neither IMAP nor SMTP in it".to_owned()
        } else {
            refused.join("; ")
        };
        return Err(AutoconfigError::NoServer(why));
    }
    let pages = provider.descendants().filter(|node| node.has_tag_name("documentation"));
    let page = pages.filter_map(|node| node.attribute("url")).find(|url| is_page(url));
    if let Some(page) = page {
        proposal.remarks.push(format!("the provider explains its settings at {page}"));
    }
    proposal.recognise();
    Ok(proposal)
}

fn children<'a, 'i: 'a>(
    node: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

fn is_type(node: &Node<'_, '_>, name: &str) -> bool {
    node.attribute("type").is_some_and(|kind| kind.eq_ignore_ascii_case(name))
}

fn text_of<'a>(node: Node<'a, '_>, name: &'static str) -> Option<&'a str> {
    let child = node.children().find(|child| child.has_tag_name(name))?;
    child.text().map(str::trim).filter(|text| !text.is_empty())
}

fn is_page(url: &str) -> bool {
    url.len() <= 300
        && url.starts_with("https://")
        && !url.contains(|c: char| c.is_control() || c.is_whitespace())
}

fn first_usable<'a, 'i: 'a>(
    nodes: impl Iterator<Item = Node<'a, 'i>>,
    protocol: Protocol,
    address: &MailDomain,
    refused: &mut Vec<String>,
) -> Option<(ServerUrl, Vec<SignIn>)> {
    for node in nodes.take(20) {
        match usable(node, protocol, address) {
            Ok(found) => return Some(found),
            Err(why) => refused.push(why),
        }
    }
    None
}

fn usable(
    node: Node<'_, '_>,
    protocol: Protocol,
    address: &MailDomain,
) -> Result<(ServerUrl, Vec<SignIn>), String> {
    let host = filled(text_of(node, "hostname").ok_or("a server has no name")?, address);
    let host = host_name(&host).map_err(|_| "the name of a server cannot be".to_owned())?;
    let host = host.to_ascii_lowercase();
    let port = text_of(node, "port").and_then(|port| port.parse::<u16>().ok());
    let port = port.filter(|port| *port != 0).ok_or_else(|| format!("{host} has no port"))?;
    let tls = match text_of(node, "socketType").unwrap_or_default().to_ascii_uppercase().as_str() {
        "SSL" | "TLS" => TlsMode::Implicit,
        "STARTTLS" => TlsMode::StartTls,
        _ if is_loopback(&host) => TlsMode::Plain,
        _ => return Err(format!("{host} is offered without TLS")),
    };
    let methods: Vec<&str> =
        children(node, "authentication").filter_map(|child| child.text()).map(str::trim).collect();
    let sign_in: Vec<SignIn> = methods.iter().filter_map(|method| sign_in(method)).collect();
    let no_login = methods.iter().any(|method| matches!(*method, "none" | "client-IP-address"));
    if sign_in.is_empty() && !methods.is_empty() && !(no_login && protocol == Protocol::Smtp) {
        return Err(format!("{host} wants {}", crate::net::for_people(&methods.join(", "))));
    }
    let user = (!sign_in.is_empty() || methods.is_empty()).then(|| {
        let user = text_of(node, "username").map(|user| filled(user, address));
        user.filter(|user| user.len() <= 1000 && !user.chars().any(char::is_control))
            .unwrap_or_else(|| address.address().to_owned())
    });
    Ok((ServerUrl { protocol, tls, user, host, port: Some(port) }, preferred(sign_in)))
}

/// What a method of the file means here; `None` for one that is not spoken.
fn sign_in(method: &str) -> Option<SignIn> {
    match method {
        "password-cleartext" | "plain" => Some(SignIn::Password),
        "OAuth2" => Some(SignIn::OAuth2),
        _ => None,
    }
}

/// The password first, where there is one: it needs no registration with the provider.
fn preferred(mut sign_in: Vec<SignIn>) -> Vec<SignIn> {
    sign_in.sort_by_key(|way| matches!(way, SignIn::OAuth2));
    sign_in.dedup();
    sign_in
}

/// A value with its placeholders filled in.
fn filled(text: &str, address: &MailDomain) -> String {
    text.replace("%EMAILADDRESS%", address.address())
        .replace("%EMAILLOCALPART%", address.local_part())
        .replace("%EMAILDOMAIN%", address.domain())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(servers: &str) -> Result<Proposal, AutoconfigError> {
        let text = format!(
            "<?xml version=\"1.0\"?>\n<clientConfig version=\"1.1\"><emailProvider id=\"x\">\
             <domain>example.org</domain>{servers}</emailProvider></clientConfig>"
        );
        let ann = MailDomain::of("ann@example.org").unwrap();
        read_autoconfig(text.as_bytes(), &ann, Origin::File("x.xml".into()))
    }

    fn server(tag: &str, kind: &str, host: &str, port: &str, socket: &str, auth: &str) -> String {
        format!(
            "<{tag} type=\"{kind}\"><hostname>{host}</hostname><port>{port}</port>\
             <socketType>{socket}</socketType><username>%EMAILLOCALPART%</username>\
             <authentication>{auth}</authentication></{tag}>"
        )
    }

    fn incoming(host: &str, port: &str, socket: &str) -> String {
        server("incomingServer", "imap", host, port, socket, "password-cleartext")
    }

    fn outgoing(host: &str, port: &str, socket: &str, auth: &str) -> String {
        server("outgoingServer", "smtp", host, port, socket, auth)
    }

    #[test]
    fn servers_users_and_sign_in_are_read() {
        let found = read(&format!(
            "{}{}<documentation url=\"https://help.example.org/mail\"/>",
            incoming("imap.%EMAILDOMAIN%", "993", "SSL"),
            outgoing(
                "smtp.example.org",
                "587",
                "STARTTLS",
                "OAuth2</authentication>\
                 <authentication>password-cleartext"
            ),
        ))
        .unwrap();
        assert_eq!(found.imap.unwrap().to_string(), "imaps://ann@imap.example.org:993");
        assert_eq!(found.smtp.unwrap().to_string(), "smtp+starttls://ann@smtp.example.org:587");
        assert_eq!(found.sign_in, [SignIn::Password]);
        assert!(found.remarks.iter().any(|line| line.contains("help.example.org")));
    }

    #[test]
    fn what_is_not_protected_is_passed_over() {
        let both = incoming("a.example.org", "143", "plain")
            + &incoming("b.example.org", "143", "STARTTLS");
        assert_eq!(read(&both).unwrap().imap.unwrap().host, "b.example.org");
        let why = read(&incoming("a.example.org", "143", "plain")).unwrap_err().to_string();
        assert!(why.contains("without TLS"), "{why}");
        assert_eq!(
            read(&incoming("127.0.0.1", "143", "plain")).unwrap().imap.unwrap().tls,
            TlsMode::Plain
        );
    }

    #[test]
    fn ways_to_sign_in_that_are_not_spoken_are_passed_over() {
        let why = read(&outgoing("a.example.org", "465", "SSL", "NTLM")).unwrap_err().to_string();
        assert!(why.contains("NTLM"), "{why}");
        let open = read(&outgoing("a.example.org", "465", "SSL", "client-IP-address")).unwrap();
        assert_eq!(open.smtp.unwrap().user, None);
        let oauth2 = read(&outgoing("a.example.org", "465", "SSL", "OAuth2")).unwrap();
        assert_eq!(oauth2.sign_in, [SignIn::OAuth2]);
    }

    #[test]
    fn known_servers_bring_what_the_table_knows() {
        let found = read(&incoming("imap.gmail.com", "993", "SSL")).unwrap();
        assert_eq!(found.provider.unwrap().id, "gmail");
        assert_eq!(found.sign_in.first(), Some(&SignIn::AppPassword));
    }

    #[test]
    fn bad_files_do_no_harm() {
        let ann = MailDomain::of("ann@example.org").unwrap();
        let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><clientConfig>&b;</clientConfig>";
        let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
        for text in ["", "hello", "<html></html>", "<clientConfig/>", bomb, &deep, "\u{1b}[2J"] {
            let read = read_autoconfig(text.as_bytes(), &ann, Origin::Guess);
            let why = read.unwrap_err().to_string();
            assert!(!why.contains('\u{1b}') && why.len() < 500, "{why}");
        }
        assert!(read_autoconfig(&vec![b' '; LARGEST_FILE + 1], &ann, Origin::Guess).is_err());
        for servers in [
            incoming("imap.example.org", "0", "SSL"),
            incoming("imap.example.org", "993x", "SSL"),
            incoming("user@evil", "993", "SSL"),
            incoming("", "993", "SSL"),
            incoming("imap.example.org/x", "993", "SSL"),
        ] {
            assert!(read(&servers).is_err(), "{servers}");
        }
        let long = "x".repeat(2000);
        let named = format!(
            "<incomingServer type=\"imap\"><hostname>i.example.org</hostname><port>993</port>\
             <socketType>SSL</socketType><username>{long}</username></incomingServer>"
        );
        assert_eq!(read(&named).unwrap().imap.unwrap().user.as_deref(), Some("ann@example.org"));
    }
}
