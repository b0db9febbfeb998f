//! Accounts from the configuration files of other programs: msmtp, mbsync (isync), fetchmail,
//! getmail, and the Internet accounts of an Outlook profile file (`.prf`).
//!
//! Everything here is pure: text in, accounts and remarks out. What has no counterpart becomes a
//! remark with its line; a remark never repeats a password. Where a program would send a password
//! in clear over a network, STARTTLS is written instead, and a remark says so.

mod fetchmail;
mod getmail;
mod ini;
mod mbsync;
mod merge;
mod msmtp;
mod prf;
mod text;

use std::path::Path;

use super::template::travels_in_clear;
use super::{IdentityProfile, NewReceiving, NewServer};
use crate::net::TlsMode;

pub use merge::merge;
pub use text::decode;

/// The largest file that is read, in bytes.
pub const LARGEST_FILE: u64 = 1024 * 1024;

/// Whose configuration a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// `~/.msmtprc`.
    Msmtp,
    /// `~/.mbsyncrc`.
    Mbsync,
    /// `~/.fetchmailrc`.
    Fetchmail,
    /// `~/.config/getmail/getmailrc`.
    Getmail,
    /// An Outlook profile file.
    Prf,
}

impl ImportKind {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ImportKind::Msmtp => "msmtp",
            ImportKind::Mbsync => "mbsync",
            ImportKind::Fetchmail => "fetchmail",
            ImportKind::Getmail => "getmail",
            ImportKind::Prf => "prf",
        }
    }

    /// What a file is, by its name and else by its first words; `None` when neither tells.
    pub fn guess(file: &Path, text: &str) -> Option<Self> {
        let path = file.to_string_lossy().to_ascii_lowercase();
        for (part, kind) in [
            ("msmtp", ImportKind::Msmtp),
            ("mbsync", ImportKind::Mbsync),
            ("isync", ImportKind::Mbsync),
            ("fetchmail", ImportKind::Fetchmail),
            ("getmail", ImportKind::Getmail),
            (".prf", ImportKind::Prf),
        ] {
            if path.contains(part) {
                return Some(kind);
            }
        }
        let begins = |line: &str, words: &[&str]| {
            let first = line.split_whitespace().next().unwrap_or_default();
            words.iter().any(|word| first.eq_ignore_ascii_case(word))
        };
        // By the surest sign, wherever it stands: `defaults` begins a part in more than one format.
        let holds = |sign: &dyn Fn(&str) -> bool| text.lines().map(str::trim).any(sign);
        if holds(&|line| line.eq_ignore_ascii_case("[retriever]")) {
            Some(ImportKind::Getmail)
        } else if holds(&|line| line.eq_ignore_ascii_case("[Internet Account List]")) {
            Some(ImportKind::Prf)
        } else if holds(&|line| begins(line, &["IMAPAccount", "IMAPStore", "MaildirStore"])) {
            Some(ImportKind::Mbsync)
        } else if holds(&|line| begins(line, &["poll", "skip", "server"])) {
            Some(ImportKind::Fetchmail)
        } else if holds(&|line| begins(line, &["account", "defaults"])) {
            Some(ImportKind::Msmtp)
        } else {
            None
        }
    }
}

/// What has no counterpart, or another one than expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Line of the file, counted from 1.
    pub line: usize,
    /// What it is about and what became of it. Never a password.
    pub text: String,
}

/// An account of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedAccount {
    /// Line where it begins.
    pub line: usize,
    /// Its name in the file.
    pub name: String,
    /// Whether the file makes it the one to use when none is named.
    pub first: bool,
    /// Who sends, as far as the file says.
    pub identity: Option<IdentityProfile>,
    /// Sending.
    pub smtp: Option<NewServer>,
    /// Receiving.
    pub imap: Option<NewReceiving>,
}

impl ImportedAccount {
    fn new(line: usize, name: &str) -> Self {
        let name = name.to_owned();
        ImportedAccount { line, name, first: false, identity: None, smtp: None, imap: None }
    }

    /// Whether a login has no password yet.
    pub fn lacks_password(&self) -> bool {
        let lacks = |server: &NewServer| server.url.user.is_some() && server.password.is_none();
        let receiving = self.imap.as_ref().map(|imap| &imap.server);
        self.smtp.iter().chain(receiving).any(lacks)
    }

    /// Takes user names that are addresses, or the host's domain, for the identity that the file
    /// does not name.
    fn guess_identity(&mut self, remarks: &mut Vec<Remark>) {
        if self.identity.is_some() {
            return;
        }
        let mut servers = self.smtp.iter().chain(self.imap.iter().map(|imap| &imap.server));
        let guess = servers.find_map(guessed_address);
        if let Some(address) = guess {
            let text = format!("{}: the file names no address; taken is {address}", self.name);
            remarks.push(Remark { line: self.line, text });
            self.identity = Some(IdentityProfile { name: String::new(), address });
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Its accounts, in the order of the file.
    pub accounts: Vec<ImportedAccount>,
    /// What is to be told, by line.
    pub remarks: Vec<Remark>,
}

/// Reads a configuration file.
pub fn import(kind: ImportKind, text: &str) -> Imported {
    let mut imported = match kind {
        ImportKind::Msmtp => msmtp::read(text),
        ImportKind::Mbsync => mbsync::read(text),
        ImportKind::Fetchmail => fetchmail::read(text),
        ImportKind::Getmail => getmail::read(text),
        ImportKind::Prf => prf::read(text),
    };
    let remarks = &mut imported.remarks;
    for account in &mut imported.accounts {
        let line = account.line;
        let receiving = account.imap.as_mut().map(|imap| &mut imap.server);
        for server in account.smtp.iter_mut().chain(receiving) {
            protect(server, line, remarks);
        }
        account.guess_identity(remarks);
    }
    remarks.sort_by_key(|remark| remark.line);
    imported
}

/// No password travels in clear over a network.
fn protect(server: &mut NewServer, line: usize, remarks: &mut Vec<Remark>) {
    if server.url.user.is_some() && travels_in_clear(&server.url) {
        server.url.port = Some(server.url.port());
        server.url.tls = TlsMode::StartTls;
        let host = &server.url.host;
        let text = format!("{host}: without TLS the password would be readable; STARTTLS is used");
        remarks.push(Remark { line, text });
    }
    let trusts = server.ca_file.is_some() || server.fingerprint.is_some();
    if server.url.tls == TlsMode::Plain && trusts {
        (server.ca_file, server.fingerprint) = (None, None);
        let text = format!("{}: without TLS there is no certificate to check", server.url.host);
        remarks.push(Remark { line, text });
    }
}

fn guessed_address(server: &NewServer) -> Option<String> {
    let user = server.url.user.as_deref()?;
    let address = if user.contains('@') {
        user.to_owned()
    } else {
        let host = &server.url.host;
        let parts: Vec<&str> = host.split('.').collect();
        let domain = match parts.as_slice() {
            [service, rest @ ..] if rest.len() >= 2 && is_service(service) => rest.join("."),
            _ => host.clone(),
        };
        format!("{user}@{domain}")
    };
    super::parse_address(&address).ok()
}

fn is_service(label: &str) -> bool {
    let label = label.to_ascii_lowercase();
    ["imap", "smtp", "mail", "pop", "pop3", "mx"].contains(&label.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
#[path = "tests.rs"]
mod tests;
