//! What can be seen of the daemon from outside: hooks, metrics, the log.

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

use std::path::Path;
use std::process::Stdio;

use house::{PATIENCE, profile_text};
use maildir::await_messages;
use office::{account, office};
use postoffice::{Fault, PostOffice, SmtpAction, SmtpPhase};
use program::Program;
use realservers::wait;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A program whose profile ends in these lines.
fn program_with(office: &PostOffice, lines: &str) -> Program {
    let program = Program::new(office, &[]);
    let account = account(office, &program.path("config"), &[]);
    program.write_profile(&(profile_text(&[account], &program.maildir()) + lines));
    program
}

/// A hook that writes each of its documents, one a line, into a file.
fn hook(file: &Path) -> String {
    format!("[\"sh\", \"-c\", \"cat >> {}\"]", file.display())
}

/// Waits until a hook has written so many documents.
async fn documents(file: &Path, count: usize) -> Vec<Value> {
    let what = format!("{count} documents in {}", file.display());
    let read = async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let whole = text.ends_with('\n') && text.lines().count() >= count;
        whole.then(|| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    };
    wait::until_async(&what, PATIENCE, read).await.unwrap()
}

async fn get(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The value of a series.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_are_told_what_happens_and_metrics_count_it() {
    let office = office().await;
    let refuse = SmtpAction::reply(550, "5.1.1", "no such user");
    office.inject(Fault::smtp(SmtpPhase::Rcpt, refuse).matching("nobody@"));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let lines = format!(
        "[hooks]\non_delivered = {}\non_failed = {}\non_new_mail = {}\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n",
        hook(&file("delivered")),
        hook(&file("failed")),
        hook(&file("new")),
    );
    let program = program_with(&office, &lines);
    let daemon = program.daemon().await;
    let said = daemon.said().iter().find_map(|line| line.split_once("metrics at http://"));
    let at = said.unwrap().1.strip_suffix("/metrics").unwrap().to_owned();

    let delivered = program.send("first light", "ann@example.org").await;
    let failed = program.send("nobody home", "nobody@example.org").await;
    let told = documents(&file("delivered"), 1).await;
    assert_eq!(told[0]["event"], "delivered");
    assert_eq!(told[0]["profile"], "test");
    assert_eq!(told[0]["id"], delivered.as_str());
    assert_eq!(told[0]["subject"], "first light");
    assert_eq!(told[0]["transport"], "work");
    let recipient = &told[0]["recipients"][0];
    assert_eq!(recipient["address"], "ann@example.org");
    assert!(recipient["queue_id"].as_str().is_some_and(|id| !id.is_empty()), "{recipient}");
    let told = documents(&file("failed"), 1).await;
    assert_eq!(told[0]["id"], failed.as_str());
    assert_eq!(told[0]["recipients"][0]["address"], "nobody@example.org");
    assert!(told[0]["recipients"][0]["reply"].as_str().unwrap().contains("no such user"));
    // The letter of ann to herself; the report about the other is no mail that came.
    await_messages(&program.maildir(), "INBOX", 2).await;
    let told = documents(&file("new"), 1).await;
    assert_eq!(told[0]["event"], "new-mail");
    assert_eq!(told[0]["count"], 1);
    assert_eq!(told[0]["mailboxes"]["INBOX"], 1);
    assert_eq!(told[0]["messages"][0]["subject"], "first light");
    assert!(told[0]["messages"][0]["from"].as_str().unwrap().contains("ann@example.org"));

    let over_tcp = get(TcpStream::connect(&at).await.unwrap(), "/metrics").await;
    let over_socket = get(UnixStream::connect(program.socket()).await.unwrap(), "/metrics").await;
    for metrics in [over_tcp, over_socket] {
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
        for (series, expected) in [
            ("postrider_messages_accepted_total", 2.0),
            ("postrider_attempts_total{transport=\"work\",result=\"finished\"}", 2.0),
            ("postrider_recipients_total{transport=\"work\",outcome=\"delivered\"}", 1.0),
            ("postrider_recipients_total{transport=\"work\",outcome=\"failed\"}", 1.0),
            ("postrider_messages_received_total{mailbox=\"INBOX\"}", 1.0),
            ("postrider_reports_total{kind=\"failed\"}", 1.0),
            ("postrider_queue_messages{state=\"queued\"}", 0.0),
            ("postrider_transport_up{transport=\"work\"}", 1.0),
            ("postrider_queue_seconds_count", 2.0),
            ("postrider_spool_failed", 0.0),
        ] {
            assert_eq!(value(&metrics, series), expected, "{series}\n{metrics}");
        }
        assert!(!metrics.contains("first light"), "{metrics}");
    }
    // Nothing but the metrics is to be had there.
    for path in ["/v1/queue", "/openapi.json"] {
        let answer = get(TcpStream::connect(&at).await.unwrap(), path).await;
        assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    }
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_fails_or_hangs_holds_nobody_up() {
    let office = office().await;
    let lines = "[hooks]\non_delivered = [\"sh\", \"-c\", \"sleep 600\"]\n\
                 on_new_mail = \"/nowhere/hook\"\ntimeout = \"1s\"\n";
    let program = program_with(&office, lines);
    let daemon = program.daemon().await;
    for number in 0..12 {
        program.send(&format!("letter {number}"), "ann@example.org").await;
    }
    await_messages(&program.maildir(), "INBOX", 12).await;
    let counted = async || {
        let stream = UnixStream::connect(program.socket()).await.unwrap();
        let metrics = get(stream, "/metrics").await;
        let count = |hook: &str, result: &str| {
            let series = format!("postrider_hooks_total{{hook=\"{hook}\",result=\"{result}\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
            line.map_or(0, |count| count.parse::<u64>().unwrap())
        };
        (count("on_delivered", "timeout") == 12 && count("on_new_mail", "not-started") >= 1)
            .then_some(())
    };
    wait::until_async("every hook to be ended", PATIENCE, counted).await.unwrap();
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_calls_for_its_user_once() {
    let office = office().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sign-in");
    let program = Program::new(&office, &[]);
    let account = account(&office, &program.path("config"), &[]);
    let text = profile_text(&[account], &program.maildir()).replace("secret", "wrong");
    program.write_profile(&format!("{text}[hooks]\non_needs_sign_in = {}\n", hook(&file)));
    let daemon = program.daemon().await;
    program.send("waits", "bob@example.org").await;
    let told = documents(&file, 1).await;
    assert_eq!(told[0]["event"], "needs-sign-in");
    assert_eq!(told[0]["transport"], "work");
    assert!(!told[0]["why"].as_str().unwrap().is_empty());
    // Both directions meet the same refusal.
    let both = async || {
        let stream = UnixStream::connect(program.socket()).await.unwrap();
        let metrics = get(stream, "/metrics").await;
        let met = |direction: &str| {
            metrics.contains(&format!(
                "postrider_troubles_total{{transport=\"work\",direction=\"{direction}\",\
                 code=\"MAPI_E_LOGON_FAILED\"}}"
            ))
        };
        (met("inbound") && met("outbound")).then_some(())
    };
    wait::until_async("trouble both ways", PATIENCE, both).await.unwrap();
    assert_eq!(documents(&file, 1).await.len(), 1);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_follows_a_message_by_its_entry_id() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let log = program.path("log");
    let mut command = program.command(&["run", "--log-format", "json"]);
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    };
    let until = async |words: &str| {
        let found = async || {
            let mut lines = lines().into_iter();
            lines.find(|line| line["message"].as_str().is_some_and(|said| said.contains(words)))
        };
        wait::until_async(words, PATIENCE, found).await.unwrap()
    };
    until("ready: profile test").await;
    let id = program.send("followed", "bob@example.org").await;
    until("A message has left the queue").await;
    let about: Vec<Value> =
        lines().into_iter().filter(|line| line["entry"] == id.as_str()).collect();
    let said: Vec<&str> = about.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(said.first(), Some(&"A message is accepted"), "{said:?}");
    assert_eq!(said.last(), Some(&"A message has left the queue"), "{said:?}");
    let attempt = about.iter().find(|line| line["message"] == "An attempt is recorded").unwrap();
    assert!(!attempt["queue_id"].as_str().unwrap().is_empty(), "{attempt}");
    assert!(about.iter().all(|line| line["timestamp"].is_string() && line["level"] == "INFO"));
    child.kill().await.unwrap();
}
