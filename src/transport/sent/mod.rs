//! Sent copies into the account's own mailbox on the server, by IMAP APPEND (RFC 3501 section
//! 6.3.11).
//!
//! A copy is appended once: when it may have been appended before and the reply was lost, it is
//! looked for by its Message-ID first. The mailbox is the one of the profile, else the one the server
//! marks `\Sent` (RFC 6154), else one with a usual name, else `Sent`, which is made.

mod dialogue;
mod mailbox;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::Mutex;

use super::settings::{ImapSettings, TransportSettings};
use crate::mapi::{MapiCode, MapiError, MapiResult, SysTime};
use crate::net::{
    Capabilities, Connector, Deadlines, ImapLoggedIn, ImapReply, LoginError, LoginMemory,
    ReplyStatus, Stream,
};
use crate::spi::{ProfileSection, Repetition, SecretError, SentCopy, SentFolder};
use dialogue::{Dialogue, Lost};
use mailbox::{Listed, choose, quoted, wire_name};

/// Most mailboxes that are looked through for the one of sent mail.
const MOST_MAILBOXES: usize = 10_000;

/// Octets that are sent without being asked for. What is larger may be refused, and a server that is
/// not heard before it has all of it may rather hang up.
const UNASKED: u64 = 64 * 1024;
/// The same where LITERAL- sets the bound (RFC 7888 section 5).
const UNASKED_MINUS: u64 = 4096;

/// The mailbox of sent mail of the account that a section describes; `None` when it has no IMAP part,
/// or its provider keeps what is sent by itself.
///
/// # Errors
/// `MAPI_E_UNCONFIGURED` for a section that makes no sense.
pub fn sent_folder(section: &ProfileSection) -> MapiResult<Option<Arc<dyn SentFolder>>> {
    let settings = TransportSettings::from_section(section)?;
    let Some(imap) = settings.imap else { return Ok(None) };
    let smtp_host = settings.smtp.as_ref().map_or("", |smtp| smtp.server.host.as_str());
    let saves = imap.saves_sent.unwrap_or_else(|| provider_saves_sent(smtp_host));
    Ok(match saves {
        true => None,
        false => Some(Arc::new(ImapSent::new(imap, Times::default()))),
    })
}

/// Providers that put what is sent through them into the mailbox of sent mail themselves.
fn provider_saves_sent(smtp_host: &str) -> bool {
    const PROVIDERS: [&str; 5] =
        ["gmail.com", "googlemail.com", "office365.com", "outlook.com", "hotmail.com"];
    let host = smtp_host.trim_end_matches('.').to_ascii_lowercase();
    PROVIDERS.iter().any(|provider| {
        host.strip_suffix(provider).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    net: Deadlines,
    /// A command, and each piece of a message (default 3 min).
    command: Duration,
    /// The answer behind a whole message, which the server stores first (default 10 min).
    stored: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Times { net: Deadlines::default(), command: minutes(3), stored: minutes(10) }
    }
}

/// See the module.
pub(super) struct ImapSent {
    settings: ImapSettings,
    connector: Connector,
    memory: LoginMemory,
    times: Times,
    /// One connection, kept while copies come one after the other.
    session: Mutex<Option<Session>>,
}

/// A connection that is logged in and knows where to put copies.
struct Session {
    dialogue: Dialogue<Stream>,
    capabilities: Capabilities,
    /// As the wire has it.
    mailbox: String,
}

/// Why a copy is not on the server, as far as is known.
enum Fault {
    /// The connection cannot be used any more.
    Lost(String),
    /// The login is not possible now.
    Login(MapiError),
    /// The server does not take this copy.
    Refused(String),
    /// The mailbox is not there any more; the next connection makes it.
    NoMailbox(String),
    /// The copy cannot be read.
    Unreadable(MapiError),
}

impl ImapSent {
    pub(super) fn new(settings: ImapSettings, times: Times) -> Self {
        let connector = Connector::new(settings.server.clone(), times.net, settings.cleartext);
        let (memory, session) = (LoginMemory::default(), Mutex::default());
        ImapSent { settings, connector, memory, times, session }
    }

    async fn open(&self) -> Result<Session, Fault> {
        let logged_in = self.log_in().await?;
        let capabilities = logged_in.capabilities;
        let mut dialogue = Dialogue::new(logged_in.stream, self.times.command);
        let wanted = self.settings.sent_mailbox.as_deref().map(wire_name);
        let mailbox = find_mailbox(&mut dialogue, &capabilities, wanted).await?;
        Ok(Session { dialogue, capabilities, mailbox })
    }

    /// Connects and logs in. A token that is refused is renewed, and the login tried once more over a
    /// new connection.
    async fn log_in(&self) -> Result<ImapLoggedIn, Fault> {
        let source = &self.settings.credentials.password;
        let secret = source.secret().await.map_err(no_secret)?;
        match self.log_in_with(&secret).await {
            Err(refused @ LoginError::Refused { .. }) => {
                match source.renew(&secret).await.map_err(no_secret)? {
                    Some(fresh) => self.log_in_with(&fresh).await.map_err(not_logged_in),
                    None => Err(not_logged_in(refused)),
                }
            }
            told => told.map_err(not_logged_in),
        }
    }

    async fn log_in_with(&self, secret: &SecretString) -> Result<ImapLoggedIn, LoginError> {
        let opened = self.connector.imap_open().await.map_err(LoginError::Net)?;
        let login = self.settings.login(secret, &self.memory);
        self.connector.imap_login(opened, login).await
    }

    /// Appends over the connection that is kept, or a new one.
    async fn append_to(&self, kept: &mut Option<Session>, copy: SentCopy) -> Result<(), Fault> {
        let open = match kept.take() {
            // A kept one may have been closed meanwhile; nothing is lost by a look.
            Some(mut session) => session.dialogue.ask("NOOP").await.is_ok().then_some(session),
            None => None,
        };
        let mut session = match open {
            Some(session) => session,
            None => self.open().await?,
        };
        let appended = session.append(copy, self.times.stored).await;
        if matches!(appended, Ok(()) | Err(Fault::Refused(_))) {
            *kept = Some(session);
        }
        appended
    }
}

#[async_trait]
impl SentFolder for ImapSent {
    async fn append(&self, copy: SentCopy) -> MapiResult<()> {
        let mut kept = self.session.lock().await;
        self.append_to(&mut kept, copy).await.map_err(|fault| {
            let server = self.connector.name();
            match fault {
                Fault::Lost(why) => MapiError::new(
                    MapiCode::NETWORK_ERROR,
                    format!("{server}: a sent copy is not known to be stored: {why}"),
                ),
                Fault::Refused(why) | Fault::NoMailbox(why) => MapiError::new(
                    MapiCode::CALL_FAILED,
                    format!("{server}: a sent copy is refused ({why})"),
                ),
                Fault::Login(error) | Fault::Unreadable(error) => error,
            }
        })
    }

    async fn rest(&self) {
        if let Some(mut session) = self.session.lock().await.take() {
            // Nothing depends on the answer.
            let goodbye = session.dialogue.ask("LOGOUT");
            let _closed = tokio::time::timeout(Duration::from_secs(5), goodbye).await;
        }
    }
}

impl Session {
    async fn append(&mut self, copy: SentCopy, stored: Duration) -> Result<(), Fault> {
        if copy.repetition == Repetition::Possible && self.is_there(&copy.message_id).await? {
            return Ok(());
        }
        let mailbox = quoted(&self.mailbox);
        let command = format!("APPEND {mailbox} (\\Seen) \"{}\"", internal_date(copy.date));
        let may_stream = (self.capabilities.has("LITERAL+") && copy.size <= UNASKED)
            || (self.capabilities.has("LITERAL-") && copy.size <= UNASKED_MINUS);
        let begun = self.dialogue.begin_literal(&command, copy.size, may_stream).await?;
        let tag = match begun {
            Ok(tag) => tag,
            Err(refusal) => return Err(refused(&refusal)),
        };
        self.dialogue.stream(copy.content, copy.size).await.map_err(|lost| match lost {
            // The literal is not whole, so the server has no message.
            Lost::Unreadable(why) => {
                let words = format!("a sent copy cannot be read: {why}");
                Fault::Unreadable(MapiError::new(MapiCode::CORRUPT_DATA, words))
            }
            Lost::Connection(why) => Fault::Lost(why),
        })?;
        let reply = self.dialogue.completion(&tag, stored).await?;
        match reply.status {
            ReplyStatus::Ok => Ok(()),
            ReplyStatus::No | ReplyStatus::Bad => Err(refused(&reply)),
        }
    }

    /// Whether a message with this id is in the mailbox.
    async fn is_there(&mut self, message_id: &str) -> Result<bool, Fault> {
        let fits = |byte: u8| byte.is_ascii_graphic();
        if message_id.is_empty() || !message_id.bytes().all(fits) {
            return Ok(false);
        }
        let examined = self.dialogue.ask(&format!("EXAMINE {}", quoted(&self.mailbox))).await?;
        if examined.reply.status != ReplyStatus::Ok {
            return match self.is_gone(&examined.reply).await? {
                true => Ok(false),
                // It may hold the copy.
                false => Err(Fault::Refused(format!("EXAMINE: {}", examined.reply.words()))),
            };
        }
        let search = format!("UID SEARCH HEADER Message-ID {}", quoted(message_id));
        let found = self.dialogue.ask(&search).await?;
        if found.reply.status != ReplyStatus::Ok {
            return Err(Fault::Refused(format!("SEARCH: {}", found.reply.words())));
        }
        Ok(found.lines.iter().any(|line| {
            let mut words = line.split_ascii_whitespace();
            let is_search = words.next().is_some_and(|word| word.eq_ignore_ascii_case("SEARCH"));
            is_search && words.any(|word| word.parse::<u32>().is_ok())
        }))
    }

    /// Whether the mailbox that EXAMINE was refused for is not there, so that nothing is in it. A
    /// refusal by itself may mean anything, such as a server whose disk is away (RFC 5530).
    async fn is_gone(&mut self, refusal: &ImapReply) -> Result<bool, Fault> {
        if refusal.has_code("NONEXISTENT") || refusal.has_code("TRYCREATE") {
            return Ok(true);
        }
        let listed = self.dialogue.ask(&format!("LIST \"\" {}", quoted(&self.mailbox))).await?;
        let is_listed = listed.lines.iter().any(|line| lists_one(line));
        Ok(listed.reply.status == ReplyStatus::Ok && !is_listed)
    }
}

/// Whether one line of untagged data names a mailbox.
fn lists_one(line: &str) -> bool {
    line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case("LIST"))
}

/// The mailbox of sent mail, as the wire has it; made when it is missing. `wanted` is the one of the
/// profile.
async fn find_mailbox(
    dialogue: &mut Dialogue<Stream>,
    capabilities: &Capabilities,
    wanted: Option<String>,
) -> Result<String, Fault> {
    let extended = capabilities.has("SPECIAL-USE") && capabilities.has("LIST-EXTENDED");
    let command = match &wanted {
        Some(name) => format!("LIST \"\" {}", quoted(name)),
        None if extended => "LIST \"\" \"*\" RETURN (SPECIAL-USE)".to_owned(),
        None => "LIST \"\" \"*\"".to_owned(),
    };
    let mut listed: Vec<Listed> = Vec::new();
    let on = &mut |line: &str| {
        if listed.len() < MOST_MAILBOXES {
            listed.extend(Listed::parse(line));
        }
    };
    let answer = dialogue.ask_for(&command, on).await?;
    if answer.status != ReplyStatus::Ok {
        return Err(Fault::Refused(format!("LIST: {}", answer.words())));
    }
    let found = match &wanted {
        Some(name) => listed.first().map(|_| name.clone()),
        None => choose(&listed),
    };
    if let Some(name) = found {
        return Ok(name);
    }
    let name = wanted.unwrap_or_else(|| "Sent".to_owned());
    // What goes wrong with it is told when a copy is stored.
    let _made = dialogue.ask(&format!("CREATE {}", quoted(&name))).await?;
    let _shown = dialogue.ask(&format!("SUBSCRIBE {}", quoted(&name))).await?;
    Ok(name)
}

fn refused(reply: &ImapReply) -> Fault {
    match reply.has_code("TRYCREATE") {
        true => Fault::NoMailbox(reply.words()),
        false => Fault::Refused(reply.words()),
    }
}

impl From<Lost> for Fault {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Connection(why) | Lost::Unreadable(why) => Fault::Lost(why),
        }
    }
}

fn no_secret(error: SecretError) -> Fault {
    Fault::Login(MapiError::new(MapiCode::LOGON_FAILED, error.to_string()))
}

fn not_logged_in(error: LoginError) -> Fault {
    let code = match &error {
        LoginError::Net(_) => MapiCode::NETWORK_ERROR,
        LoginError::Throttled { .. } => MapiCode::WAIT,
        LoginError::Settings { .. } | LoginError::Refused { .. } => MapiCode::LOGON_FAILED,
    };
    Fault::Login(MapiError::new(code, error.to_string()))
}

/// A time as APPEND wants it (RFC 3501 section 9, `date-time`), in UTC.
fn internal_date(time: SysTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%d-%b-%Y %H:%M:%S +0000").to_string()
}
