//! Commands over a fake session, with and without a daemon.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::access::fake::{FakePlace, place};
use super::args::{
    FlushArguments, Id, QueueCommand, RetryArguments, SendArguments, StatusArguments,
};
use super::console::{Colours, Console, Terminal};
use super::exit::{Exit, Failure};
use super::queue::Verb;
use super::{flush, queue, run, send, status, trace};
use crate::control::fake::{FakeService, entry, row};
use crate::control::{Client, ControlSocket, serve};
use crate::mapi::{MapiCode, MapiError, tags};
use crate::session::{QueueRow, QueueRowState, RecipientRowState, Service};

const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a command and takes what it wrote: result, standard output, standard error.
macro_rules! said {
    ($json:expr, |$console:ident| $command:expr) => {{
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err, $json);
        let $console = &mut console;
        let answer: Result<(), Failure> = $command.await;
        (answer, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }};
}

fn arguments(wait: bool) -> SendArguments {
    SendArguments {
        to: vec!["bob@example.net".into()],
        body: Some("hi".into()),
        wait,
        ..SendArguments::default()
    }
}

fn ended(n: u64, state: RecipientRowState) -> QueueRow {
    let mut ended = row(n, QueueRowState::Finished);
    ended.recipients[0].state = state;
    ended.recipients[0].reply = "250 ok\r\nqueued".into();
    ended
}

#[tokio::test]
async fn send_without_a_daemon_only_queues_and_says_so() {
    let at = place(FakeService::default(), 0);
    let (answer, out, err) = said!(false, |c| send::send(&at.place, c, &arguments(false)));
    assert_eq!(answer, Ok(()));
    assert_eq!(out, format!("{}\n", entry(1)));
    assert!(err.contains("no daemon is running"), "{err}");
    assert_eq!(*at.events.lock().unwrap(), ["open None", "shutdown"]);
    let submissions = at.fake.submissions.lock().unwrap();
    assert_eq!(submissions[0].message.props.text(tags::BODY), Some("hi"));
}

#[tokio::test]
async fn send_and_wait_tells_each_recipient() {
    for (state, exit) in
        [(RecipientRowState::Delivered, None), (RecipientRowState::Failed, Some(Exit::Negative))]
    {
        let at = place(FakeService::with_rows(vec![ended(1, state)]), 0);
        let (answer, out, _) = said!(false, |c| send::send(&at.place, c, &arguments(true)));
        assert_eq!(answer.err().map(|failure| failure.exit), exit);
        let name = super::queue::recipient_state_name(state);
        assert_eq!(out, format!("{}\nbob@example.net\t{name}\t250 ok queued\n", entry(1)));
        assert_eq!(*at.events.lock().unwrap(), ["open Full", "shutdown"]);
        let (_, out, _) = said!(true, |c| send::send(&at.place, c, &arguments(true)));
        let told: QueueRow = serde_json::from_str(&out).unwrap();
        assert_eq!(told, ended(1, state));
    }
}

#[tokio::test]
async fn an_accepted_message_is_never_sent_for_again() {
    // The message is accepted, then the wait for its outcome fails.
    let at = place(FakeService::default(), 0);
    let (answer, out, _) = said!(false, |c| send::send(&at.place, c, &arguments(true)));
    let failure = answer.unwrap_err();
    assert_eq!((failure.exit, failure.code), (Exit::Negative, None));
    assert_eq!(out, format!("{}\n", entry(1)));
    assert!(failure.line().unwrap().contains("which is accepted"), "{failure:?}");
}

#[tokio::test]
async fn refusals_have_their_exit_code_and_print_no_id() {
    for (code, exit) in [
        (MapiCode::NOT_ENOUGH_DISK, Exit::TryAgain),
        (MapiCode::INVALID_PARAMETER, Exit::Data),
        (MapiCode::TOO_BIG, Exit::Unavailable),
    ] {
        let at = place(FakeService::failing(code, "no"), 0);
        let (answer, out, _) = said!(false, |c| send::send(&at.place, c, &arguments(false)));
        let failure = answer.unwrap_err();
        assert_eq!(failure.exit, exit);
        assert!(failure.line().unwrap().contains(&code.to_string()));
        assert_eq!(out, "");
    }
}

#[tokio::test]
async fn the_queue_is_a_table_or_an_array() {
    let rows = vec![row(1, QueueRowState::Deferred), row(2, QueueRowState::InDoubt)];
    let at = place(FakeService::with_rows(rows.clone()), 0);
    let (_, out, _) = said!(true, |c| queue::queue(&at.place, c, None));
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told[0]["state"], "deferred");
    assert_eq!(told[1]["state"], "in-doubt");
    assert_eq!(told[0]["recipients"][0]["address"], "bob@example.net");
    let (_, out, _) = said!(false, |c| queue::queue(&at.place, c, None));
    assert_eq!(out.lines().count(), 3);
    assert!(out.lines().all(|line| line.split('\t').count() == 8), "{out}");
    let show = QueueCommand::Show(Id { id: entry(2).to_string() });
    let (_, out, _) = said!(true, |c| queue::queue(&at.place, c, Some(&show)));
    assert_eq!(serde_json::from_str::<QueueRow>(&out).unwrap(), rows[1]);
    let (_, out, _) = said!(false, |c| queue::queue(&at.place, c, Some(&show)));
    assert!(out.contains("in-doubt") && out.contains("bob@example.net\tdeferred\t451 later"));
    let show = QueueCommand::Show(Id { id: entry(9).to_string() });
    let (answer, _, _) = said!(false, |c| queue::queue(&at.place, c, Some(&show)));
    assert_eq!(answer.unwrap_err().exit, Exit::Negative);
    let empty = place(FakeService::default(), 0);
    let (_, out, _) = said!(true, |c| queue::queue(&empty.place, c, None));
    assert_eq!(out, "[]\n");
}

#[tokio::test]
async fn a_trace_is_told_line_by_line_and_steers_no_terminal() {
    let at = place(FakeService::with_rows(vec![row(1, QueueRowState::Deferred)]), 0);
    let id = entry(1).to_string();
    let (_, out, err) = said!(false, |c| trace::trace(&at.place, c, &id));
    for line in [
        "message id:   <1@example.org>\n",
        "to:           bob@example.net (deferred)\n",
        "2026-01-02T03:04:05Z  submitted?\n",
        "2026-01-02T03:05:05Z  next attempt (",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(err.contains("3 steps in the middle are not kept"), "{err}");
    let (_, out, _) = said!(true, |c| trace::trace(&at.place, c, &id));
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["steps"][0]["step"], &told["left_out"]), (&"submitted".into(), &3.into()));
    let (answer, _, _) = said!(false, |c| trace::trace(&at.place, c, "<none@x>"));
    assert_eq!(answer.unwrap_err().exit, Exit::Negative);
}

#[tokio::test]
async fn each_message_is_tried_whatever_became_of_the_others() {
    let at = place(FakeService::default(), 0);
    let ids = vec![entry(1).to_string(), "no/id".into(), entry(2).to_string()];
    let (answer, out, err) = said!(false, |c| queue::each(&at.place, c, Verb::Cancel, &ids));
    assert_eq!(answer.unwrap_err().exit, Exit::Usage);
    assert_eq!(out, format!("{} cancelled\n{} cancelled\n", entry(1), entry(2)));
    assert_eq!(err.lines().count(), 1);
    assert!(err.contains("no/id"), "{err}");
    let sent = place(FakeService::failing(MapiCode::UNABLE_TO_ABORT, "it is sent"), 0);
    let ids = vec![entry(1).to_string()];
    let (answer, out, err) = said!(true, |c| queue::each(&sent.place, c, Verb::Cancel, &ids));
    assert_eq!(answer.unwrap_err().exit, Exit::Negative);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told[0]["name"], "MAPI_E_UNABLE_TO_ABORT");
    assert_eq!(told[0]["code"], 0x8004_0114_u32);
    assert!(err.contains("MAPI_E_UNABLE_TO_ABORT"), "{err}");
}

#[tokio::test]
async fn retry_all_counts() {
    let at = place(FakeService::default(), 0);
    let all = RetryArguments { ids: Vec::new(), all: true };
    let (_, out, _) = said!(true, |c| queue::retry(&at.place, c, &all));
    assert_eq!(out, "{\"count\":5}\n");
    assert_eq!(at.fake.calls(), ["retry all"]);
}

#[tokio::test]
async fn export_writes_the_message_as_it_is() {
    let mut fake = FakeService::default();
    let message: Vec<u8> = (0..200_000_u32).map(|n| (n % 256) as u8).collect();
    fake.contents.insert(entry(1).to_string(), message.clone());
    let at = place(fake, 0);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console::new(&mut out, &mut err, false);
    queue::export(&at.place, &mut console, &entry(1).to_string()).await.unwrap();
    assert_eq!(out, message);
}

#[tokio::test]
async fn flush_goes_both_ways_unless_told() {
    for (upload, download, call, words) in [
        (false, false, "flush up=true down=true", "3 sent, 0 left, 4 received\n"),
        (true, false, "flush up=true down=false", "3 sent, 0 left\n"),
        (false, true, "flush up=false down=true", "4 received\n"),
    ] {
        let at = place(FakeService::default(), 0);
        let asked = FlushArguments { upload, download };
        let (answer, out, _) = said!(false, |c| flush::flush(&at.place, c, &asked));
        assert_eq!((answer, out.as_str()), (Ok(()), words));
        assert_eq!(at.fake.calls(), [call]);
        assert_eq!(*at.events.lock().unwrap(), ["open Closed", "shutdown"]);
    }
}

#[tokio::test]
async fn the_status_says_what_happens_next() {
    let at = place(FakeService::default(), 0);
    let once = StatusArguments { watch: false };
    let (_, out, err) = said!(false, |c| status::status(&at.place, c, &once));
    for words in ["work\ttransport\tready\tavailable", "2 deferred", "last error: 451", "INBOX"] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(err.contains("no daemon"), "{err}");
    let (_, out, _) = said!(true, |c| status::status(&at.place, c, &once));
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["rows"][0]["type"], "transport");
    assert_eq!(told["inbound"][0]["mode"], "idle");
    assert_eq!(told["queue"]["in_doubt"], 0);
    let watch = StatusArguments { watch: true };
    let (_, out, _) = said!(true, |c| status::status(&at.place, c, &watch));
    assert_eq!(out.lines().count(), 2);
}

/// Fails like a pipe nobody reads, or a full disk.
struct Closed(std::io::ErrorKind);

impl std::io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure_but_a_full_disk_is() {
    for (kind, exit) in
        [(std::io::ErrorKind::BrokenPipe, Exit::Done), (std::io::ErrorKind::StorageFull, Exit::Io)]
    {
        let at = place(FakeService::with_rows(vec![row(1, QueueRowState::Held)]), 0);
        let (mut out, mut err) = (Closed(kind), Vec::new());
        let mut console = Console::new(&mut out, &mut err, false);
        console.terminal = Terminal { width: Some(80), colours: Colours::None };
        let failure = queue::queue(&at.place, &mut console, None).await.unwrap_err();
        assert_eq!(failure.exit, exit);
        assert_eq!(*at.events.lock().unwrap(), ["open None", "shutdown"]);
    }
}

#[tokio::test]
async fn a_wait_survives_a_restart_of_the_daemon() {
    let at = place(FakeService::default(), 0);
    let socket = ControlSocket::bind(&at.place.socket).await.unwrap();
    let waits = Arc::new(FakeService { waits_for_ever: true, ..FakeService::default() });
    let delivered = vec![ended(1, RecipientRowState::Delivered)];
    let answers = Arc::new(FakeService::with_rows(delivered));
    let stop = CancellationToken::new();
    let (first, stopped) = (Arc::clone(&waits), stop.clone());
    let daemon = tokio::spawn(async move {
        serve(&socket, first, stopped.cancelled_owned()).await;
        serve(&socket, answers, std::future::pending()).await;
    });
    let stopper = async {
        while !waits.calls().iter().any(|call| call.starts_with("wait")) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let sent = async { said!(false, |c| send::send(&at.place, c, &arguments(true))) };
    let (answer, out, _) = tokio::select! {
        said = tokio::time::timeout(DEADLINE, sent) => said.unwrap(),
        () = stopper => unreachable!(),
    };
    assert_eq!(answer, Ok(()));
    assert!(out.contains("delivered"), "{out}");
    daemon.abort();
}

#[tokio::test]
async fn a_second_daemon_is_told_of_the_first() {
    let FakePlace { place, events, temp: _temp, .. } = place(FakeService::default(), u32::MAX);
    let socket = ControlSocket::bind(&place.socket).await.unwrap();
    let first = serve(&socket, Arc::new(FakeService::default()), std::future::pending());
    let reread = || Err(Failure::usage("not asked for"));
    let second = async { said!(false, |c| run::run(place, c, "work", &reread)) };
    let (answer, _, _) = tokio::select! {
        () = first => unreachable!(),
        said = tokio::time::timeout(DEADLINE, second) => said.unwrap(),
    };
    let failure = answer.unwrap_err();
    assert_eq!((failure.exit, failure.code), (Exit::TryAgain, Some(MapiCode::BUSY)));
    assert!(failure.line().unwrap().contains("already"), "{failure:?}");
    assert!(events.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_daemon_answers_through_its_socket() {
    let at = place(FakeService::default(), 1);
    let socket = at.place.socket.clone();
    let reread = || Err(Failure::usage("not asked for"));
    let daemon = async { said!(false, |c| run::run(at.place, c, "work", &reread)) };
    let asked = async {
        loop {
            match Client::connect(&socket).await {
                Ok(client) => return client.status().await,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let status = tokio::select! {
        _ = daemon => unreachable!(),
        status = tokio::time::timeout(DEADLINE, asked) => status.unwrap(),
    };
    assert_eq!(status.map(|status| status.pid), Ok::<_, MapiError>(42));
    assert_eq!(*at.events.lock().unwrap(), ["open Full"]);
}
