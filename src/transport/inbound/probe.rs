//! What a server offers an account, for `profile check`.

use super::InboundSettings;
use super::fault::LaneFault;
use super::responses::wire_name;
use super::session::{Access, ImapSession};
use crate::mapi::{MapiError, MapiResult};
use crate::net::{Connector, LoginError, LoginMemory};
use crate::transport::events::Trouble;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeReport {
    /// `host:port`.
    pub(crate) server: String,
    /// Words of the greeting.
    pub(crate) greeting: String,
    /// TLS version and cipher suite; `None` in clear.
    pub(crate) protection: Option<String>,
    /// Capabilities after the login.
    pub(crate) capabilities: Vec<String>,
    /// The mailboxes of the profile.
    pub(crate) mailboxes: Vec<MailboxProbe>,
}

/// A mailbox of the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MailboxProbe {
    /// As the profile names it.
    pub(crate) name: String,
    /// How many messages are there, or why it cannot be opened.
    pub(crate) messages: Result<u32, String>,
}

/// Connects, logs in and opens every mailbox for reading. Changes nothing.
///
/// # Errors
/// `MAPI_E_NETWORK_ERROR`, `MAPI_E_LOGON_FAILED`, `MAPI_E_WAIT`, `MAPI_E_UNCONFIGURED` with words
/// for people. Dropping the future closes the connection.
pub(crate) async fn probe(settings: &InboundSettings) -> MapiResult<ProbeReport> {
    let imap = &settings.imap;
    let connector = Connector::new(imap.server.clone(), settings.deadlines, imap.cleartext);
    look(settings, &connector).await.map_err(|fault| {
        let words = fault.words(connector.name());
        MapiError::from(&Trouble { kind: fault.kind(), words, next_attempt: None })
    })
}

async fn look(settings: &InboundSettings, connector: &Connector) -> Result<ProbeReport, LaneFault> {
    let imap = &settings.imap;
    let source = &imap.credentials.password;
    let mut secret = source.secret().await.map_err(LaneFault::Secret)?;
    let mut renewed = false;
    let (greeting, protection, mut session) = loop {
        let opened = connector.imap_open().await?;
        let (greeting, protection) = (opened.greeting.clone(), opened.protection.clone());
        let memory = LoginMemory::default();
        let login = imap.login(&secret, &memory);
        match ImapSession::log_in(connector, opened, login, settings.tuning).await {
            Err(LaneFault::Login(refused @ LoginError::Refused { .. })) if !renewed => {
                renewed = true;
                let fresh = source.renew(&secret).await.map_err(LaneFault::Secret)?;
                secret = fresh.ok_or(refused)?;
            }
            session => break (greeting, protection, session?),
        }
    };
    let mut mailboxes = Vec::new();
    for name in &imap.mailboxes {
        let messages = match session.open_mailbox(&wire_name(name), Access::Read).await? {
            Ok(opened) => Ok(opened.exists),
            Err(reply) => Err(reply.words()),
        };
        mailboxes.push(MailboxProbe { name: name.clone(), messages });
    }
    let report = ProbeReport {
        server: connector.name().to_owned(),
        greeting,
        protection,
        capabilities: session.capabilities().iter().map(str::to_owned).collect(),
        mailboxes,
    };
    session.logout(settings.tuning.idle_done).await;
    Ok(report)
}
