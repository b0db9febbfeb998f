//! The text of a new profile.

use std::fmt::Write;

use super::{IdentityProfile, ServerUrl};
use crate::net::TlsMode;

/// Where the password of a new profile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPassword {
    /// A shell command prints it.
    Command(String),
    /// An environment variable holds it.
    Env(String),
    /// A file's first line holds it.
    File(String),
}

/// What a new profile is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProfile {
    /// Name of its transport.
    pub transport: String,
    /// Who sends.
    pub identity: IdentityProfile,
    /// Sending.
    pub smtp: Option<ServerUrl>,
    /// Receiving.
    pub imap: Option<ServerUrl>,
    /// The password of both.
    pub password: Option<NewPassword>,
    /// Where mail is kept, as people write it (`~/Mail`).
    pub maildir: String,
    /// Whether it is used when no profile is named.
    pub default: bool,
}

impl NewProfile {
    /// The profile as TOML with comments.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _written = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# A profile of postrider. `postrider profile check` tries it out.")?;
        writeln!(out, "default = {}\n", self.default)?;
        writeln!(out, "[[transport]]")?;
        writeln!(out, "name = {}", quoted(&self.transport))?;
        writeln!(out, "identity = {}", quoted(&identity_text(&self.identity)))?;
        writeln!(out, "# Further senders that choose this transport:")?;
        writeln!(out, "# aliases = [\"other@example.org\"]")?;
        let password = self.password.as_ref();
        let smtp_user = self.smtp_user();
        if let Some(smtp) = &self.smtp {
            writeln!(out, "\n  [transport.smtp]")?;
            write_server(out, smtp, smtp_user, password.filter(|_| smtp_user.is_some()))?;
        }
        if let Some(imap) = &self.imap {
            writeln!(out, "\n  [transport.imap]")?;
            // User and password are those of smtp where nothing else is said.
            let user = self.imap_user(imap).filter(|user| Some(*user) != smtp_user);
            write_server(out, imap, user, password.filter(|_| smtp_user.is_none()))?;
            writeln!(out, "  mailboxes = [\"INBOX\"]")?;
            writeln!(out, "  push = true               # false: look every poll_interval")?;
            writeln!(out, "  poll_interval = \"60s\"")?;
            let choice = "keep, seen, delete or { move = \\\"Archive\\\" }".replace('\\', "");
            writeln!(out, "  after = \"keep\"            # what happens on the server: {choice}")?;
        }
        writeln!(out, "\n[store]")?;
        writeln!(out, "maildir = {}", quoted(&self.maildir))?;
        writeln!(out, "sent = true                 # keep a copy of what was sent in .Sent")?;
        writeln!(out, "\n[queue]")?;
        writeln!(out, "lifetime = \"5d\"             # after this a message is given up")?;
        writeln!(out, "retry = {{ first = \"30s\", factor = 2.0, max = \"1h\" }}")
    }

    /// Whom to send as: the user of the URL, else, where TLS protects the login, that of the
    /// other URL or the address. A server without TLS is sent to without a login unless its URL
    /// names a user.
    fn smtp_user(&self) -> Option<&str> {
        let smtp = self.smtp.as_ref()?;
        let others = self.imap.as_ref().and_then(|imap| imap.user.as_deref());
        let guess = others.unwrap_or(&self.identity.address);
        let guess = (smtp.tls != TlsMode::Plain).then_some(guess);
        self.password.as_ref().and(smtp.user.as_deref().or(guess))
    }

    fn imap_user<'a>(&'a self, imap: &'a ServerUrl) -> Option<&'a str> {
        let guess = self.smtp_user().unwrap_or(&self.identity.address);
        self.password.as_ref().and(imap.user.as_deref().or(Some(guess)))
    }
}

fn write_server(
    out: &mut String,
    server: &ServerUrl,
    user: Option<&str>,
    password: Option<&NewPassword>,
) -> std::fmt::Result {
    writeln!(out, "  host = {}", quoted(&server.host))?;
    if let Some(port) = server.port {
        writeln!(out, "  port = {port}")?;
    }
    writeln!(out, "  tls = {}", quoted(server.tls_name()))?;
    if let Some(user) = user {
        writeln!(out, "  user = {}", quoted(user))?;
    }
    match password {
        None => Ok(()),
        Some(NewPassword::Command(line)) => {
            writeln!(out, "  password = {{ command = {} }}", quoted(line))
        }
        Some(NewPassword::Env(name)) => writeln!(out, "  password = {{ env = {} }}", quoted(name)),
        Some(NewPassword::File(path)) => {
            writeln!(out, "  password = {{ file = {} }}", quoted(path))
        }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::profile::{Environment, Profile, parse_mailbox};

    fn new_profile() -> NewProfile {
        NewProfile {
            transport: "work \"1\"".into(),
            identity: parse_mailbox("\"Example, Ann\" <ann@example.org>").unwrap(),
            smtp: Some("smtps://smtp.example.org".parse().unwrap()),
            imap: Some("imap+starttls://imap.example.org:1143".parse().unwrap()),
            password: Some(NewPassword::Command("pass show \"mail/ann\" | head -1".into())),
            maildir: "~/Mail".into(),
            default: true,
        }
    }

    fn read_back(new: &NewProfile) -> Profile {
        let env = Environment::empty().with("HOME", "/home/ann");
        Profile::parse("work", &new.to_toml(), Path::new("/c/work.toml"), &env).unwrap()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let profile = read_back(&new_profile());
        let transport = &profile.transports[0];
        assert!(profile.default);
        assert_eq!(transport.name, "work \"1\"");
        assert_eq!(transport.identity, new_profile().identity);
        let smtp = transport.smtp.as_ref().unwrap();
        assert_eq!((smtp.server.host.as_str(), smtp.server.port), ("smtp.example.org", 465));
        let login = smtp.login.as_ref().unwrap();
        assert_eq!(login.user, "ann@example.org");
        assert_eq!(login.password.to_string(), "command pass show \"mail/ann\" | head -1");
        let imap = transport.imap.as_ref().unwrap();
        assert_eq!((imap.server.port, imap.login.user.as_str()), (1143, "ann@example.org"));
        assert_eq!(profile.store.maildir.as_deref(), Some(Path::new("/home/ann/Mail")));
    }

    #[test]
    fn parts_may_be_left_out() {
        let smtp = Some("smtp://localhost:2525".parse().unwrap());
        let new = NewProfile { smtp, imap: None, password: None, ..new_profile() };
        let profile = read_back(&new);
        assert!(profile.transports[0].smtp.as_ref().unwrap().login.is_none());
        let imap = Some("imaps://ann@imap.example.org".parse().unwrap());
        let password = Some(NewPassword::Env("PW".into()));
        let new = NewProfile { smtp: None, imap, password, ..new_profile() };
        let profile = read_back(&new);
        assert_eq!(profile.transports[0].imap.as_ref().unwrap().login.user, "ann");
        let new = NewProfile {
            smtp: Some("smtp://localhost".parse().unwrap()),
            imap: Some("imap://ann@localhost".parse().unwrap()),
            password: Some(NewPassword::File("/run/pw".into())),
            ..new_profile()
        };
        assert_eq!(read_back(&new).transports[0].imap.as_ref().unwrap().login.user, "ann");
    }

    #[test]
    fn each_server_gets_the_user_that_was_meant() {
        let users = |smtp: &str, imap: &str| {
            let smtp = Some(smtp.parse().unwrap());
            let new = NewProfile { smtp, imap: Some(imap.parse().unwrap()), ..new_profile() };
            let profile = read_back(&new);
            let [transport] = profile.transports.as_slice() else { unreachable!() };
            let smtp = transport.smtp.as_ref().unwrap();
            let smtp = smtp.login.as_ref().map(|login| login.user.clone());
            (smtp, transport.imap.as_ref().unwrap().login.user.clone())
        };
        let some = |user: &str| Some(user.to_owned());
        for (smtp, imap, sender, receiver) in [
            ("smtps://h", "imaps://h", some("ann@example.org"), "ann@example.org"),
            ("smtps://ann@h", "imaps://h", some("ann"), "ann"),
            ("smtps://h", "imaps://ann@h", some("ann"), "ann"),
            ("smtps://ann@h", "imaps://bob@h", some("ann"), "bob"),
            ("smtp://localhost", "imaps://ann@h", None, "ann"),
            ("smtp://localhost", "imaps://h", None, "ann@example.org"),
            ("smtp://ann@localhost", "imaps://h", some("ann"), "ann"),
        ] {
            assert_eq!(users(smtp, imap), (sender, receiver.to_owned()), "{smtp} {imap}");
        }
    }
}
