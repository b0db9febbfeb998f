//! sendmail(8) as this program does it: exit codes, recipients, what is added to a message and what
//! is left alone, with a daemon and without one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    dead_code
)]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/house.rs"]
mod house;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;

use std::sync::Arc;

use desk::{Desk, assert_silent, body, field};
use postoffice::{Notify, Ret, ViolationKind};
use postrider::control::Client;
use postrider::session::{RawEnvelope, Service};
use program::{assert_one_line, run};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_daemon_the_message_is_queued_and_that_is_said() {
    let desk = Desk::new().await;
    let mail = b"From: root (Cron Daemon)\nTo: ann\nSubject: job\n\nout\n";
    let said = desk.call("sendmail", &["-FCronDaemon", "-i", "-oem", "ann"], mail).await;
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    assert_one_line(&said);
    assert!(said.err.contains("no daemon is running"), "{said:?}");
    let rows = desk.program.json(&["queue"]).await;
    let row = &rows[0];
    assert_eq!((&row["state"], &row["from"]), (&"queued".into(), &"ann@example.org".into()));
    assert_eq!(row["recipients"][0]["address"], "ann@example.org");
    let id = row["id"].as_str().unwrap();
    let listed = desk.call("mailq", &[], b"").await;
    assert!(listed.out.contains(id) && listed.out.contains("ann@example.org"), "{listed:?}");
    assert!(listed.out.ends_with("in 1 Request.\n"), "{listed:?}");
    // -v: the id, alone on a line.
    let said = desk.call("sendmail", &["-v", "bob@example.org"], b"Subject: two\n\n").await;
    let rows = desk.program.json(&["queue"]).await;
    assert_eq!(said.out, format!("{}\n", rows[1]["id"].as_str().unwrap()));
    // Where nobody can read the id, the message is queued all the same.
    let said = desk.shell("sendmail -v bob@example.org >/dev/full", b"Subject: three\n\n").await;
    assert_eq!(said.code, 0, "{said:?}");
    // -q without a daemon sends what waits and returns then.
    assert_silent(&desk.call("sendmail", &["-q"], b"").await);
    assert_eq!(desk.office.accepted().len(), 3);
    let empty = desk.call("sendmail", &["-bp"], b"").await;
    assert_eq!((empty.code, empty.out.as_str()), (0, "Mail queue is empty\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_has_the_exit_code_of_sysexits_and_one_line() {
    let desk = Desk::new().await;
    let mail: &[u8] = b"To: bob@example.org\n\nx\n";
    let rows: &[(&[&str], &[u8], i32, &str)] = &[
        (&[], mail, 64, "no recipients"),
        (&["-t"], b"Subject: x\n\nx\n", 64, "no recipients"),
        (&["-z"], mail, 64, "usage: sendmail"),
        (&["-bd"], mail, 64, "postrider run"),
        (&["-N", "sometimes", "bob"], mail, 64, "-N sometimes"),
        (&["-i", "bob@example.org", "-t"], mail, 64, "behind a recipient"),
        (&["no body knows"], mail, 65, "is no address"),
        (&["-t"], b"To: no body knows\n\nx\n", 65, "no mail address"),
        (&["-f", "a, b", "bob"], mail, 65, "not one address"),
        (&["bob@"], mail, 65, "bob@"),
        (&["bob@example.org"], b"Subject: x\n\na\0b\n", 65, "NUL"),
        (&["-bv", "bob@"], b"", 67, "bob@"),
        (&["-O", "requiretls=yes", "bob@example.org"], mail, 69, "requiretls"),
        (&["-C", "/nowhere/none.toml", "bob@example.org"], mail, 78, "/nowhere/none.toml"),
        (&["-C", "/etc/sendmail.cf", "bob@example.org"], mail, 78, "-C"),
    ];
    for (arguments, input, code, named) in rows {
        let said = desk.call("sendmail", arguments, input).await;
        assert_eq!(said.code, *code, "{arguments:?}: {said:?}");
        assert_one_line(&said);
        assert!(said.err.contains(named), "{arguments:?}: {said:?}");
        if *code != 67 {
            assert_eq!(said.out, "", "{arguments:?}");
        }
    }
    for (line, code) in [("<&-", 66), ("</", 66)] {
        let said = desk.shell(&format!("sendmail bob@example.org {line}"), b"").await;
        assert_eq!(said.code, code, "{line}: {said:?}");
        assert_one_line(&said);
    }
    // A place where nobody can make a folder.
    let mut call = desk.tool(desk.named("sendmail"));
    call.env("POSTRIDER_STATE", "/proc/spool").arg("bob@example.org");
    let said = run(call, mail).await;
    assert_eq!(said.code, 73, "{said:?}");
    assert_one_line(&said);
    let tagged = desk.call("sendmail", &["-L", "backup"], mail).await;
    assert!(tagged.err.starts_with("backup: cannot send"), "{tagged:?}");
    assert_eq!(desk.program.json(&["queue"]).await, Value::Array(Vec::new()));
}

/// Proves: OB-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipients_come_from_the_header_and_the_arguments() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mail = b"From: ann@example.org\nTo: Team: bob@example.org,\n\tAnn <ann@example.org>;\n\
                 Cc: bob@a.example\nCC: \"B, ob\" <bob@b.example>\nBcc: bob@c.example,\n bob@d.example\n\
                 Subject: -t\n\nx\n";
    assert_silent(&desk.call("sendmail", &["-ti"], mail).await);
    let sent = desk.next_as_it_is().await;
    let header = [
        "bob@example.org",
        "ann@example.org",
        "bob@a.example",
        "bob@b.example",
        "bob@c.example",
        "bob@d.example",
    ];
    assert_eq!(sent.recipients(), header);
    let text = sent.body.text();
    assert!(!text.contains("c.example") && text.contains("To: Team: bob@example.org,"), "{text}");
    // Arguments are added, each address once.
    let more = ["-t", "bob@EXAMPLE.org,bob@e.example"];
    assert_silent(&desk.call("sendmail", &more, mail).await);
    let sent = desk.next_as_it_is().await;
    assert_eq!(sent.recipients().len(), 7);
    assert!(sent.recipients().contains(&"bob@e.example"));
    // Or taken out.
    let less = ["-O", "extract_addresses_remove_arguments=yes", "-t", "--", "bob@a.example"];
    assert_silent(&desk.call("sendmail", &less, mail).await);
    let sent = desk.next_as_it_is().await;
    assert_eq!(sent.recipients().len(), 5);
    assert!(!sent.recipients().contains(&"bob@a.example"));
    // Of a resent message only the first block counts.
    let resent = [
        b"Resent-From: ann@example.org\nResent-To: bob@r.example\nResent-Bcc: bob@s.example\n\
          Received: x\nResent-From: bob@example.org\nResent-To: bob@old.example\n"
            .as_slice(),
        mail,
    ];
    assert_silent(&desk.call("sendmail", &["-t"], &resent.concat()).await);
    let sent = desk.next_as_it_is().await;
    assert_eq!(sent.recipients(), ["bob@r.example", "bob@s.example"]);
    assert!(!sent.body.text().contains("s.example"));
    // Two fields of a name are the caller's own, and nothing else is wrong.
    let wrong = desk.office.violations();
    assert!(wrong.iter().all(|one| one.kind == ViolationKind::DuplicateField), "{wrong:?}");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_message_lacks_is_added_and_its_body_left_alone() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mail = b"From someone Mon Jan  1 00:00:00 2026\n>From other\nSubject: x\n\n\
                 From here\n>From there\n.\nnot sent\n";
    assert_silent(&desk.call("sendmail", &["-F", "Jürgen, X", "bob@example.org"], mail).await);
    let sent = desk.next().await;
    let text = sent.body.text();
    assert_eq!(field(&text, "Subject").as_deref(), Some("x"));
    assert!(field(&text, "From").unwrap().starts_with("=?utf-8?"), "{text}");
    assert!(field(&text, "From").unwrap().ends_with("<ann@example.org>"), "{text}");
    assert!(field(&text, "Date").is_some(), "{text}");
    assert!(field(&text, "Message-ID").unwrap().ends_with("@example.org>"), "{text}");
    assert!(field(&text, "Received").unwrap().contains("(postrider, from "), "{text}");
    assert_eq!(body(&text), "From here\r\n>From there\r\n");
    // What is there already stays byte for byte: CRLF, own Date, own Message-ID, own From.
    let whole = "From: Ann <ann@example.org>\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n\
                 Message-ID: <1@b>\r\nSubject:   odd\r\n\tfold\r\n\r\nGr\u{fc}\u{df}e\r\n.\r\n";
    let dots = ["-i", "-F", "not used", "bob@example.org"];
    assert_silent(&desk.call("sendmail", &dots, whole.as_bytes()).await);
    let text = desk.next().await.body.text();
    let (_, behind) = text.split_once("\r\nFrom: ").expect("the trace field comes first");
    assert_eq!(format!("From: {behind}"), whole);
    // No header at all, no end of the last line, and nothing at all.
    assert_silent(&desk.call("sendmail", &["bob@example.org"], b"just text").await);
    assert_eq!(body(&desk.next().await.body.text()), "just text\r\n");
    assert_silent(&desk.call("sendmail", &["bob@example.org"], b"").await);
    assert_eq!(body(&desk.next().await.body.text()), "");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lines_and_large_messages_survive() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let line = format!("{}\u{e4}", "long ".repeat(900));
    let mail = format!(
        "Subject: x\nContent-Type: text/plain; charset=utf-8\nMIME-Version: 1.0\n\n{line}\nend\n"
    );
    assert_silent(&desk.call("sendmail", &["bob@example.org"], mail.as_bytes()).await);
    let sent = desk.next().await;
    let parsed = mail_parser::MessageParser::default().parse(sent.bytes().unwrap().as_ref());
    let decoded = parsed.unwrap().body_text(0).unwrap().replace("\r\n", "\n");
    assert_eq!(decoded, format!("{line}\nend\n"));
    // More than is kept in memory.
    let block = "0123456789abcdef".repeat(4) + "\n";
    let large = format!("Subject: large\n\n{}", block.repeat(60_000));
    assert_silent(&desk.call("sendmail", &["-i", "bob@example.org"], large.as_bytes()).await);
    let sent = desk.next().await;
    assert!(body(&sent.body.text()) == block.replace('\n', "\r\n").repeat(60_000));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_and_recipients_of_this_machine_follow_the_profile() {
    let desk = Desk::new().await;
    desk.change_profile(
        "",
        "[local]\ndefault = \"bob@example.org\"\n\
         aliases = { root = [\"ann@example.org\", \"ops\"], ops = \"bob@ops.example\" }\n",
    );
    let daemon = desk.program.daemon().await;
    let mail = b"From: www-data <www-data@localhost>\nTo: root\nSubject: x\n\nx\n";
    let call = ["-t", "-f", "www-data@localhost.localdomain", "nobody@localhost"];
    assert_silent(&desk.call("sendmail", &call, mail).await);
    let sent = desk.next().await;
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert_eq!(sent.recipients(), ["bob@example.org", "ann@example.org", "bob@ops.example"]);
    let text = sent.body.text();
    assert_eq!(field(&text, "From").as_deref(), Some("www-data <ann@example.org>"));
    assert_eq!(field(&text, "X-Original-From").as_deref(), Some("www-data <www-data@localhost>"));
    let to = field(&text, "To");
    assert_eq!(to.as_deref(), Some("root <ann@example.org>, root <bob@ops.example>"));
    // Reports have no sender, and nothing makes them one.
    assert_silent(
        &desk.call("sendmail", &["-f", "<>", "bob@example.org"], b"From: a@b.example\n\n").await,
    );
    assert_eq!(desk.next().await.envelope.from, "");
    let said = desk.call("sendmail", &["-bv", "root,bob@x.example", "nobody"], b"").await;
    let wanted = "root... deliverable: mailer smtp, user ann@example.org\n\
                  root... deliverable: mailer smtp, user bob@ops.example\n\
                  bob@x.example... deliverable: mailer smtp, user bob@x.example\n\
                  nobody... deliverable: mailer smtp, user bob@example.org\n";
    assert_eq!((said.code, said.out.as_str()), (0, wanted));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);

    desk.change_profile("rewrite = \"all\"", "");
    let daemon = desk.program.daemon().await;
    let mail = b"From: Shop <shop@example.com>\nTo: bob@example.org\n\nx\n";
    assert_silent(&desk.call("sendmail", &["-t"], mail).await);
    let sent = desk.next().await;
    assert_eq!(sent.envelope.from, "ann@example.org");
    let text = sent.body.text();
    assert_eq!(field(&text, "From").as_deref(), Some("Shop <ann@example.org>"));
    assert_eq!(field(&text, "Reply-To").as_deref(), Some("Shop <shop@example.com>"));
    assert_eq!(field(&text, "X-Original-From").as_deref(), Some("Shop <shop@example.com>"));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_can_leave_senders_alone() {
    let desk = Desk::new().await;
    desk.change_profile("rewrite = \"never\"", "");
    let daemon = desk.program.daemon().await;
    let mail = b"From: root@localhost\nTo: root\n\nx\n";
    assert_silent(&desk.call("sendmail", &["-f", "root@localhost", "bob@example.org"], mail).await);
    let sent = desk.next().await;
    assert_eq!(sent.envelope.from, "root@localhost");
    assert!(sent.body.text().contains("\r\nFrom: root@localhost\r\nTo: root\r\n"));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wishes_for_reports_reach_the_server() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mail = b"From: ann@example.org\nTo: bob@example.org\n\nx\n";
    let call = ["-t", "-N", "success,delay", "-R", "full", "-V", "job+2B7", "-B", "8BITMIME"];
    assert_silent(&desk.call("sendmail", &call, mail).await);
    let envelope = &desk.next().await.envelope;
    assert_eq!(envelope.parameters.ret, Some(Ret::Full));
    assert_eq!(envelope.parameters.envid.as_deref(), Some("job+7"));
    let wished = Notify { never: false, success: true, failure: false, delay: true };
    assert_eq!(envelope.recipients[0].notify, Some(wished));
    assert_silent(&desk.call("sendmail", &["-N", "never", "bob@example.org"], mail).await);
    let never = Notify { never: true, ..Notify::default() };
    assert_eq!(desk.next().await.envelope.recipients[0].notify, Some(never));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_takes_mail_of_every_user_where_the_profile_says_so() {
    let desk = Desk::new().await;
    let socket = desk.program.path("submit.sock");
    desk.change_profile("", &format!("[local]\nsocket = {:?}\n", socket.display().to_string()));
    let daemon = desk.program.daemon().await;
    let client = Client::connect_to_submit(&socket).await.unwrap();
    let envelope = RawEnvelope { recipients: vec!["bob".into()], ..RawEnvelope::default() };
    let bytes = Box::pin(std::io::Cursor::new(b"From: www-data\n\nx\n".to_vec()));
    client.submit_raw(envelope, bytes).await.unwrap();
    let sent = desk.next().await;
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert!(field(&sent.body.text(), "Received").unwrap().contains("(postrider, from "));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smtp_on_standard_input_without_a_daemon() {
    let desk = Desk::new().await;
    let dialogue =
        b"EHLO me\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n\
                     Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
    let said = desk.call("sendmail", &["-bs"], dialogue).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("250 2.0.0 queued as ") && said.out.ends_with("bye\r\n"), "{said:?}");
    assert_eq!(desk.program.json(&["queue"]).await.as_array().unwrap().len(), 1);
    assert_silent(&desk.call("sendmail", &["-qR", "example.org"], b"").await);
    assert_eq!(body(&desk.next().await.body.text()), ".dot\r\n");
}

/// As mail programs do it that start a server of their own, also with names of this machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smtp_on_standard_input_beside_a_daemon() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let dialogue = b"EHLO me\r\nMAIL FROM:<root>\r\nRCPT TO:<root>\r\n\
                     RCPT TO:<bob@example.org> NOTIFY=NEVER\r\nDATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n\
                     MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n\
                     Subject: cut off\r\n\r\nhel";
    let said = desk.call("sendmail", &["-bs"], dialogue).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert_eq!(said.out.matches("queued as").count(), 1, "{said:?}");
    let sent = desk.next_as_it_is().await;
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert_eq!(sent.recipients(), ["ann@example.org", "bob@example.org"]);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    // What had no end is no message.
    assert_eq!(desk.program.json(&["queue"]).await, Value::Array(Vec::new()));
    assert_eq!(desk.office.accepted_count(), 1);
}

/// What `-bs` does for a user whose mail the daemon of another user takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smtp_through_the_socket_for_every_user() {
    let desk = Desk::new().await;
    let socket = desk.program.path("submit.sock");
    desk.change_profile("", &format!("[local]\nsocket = {:?}\n", socket.display().to_string()));
    let daemon = desk.program.daemon().await;
    let client = Arc::new(Client::connect_to_submit(&socket).await.unwrap());
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let clock = Arc::new(postrider::clock::SystemClock);
    let settings = postrider::listener::ListenSettings::default();
    let serving = tokio::spawn(postrider::listener::serve_stream(theirs, settings, client, clock));
    let (mut read, mut write) = tokio::io::split(ours);
    let dialogue = b"EHLO me\r\nMAIL FROM:<www-data>\r\nRCPT TO:<root>\r\nDATA\r\n\
                     Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n";
    write.write_all(dialogue).await.unwrap();
    let mut heard = String::new();
    read.read_to_string(&mut heard).await.unwrap();
    serving.await.unwrap();
    assert!(heard.contains("250 2.0.0 queued as ") && heard.ends_with("bye\r\n"), "{heard}");
    let sent = desk.next_as_it_is().await;
    assert_eq!(
        (sent.envelope.from.as_str(), sent.recipients()),
        ("ann@example.org", vec!["ann@example.org"])
    );
    let text = sent.body.text();
    // The user is the one the kernel knows.
    assert!(text.contains("(postrider, from "), "{text}");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_names_and_the_subcommands() {
    let desk = Desk::new().await;
    let quiet: &[(&str, &[&str])] = &[
        ("newaliases", &[]),
        ("sendmail", &["-bi"]),
        ("sendmail", &["-I"]),
        ("sendmail", &["-q15m"]),
        ("postrider", &["newaliases"]),
    ];
    for (name, arguments) in quiet {
        assert_silent(&desk.call(name, arguments, b"").await);
    }
    let said =
        desk.call("postrider", &["sendmail", "-v", "-f", "ann@example.org", "bob"], b"x\n").await;
    assert_eq!(said.code, 0, "{said:?}");
    let id = said.out.trim_end();
    let listed = desk.call("postrider", &["--json", "mailq"], b"").await;
    let rows: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(rows[0]["id"], id);
    // A profile by its file, and by options before the subcommand.
    let file = desk.program.path("config/test.toml").display().to_string();
    let mut call = desk.tool(desk.named("sendmail"));
    call.env_remove("POSTRIDER_CONFIG").args(["-C", &file, "-v", "bob@example.org"]);
    assert_eq!(run(call, b"x\n").await.code, 0);
    let mut call = desk.tool(desk.named("postrider"));
    let config = desk.program.path("config").display().to_string();
    call.env_remove("POSTRIDER_CONFIG").args(["--config", &config, "--profile", "test", "mailq"]);
    let listed = run(call, b"").await;
    assert!(listed.out.ends_with("in 2 Requests.\n"), "{listed:?}");
}
