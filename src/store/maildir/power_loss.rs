//! A power loss at every moment of a delivery: what was acknowledged is there, whole, and no
//! mailbox ever holds a message that is not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;

use super::*;
use crate::spool::disk::ledger::{Event, Forgets, Ledger, every_power_loss};

/// Messages with the mailbox they go to and how they are shown.
fn messages() -> Vec<(&'static str, FileState, Vec<u8>)> {
    let text =
        |number: u8, len: usize| [b"Subject: ", vec![b'a' + number; len].as_slice()].concat();
    vec![
        ("INBOX", FileState::New, text(0, 50)),
        ("INBOX", FileState::New, text(1, 9_000)),
        ("Lists/Rust", FileState::New, text(2, 60)),
        ("Lists/Rust", FileState::New, text(3, 70)),
        ("Sent", FileState::Seen, text(4, 80)),
    ]
}

fn record(forgets: Forgets) -> Vec<Event> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap().join("Mail");
    let now = SysTime::from_millis(1_700_000_000_000);
    // What the first open makes is not of interest here.
    drop(Maildir::open(&root, "box".into(), now, Arc::new(crate::spool::disk::RealDisk)).unwrap());
    let ledger = Ledger::new(forgets);
    let maildir = Maildir::open(&root, "box".into(), now, Arc::clone(&ledger) as _).unwrap();
    for (number, (mailbox, state, content)) in messages().into_iter().enumerate() {
        let mut draft = maildir.draft().unwrap();
        for part in content.chunks(4_000) {
            draft.write(part).unwrap();
        }
        let place = Place {
            mailbox: mailbox.to_owned(),
            token: Token::of(Origin::Received, &[u8::try_from(number).unwrap()]),
            time: now,
            state,
            look: Look::Here,
        };
        maildir.deliver(draft, &place).unwrap();
        ledger.promise(number);
        // One that nobody saves.
        drop(maildir.draft().unwrap());
    }
    ledger.events()
}

fn is_in_mailbox(file: &Path) -> bool {
    let folder = file.parent().and_then(Path::file_name).unwrap();
    folder == "new" || folder == "cur"
}

fn losses(events: &[Event]) -> (Vec<String>, (usize, usize)) {
    let messages = messages();
    let mut wrong = Vec::new();
    let tried = every_power_loss(events, |moment, remains| {
        let there = |content: &Vec<u8>| {
            remains.iter().any(|(file, bytes)| is_in_mailbox(file) && bytes == content)
        };
        for event in &events[..moment] {
            if let Event::Promised(number) = event
                && !there(&messages[*number].2)
            {
                wrong.push(format!("{moment}: message {number} is lost"));
            }
        }
        for (file, bytes) in remains.iter().filter(|(file, _)| is_in_mailbox(file)) {
            if !messages.iter().any(|(_, _, content)| content == bytes) {
                wrong.push(format!("{moment}: {} is not whole", file.display()));
            }
        }
    });
    (wrong, tried)
}

#[test]
fn no_power_loss_takes_what_was_delivered() {
    let (wrong, (moments, states)) = losses(&record(Forgets::Nothing));
    assert_eq!(wrong, Vec::<String>::new());
    println!("maildir: {moments} moments, {states} states of the disk");
    assert!(moments > 40 && states > 150, "{moments} moments, {states} states");
}

#[test]
fn a_sync_that_is_missing_is_noticed() {
    for forgets in [Forgets::SyncFile, Forgets::SyncFolder] {
        let (wrong, _) = losses(&record(forgets));
        assert!(!wrong.is_empty(), "{forgets:?} was not noticed");
    }
}

/// A disk whose sync fails once, as one that lost the cable for a moment.
#[derive(Debug)]
struct FailsOnce(std::sync::atomic::AtomicBool);

impl Disk for FailsOnce {
    fn create(&self, at: At<'_>) -> io::Result<std::fs::File> {
        RealDisk.create(at)
    }
    fn write(&self, file: &std::fs::File, bytes: &[u8]) -> io::Result<()> {
        RealDisk.write(file, bytes)
    }
    fn sync_file(&self, file: &std::fs::File) -> io::Result<()> {
        match self.0.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => RealDisk.sync_file(file),
        }
    }
    fn make_folder(&self, at: At<'_>) -> io::Result<()> {
        RealDisk.make_folder(at)
    }
    fn rename(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn link(&self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        RealDisk.link(from, to)
    }
    fn unlink(&self, at: At<'_>) -> io::Result<()> {
        RealDisk.unlink(at)
    }
    fn sync_folder(&self, folder: rustix::fd::BorrowedFd<'_>) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }
}

use crate::spool::disk::RealDisk;

#[test]
fn after_a_sync_that_failed_nothing_is_delivered_until_the_next_open() {
    let folder = tempfile::tempdir().unwrap();
    let (root, now) = (folder.path().join("Mail"), SysTime::from_millis(1_700_000_000_000));
    let disk = Arc::new(FailsOnce(true.into()));
    let maildir = Maildir::open(&root, "box".into(), now, disk).unwrap();
    let place = Place {
        mailbox: "INBOX".to_owned(),
        token: Token::of(Origin::Received, b"1"),
        time: now,
        state: FileState::New,
        look: Look::Here,
    };
    let mut draft = maildir.draft().unwrap();
    draft.write(b"text").unwrap();
    let error = maildir.deliver(draft, &place).unwrap_err();
    assert_eq!(MapiError::from(error).code(), MapiCode::DISK_ERROR);
    let error = maildir.draft().unwrap_err();
    assert_eq!(MapiError::from(error).code(), MapiCode::DISK_ERROR, "well again, not trusted");
    assert_eq!(std::fs::read_dir(root.join("new")).unwrap().count(), 0);
}
