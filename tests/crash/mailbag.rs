//! Mail that arrives at the servers meanwhile, and whether it was fetched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use postoffice::PostOffice;
use realservers::Dovecot;

use crate::maildir::{contains, messages};
use crate::real::on_server;

/// How many messages arrive in a round at most, at each of the two servers.
const MOST: usize = 4;

/// Two servers with mail for the same user.
pub(crate) struct Mailbag {
    office: Arc<PostOffice>,
    dovecot: Arc<Dovecot>,
    dice: Mutex<fastrand::Rng>,
    /// What was put into the post office, which does not change a byte.
    bytes: Mutex<Vec<Vec<u8>>>,
    /// What was handed to Dovecot, which adds fields of its own.
    handed: Mutex<usize>,
}

/// Inbound, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) injected: usize,
    pub(crate) missing: usize,
    pub(crate) repeated: usize,
    /// Files that are neither fetched mail nor a report.
    pub(crate) strange: usize,
    /// What is still on the server although it was to be deleted.
    pub(crate) undeleted: usize,
    /// What has no \Seen on the server although it was to get it.
    pub(crate) unseen: usize,
}

impl Mailbag {
    pub(crate) fn new(office: Arc<PostOffice>, dovecot: Arc<Dovecot>, dice: fastrand::Rng) -> Self {
        Mailbag {
            office,
            dovecot,
            dice: Mutex::new(dice),
            bytes: Mutex::default(),
            handed: Mutex::default(),
        }
    }

    /// Lets some mail arrive.
    pub(crate) async fn fill(&self, round: u32) {
        let mut letters = Vec::new();
        {
            let mut dice = self.dice.lock().unwrap();
            for server in ["office", "dovecot"] {
                for number in 0..dice.usize(0..=MOST) {
                    let filler = filler(&mut dice);
                    let head = format!(
                        "From: someone@example.net\r\nSubject: {server} {round}-{number}\r\n\r\n"
                    );
                    letters.push((server, format!("{head}{filler}\r\n").into_bytes()));
                }
            }
        }
        for (server, letter) in letters {
            if server == "office" {
                self.office.deliver("ann", "INBOX", letter.clone()).unwrap();
                self.bytes.lock().unwrap().push(letter);
            } else {
                let dovecot = Arc::clone(&self.dovecot);
                let handed = move || dovecot.lmtp_deliver("ann", &letter);
                tokio::task::spawn_blocking(handed).await.unwrap().unwrap();
                *self.handed.lock().unwrap() += 1;
            }
        }
    }

    /// Whether everything is here and what had to be done on the servers is done.
    pub(crate) async fn is_fetched(&self, maildir: &Path) -> bool {
        if self.office.message_count("ann", "INBOX") > 0 {
            return false;
        }
        let state = self.state(maildir).await;
        state.starts_with("all ")
    }

    /// The same in words.
    pub(crate) async fn state(&self, maildir: &Path) -> String {
        let fetched = self.count(maildir).await;
        let open = fetched.missing + fetched.undeleted + fetched.unseen;
        if open == 0 { format!("all {}", fetched.injected) } else { format!("{fetched:?}") }
    }

    /// Compares the Maildir with what arrived, byte for byte.
    pub(crate) async fn count(&self, maildir: &Path) -> Fetched {
        let dovecot = Arc::clone(&self.dovecot);
        let kept = tokio::task::spawn_blocking(move || on_server(&dovecot, "ann", "INBOX"));
        let kept = kept.await.unwrap();
        let unseen = kept.iter().filter(|one| !one.flags.iter().any(|flag| flag == r"\Seen"));
        let mut fetched = Fetched {
            injected: self.bytes.lock().unwrap().len() + *self.handed.lock().unwrap(),
            unseen: unseen.count(),
            undeleted: self.office.message_count("ann", "INBOX"),
            ..Fetched::default()
        };
        assert_eq!(kept.len(), *self.handed.lock().unwrap(), "Dovecot's own count");
        let mut wanted: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let given = self.bytes.lock().unwrap().clone();
        for bytes in given.into_iter().chain(kept.into_iter().map(|one| one.bytes)) {
            wanted.insert(bytes, 0);
        }
        assert_eq!(wanted.len(), fetched.injected, "every message is another one");
        for bytes in messages(maildir, "INBOX") {
            match wanted.get_mut(&bytes) {
                Some(count) => *count += 1,
                None if contains(&bytes, b"report-type=") => {}
                None => fetched.strange += 1,
            }
        }
        fetched.missing = wanted.values().filter(|count| **count == 0).count();
        fetched.repeated = wanted.values().map(|count| count.saturating_sub(1)).sum();
        fetched
    }
}

/// Lines that nobody has seen before: mostly few, sometimes more than fits into one read.
pub(crate) fn filler(dice: &mut fastrand::Rng) -> String {
    let lines = match dice.u32(0..10) {
        0..7 => dice.usize(1..20),
        7..9 => dice.usize(100..600),
        _ => dice.usize(2000..4000),
    };
    let mut text = String::new();
    for _ in 0..lines {
        (0..64).for_each(|_| text.push(dice.alphanumeric()));
        text.push_str("\r\n");
    }
    text
}
