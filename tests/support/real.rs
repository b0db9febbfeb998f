//! Dovecot and Postfix as a user's mail provider.

use std::path::Path;

use realservers::{Dovecot, DovecotOptions, Fetched, Postfix, PostfixOptions, User, wait};

use crate::house::{Account, PATIENCE, Server};

/// The provider: Postfix takes mail, Dovecot keeps it.
pub(crate) struct Provider {
    // Before Dovecot, which it asks about passwords.
    pub(crate) postfix: Postfix,
    pub(crate) dovecot: Dovecot,
}

impl Provider {
    /// Both servers with the users ann, bob and `more`.
    pub(crate) fn start(more: &[String]) -> Self {
        let dovecot = dovecot(more);
        let postfix = Postfix::start(&dovecot, PostfixOptions::default()).unwrap();
        Provider { postfix, dovecot }
    }

    /// The submission port with STARTTLS.
    pub(crate) fn submission(&self) -> Server {
        Server::starttls(self.postfix.submission_address(), ca_file(&self.dovecot))
    }

    /// The submission port with implicit TLS.
    pub(crate) fn submissions(&self) -> Server {
        Server::implicit(self.postfix.submissions_address(), ca_file(&self.dovecot))
    }

    /// IMAP with STARTTLS.
    pub(crate) fn imap(&self) -> Server {
        Server::starttls(self.dovecot.imap_address(), ca_file(&self.dovecot))
    }

    /// IMAP with implicit TLS.
    pub(crate) fn imaps(&self) -> Server {
        imaps(&self.dovecot)
    }

    /// A transport of ann's that only sends, by STARTTLS.
    pub(crate) fn sender(&self) -> Account {
        let login = self.submission().login("ann", &self.dovecot.password_of("ann").unwrap());
        Account::new("work", "Ann Example <ann@example.test>").smtp(login)
    }
}

/// Dovecot alone with the users ann, bob and `more`.
pub(crate) fn dovecot(more: &[String]) -> Dovecot {
    let mut options = DovecotOptions::default();
    options.users.extend(more.iter().map(|name| User::new(name, "secret")));
    Dovecot::start(options).unwrap()
}

/// Dovecot's IMAP with implicit TLS.
pub(crate) fn imaps(dovecot: &Dovecot) -> Server {
    Server::implicit(dovecot.imaps_address(), ca_file(dovecot))
}

/// A transport that only receives ann's mail, by implicit TLS.
pub(crate) fn receiver(dovecot: &Dovecot, line: &str) -> Account {
    let server = imaps(dovecot).login("ann", &dovecot.password_of("ann").unwrap()).with(line);
    Account::new("work", "Ann Example <ann@example.test>").imap(server)
}

fn ca_file(dovecot: &Dovecot) -> &Path {
    dovecot.certificates().authority_file()
}

/// Waits until Dovecot has `count` messages of a user in INBOX.
pub(crate) fn await_delivered(dovecot: &Dovecot, user: &str, count: usize) {
    let what = format!("{count} messages for {user} on the server");
    let waited = wait::until(&what, PATIENCE, || {
        let files = dovecot.message_files(user, "INBOX").unwrap();
        (files.len() >= count).then_some(())
    });
    waited.unwrap();
}

/// What Dovecot gives out of a mailbox.
pub(crate) fn on_server(dovecot: &Dovecot, user: &str, mailbox: &str) -> Vec<Fetched> {
    dovecot.log_in(user).unwrap().fetch_all(mailbox).unwrap()
}
