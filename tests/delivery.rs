//! Received mail that goes to an LMTP server or to a program instead of a Maildir.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    unreachable_pub
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/letters.rs"]
mod letters;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;
#[path = "support/real.rs"]
mod real;

use std::fs;
use std::path::{Path, PathBuf};

use house::{GRACE, House, PATIENCE, await_row, profile_text_with};
use letters::letter;
use office::{account, office};
use postoffice::{Fault, SmtpAction, SmtpPhase};
use postrider::session::{FlushRequest, Logon, Service};
use program::Program;
use real::{dovecot, on_server, receiver};
use realservers::wait;
use rustix::process::Signal;

const DOWNLOAD: FlushRequest = FlushRequest { upload: false, download: true };

fn message(number: usize) -> Vec<u8> {
    let text = format!("From: bob@example.test\r\nSubject: number {number}\r\n\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b".\r\n..\r\nGr\xfc\xdfe\r\n");
    bytes.extend(std::iter::repeat_n(b'x', number * 20_000));
    bytes.extend_from_slice(b"\r\n.end\r\n");
    bytes
}

/// A program of the shell's that does `script`, where `$OUT` is a folder.
fn shell(out: &Path, script: &str) -> String {
    let file = out.join("mda.sh");
    fs::write(&file, format!("OUT={}\n{script}\n", out.display())).unwrap();
    format!("mda = [\"/bin/sh\", {:?}]", file.display().to_string())
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

async fn await_files(folder: &Path, ending: &str, count: usize) -> Vec<PathBuf> {
    let what = format!("{count} files *{ending}");
    let waited = wait::until_async(&what, PATIENCE, async || {
        let found = files(folder, ending);
        (found.len() >= count).then_some(found)
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: {:?}", files(folder, "")))
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_dovecot_gets_every_message_by_lmtp() {
    let dovecot = dovecot(&[]);
    for number in 0..12 {
        dovecot.lmtp_deliver("ann", &message(number)).unwrap();
    }
    let (address, bob) = (dovecot.lmtp_address(), dovecot.address_of("bob"));
    let store = format!("lmtp = \"{address}\"\nrecipient = {bob:?}");
    let house = House::with_store(&[receiver(&dovecot, "after = \"delete\"")], &store);
    let session = house.open(Logon::Closed).await;
    assert_eq!(session.flush(DOWNLOAD).await.unwrap().received, 12);
    session.shutdown(GRACE).await.unwrap();

    let arrived = on_server(&dovecot, "bob", "INBOX");
    assert_eq!(arrived.len(), 12);
    for number in 0..12 {
        let wanted = message(number);
        // Each server on the way has put its trace in front.
        let copies = arrived.iter().filter(|one| one.bytes.ends_with(&wanted)).count();
        assert_eq!(copies, 1, "of number {number}");
    }
    assert!(on_server(&dovecot, "ann", "INBOX").is_empty(), "deleted once it was handed over");
    assert!(!house.maildir().exists(), "no Maildir was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lmtp_does_not_take_stays_on_the_server_and_the_status_says_why() {
    let dovecot = dovecot(&[]);
    dovecot.lmtp_deliver("ann", &message(0)).unwrap();
    let address = dovecot.lmtp_address();
    let store = format!("lmtp = \"{address}\"\nrecipient = \"nobody@example.test\"");
    let house = House::with_store(&[receiver(&dovecot, "after = \"delete\"")], &store);
    let session = house.open(Logon::Full).await;
    let row = await_row(&session, "work", "in trouble", |row| {
        row.status_string.contains("RCPT") && row.status_string.contains("550")
    });
    assert!(row.await.status_string.contains(&address.to_string()));
    let inbound = session.status().await.unwrap().inbound;
    assert!(inbound.iter().all(|state| state.set_aside.is_empty()), "{inbound:?}");
    // What is owed to the receiver is what the mailbox still has to give.
    assert_eq!(inbound[0].pending, 1, "{inbound:?}");
    session.shutdown(GRACE).await.unwrap();
    assert_eq!(on_server(&dovecot, "ann", "INBOX").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_refused_for_good_is_set_aside_and_the_others_flow() {
    let office = office().await;
    let out = tempfile::tempdir().unwrap();
    let script = "cat > $OUT/$DELIVERY_ID.text\n\
                  if grep -q 'number 1' $OUT/$DELIVERY_ID.text; then\n\
                  mv $OUT/$DELIVERY_ID.text $OUT/refused; echo not this one >&2; exit 65; fi";
    let store = shell(out.path(), script);
    for number in 0..4 {
        let text = format!("Subject: number {number}\r\n\r\nx\r\n");
        office.deliver("ann", "INBOX", text.into_bytes()).unwrap();
    }
    let certificates = tempfile::tempdir().unwrap();
    let house = House::with_store(
        &[account(&office, certificates.path(), &["after = \"delete\""])],
        &store,
    );
    let session = house.open(Logon::Full).await;
    await_files(out.path(), ".text", 3).await;
    let waited = wait::until_async("it to be set aside", PATIENCE, async || {
        let inbound = session.status().await.unwrap().inbound;
        let aside = inbound.into_iter().find(|state| state.set_aside.len() == 1)?;
        Some(aside)
    });
    let aside = waited.await.unwrap();
    assert!(format!("{aside:?}").contains("not this one"), "{aside:?}");
    let waited = wait::until_async("the refused one alone to be left", PATIENCE, async || {
        (office.messages("ann", "INBOX").unwrap().len() == 1).then_some(())
    });
    waited.await.unwrap();
    session.shutdown(GRACE).await.unwrap();
    let left = office.messages("ann", "INBOX").unwrap();
    assert!(String::from_utf8_lossy(&left[0].bytes).contains("number 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_goes_the_same_way_as_received_mail() {
    let office = office().await;
    let out = tempfile::tempdir().unwrap();
    let store = shell(out.path(), "echo \"<$SENDER>\" > $OUT/sender; cat > $OUT/report.text");
    let certificates = tempfile::tempdir().unwrap();
    let house = House::with_store(&[account(&office, certificates.path(), &[])], &store);
    office.inject(Fault::smtp(SmtpPhase::Rcpt, SmtpAction::reply(550, "5.1.1", "no such user")));
    let session = house.open(Logon::Full).await;
    session.submit(letter("to nobody", &["nobody@example.org"])).await.unwrap();
    let report = await_files(out.path(), ".text", 1).await;
    let is_whole = async || {
        let text = fs::read_to_string(&report[0]).unwrap();
        text.contains("message/delivery-status").then_some(text)
    };
    let text = wait::until_async("the whole report", PATIENCE, is_whole).await.unwrap();
    session.shutdown(GRACE).await.unwrap();
    assert!(text.contains("5.1.1") && text.contains("nobody@example.org"), "{text}");
    assert_eq!(fs::read_to_string(out.path().join("sender")).unwrap(), "<>\n");
}

/// Proves: IB-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_the_program_works_gives_it_whole_messages_and_says_what_may_be_a_repetition()
{
    let office = office().await;
    let program = Program::new(&office, &[]);
    let out = program.path("out");
    fs::create_dir(&out).unwrap();
    let script = "echo > $OUT/$DELIVERY_ID.$REPEATED.begun\n\
                  while [ ! -e $OUT/go ]; do sleep 0.05; done\n\
                  cat > $OUT/$DELIVERY_ID.$REPEATED.tmp\n\
                  mv $OUT/$DELIVERY_ID.$REPEATED.tmp $OUT/$DELIVERY_ID.$REPEATED.text";
    let store = shell(&out, script);
    let account = account(&office, &program.path("config"), &["after = \"delete\""]);
    program.write_profile(&profile_text_with(&[account], &store));
    office.deliver("ann", "INBOX", message(20)).unwrap();
    let daemon = program.daemon().await;
    await_files(&out, ".0.begun", 1).await;
    daemon.crash().await;
    fs::write(out.join("go"), "").unwrap();
    // The program outlives the daemon, and reads all of the message.
    let first = await_files(&out, ".0.text", 1).await;
    assert!(fs::read(&first[0]).unwrap() == message(20), "a part was taken for the whole");
    assert_eq!(office.messages("ann", "INBOX").unwrap().len(), 1, "nobody knows that it was taken");

    let daemon = program.daemon().await;
    let second = await_files(&out, ".1.text", 1).await;
    assert!(fs::read(&second[0]).unwrap() == message(20));
    let id = |file: &Path| {
        file.file_name().unwrap().to_str().unwrap().chars().take(31).collect::<String>()
    };
    assert_eq!(id(&first[0]), id(&second[0]), "it can be known by its id");
    let waited = wait::until_async("the server's copy to go", PATIENCE, async || {
        office.messages("ann", "INBOX").unwrap().is_empty().then_some(())
    });
    waited.await.unwrap();
    assert_eq!(daemon.stop(Signal::TERM).await, 0);

    // What was noted as handed over is not handed over again, whatever crashes then.
    for number in 0..5 {
        office.deliver("ann", "INBOX", message(number)).unwrap();
    }
    let daemon = program.daemon().await;
    await_files(&out, ".0.text", 6).await;
    daemon.crash().await;
    let daemon = program.daemon().await;
    let waited = wait::until_async("the server's copies to go", PATIENCE, async || {
        office.messages("ann", "INBOX").unwrap().is_empty().then_some(())
    });
    waited.await.unwrap();
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    assert_eq!(files(&out, ".0.text").len(), 6);
    // At most those whose answer had not been noted when the daemon was killed.
    assert!(files(&out, ".1.text").len() <= 1 + 4, "{:?}", files(&out, ".1.text"));
}

/// `profile check` asks the receiver, too, and hands nothing over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_says_whether_received_mail_would_be_taken() {
    let dovecot = dovecot(&[]);
    let office = office().await;
    let program = Program::new(&office, &[]);
    let account = account(&office, &program.path("config"), &[]);
    let address = dovecot.lmtp_address();
    let bob = dovecot.address_of("bob");
    let cases = [
        (format!("lmtp = \"{address}\"\nrecipient = {bob:?}"), 0, "store delivers to", "ok"),
        (
            format!("lmtp = \"{address}\"\nrecipient = \"nobody@example.test\""),
            1,
            "store delivers to",
            "answered 550",
        ),
        ("lmtp = \"unix:/nonexistent/lmtp\"".to_owned(), 1, "unix:/nonexistent", "reached"),
        ("mda = [\"cat\"]".to_owned(), 0, "store delivers to cat: ok", ""),
        ("mda = [\"no-such-program\"]".to_owned(), 1, "no-such-program", "PATH"),
    ];
    for (store, code, named, words) in cases {
        program.write_profile(&profile_text_with(std::slice::from_ref(&account), &store));
        let said = program.run(&["profile", "check"]).await;
        assert_eq!(said.code, code, "{store}: {said:?}");
        assert!(said.out.contains(named) && said.out.contains(words), "{store}: {said:?}");
    }
    assert!(on_server(&dovecot, "bob", "INBOX").is_empty());
}
