//! The real program: what its documents look like, with a daemon and without one, how it stops,
//! and how commands wait for each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
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

/// What happened, by the names of the steps.
fn kinds(trace: &Value) -> Vec<&str> {
    trace["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect()
}

fn step<'a>(trace: &'a Value, kind: &str) -> &'a Value {
    let steps = trace["steps"].as_array().unwrap();
    steps.iter().find(|step| step["step"] == kind).unwrap_or_else(|| panic!("no {kind}: {trace}"))
}

async fn await_trace(program: &Program, id: &str, what: &str, kind: &str) -> Value {
    let waited = realservers::wait::until_async(what, PATIENCE, async || {
        let trace = program.json(&["trace", id]).await;
        kinds(&trace).contains(&kind).then_some(trace)
    });
    match waited.await {
        Ok(trace) => trace,
        Err(error) => panic!("{error}: {}", program.json(&["trace", id]).await),
    }
}

/// Proves: IB-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_tells_the_story_of_a_message_also_when_it_is_gone() {
    let office = office().await;
    let later = SmtpAction::reply(450, "4.2.1", "later");
    office.inject(Fault::smtp(SmtpPhase::Rcpt, later).matching("bob@"));
    let program = Program::new(&office, &[]);
    let raw =
        b"From: ann@example.org\r\nTo: bob@example.org, ann@example.org\r\nSubject: story\r\n\
        Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <story+1@example.org>\r\n\r\nx\r\n";
    let said = program.run_with(&["send", "--raw"], raw).await;
    let id = said.out.trim_end();
    let trace = program.json(&["trace", id]).await;
    assert_eq!(kinds(&trace), ["submitted"]);
    assert_eq!((&trace["state"], &trace["left_out"]), (&"queued".into(), &0.into()));
    // Before a transport has it as well.
    assert_eq!(program.json(&["trace", "story+1@example.org"]).await, trace);

    let daemon = program.daemon().await;
    await_trace(&program, id, "a delivery", "delivered").await;
    assert_eq!(program.run(&["hold", id]).await.code, 0);
    office.remove_faults();
    assert_eq!(program.run(&["release", id]).await.code, 0);
    await_trace(&program, id, "the end", "finished").await;
    let bounce = format!(
        "From: <mailer-daemon@example.org>\r\nTo: ann@example.org\r\nContent-Type: multipart/report;\r\n \
         report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nSorry\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.org\r\n\
         Original-Envelope-Id: {id}\r\n\r\nFinal-Recipient: rfc822; bob@example.org\r\n\
         Action: failed\r\nStatus: 5.2.1\r\nDiagnostic-Code: smtp; 550 5.2.1 gone\u{7}\r\n\r\n--b--\r\n"
    );
    office.deliver("ann", "INBOX", bounce.clone().into_bytes()).unwrap();
    let trace = await_trace(&program, id, "the bounce", "status-report").await;

    let first = step(&trace, "attempt");
    assert_eq!(first["attempt"], 1);
    assert_eq!((&first["host"], &first["tls"]), (&"localhost".into(), &"TLSv1.3".into()));
    assert_eq!(first["replies"][0], "450 4.2.1 later");
    assert!(
        first["text"].as_str().unwrap().contains("refused at RCPT: 450 4.2.1 later"),
        "{first}"
    );
    let told = kinds(&trace);
    let at = |kind| told.iter().position(|one| *one == kind).unwrap();
    assert!(at("submitted") < at("accepted") && at("accepted") < at("attempt"), "{told:?}");
    assert!(at("attempt") < at("delivered") && at("held") < at("released"), "{told:?}");
    assert!(at("released") < at("finished") && at("finished") < at("status-report"), "{told:?}");
    assert_eq!(told.iter().filter(|one| **one == "delivered").count(), 2, "{told:?}");
    let report = step(&trace, "status-report");
    assert_eq!(
        (&report["class"], &report["host"]),
        (&"REPORT.IPM.Note.NDR".into(), &"mx.example.org".into())
    );
    assert_eq!(report["recipients"][0], "bob@example.org");
    // The word of a stranger changes nothing.
    assert_eq!(trace["state"], "finished");
    assert!(trace["recipients"].as_array().unwrap().iter().all(|one| one["state"] == "delivered"));
    let inbox = await_messages(&program.maildir(), "INBOX", 2).await;
    assert!(inbox.contains(&bounce.into_bytes()), "kept byte for byte");

    let text = program.run(&["trace", id]).await;
    assert_eq!(text.code, 0, "{text:?}");
    for words in
        ["<story+1@example.org>", "accepted by the transport work", "TLSv1.3", "550 5.2.1 gone"]
    {
        assert!(text.out.contains(words), "{words}: {}", text.out);
    }
    assert!(!text.out.contains('\u{7}'), "{}", text.out);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    let beginning = id[..20].to_lowercase();
    for other in [id, "<story+1@example.org>", beginning.as_str()] {
        assert_eq!(program.json(&["trace", other]).await, trace, "{other}");
    }
    for (unknown, code) in
        [("01ARZ3NDEKTSV4RRFFQ69G5FAV", 1), ("<none@x>", 1), ("zzzzz", 64), ("a b", 64)]
    {
        let said = program.run(&["trace", unknown]).await;
        assert_eq!(said.code, code, "{unknown}: {said:?}");
        assert_one_line(&said);
    }
}

/// Proves: SP-4, OB-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_shows_failures_reports_doubt_and_cancels() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let refuse = SmtpAction::reply(550, "5.1.1", "no such user");
    office.inject(Fault::smtp(SmtpPhase::Rcpt, refuse).matching("eve@"));
    let daemon = program.daemon().await;
    let failed = program.send("fails", "eve@example.org").await;
    let trace = await_trace(&program, &failed, "the end", "finished").await;
    let failure = step(&trace, "failed");
    assert_eq!((&failure["attempt"], &failure["host"]), (&1.into(), &"localhost".into()));
    assert_eq!(failure["replies"][0], "550 5.1.1 no such user");
    let report = step(&trace, "reported");
    assert_eq!(report["class"], "REPORT.IPM.Note.NDR");
    assert_eq!(report["recipients"][0], "eve@example.org");
    await_messages(&program.maildir(), "INBOX", 1).await;

    office.remove_faults();
    let dropped = Fault::smtp(SmtpPhase::FinalDot, Action::Drop).once();
    office.inject(dropped);
    let doubtful = program.send("doubtful", "bob@example.org").await;
    let trace = await_trace(&program, &doubtful, "the end", "finished").await;
    let doubt = step(&trace, "in-doubt");
    assert!(doubt["text"].as_str().unwrap().contains("may have taken it"), "{doubt}");

    office.inject(Fault::smtp(SmtpPhase::Mail, SmtpAction::reply(451, "4.3.0", "not now")));
    let cancelled = program.send("cancelled", "bob@example.org").await;
    await_trace(&program, &cancelled, "an attempt", "attempt").await;
    assert_eq!(program.run(&["hold", &cancelled]).await.code, 0);
    assert_eq!(program.run(&["cancel", &cancelled]).await.code, 0);
    let trace = program.json(&["trace", &cancelled]).await;
    assert_eq!((kinds(&trace).last(), &trace["state"]), (Some(&"cancelled"), &"cancelled".into()));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);

    // Before any transport had it.
    let early = program.send("early", "bob@example.org").await;
    for verb in ["hold", "release", "hold", "cancel"] {
        let said = program.run(&[verb, &early]).await;
        assert_eq!(said.code, 0, "{verb}: {said:?}");
    }
    let trace = program.json(&["trace", &early]).await;
    assert_eq!(kinds(&trace), ["submitted", "held", "released", "held", "cancelled"], "{trace}");
}
