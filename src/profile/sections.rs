//! A profile as the sections its transport logons read (LG-3).

use std::path::Path;
use std::sync::Arc;

use super::{
    AfterProfile, ImapProfile, InDoubtProfile, Login, Password, Profile, QueueProfile, SmtpProfile,
    TransportProfile,
};
use crate::clock::SystemClock;
use crate::net::{Server, TlsMode, Trust};
use crate::oauth2::{FileStore, NoStore, TokenSource};
use crate::spi::{ProfileSection, SecretSource, SectionValue};

/// One section for each transport of the profile, in transport order, with the keys
/// `TransportSettings` reads.
///
/// Both directions of a transport that signs in by OAuth 2.0 share one token; it lies below the
/// profile's state folder.
pub fn sections(profile: &Profile) -> Vec<ProfileSection> {
    sections_of(profile, profile.state_folder.as_deref())
}

/// The same with the tokens below this state folder.
pub(crate) fn sections_in(profile: &Profile, state_folder: &Path) -> Vec<ProfileSection> {
    sections_of(profile, Some(state_folder))
}

fn sections_of(profile: &Profile, state_folder: Option<&Path>) -> Vec<ProfileSection> {
    let hidden = profile.password_variables();
    let section = |transport: &TransportProfile| {
        let tokens = token_source(profile, transport, state_folder, &hidden);
        section(transport, &profile.queue, &Secrets { tokens, hidden: &hidden })
    };
    profile.transports.iter().map(section).collect()
}

/// Where the tokens of a transport are kept.
pub(crate) fn token_store(state_folder: &Path, transport: &TransportProfile) -> FileStore {
    FileStore::new(state_folder, &transport.name)
}

/// What signs in to a transport of a profile.
pub(crate) fn sign_in_command(profile: &str, transport: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
    match transport.chars().all(plain) {
        true => format!("postrider --profile {profile} auth login {transport}"),
        false => format!("postrider --profile {profile} auth login {transport:?}"),
    }
}

fn token_source(
    profile: &Profile,
    transport: &TransportProfile,
    state_folder: Option<&Path>,
    hidden: &[String],
) -> Arc<dyn SecretSource> {
    match (&transport.oauth2, state_folder) {
        (Some(oauth2), Some(folder)) => Arc::new(TokenSource::new(
            &transport.name,
            &sign_in_command(&profile.name, &transport.name),
            oauth2.client(hidden),
            token_store(folder, transport),
            Arc::new(SystemClock),
        )),
        _ => Arc::new(NoStore),
    }
}

/// Where the secrets of a transport come from.
struct Secrets<'a> {
    /// For those who sign in.
    tokens: Arc<dyn SecretSource>,
    /// Environment variables that a password command does not see.
    hidden: &'a [String],
}

impl Secrets<'_> {
    fn source(&self, password: &Password) -> Arc<dyn SecretSource> {
        match password {
            Password::SignIn => Arc::clone(&self.tokens),
            other => other.source_hiding(self.hidden),
        }
    }
}

fn section(
    transport: &TransportProfile,
    queue: &QueueProfile,
    secrets: &Secrets<'_>,
) -> ProfileSection {
    let mut section = ProfileSection::new();
    section.set("name", text(&transport.name));
    section.set("identity.address", text(&transport.identity.address));
    if !transport.identity.name.is_empty() {
        section.set("identity.name", text(&transport.identity.name));
    }
    if let Some(smtp) = &transport.smtp {
        set_smtp(&mut section, smtp, secrets);
    }
    if let Some(imap) = &transport.imap {
        set_imap(&mut section, imap, secrets);
    }
    set_queue(&mut section, queue);
    section
}

fn set_smtp(section: &mut ProfileSection, smtp: &SmtpProfile, secrets: &Secrets<'_>) {
    set_server(section, "smtp", &smtp.server);
    set_login(section, "smtp", smtp.login.as_ref(), secrets);
    set_limits(section, "smtp", smtp.auth.as_deref(), smtp.connections);
    if !smtp.fallback.is_empty() {
        let places = smtp.fallback.iter().map(Server::place).collect();
        section.set("smtp.fallback", SectionValue::List(places));
    }
    let limits = [
        ("smtp.messages_per_minute", smtp.messages_per_minute),
        ("smtp.recipients_per_message", smtp.recipients_per_message),
    ];
    for (key, limit) in limits {
        if let Some(limit) = limit {
            section.set(key, SectionValue::Number(limit));
        }
    }
}

fn set_imap(section: &mut ProfileSection, imap: &ImapProfile, secrets: &Secrets<'_>) {
    set_server(section, "imap", &imap.server);
    set_login(section, "imap", Some(&imap.login), secrets);
    set_limits(section, "imap", imap.auth.as_deref(), imap.connections);
    section.set("imap.mailboxes", SectionValue::List(imap.mailboxes.clone()));
    section.set("imap.push", SectionValue::Switch(imap.push));
    section.set("imap.poll_interval", duration(imap.poll_interval));
    if let Some(mailbox) = &imap.sent_mailbox {
        section.set("imap.sent_mailbox", text(mailbox));
    }
    if let Some(saves) = imap.saves_sent {
        section.set("imap.saves_sent", SectionValue::Switch(saves));
    }
    if let Some(compress) = imap.compress {
        section.set("imap.compress", SectionValue::Switch(compress));
    }
    match &imap.after {
        AfterProfile::Keep => section.set("imap.after", text("keep")),
        AfterProfile::Seen => section.set("imap.after", text("seen")),
        AfterProfile::Delete => section.set("imap.after", text("delete")),
        AfterProfile::Move(mailbox) => section.set("imap.after.move", text(mailbox)),
    }
}

fn set_server(section: &mut ProfileSection, part: &str, server: &Server) {
    section.set(&format!("{part}.host"), text(&server.host));
    section.set(&format!("{part}.port"), SectionValue::Number(u64::from(server.port)));
    let tls = match server.tls {
        TlsMode::Implicit => "implicit",
        TlsMode::StartTls => "starttls",
        TlsMode::Plain => "none",
    };
    section.set(&format!("{part}.tls"), text(tls));
    if server.tls == TlsMode::Plain {
        // A profile that asks for it was read only because it may: see `server_table`.
        section.set(&format!("{part}.insecure"), SectionValue::Switch(true));
    }
    match &server.trust {
        Trust::Platform => {}
        Trust::CaFile(path) => {
            section.set(&format!("{part}.ca_file"), text(&path.to_string_lossy()));
        }
        Trust::Fingerprint(digest) => {
            section.set(&format!("{part}.fingerprint"), text(&digest.to_string()));
        }
    }
    if let Some(client) = &server.client {
        let file = |path: &Path| text(&path.to_string_lossy());
        section.set(&format!("{part}.client_cert"), file(&client.certificate));
        section.set(&format!("{part}.client_key"), file(&client.key));
    }
}

fn set_login(
    section: &mut ProfileSection,
    part: &str,
    login: Option<&Login>,
    secrets: &Secrets<'_>,
) {
    if let Some(login) = login {
        section.set(&format!("{part}.user"), text(&login.user));
        let source = secrets.source(&login.password);
        section.set(&format!("{part}.password"), SectionValue::Secret(source));
    }
}

fn set_limits(
    section: &mut ProfileSection,
    part: &str,
    auth: Option<&str>,
    connections: Option<u64>,
) {
    if let Some(mechanism) = auth {
        section.set(&format!("{part}.auth"), text(mechanism));
    }
    if let Some(connections) = connections {
        section.set(&format!("{part}.connections"), SectionValue::Number(connections));
    }
}

fn set_queue(section: &mut ProfileSection, queue: &QueueProfile) {
    section.set("queue.lifetime", duration(queue.lifetime));
    section.set("queue.retry.first", duration(queue.retry_first));
    section.set("queue.retry.factor", text(&queue.retry_factor.to_string()));
    section.set("queue.retry.max", duration(queue.retry_max));
    let in_doubt = match queue.in_doubt {
        InDoubtProfile::Resend => "resend",
        InDoubtProfile::Hold => "hold",
    };
    section.set("queue.in_doubt", text(in_doubt));
}

fn text(text: &str) -> SectionValue {
    SectionValue::Text(text.to_owned())
}

fn duration(duration: std::time::Duration) -> SectionValue {
    SectionValue::Text(humantime::format_duration(duration).to_string())
}
