//! The limits of the machine: a disk that fills up, and servers and messages that could fill the
//! memory. The real daemon lives on, says what is wrong, and goes on by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;
#[path = "support/small_disk.rs"]
mod small_disk;

use std::time::Duration;

use house::PATIENCE;
use maildir::{await_messages, contains, messages};
use office::{accepted, office, once};
use postoffice::{Action, Fault, FaultHandle, ImapAction, ImapPhase, PostOffice, SmtpPhase};
use program::{Daemon, Program};
use realservers::wait;
use rustix::process::Signal;
use serde_json::Value;
use small_disk::SmallDisk;

/// Waits until the status says this.
async fn await_status(program: &Program, words: &str) -> Value {
    let mut last = String::new();
    let waited = wait::until_async(words, PATIENCE, async || {
        last = program.run(&["--json", "status"]).await.out;
        last.contains(words).then(|| serde_json::from_str(&last).unwrap())
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {last}"))
}

fn mail(subject: &str) -> Vec<u8> {
    format!("From: bob@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_takes_nothing_new_and_lets_the_queue_drain() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let disk = SmallDisk::mount(program.path("state"), 160);
    let full = async |subject: &str| {
        let said =
            program.run(&["send", "-t", "bob@example.org", "-s", subject, "--body", "x"]).await;
        assert_eq!(said.code, 75, "{said:?}");
        assert!(said.err.contains("MAPI_E_NOT_ENOUGH_DISK"), "{said:?}");
    };
    let mut queued = Vec::new();
    for number in 0..4 {
        queued.push(program.send(&format!("early {number}"), "bob@example.org").await);
    }
    // Less than the reserve of 64 MiB, more than the half of it that what was accepted may use.
    disk.fill(48);
    full("refused").await;
    let raw = "From: ann@example.org\r\nTo: bob@example.org\r\nSubject: raw\r\n\r\n".to_owned()
        + &"x".repeat(100_000);
    let said = program.run_with(&["send", "--raw"], raw.as_bytes()).await;
    assert_eq!(said.code, 75, "{said:?}");
    assert_eq!(program.json(&["queue"]).await.as_array().unwrap().len(), 4);
    assert_eq!(program.run(&["cancel", &queued[3]]).await.code, 0);
    let checked = program.run(&["fsck"]).await;
    assert_eq!(checked.code, 0, "{checked:?}");

    let daemon = program.daemon().await;
    full("refused by the daemon").await;
    program.await_empty_queue().await;
    full("refused again").await;
    let checked = program.run(&["fsck", "--repair"]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    assert_eq!(accepted(&office), once((0..3).map(|number| format!("early {number}"))));
    // Room is all it takes.
    disk.empty();
    program.send("late", "bob@example.org").await;
    program.await_empty_queue().await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    let early = (0..3).map(|number| format!("early {number}"));
    assert_eq!(accepted(&office), once(early.chain(["late".to_owned()])));
}

/// The disk is looked at again every half a minute.
const LOOKED_AGAIN: Duration = Duration::from_secs(90);

/// What was free is believed for 200 ms.
const ROOM_IS_KNOWN: Duration = Duration::from_millis(250);

/// Where the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Maildir,
    Spool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_pauses_what_comes_in_and_room_lets_it_go_on() {
    for full in [Full::Maildir, Full::Spool] {
        let office = office().await;
        let program = Program::new(&office, &["after = \"delete\""]);
        // Mail may leave the Maildir's reserve of 64 MiB alone, and half of that of the spool.
        let (disk, leaving) = match full {
            Full::Maildir => (SmallDisk::mount(program.maildir(), 160), 48),
            Full::Spool => (SmallDisk::mount(program.path("state"), 160), 24),
        };
        let daemon = program.daemon().await;
        let maildir = program.maildir();
        for number in 0..3 {
            office.deliver("ann", "INBOX", mail(&format!("early {number}"))).unwrap();
        }
        await_messages(&maildir, "INBOX", 3).await;
        let deleted = async |what: &str| {
            let waited = wait::until_async(what, PATIENCE, async || {
                office.messages("ann", "INBOX").unwrap().is_empty().then_some(())
            });
            waited.await.unwrap();
        };
        deleted("what was fetched to be deleted").await;

        disk.fill(leaving);
        // An answer of the file system about its room is used for this long; then none is left from
        // before.
        tokio::time::sleep(ROOM_IS_KNOWN).await;
        for number in 0..5 {
            office.deliver("ann", "INBOX", mail(&format!("late {number}"))).unwrap();
        }
        let status = await_status(&program, "MAPI_E_NOT_ENOUGH_DISK").await;
        let error = status["last_error"].as_str().unwrap();
        assert!(error.contains("free"), "{full:?}: {status:#}");
        assert_eq!(status["inbound"][0]["set_aside"], Value::Null, "{full:?}: {status:#}");
        assert_eq!(messages(&maildir, "INBOX").len(), 3, "{full:?}: nothing new is taken");
        let drafts = std::fs::read_dir(maildir.join("tmp")).unwrap().count();
        assert_eq!(drafts, 0, "{full:?}: something half written is left");
        assert_eq!(office.messages("ann", "INBOX").unwrap().len(), 5, "{full:?}");

        // Room is all it takes.
        disk.empty();
        let waited = wait::until_async("the rest", LOOKED_AGAIN, async || {
            (messages(&maildir, "INBOX").len() >= 8).then_some(())
        });
        waited.await.unwrap_or_else(|error| panic!("{full:?}: {error}"));
        deleted("the rest to be deleted").await;
        let all = messages(&maildir, "INBOX");
        for subject in
            (0..3).map(|n| format!("early {n}")).chain((0..5).map(|n| format!("late {n}")))
        {
            let line = format!("Subject: {subject}\r\n");
            let copies = all.iter().filter(|one| contains(one, line.as_bytes())).count();
            assert_eq!(copies, 1, "{full:?}: {subject}");
        }
        let trouble = wait::until_async("the trouble to be gone", LOOKED_AGAIN, async || {
            let status = program.run(&["--json", "status"]).await.out;
            (!status.contains("MAPI_E_NOT_ENOUGH_DISK")).then_some(())
        });
        trouble.await.unwrap();
        assert_eq!(program.run(&["fsck"]).await.code, 0, "{full:?}");
        assert_eq!(daemon.stop(Signal::TERM).await, 0);
        assert_eq!(messages(&maildir, "INBOX").len(), 8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_does_not_fit_says_so() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let disk = SmallDisk::mount(program.path("saved"), 1);
    program.send("small", "bob@example.org").await;
    disk.fill(0);
    let folder = program.path("saved");
    let folder = folder.to_str().unwrap();
    let said = program.run(&["fsck", "--export", folder]).await;
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("export"), "{said:?}");
    disk.empty();
    let said = program.run(&["fsck", "--export", folder]).await;
    assert_eq!(said.code, 0, "{said:?}");
}

/// The most memory a process had in RAM so far, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// So much a daemon may need beyond what it needed for two small messages, whatever comes. It is
/// a fraction of what comes.
const ROOM_KIB: u64 = 48 * 1024;

/// Octets of each flood.
const FLOOD: u64 = 96 << 20;

fn flood(line: &str) -> Action {
    let line = format!("{line} {}", "x".repeat(960)).into_bytes();
    let times = FLOOD / u64::try_from(line.len()).unwrap();
    Action::Flood { line, times }
}

async fn arrives(office: &PostOffice, program: &Program, subject: &str, strike: &FaultHandle) {
    strike.reached(PATIENCE).await.unwrap_or_else(|error| panic!("{subject}: {error}"));
    strike.remove();
    let waited = wait::until_async("mail both ways", LOOKED_AGAIN, async || {
        // A flush does not wait for the end of a pause.
        program.run(&["flush"]).await;
        let fetched = messages(&program.maildir(), "INBOX");
        let line = format!("Subject: {subject}\r\n");
        let came = fetched.iter().any(|one| contains(one, line.as_bytes()));
        (came && accepted(office).contains_key(subject)).then_some(())
    });
    waited.await.unwrap_or_else(|error| panic!("{subject}: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_and_giants_do_not_fill_the_memory() {
    let office = office().await;
    let program = Program::new(&office, &["after = \"delete\""]);
    let daemon = program.daemon().await;
    program.send("first", "bob@example.org").await;
    office.deliver("ann", "INBOX", mail("first")).unwrap();
    await_messages(&program.maildir(), "INBOX", 1).await;
    program.await_empty_queue().await;
    let before = peak(&daemon);

    let endless = || Action::EndlessLine { bytes: FLOOD };
    let smtp = |phase, action: Action| Fault::smtp(phase, action);
    let imap = |phase, action: Action| Fault::imap(phase, action);
    let faults = [
        ("SMTP greeting, many lines", smtp(SmtpPhase::Greeting, flood("220-"))),
        ("SMTP EHLO, many lines", smtp(SmtpPhase::Ehlo, flood("250-"))),
        ("SMTP RCPT, endless line", smtp(SmtpPhase::Rcpt, endless())),
        ("SMTP final dot, many lines", smtp(SmtpPhase::FinalDot, flood("451-"))),
        ("IMAP greeting, endless line", imap(ImapPhase::Greeting, endless())),
        ("IMAP EXAMINE, many lines", imap(ImapPhase::Select, flood("* OK"))),
        ("IMAP FETCH, endless line", imap(ImapPhase::Fetch, endless())),
        ("IMAP FETCH, many lines", imap(ImapPhase::Fetch, flood("* OK"))),
        (
            "IMAP SELECT, much news",
            Fault::imap(ImapPhase::Select, ImapAction::ExistsFlood(300_000)),
        ),
    ];
    for (name, fault) in faults {
        let strike = office.inject(fault.times(2));
        office.disconnect_all();
        program.send(name, "bob@example.org").await;
        office.deliver("ann", "INBOX", mail(name)).unwrap();
        arrives(&office, &program, name, &strike).await;
        println!("peak after {name}: {} KiB more than the {before} before", peak(&daemon) - before);
        assert!(peak(&daemon) < before + ROOM_KIB, "{name}: {} KiB", peak(&daemon));
    }

    // 60 MB each way.
    let text = "a line of a message that is much larger than what may be in memory\r\n";
    let giant = |to: &str| {
        let head = format!("From: ann@example.org\r\nTo: {to}\r\nSubject: giant\r\n\r\n");
        head + &text.repeat(60_000_000 / text.len())
    };
    let came = giant("ann@example.org").into_bytes();
    office.deliver("ann", "INBOX", came.clone()).unwrap();
    let said = program.run_with(&["send", "--raw"], giant("bob@example.org").as_bytes()).await;
    assert_eq!(said.code, 0, "{said:?}");
    program.await_empty_queue().await;
    let fetched = wait::until_async("the giant", PATIENCE, async || {
        messages(&program.maildir(), "INBOX").contains(&came).then_some(())
    });
    fetched.await.unwrap();
    println!("peak after 60 MB each way: {} KiB more", peak(&daemon) - before);
    assert!(peak(&daemon) < before + ROOM_KIB, "{} KiB", peak(&daemon));
    assert_eq!(accepted(&office)["giant"], 1);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_end_their_request_fill_neither_memory_nor_the_door() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let daemon = program.daemon().await;
    program.send("first", "bob@example.org").await;
    program.await_empty_queue().await;
    let before = peak(&daemon);
    // More than are let in at a time; those outside wait in the backlog.
    let mut clients = Vec::new();
    for _ in 0..256 + 64 {
        let client = std::os::unix::net::UnixStream::connect(program.socket()).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(client);
    }
    let head = format!("GET /v1/status HTTP/1.1\r\nx: {}", "x".repeat(60 * 1024));
    for client in &mut clients {
        // What does not fit into the socket is not needed: nobody reads it.
        let _ = std::io::Write::write(client, head.as_bytes());
    }
    // They are sent away when their time is over, and the others get in.
    assert_eq!(program.run(&["queue"]).await.code, 0);
    println!("peak after {} such clients: {} KiB more", clients.len(), peak(&daemon) - before);
    assert!(peak(&daemon) < before + ROOM_KIB, "{} KiB", peak(&daemon));
    drop(clients);
    program.send("second", "bob@example.org").await;
    program.await_empty_queue().await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}
