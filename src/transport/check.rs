//! Trying out what a profile section says: connect, log in, see what is offered (ST-7).

use super::inbound::{self, InboundSettings, ProbeReport};
use super::outbound::{self, OutboundSettings, ServerReport, SizeLimit};
use super::settings::{SmtpSettings, TransportSettings};
use crate::mapi::{MapiError, MapiResult};
use crate::spi::ProfileSection;

/// What a trial login found out about one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCheck {
    /// Name of the transport.
    pub transport: String,
    /// Which of its servers.
    pub role: ServerRole,
    /// Host and port.
    pub server: String,
    /// What the server offers, in its own words, or why the login failed.
    pub offers: Result<Vec<String>, MapiError>,
}

/// What a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerRole {
    /// Sending.
    Smtp,
    /// Receiving.
    Imap,
}

/// Logs in to each server of a section once, with the deadlines of real work, and out again.
/// Needs a tokio runtime.
///
/// # Errors
/// `MAPI_E_UNCONFIGURED` for a section that makes no sense; what a server answers is in the
/// result instead.
pub async fn check_servers(section: &ProfileSection) -> MapiResult<Vec<ServerCheck>> {
    let settings = TransportSettings::from_section(section)?;
    let mut checks = Vec::new();
    if let Some(smtp) = settings.smtp {
        for server in std::iter::once(&smtp.server).chain(&smtp.fallback) {
            let smtp = SmtpSettings { server: server.clone(), ..smtp.clone() };
            let identity = settings.identity.clone();
            let settings = OutboundSettings::new(&settings.name, identity, smtp, settings.queue);
            let offers = outbound::probe(&settings).await.map(|report| smtp_offers(&report));
            checks.push(ServerCheck {
                transport: settings.transport,
                role: ServerRole::Smtp,
                server: server.place(),
                offers,
            });
        }
    }
    if let Some(imap) = settings.imap {
        let server = imap.server.place();
        let inbound = InboundSettings::new(&settings.name, imap);
        let offers = inbound::probe(&inbound).await.map(imap_offers);
        checks.push(ServerCheck {
            transport: settings.name,
            role: ServerRole::Imap,
            server,
            offers,
        });
    }
    Ok(checks)
}

/// The EHLO keywords that matter here, as the server would write them.
fn smtp_offers(report: &ServerReport) -> Vec<String> {
    let offers = &report.offers;
    let mut keywords: Vec<String> = [
        ("PIPELINING", offers.pipelining),
        ("8BITMIME", offers.eight_bit_mime),
        ("SMTPUTF8", offers.smtp_utf8),
        ("ENHANCEDSTATUSCODES", offers.enhanced_status_codes),
        ("DSN", offers.dsn),
        ("CHUNKING", offers.chunking),
    ]
    .into_iter()
    .filter(|(_, offered)| *offered)
    .map(|(keyword, _)| keyword.to_owned())
    .collect();
    match offers.size {
        SizeLimit::Unknown => {}
        SizeLimit::Unlimited => keywords.push("SIZE".to_owned()),
        SizeLimit::Bytes(limit) => keywords.push(format!("SIZE {limit}")),
    }
    if !offers.auth.is_empty() {
        keywords.push(format!("AUTH {}", offers.auth.join(" ")));
    }
    keywords.extend(report.protection.clone());
    keywords
}

/// The capabilities as the server wrote them, and how many messages each mailbox has.
fn imap_offers(report: ProbeReport) -> Vec<String> {
    let mailboxes = report.mailboxes.into_iter().map(|mailbox| match mailbox.messages {
        Ok(messages) => format!("{}: {messages} messages", mailbox.name),
        Err(why) => format!("{}: {why}", mailbox.name),
    });
    report.capabilities.into_iter().chain(report.protection).chain(mailboxes).collect()
}
