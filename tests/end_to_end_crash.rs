//! The daemon is killed at bad moments: what was accepted is sent, what is on the server is
//! fetched, and nothing is there twice.

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

use house::PATIENCE;
use maildir::{await_messages, contains, messages};
use office::{accepted, office, once};
use postoffice::{Action, Fault, ImapPhase, PostOffice, SmtpPhase};
use program::Program;
use realservers::wait;
use rustix::process::Signal;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_before_a_crash_is_sent_once_after_it() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    // Killed at each phase before the server has the message.
    for phase in [SmtpPhase::Connect, SmtpPhase::Mail, SmtpPhase::Rcpt, SmtpPhase::Data] {
        let daemon = program.daemon().await;
        office.disconnect_all();
        let hang = office.inject(Fault::smtp(phase, Action::Hang));
        for number in 0..5 {
            program.send(&format!("{phase:?} {number}"), "bob@example.org").await;
        }
        hang.reached(PATIENCE).await.unwrap();
        daemon.crash().await;
        hang.remove();
    }
    assert_eq!(office.accepted_count(), 0);
    let daemon = program.daemon().await;
    program.await_empty_queue().await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    let phases = ["Connect", "Mail", "Rcpt", "Data"].into_iter();
    let wanted =
        once(phases.flat_map(|phase| (0..5).map(move |number| format!("{phase} {number}"))));
    assert_eq!(accepted(&office), wanted);
    assert_eq!(messages(&program.maildir(), "Sent").len(), 20);
    assert!(messages(&program.maildir(), "INBOX").is_empty(), "a report of a crash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_commands_submit_loses_none_that_was_accepted() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let daemon = program.daemon().await;
    let submit = async |number: usize| {
        let subject = format!("number {number}");
        let arguments = ["send", "-t", "bob@example.org", "-s", &subject, "--body", "x"];
        let said = program.run(&arguments).await;
        // Who is told no has to try again, who is told yes must not.
        (said.code == 0).then(|| (subject, said.out.trim_end().to_owned()))
    };
    let submissions = (0..12).map(submit);
    let (submitted, ()) = tokio::join!(futures_util::future::join_all(submissions), async {
        office.wait_accepted(3, PATIENCE).await.unwrap();
        daemon.crash().await;
    });
    let daemon = program.daemon().await;
    program.await_empty_queue().await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    let accepted = accepted(&office);
    let submitted: Vec<(String, String)> = submitted.into_iter().flatten().collect();
    assert!(submitted.len() >= 3, "{submitted:?}");
    for (subject, entry) in &submitted {
        // The reply to the final dot may have come when nobody was there to note it; then the
        // message was in doubt, and its trace says so.
        let copies = accepted.get(subject).copied().unwrap_or(0);
        assert!((1..=2).contains(&copies), "{copies} of {subject}: {accepted:?}");
        let trace = program.run(&["--json", "trace", entry]).await.out;
        assert!(
            copies == 1 || trace.contains("\"step\":\"in-doubt\""),
            "{subject} came twice: {trace}"
        );
    }
    assert_eq!(messages(&program.maildir(), "Sent").len(), accepted.len());
}

/// A program whose profile says what to do in doubt, and that tries again after `first`.
fn program_with(office: &PostOffice, in_doubt: &str, first: &str) -> Program {
    let program = Program::new(office, &[]);
    let file = program.path("config/test.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let (before, _) = text.split_once("[queue]").unwrap();
    program.write_profile(&format!(
        "{before}[queue]\nin_doubt = {in_doubt:?}\n\
         retry = {{ first = {first:?}, factor = 1.0, max = {first:?} }}\n"
    ));
    program
}

async fn await_state(program: &Program, entry: &str, state: &str) -> Value {
    let mut last = Value::Null;
    let waited = wait::until_async("a state of the message", PATIENCE, async || {
        last = program.json(&["queue", "show", entry]).await;
        (last["state"] == state).then_some(())
    });
    waited.await.unwrap_or_else(|error| panic!("{error}: not {state} but {last}"));
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_behind_the_final_dot_is_in_doubt_and_the_policy_decides() {
    for policy in ["resend", "hold"] {
        let office = office().await;
        // Long enough to be seen before it is resent.
        let program = program_with(&office, policy, "5s");
        let daemon = program.daemon().await;
        let hang =
            office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).after_effect().once());
        let entry = program.send("twice at most", "bob@example.org").await;
        hang.reached(PATIENCE).await.unwrap();
        daemon.crash().await;
        hang.remove();
        // Known without a daemon, and to the next one from its start.
        await_state(&program, &entry, "in-doubt").await;
        let daemon = program.daemon().await;
        let row = await_state(&program, &entry, "in-doubt").await;
        assert!(row["last_error"].as_str().unwrap().contains("may have taken it"), "{row}");
        assert_eq!(program.json(&["status"]).await["queue"]["in_doubt"], 1);
        if policy == "hold" {
            assert_eq!(row["next_attempt"], Value::Null, "{row}");
            // Another one goes, this one stays until its owner says so.
            program.send("another", "bob@example.org").await;
            office.wait_accepted(2, PATIENCE).await.unwrap();
            await_state(&program, &entry, "in-doubt").await;
            assert_eq!(program.run(&["release", &entry]).await.code, 0);
        }
        program.await_empty_queue().await;
        assert_eq!(daemon.stop(Signal::TERM).await, 0);
        assert_eq!(accepted(&office)["twice at most"], 2, "{policy}");
        assert!(messages(&program.maildir(), "INBOX").is_empty(), "a report of a crash");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_in_the_body_tries_again_and_delivers_once() {
    let office = office().await;
    // Nothing that is not in doubt is held.
    let program = program_with(&office, "hold", "1s");
    let daemon = program.daemon().await;
    let hang = office.inject(Fault::smtp(SmtpPhase::Body, Action::Hang).at_byte(100_000).once());
    // The server does not read on, so the final dot cannot leave.
    let text = "a line of a text that is longer than any socket holds\n".repeat(120_000);
    let file = program.path("text");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let command = ["send", "-t", "bob@example.org", "-s", "large", "-a", file, "--body", "x"];
    let said = program.run(&command).await;
    assert_eq!(said.code, 0, "{said:?}");
    hang.reached(PATIENCE).await.unwrap();
    daemon.crash().await;
    hang.remove();
    assert_eq!(office.accepted_count(), 0);
    let daemon = program.daemon().await;
    program.await_empty_queue().await;
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    assert_eq!(accepted(&office), once(std::iter::once("large".to_owned())));
    assert_eq!(messages(&program.maildir(), "Sent").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_messages_are_fetched_once_over_crashes() {
    const COUNT: usize = 200;
    let office = office().await;
    let program = Program::new(&office, &["after = \"seen\""]);
    let mail = |number| format!("Subject: number {number}\r\n\r\n{}\r\n", "x".repeat(500));
    office.deliver_all("ann", "INBOX", (0..COUNT).map(|number| mail(number).into_bytes())).unwrap();
    // Each life gets some messages further.
    for life in 1..=4_u32 {
        let uid = format!("UID {} ", life * 40);
        let hang = office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Hang).matching(uid));
        let daemon = program.daemon().await;
        hang.reached(PATIENCE).await.unwrap();
        daemon.crash().await;
        hang.remove();
        assert!(messages(&program.maildir(), "INBOX").len() < COUNT, "the crash came too late");
    }
    let daemon = program.daemon().await;
    let fetched = await_messages(&program.maildir(), "INBOX", COUNT).await;
    let waited = wait::until_async("every message to be flagged", PATIENCE, async || {
        let all = office.messages("ann", "INBOX").unwrap();
        all.iter().all(|message| message.has_flag("\\Seen")).then_some(())
    });
    waited.await.unwrap();
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    for number in 0..COUNT {
        let line = format!("Subject: number {number}\r\n");
        let copies = fetched.iter().filter(|one| contains(one, line.as_bytes())).count();
        assert_eq!(copies, 1, "number {number}");
    }
    assert_eq!(messages(&program.maildir(), "INBOX").len(), COUNT);
}

/// `fsck` through the command line: beside the daemon and without it, on a spool that is damaged
/// and on one that cannot be opened at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fsck_finds_mends_and_exports() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let body = "a line of some length, again and again\r\n".repeat(600);
    let raw = format!("From: ann@example.org\r\nTo: bob@example.org\r\nSubject: big\r\n\r\n{body}");
    let said = program.run_with(&["send", "--raw"], raw.as_bytes()).await;
    assert_eq!(said.code, 0, "{said:?}");
    let id = said.out.trim_end().to_owned();
    let small = program.send("small", "bob@example.org").await;
    let clean = program.json(&["fsck"]).await;
    assert_eq!((&clean["messages"], &clean["kinds"]), (&2.into(), &serde_json::json!({})));

    let spool = program.path("state/test/spool");
    let mut files = Vec::new();
    for part in std::fs::read_dir(spool.join("bodies")).unwrap().map(Result::unwrap) {
        files.extend(std::fs::read_dir(part.path()).unwrap().map(|file| file.unwrap().path()));
    }
    assert_eq!(files.len(), 1);
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], &bytes).unwrap();
    let looked = program.run(&["fsck"]).await;
    assert_eq!(looked.code, 1, "{looked:?}");
    assert!(looked.out.contains("damaged body"), "{looked:?}");

    let export = program.path("saved");
    let export_text = export.to_str().unwrap();
    let mended = program.run(&["--json", "fsck", "--repair", "--export", export_text]).await;
    assert_eq!(mended.code, 1, "{mended:?}");
    let report: serde_json::Value = serde_json::from_str(&mended.out).unwrap();
    assert_eq!(report["findings"][0]["remedy"], "set-aside", "{report}");
    assert_eq!(report["exported"]["messages"], 2, "{report}");
    assert_eq!(report["exported"]["incomplete"], 1, "{report}");
    let saved = std::fs::read(export.join(format!("{id}.eml"))).unwrap();
    assert_eq!(saved.len(), bytes.len(), "what is left of it, to the last byte");
    let note = std::fs::read(export.join(format!("{id}.json"))).unwrap();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap();
    assert_eq!((&note["complete"], &note["state"]), (&false.into(), &"held".into()));
    assert_eq!(note["recipients"][0]["address"], "bob@example.org");
    let shown = program.run(&["queue", "show", &id]).await;
    assert!(shown.out.contains("MAPI_E_CORRUPT_DATA"), "{shown:?}");

    // Beside the daemon: clean, and the one that is whole is sent.
    let daemon = program.daemon().await;
    let sent = wait::until_async("the small one", PATIENCE, async || {
        (accepted(&office) == once(["small".to_owned()].into_iter())).then_some(())
    });
    sent.await.unwrap();
    let checked = program.json(&["fsck", "--repair"]).await;
    assert_eq!(checked["set_aside"], 1, "{checked}");
    assert!(!small.is_empty());
    assert_eq!(program.run(&["cancel", &id]).await.code, 0);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);

    // The tree itself: nothing works but fsck, which sets it aside and begins anew.
    let said = program.run_with(&["send", "--raw"], raw.as_bytes()).await;
    assert_eq!(said.code, 0, "{said:?}");
    let damage = std::fs::read_dir(spool.join("db")).unwrap().map(Result::unwrap);
    let config = damage.map(|file| file.path()).find(|file| file.ends_with("conf")).unwrap();
    std::fs::write(config, b"no configuration at all").unwrap();
    assert_eq!(program.run(&["queue"]).await.code, 74);
    let looked = program.run(&["fsck"]).await;
    assert_eq!(looked.code, 1, "{looked:?}");
    assert!(looked.out.contains("unreadable spool"), "{looked:?}");
    let rescued = program.path("rescued");
    let mended = program.run(&["fsck", "--repair", "--export", rescued.to_str().unwrap()]).await;
    assert_eq!(mended.code, 1, "{mended:?}");
    let saved = std::fs::read_dir(&rescued).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::read_to_string(saved).unwrap().contains("Subject: big"));
    let checked = program.run(&["fsck"]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
}
