//! The text of a new profile.

use std::fmt::{self, Write};

use zeroize::Zeroizing;

use super::{AfterProfile, IdentityProfile, ServerUrl, is_loopback};
use crate::net::TlsMode;
use crate::oauth2::Provider;

/// Where the password of a new profile comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum NewPassword {
    /// A shell command prints it.
    Command(String),
    /// An environment variable holds it.
    Env(String),
    /// A file's first line holds it.
    File(String),
    /// The entry of the keyring with this name holds it.
    Keyring(String),
    /// It stands in the profile itself.
    Text(Zeroizing<String>),
}

impl fmt::Debug for NewPassword {
    /// Where it comes from; never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NewPassword::Command(line) => f.debug_tuple("Command").field(line).finish(),
            NewPassword::Env(name) => f.debug_tuple("Env").field(name).finish(),
            NewPassword::File(path) => f.debug_tuple("File").field(path).finish(),
            NewPassword::Keyring(name) => f.debug_tuple("Keyring").field(name).finish(),
            NewPassword::Text(_) => f.write_str("Text(not shown)"),
        }
    }
}

/// What a new profile is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProfile {
    /// Its accounts, in transport order.
    pub transports: Vec<NewTransport>,
    /// Where mail is kept, as people write it (`~/Mail`).
    pub maildir: String,
    /// Whether it is used when no profile is named.
    pub default: bool,
}

/// One account of a new profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTransport {
    /// Its name.
    pub name: String,
    /// Who sends.
    pub identity: IdentityProfile,
    /// Further senders.
    pub aliases: Vec<String>,
    /// What a reader of the file should know, in lines.
    pub remarks: Vec<String>,
    /// The password of both servers, where they have none of their own.
    pub password: Option<NewPassword>,
    /// Sending.
    pub smtp: Option<NewServer>,
    /// Receiving.
    pub imap: Option<NewReceiving>,
    /// Signing in by OAuth 2.0, where it does.
    pub oauth2: Option<NewOAuth2>,
}

/// A server of a new profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewServer {
    /// Where it is and who logs in.
    pub url: ServerUrl,
    /// A password of its own.
    pub password: Option<NewPassword>,
    /// File with the authorities to trust instead of the system's.
    pub ca_file: Option<String>,
    /// The certificate to trust and no other (`sha256:..`).
    pub fingerprint: Option<String>,
    /// SASL mechanism to use and no other.
    pub auth: Option<String>,
    /// Most connections.
    pub connections: Option<u64>,
    /// Sending: most messages begun in a minute.
    pub messages_per_minute: Option<u64>,
    /// Sending: most recipients of a message.
    pub recipients_per_message: Option<u64>,
}

/// How an account of a new profile signs in by OAuth 2.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewOAuth2 {
    /// A provider whose services are known.
    pub provider: Option<Provider>,
    /// The client as it is registered with the provider.
    pub client_id: String,
    /// Its secret, where there is one.
    pub client_secret: Option<NewPassword>,
    /// Where the browser is sent.
    pub auth_url: Option<String>,
    /// Where tokens come from.
    pub token_url: Option<String>,
    /// Where other devices sign in.
    pub device_url: Option<String>,
    /// What is asked for; empty for what the provider is known to want.
    pub scopes: Vec<String>,
}

/// How a new profile receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceiving {
    /// The server.
    pub server: NewServer,
    /// Mailboxes; empty for INBOX alone.
    pub mailboxes: Vec<String>,
    /// Time between two looks (`60s`).
    pub poll_interval: Option<String>,
    /// What happens on the server to what is fetched.
    pub after: AfterProfile,
}

impl From<ServerUrl> for NewServer {
    fn from(url: ServerUrl) -> Self {
        NewServer {
            url,
            password: None,
            ca_file: None,
            fingerprint: None,
            auth: None,
            connections: None,
            messages_per_minute: None,
            recipients_per_message: None,
        }
    }
}

impl From<NewServer> for NewReceiving {
    fn from(server: NewServer) -> Self {
        let (mailboxes, poll_interval) = (Vec::new(), None);
        NewReceiving { server, mailboxes, poll_interval, after: AfterProfile::Keep }
    }
}

impl From<ServerUrl> for NewReceiving {
    fn from(url: ServerUrl) -> Self {
        NewServer::from(url).into()
    }
}

impl NewProfile {
    /// The profile as TOML with comments.
    pub fn to_toml(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        // Writing to a String does not fail.
        let _written = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "# A profile of postrider. `postrider profile check` tries it out.")?;
        writeln!(out, "default = {}", self.default)?;
        for transport in &self.transports {
            transport.write(out)?;
        }
        writeln!(out, "\n[store]")?;
        writeln!(out, "maildir = {}", quoted(&self.maildir))?;
        writeln!(out, "sent = true                 # keep a copy of what was sent in .Sent")?;
        writeln!(out, "\n[queue]")?;
        writeln!(out, "lifetime = \"5d\"             # after this a message is given up")?;
        writeln!(out, "retry = {{ first = \"30s\", factor = 2.0, max = \"1h\" }}")
    }
}

impl NewTransport {
    /// The account as TOML, to be added behind a profile that is there.
    pub fn to_toml(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        let _written = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n[[transport]]")?;
        for remark in &self.remarks {
            writeln!(out, "# {}", remark.replace(char::is_control, " "))?;
        }
        writeln!(out, "name = {}", quoted(&self.name))?;
        writeln!(out, "identity = {}", quoted(&identity_text(&self.identity)))?;
        if self.aliases.is_empty() {
            writeln!(out, "# Further senders that choose this transport:")?;
            writeln!(out, "# aliases = [\"other@example.org\"]")?;
        } else {
            writeln!(out, "aliases = {}", list(&self.aliases))?;
        }
        let sending = self.smtp_login();
        if let Some(smtp) = &self.smtp {
            writeln!(out, "\n  [transport.smtp]")?;
            let (user, password) = sending.unzip();
            write_server(out, smtp, user.or(self.signing_user(smtp)), password)?;
        }
        if let Some(imap) = &self.imap {
            writeln!(out, "\n  [transport.imap]")?;
            let receiving = self.imap_login(&imap.server);
            // User and password are those of smtp where nothing else is said.
            let (user, password) = receiving.unzip();
            let user = user.filter(|user| Some(*user) != sending.map(|login| login.0));
            let password = password.filter(|own| Some(*own) != sending.map(|login| login.1));
            write_server(out, &imap.server, user.or(self.signing_user(&imap.server)), password)?;
            write_receiving(out, imap)?;
        }
        match &self.oauth2 {
            Some(oauth2) => write_oauth2(out, oauth2),
            None => Ok(()),
        }
    }

    /// The user who signs in, where it is not the address.
    fn signing_user<'a>(&'a self, server: &'a NewServer) -> Option<&'a str> {
        let user = server.url.user.as_deref().filter(|_| self.oauth2.is_some());
        user.filter(|user| *user != self.identity.address)
    }

    /// Whom to send as: the user of the URL, else, where TLS protects the login, that of the
    /// other URL or the address. A server without TLS is sent to without a login unless its URL
    /// names a user.
    fn smtp_login(&self) -> Option<(&str, &NewPassword)> {
        let smtp = self.smtp.as_ref()?;
        let others = self.imap.as_ref().and_then(|imap| imap.server.url.user.as_deref());
        let guess = others.unwrap_or(&self.identity.address);
        let guess = (smtp.url.tls != TlsMode::Plain).then_some(guess);
        let password = smtp.password.as_ref().or(self.password.as_ref())?;
        Some((smtp.url.user.as_deref().or(guess)?, password))
    }

    fn imap_login<'a>(&'a self, imap: &'a NewServer) -> Option<(&'a str, &'a NewPassword)> {
        let senders = self.smtp_login();
        let guess = senders.map_or(self.identity.address.as_str(), |(user, _)| user);
        let others = self.password.as_ref().or(senders.map(|(_, password)| password));
        let password = imap.password.as_ref().or(others)?;
        Some((imap.url.user.as_deref().unwrap_or(guess), password))
    }
}

fn write_server(
    out: &mut String,
    server: &NewServer,
    user: Option<&str>,
    password: Option<&NewPassword>,
) -> fmt::Result {
    let url = &server.url;
    writeln!(out, "  host = {}", quoted(&url.host))?;
    if let Some(port) = url.port {
        writeln!(out, "  port = {port}")?;
    }
    writeln!(out, "  tls = {}", quoted(url.tls_name()))?;
    if let Some(file) = &server.ca_file {
        writeln!(out, "  ca_file = {}", quoted(file))?;
    }
    if let Some(digest) = &server.fingerprint {
        writeln!(out, "  fingerprint = {}", quoted(digest))?;
    }
    if let Some(user) = user {
        writeln!(out, "  user = {}", quoted(user))?;
    }
    if let Some(password) = password {
        write_secret(out, "password", password)?;
    }
    if let Some(mechanism) = &server.auth {
        writeln!(out, "  auth = {}", quoted(mechanism))?;
    }
    for (key, limit) in [
        ("connections", server.connections),
        ("messages_per_minute", server.messages_per_minute),
        ("recipients_per_message", server.recipients_per_message),
    ] {
        if let Some(limit) = limit {
            writeln!(out, "  {key} = {limit}")?;
        }
    }
    Ok(())
}

fn write_secret(out: &mut String, key: &str, secret: &NewPassword) -> fmt::Result {
    let (source, text) = match secret {
        NewPassword::Text(text) => return writeln!(out, "  {key} = {}", quoted(text)),
        NewPassword::Command(line) => ("command", line),
        NewPassword::Env(name) => ("env", name),
        NewPassword::File(path) => ("file", path),
        NewPassword::Keyring(name) => ("keyring", name),
    };
    writeln!(out, "  {key} = {{ {source} = {} }}", quoted(text))
}

fn write_oauth2(out: &mut String, oauth2: &NewOAuth2) -> fmt::Result {
    writeln!(out, "\n  [transport.oauth2]        # `postrider auth login` signs in")?;
    if let Some(provider) = oauth2.provider {
        writeln!(out, "  provider = {}", quoted(&provider.to_string()))?;
    }
    for (key, url) in [
        ("auth_url", &oauth2.auth_url),
        ("token_url", &oauth2.token_url),
        ("device_url", &oauth2.device_url),
    ] {
        if let Some(url) = url {
            writeln!(out, "  {key} = {}", quoted(url))?;
        }
    }
    writeln!(out, "  client_id = {}", quoted(&oauth2.client_id))?;
    if let Some(secret) = &oauth2.client_secret {
        write_secret(out, "client_secret", secret)?;
    }
    match oauth2.scopes.as_slice() {
        [] => Ok(()),
        scopes => writeln!(out, "  scopes = {}", list(scopes)),
    }
}

fn write_receiving(out: &mut String, imap: &NewReceiving) -> fmt::Result {
    let mailboxes = match imap.mailboxes.as_slice() {
        [] => "[\"INBOX\"]".to_owned(),
        named => list(named),
    };
    writeln!(out, "  mailboxes = {mailboxes}")?;
    writeln!(out, "  push = true               # false: look every poll_interval")?;
    let interval = imap.poll_interval.as_deref().unwrap_or("60s");
    writeln!(out, "  poll_interval = {}", quoted(interval))?;
    let after = match &imap.after {
        AfterProfile::Keep => "\"keep\"".to_owned(),
        AfterProfile::Seen => "\"seen\"".to_owned(),
        AfterProfile::Delete => "\"delete\"".to_owned(),
        AfterProfile::Move(mailbox) => format!("{{ move = {} }}", quoted(mailbox)),
    };
    let choice = "keep, seen, delete or { move = \"Archive\" }";
    writeln!(out, "  after = {after:<17} # what happens on the server: {choice}")
}

/// Whether a login over this server would be refused because everybody could read it.
pub(super) fn travels_in_clear(url: &ServerUrl) -> bool {
    url.tls == TlsMode::Plain && !is_loopback(&url.host)
}

fn identity_text(identity: &IdentityProfile) -> String {
    if identity.name.is_empty() {
        return identity.address.clone();
    }
    let plain = identity.name.chars().all(|c| c.is_alphanumeric() || " -_'".contains(c));
    if plain {
        return format!("{} <{}>", identity.name, identity.address);
    }
    let escaped = identity.name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\" <{}>", identity.address)
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A TOML list of strings.
fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| self::quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
