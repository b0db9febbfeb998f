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
    as_real_disk!(create write make_folder rename link unlink sync_folder);
    fn sync_file(&self, file: &std::fs::File) -> io::Result<()> {
        match self.0.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(5)),
            false => RealDisk.sync_file(file),
        }
    }
}

use crate::spool::disk::{RealDisk, as_real_disk};

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

const SIZE: usize = 3_000;

/// A message that comes in three tries; each promises what it has kept.
fn record_beginning(forgets: Forgets) -> (Vec<Event>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap().join("Mail");
    let now = SysTime::from_millis(1_700_000_000_000);
    drop(Maildir::open(&root, "box".into(), now, Arc::new(crate::spool::disk::RealDisk)).unwrap());
    let ledger = Ledger::new(forgets);
    let maildir = Maildir::open(&root, "box".into(), now, Arc::clone(&ledger) as _).unwrap();
    let text: Vec<u8> = (0..SIZE).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let token = Token::of(Origin::Received, b"large");
    let size = u64::try_from(SIZE).unwrap();
    for octets in [0, 1_000, 2_000] {
        let resumed = maildir.resume(token, size, |_| {}).unwrap();
        let mut draft = match resumed {
            Some(resumed) => {
                assert_eq!(usize::try_from(resumed.octets).unwrap(), octets);
                resumed.draft
            }
            None => maildir.begin(token, size).unwrap(),
        };
        draft.write(&text[octets..octets + 500]).unwrap();
        draft.write(&text[octets + 500..octets + 1_000]).unwrap();
        if octets < 2_000 {
            maildir.keep(draft).unwrap();
        } else {
            let place = Place {
                mailbox: "INBOX".to_owned(),
                token,
                time: now,
                state: FileState::New,
                look: Look::Here,
            };
            maildir.deliver(draft, &place).unwrap();
        }
        ledger.promise(octets + 1_000);
    }
    (ledger.events(), text)
}

/// What of the message a Maildir that is left like this has.
fn taken_up(remains: &crate::spool::disk::ledger::Remains, text: &[u8]) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("Mail");
    let now = SysTime::from_millis(
        u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap(),
    );
    for part in ["tmp", "new", "cur"] {
        std::fs::create_dir_all(root.join(part)).unwrap();
    }
    for (file, bytes) in remains {
        let part = file.parent().and_then(Path::file_name).unwrap();
        if is_in_mailbox(file) {
            return if bytes == text { Ok(SIZE) } else { Err("it is not whole".into()) };
        }
        std::fs::write(root.join(part).join(file.file_name().unwrap()), bytes).unwrap();
    }
    let maildir = Maildir::open(&root, "box".into(), now, Arc::new(RealDisk)).unwrap();
    let (token, mut seen) = (Token::of(Origin::Received, b"large"), Vec::new());
    let size = u64::try_from(SIZE).unwrap();
    let resumed = maildir.resume(token, size, |bytes| seen.extend_from_slice(bytes)).unwrap();
    let Some(resumed) = resumed else { return Ok(0) };
    // What did not fit was shown as well.
    let mut content = Vec::new();
    let mut reader = resumed.reader;
    std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
    match text.starts_with(&content) && seen.ends_with(&content) {
        true => Ok(content.len()),
        false => Err("another beginning is taken up".into()),
    }
}

fn beginning_losses(forgets: Forgets) -> (Vec<String>, (usize, usize)) {
    let (events, text) = record_beginning(forgets);
    let mut wrong = Vec::new();
    let tried = every_power_loss(&events, |moment, remains| {
        let promised = events[..moment].iter().filter_map(|event| match event {
            Event::Promised(octets) => Some(*octets),
            _ => None,
        });
        match taken_up(remains, &text) {
            Err(why) => wrong.push(format!("{moment}: {why}")),
            Ok(has) if has < promised.max().unwrap_or(0) => {
                wrong.push(format!("{moment}: only {has} octets are left"));
            }
            Ok(_) => {}
        }
    });
    (wrong, tried)
}

#[test]
fn no_power_loss_takes_a_beginning_or_makes_it_another() {
    let (wrong, (moments, states)) = beginning_losses(Forgets::Nothing);
    assert_eq!(wrong, Vec::<String>::new());
    println!("beginnings: {moments} moments, {states} states of the disk");
    assert!(moments > 20 && states > 50, "{moments} moments, {states} states");
    for forgets in [Forgets::SyncFile, Forgets::SyncFolder] {
        let (wrong, _) = beginning_losses(forgets);
        assert!(!wrong.is_empty(), "{forgets:?} was not noticed");
    }
}

/// Deliveries at the same time share the syncs of their folder, and each is durable when it is
/// told so.
#[test]
fn no_power_loss_takes_what_was_delivered_at_the_same_time() {
    let (threads, each) = (4_usize, 3_usize);
    let content = |number: usize| format!("Subject: {number}\r\n\r\ntext").into_bytes();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap().join("Mail");
    let now = SysTime::from_millis(1_700_000_000_000);
    drop(Maildir::open(&root, "box".into(), now, Arc::new(RealDisk)).unwrap());
    let ledger = Ledger::new(Forgets::Nothing);
    let maildir = Maildir::open(&root, "box".into(), now, Arc::clone(&ledger) as _).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (maildir, ledger) = (&maildir, &ledger);
            scope.spawn(move || {
                for number in thread * each..(thread + 1) * each {
                    let mut draft = maildir.draft().unwrap();
                    draft.write(&content(number)).unwrap();
                    let place = Place {
                        mailbox: "INBOX".to_owned(),
                        token: Token::of(Origin::Received, &[u8::try_from(number).unwrap()]),
                        time: now,
                        state: FileState::New,
                        look: Look::Here,
                    };
                    maildir.deliver(draft, &place).unwrap();
                    ledger.promise(number);
                }
            });
        }
    });
    let events = ledger.events();
    every_power_loss(&events, |moment, remains| {
        for event in &events[..moment] {
            if let Event::Promised(number) = event {
                let wanted = content(*number);
                let there =
                    remains.iter().any(|(file, bytes)| is_in_mailbox(file) && *bytes == wanted);
                assert!(there, "{moment}: message {number} is lost");
            }
        }
    });
}
