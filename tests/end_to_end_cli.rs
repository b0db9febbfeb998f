//! The real program: what its documents look like, with a daemon and without one, how it stops,
//! and how commands wait for each other.

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

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use house::PATIENCE;
use maildir::{await_messages, contains};
use office::office;
use postoffice::{Action, Fault, SmtpAction, SmtpPhase};
use program::{Program, assert_one_line, exists, said};
use rustix::process::Signal;
use serde_json::Value;

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Asserts that an object has these keys, whatever else it has.
fn assert_keys(object: &Value, wanted: &[&str]) {
    let found = keys(object);
    for key in wanted {
        assert!(found.contains(key), "no {key} in {object}");
    }
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_queue_have_the_keys_of_the_product() {
    let office = office().await;
    let refuse = SmtpAction::reply(450, "4.2.1", "later");
    office.inject(Fault::smtp(SmtpPhase::Rcpt, refuse).matching("bob@"));
    let program = Program::new(&office, &[]);
    let said = program
        .run(&[
            "send",
            "-t",
            "bob@example.org",
            "-t",
            "ann@example.org",
            "-s",
            "Grüße",
            "--body",
            "x",
        ])
        .await;
    assert_eq!(said.code, 0);
    let id = said.out.trim_end();
    assert_eq!(said.out, format!("{id}\n"), "the entry id alone on a line");
    let wanted = [
        "id",
        "state",
        "transport",
        "from",
        "subject",
        "size",
        "submitted",
        "attempts",
        "next_attempt",
        "last_error",
        "recipients",
    ];
    let row = &program.json(&["queue"]).await[0];
    assert_eq!(keys(row), wanted.into_iter().collect());
    assert_eq!((&row["id"], &row["state"]), (&id.into(), &"queued".into()));
    assert_eq!((&row["from"], &row["subject"]), (&"ann@example.org".into(), &"Grüße".into()));
    assert_eq!((&row["attempts"], &row["last_error"]), (&0.into(), &Value::Null));
    assert!(is_time(&row["submitted"]) && row["size"].as_u64().unwrap() > 0, "{row}");

    // One is delivered, one is to be tried again.
    let daemon = program.daemon().await;
    let waited = realservers::wait::until_async("a deferred message", PATIENCE, async || {
        let row = program.json(&["queue"]).await[0].clone();
        (row["state"] == "deferred").then_some(row)
    });
    let row = &waited.await.unwrap();
    assert!(row["attempts"].as_u64().unwrap() >= 1, "{row}");
    assert_eq!(row["transport"], "work");
    assert!(is_time(&row["next_attempt"]), "{row}");
    assert!(row["last_error"].as_str().unwrap().contains("450 4.2.1"), "{row}");
    let recipients = row["recipients"].as_array().unwrap();
    assert_eq!(keys(&recipients[0]), ["address", "state", "reply"].into_iter().collect());
    assert_eq!(recipients[0]["state"], "deferred");
    assert!(recipients[0]["reply"].as_str().unwrap().starts_with("450 4.2.1"), "{row}");
    assert_eq!(recipients[1]["state"], "delivered");
    office.remove_faults();
    assert_eq!(program.json(&["flush"]).await["left"], 0);
    assert_eq!(program.json(&["queue"]).await, Value::Array(Vec::new()));
    let ended = program.json(&["queue", "show", id]).await;
    assert_eq!(ended["state"], "finished");
    assert_eq!(keys(&ended), wanted.into_iter().collect());
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_has_the_keys_of_the_product() {
    let office = office().await;
    let program = Program::new(&office, &["mailboxes = [\"INBOX\", \"Lists\"]"]);
    office.create_mailbox("ann", "Lists").unwrap();
    let stopped = program.json(&["status"]).await;
    assert_keys(&stopped, &["profile", "pid", "rows", "queue", "inbound"]);
    assert!(stopped["inbound"].as_array().unwrap().iter().all(|one| one["mode"] == "off"));

    let daemon = program.daemon().await;
    office.deliver("ann", "INBOX", *b"Subject: hi\r\n\r\n").unwrap();
    await_messages(&program.maildir(), "INBOX", 1).await;
    let waited = realservers::wait::until_async("INBOX to be watched", PATIENCE, async || {
        let status = program.json(&["status"]).await;
        let inbox = &status["inbound"][0];
        (inbox["mode"] == "idle" && inbox["last_uid"] == 1).then_some(status)
    });
    let status = waited.await.unwrap();
    assert_eq!((&status["profile"], &status["pid"]), (&"test".into(), &daemon.pid().into()));
    assert_eq!(
        keys(&status["queue"]),
        ["queued", "sending", "deferred", "in_doubt", "held"].into_iter().collect()
    );
    let rows = status["rows"].as_array().unwrap();
    let wanted = ["name", "type", "status_code", "flags", "status_string"];
    for row in rows {
        assert_eq!(keys(row), wanted.into_iter().collect());
    }
    let row = rows.iter().find(|row| row["name"] == "work").unwrap();
    assert_eq!(row["type"], "transport");
    let flags: Vec<_> = row["flags"].as_array().unwrap().iter().collect();
    for (flag, bit) in [
        ("STATUS_AVAILABLE", 0x1),
        ("STATUS_INBOUND_ENABLED", 0x1_0000),
        ("STATUS_OUTBOUND_ENABLED", 0x10_0000),
    ] {
        assert!(flags.iter().any(|name| **name == flag), "{row}");
        assert_eq!(row["status_code"].as_u64().unwrap() & bit, bit, "{row}");
    }
    assert!(rows.iter().any(|row| row["type"] == "spooler"));
    let mailboxes = status["inbound"].as_array().unwrap();
    assert_eq!(mailboxes.len(), 2);
    let wanted = ["transport", "mailbox", "mode", "last_uid", "pending"];
    for mailbox in mailboxes {
        assert_keys(mailbox, &wanted);
    }
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_takes_commands_about_one_message() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let daemon = program.daemon().await;
    let hang = office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let sending = program.send("on the wire", "bob@example.org").await;
    hang.reached(PATIENCE).await.unwrap();
    let row = program.json(&["queue", "show", &sending]).await;
    assert_eq!(row["state"], "sending");
    let late = program.run(&["cancel", &sending]).await;
    assert_eq!(late.code, 1);
    assert!(late.err.contains("MAPI_E_UNABLE_TO_ABORT"), "{late:?}");

    assert_eq!(program.run(&["notify", "end-outbound"]).await.out, "S_OK\n");
    hang.release();
    let held = program.send("held", "bob@example.org").await;
    assert_eq!(program.run(&["hold", &held]).await.code, 0);
    let unwanted = program.send("unwanted", "bob@example.org").await;
    assert_eq!(program.run(&["cancel", &unwanted]).await.code, 0);
    assert_eq!(program.json(&["queue", "show", &held]).await["state"], "held");
    let export = program.run(&["export", &held]).await;
    assert_eq!(export.code, 0);
    assert!(export.out.contains("Subject: held\r\n") && export.out.ends_with("\r\nhello\r\n"));

    assert_eq!(program.run(&["notify", "begin-outbound"]).await.out, "S_OK\n");
    let sent = program.run(&["send", "-t", "bob@example.org", "--body", "x", "--wait"]).await;
    assert_eq!(sent.code, 0, "{sent:?}");
    // Everything before it has had its chance, and the held one stays.
    assert_eq!(program.json(&["queue", "show", &held]).await["state"], "held");
    assert_eq!(program.run(&["release", &held]).await.code, 0);
    let flushed = program.json(&["flush", "--upload"]).await;
    assert_eq!(flushed["left"], 0, "{flushed}");
    assert_eq!(daemon.stop(Signal::INT).await, 0);
    let accepted = office.accepted();
    let came = |subject: &str| {
        let line = format!("Subject: {subject}\r\n");
        accepted.iter().filter(|one| contains(one.bytes().unwrap(), line.as_bytes())).count()
    };
    assert_eq!((came("on the wire"), came("held"), came("unwanted")), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flag_of_notify_reaches_the_session() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let nobody = program.run(&["notify", "begin-outbound"]).await;
    assert_eq!((nobody.code, nobody.out.as_str()), (75, ""), "{nobody:?}");
    let daemon = program.daemon().await;
    let flags = async || {
        let status = program.json(&["status"]).await;
        let rows = status["rows"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == "work").unwrap()["flags"].to_string()
    };
    for (flag, named, shows) in [
        ("end-inbound", "STATUS_INBOUND_ENABLED", false),
        ("begin-inbound", "STATUS_INBOUND_ENABLED", true),
        ("end-outbound", "STATUS_OUTBOUND_ENABLED", false),
        ("begin-outbound", "STATUS_OUTBOUND_ENABLED", true),
        ("begin-inbound-flush", "STATUS_INBOUND_ENABLED", true),
        ("end-inbound-flush", "STATUS_INBOUND_FLUSH", false),
        ("begin-outbound-flush", "STATUS_OUTBOUND_ENABLED", true),
        ("end-outbound-flush", "STATUS_OUTBOUND_FLUSH", false),
    ] {
        let said = program.run(&["notify", flag, "--transport", "work"]).await;
        assert_eq!((said.code, said.out.as_str()), (0, "S_OK\n"), "{flag}: {said:?}");
        let flags = flags().await;
        assert_eq!(flags.contains(named), shows, "{flag}: {flags}");
    }
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (arguments, code, answer) in [
        // Contradictory, and nothing has changed (TN-4).
        (&["begin-outbound", "end-outbound"][..], 1, "MAPI_E_INVALID_PARAMETER 0x80070057\n"),
        // The message may just have ended (TN-16).
        (&["cancel-message", "--message", "77"], 0, "S_OK\n"),
        (&["abort-deferred", "--entry", unknown], 1, "MAPI_E_NOT_FOUND 0x8004010F\n"),
        (&["begin-outbound", "--transport", "play"], 1, "MAPI_E_NOT_FOUND 0x8004010F\n"),
    ] {
        let said = program.run(&[&["notify"], arguments].concat()).await;
        assert_eq!((said.code, said.out.as_str()), (code, answer), "{arguments:?}: {said:?}");
    }
    assert!(flags().await.contains("STATUS_OUTBOUND_ENABLED"));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_all_does_not_wait_for_the_schedule() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    // A schedule that nobody in a test waits for.
    let file = program.path("config/test.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    program.write_profile(&text.replace("\"1s\"", "\"1h\""));
    let later = SmtpAction::reply(451, "4.3.0", "later");
    let fault = office.inject(Fault::smtp(SmtpPhase::Data, later).times(2));
    let daemon = program.daemon().await;
    let ids =
        [program.send("a", "bob@example.org").await, program.send("b", "bob@example.org").await];
    fault.reached_times(2, PATIENCE).await.unwrap();
    let waited = realservers::wait::until_async("two deferred messages", PATIENCE, async || {
        (program.json(&["status"]).await["queue"]["deferred"] == 2).then_some(())
    });
    waited.await.unwrap();
    assert_eq!(program.json(&["retry", "--all"]).await["count"], 2);
    office.wait_accepted(2, PATIENCE).await.unwrap();
    for id in &ids {
        let waited = realservers::wait::until_async("its end", PATIENCE, async || {
            (program.json(&["queue", "show", id]).await["state"] == "finished").then_some(())
        });
        waited.await.unwrap();
    }
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_stops_the_daemon_soon_whatever_the_server_does() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let daemon = program.daemon().await;
    let hang = office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang));
    let id = program.send("never answered", "bob@example.org").await;
    hang.reached(PATIENCE).await.unwrap();
    let began = Instant::now();
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(!exists(&program.socket()), "the socket is still there");
    // It is not lost: the server may have it.
    let state = program.json(&["queue", "show", &id]).await["state"].clone();
    assert_eq!(state, "in-doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_command_waits_for_the_lock_and_gives_up_with_75() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let hang = office.inject(Fault::smtp(SmtpPhase::FinalDot, Action::Hang).once());
    let first = ["send", "-t", "bob@example.org", "--body", "x", "--wait"];
    let first = program.command(&first).spawn().unwrap();
    hang.reached(PATIENCE).await.unwrap();

    let began = Instant::now();
    let refused = program.run(&["queue"]).await;
    assert_eq!(refused.code, 75, "{refused:?}");
    assert_one_line(&refused);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(9) && waited < Duration::from_secs(20), "{waited:?}");

    let second = program.command(&["send", "-t", "bob@example.org", "--body", "y"]);
    let second = { second }.spawn().unwrap();
    hang.release();
    let (first, second) = tokio::join!(said(first), said(second));
    assert_eq!((first.code, second.code), (0, 0), "{first:?} {second:?}");
    assert_eq!(program.json(&["queue"]).await.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_brings_everything_once() {
    let office = office().await;
    let program = Program::new(&office, &["after = \"seen\""]);
    let mail = |number| format!("Subject: {number}\r\n\r\n.\r\n\u{e9}\r\n").into_bytes();
    office.deliver_all("ann", "INBOX", (0..50).map(mail)).unwrap();
    assert_eq!(program.json(&["fetch"]).await["received"], 50);
    assert_eq!(program.json(&["fetch"]).await["received"], 0);
    let mut local = maildir::messages(&program.maildir(), "INBOX");
    let mut served: Vec<Vec<u8>> = office
        .messages("ann", "INBOX")
        .unwrap()
        .iter()
        .map(|message| {
            assert!(message.has_flag("\\Seen"));
            message.bytes.to_vec()
        })
        .collect();
    local.sort();
    served.sort();
    assert_eq!(local, served);
}
