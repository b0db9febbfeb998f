//! A post office in this process as a user's mail provider.

use std::collections::BTreeMap;
use std::path::Path;

use postoffice::{Listener, PostOffice};

use crate::house::{Account, Server};

/// A post office with the users ann and bob.
pub(crate) async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").user("bob", "secret").start().await.unwrap()
}

/// Ann's account there, by implicit TLS both ways. The authority goes into a file in `folder`;
/// the lines are for the section of IMAP.
pub(crate) fn account(office: &PostOffice, folder: &Path, lines: &[&str]) -> Account {
    let imap = lines
        .iter()
        .fold(server(office, Listener::Imaps, folder), |server, line| server.with(*line));
    sender(office, folder, &[]).imap(imap)
}

/// The same without IMAP; the lines are for the section of SMTP.
pub(crate) fn sender(office: &PostOffice, folder: &Path, lines: &[&str]) -> Account {
    let smtp = lines
        .iter()
        .fold(server(office, Listener::Smtps, folder), |server, line| server.with(*line));
    Account::new("work", "Ann Example <ann@example.org>").smtp(smtp)
}

fn server(office: &PostOffice, listener: Listener, folder: &Path) -> Server {
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, office.ca_pem()).unwrap();
    Server::implicit(office.address(listener).unwrap(), &ca_file).login("ann", "secret")
}

/// How often each subject was accepted.
pub(crate) fn accepted(office: &PostOffice) -> BTreeMap<String, usize> {
    let accepted = office.accepted();
    subjects(accepted.iter().map(|message| &**message.bytes().unwrap()))
}

/// How often each subject is among these messages.
pub(crate) fn subjects<'a>(messages: impl Iterator<Item = &'a [u8]>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        let text = String::from_utf8_lossy(message);
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
        *counts.entry(subject.to_owned()).or_default() += 1;
    }
    counts
}

/// Each of these subjects once.
pub(crate) fn once(subjects: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    subjects.map(|subject| (subject, 1)).collect()
}
