//! What a test's Dovecot starts with.

use crate::certificates::CertificateOptions;

/// The mail that a test's Dovecot starts with.
#[derive(Clone, Debug)]
pub struct DovecotOptions {
    /// What stands after the `@` in the users' addresses.
    pub domain: String,
    /// Who has a mailbox. They log in by name or by address.
    pub users: Vec<User>,
    /// Mailboxes beside INBOX that every user finds.
    pub mailboxes: Vec<Mailbox>,
    /// What the server certificate says.
    pub certificate: CertificateOptions,
    /// Where an authorization server tells about tokens (RFC 7662); with it the users can log in by
    /// OAUTHBEARER and XOAUTH2, too.
    pub introspection_url: Option<String>,
    /// Lines added at the end of `dovecot.conf`, such as `imap_capability = IMAP4rev1 UIDPLUS`.
    pub extra_config: String,
}

/// A user of the mail servers.
#[derive(Clone, Debug)]
pub struct User {
    /// The name, in lower case: the part of the address before the `@`.
    pub name: String,
    /// The password at the start.
    pub password: String,
}

/// A mailbox that exists from the start.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// Its name; `.` separates levels.
    pub name: String,
    /// Its special use (RFC 6154), such as `\Archive`; `None` for an ordinary mailbox.
    pub special_use: Option<String>,
}

impl User {
    /// A user with a password.
    #[must_use]
    pub fn new(name: &str, password: &str) -> Self {
        Self { name: name.to_owned(), password: password.to_owned() }
    }
}

impl Default for DovecotOptions {
    /// Users `ann` and `bob` at `example.test`, an `Archive` with the special use `\Archive`, and a
    /// certificate for `localhost` and `127.0.0.1`.
    fn default() -> Self {
        Self {
            domain: "example.test".to_owned(),
            users: vec![User::new("ann", "ann's password"), User::new("bob", "bob's password")],
            mailboxes: vec![Mailbox {
                name: "Archive".to_owned(),
                special_use: Some(r"\Archive".to_owned()),
            }],
            certificate: CertificateOptions::default(),
            introspection_url: None,
            extra_config: String::new(),
        }
    }
}
