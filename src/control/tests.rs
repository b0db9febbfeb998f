#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fake::{FakeService, entry, row};
use super::{Client, ControlSocket, SubmissionSocket, serve, serve_submissions};
use crate::mapi::{
    Attachment, MapiCode, MapiError, MessageData, Recipient, RecipientType, SysTime, tags,
};
use crate::session::{
    FlushRequest, NotifyRequest, QueueRowState, RawEnvelope, Service, Submission,
};

const DEADLINE: Duration = Duration::from_secs(20);

struct Daemon {
    temp: tempfile::TempDir,
    fake: Arc<FakeService>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start(fake: FakeService) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(&temp.path().join("control.sock")).await.unwrap();
        let (fake, stop) = (Arc::new(fake), CancellationToken::new());
        let (service, stopped) = (Arc::clone(&fake), stop.clone());
        let task = tokio::spawn(async move {
            serve(&socket, service, stopped.cancelled_owned()).await;
        });
        Daemon { temp, fake, stop, task }
    }

    fn path(&self) -> std::path::PathBuf {
        self.temp.path().join("control.sock")
    }

    async fn client(&self) -> Client {
        Client::connect(&self.path()).await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }

    /// Sends bytes as they are and reads until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        // The server may close before it has read everything.
        let _written = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _reset = tokio::time::timeout(DEADLINE, read).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn every_user_can_hand_over_messages_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("submit.sock");
    let socket = SubmissionSocket::bind(&path).await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let fake = Arc::new(FakeService::default());
    let service = Arc::clone(&fake) as Arc<dyn Service>;
    let asking = async {
        let client = Client::connect_to_submit(&path).await.unwrap();
        let envelope =
            RawEnvelope { submitter: Some("somebody else".into()), ..RawEnvelope::default() };
        let bytes = Box::pin(std::io::Cursor::new(b"Subject: x\n\n".to_vec()));
        assert_eq!(client.submit_raw(envelope, bytes).await.unwrap(), entry(2));
        let refused = client.status().await.unwrap_err();
        assert_eq!(refused.code(), MapiCode::NO_SUPPORT);
        let submitted = client.submit(Submission::default()).await.unwrap_err();
        assert_eq!(submitted.code(), MapiCode::NO_SUPPORT);
    };
    tokio::select! {
        () = serve_submissions(&socket, service, std::future::pending()) => unreachable!(),
        asked = tokio::time::timeout(DEADLINE, asking) => asked.unwrap(),
    }
    let raw = fake.raw.lock().unwrap();
    // Who hands it over the kernel says.
    assert_eq!(raw[0].0.submitter, Some(crate::session::login_name()));
    assert_eq!(raw[0].1, b"Subject: x\n\n");
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn every_method_reaches_the_service() {
    let mut fake = FakeService::with_rows(vec![
        row(1, QueueRowState::Deferred),
        row(2, QueueRowState::InDoubt),
        row(3, QueueRowState::Held),
    ]);
    fake.contents.insert(entry(1).to_string(), vec![7; 300_000]);
    let daemon = Daemon::start(fake).await;
    let client = daemon.client().await;
    let rows = daemon.fake.rows.clone();

    assert_eq!(client.status().await.unwrap(), daemon.fake.report());
    let watched: Vec<u32> =
        client.watch_status().await.unwrap().map(|report| report.pid).collect().await;
    assert_eq!(watched, [42, 43]);
    assert_eq!(client.queue(None, 1000).await.unwrap(), rows);
    assert_eq!(client.queue(Some(entry(1)), 1).await.unwrap(), rows[1..2]);
    assert_eq!(client.queue_row(&entry(2)).await.unwrap(), rows[1]);
    assert_eq!(client.wait(&entry(3), None).await.unwrap(), rows[2]);
    client.wait(&entry(3), Some(Duration::from_millis(1500))).await.unwrap();
    let traced = client.trace(&entry(3).to_string()).await.unwrap();
    assert_eq!((traced.state, traced.left_out), (QueueRowState::Held, 3));
    let odd = "<a b/%\u{e9}?&@x>";
    assert_eq!(client.trace(odd).await.unwrap_err().code(), MapiCode::NOT_FOUND);
    client.cancel(&entry(1)).await.unwrap();
    client.hold(&entry(1)).await.unwrap();
    client.release(&entry(1)).await.unwrap();
    assert_eq!(client.retry(Some(&entry(1))).await.unwrap(), 1);
    assert_eq!(client.retry(None).await.unwrap(), 5);
    let request = NotifyRequest {
        transport: Some("work".into()),
        flags: 0x4000_0000,
        reference: Some(3),
        entry: Some(entry(1).to_string()),
    };
    client.notify(request).await.unwrap();
    let summary = client.flush(FlushRequest { upload: true, download: false }).await.unwrap();
    assert_eq!((summary.sent, summary.received), (3, 4));
    let checks = client.check().await.unwrap();
    assert_eq!(checks, daemon.fake.check().await.unwrap());
    let mut content = Vec::new();
    client.export(&entry(1)).await.unwrap().read_to_end(&mut content).await.unwrap();
    assert_eq!(content, vec![7; 300_000]);

    let id = entry(1).to_string();
    let third = entry(3).to_string();
    assert_eq!(
        daemon.fake.calls(),
        [
            "status".to_owned(),
            "watch".into(),
            "queue 1000".into(),
            "queue 1".into(),
            format!("queue_row {}", entry(2)),
            format!("wait {third} None"),
            format!("queue_row {third}"),
            format!("wait {third} Some(1.5s)"),
            format!("queue_row {third}"),
            format!("trace {third}"),
            format!("trace {odd}"),
            format!("cancel {id}"),
            format!("hold {id}"),
            format!("release {id}"),
            format!("retry {id}"),
            "retry all".into(),
            format!("notify Some(\"work\") 0x40000000 Some(3) Some({id:?})"),
            "flush up=true down=false".into(),
            "check".into(),
            "check".into(),
            format!("export {id}"),
        ]
    );
    daemon.end().await;
}

#[tokio::test]
async fn messages_arrive_as_they_were_sent() {
    let daemon = Daemon::start(FakeService::default()).await;
    let client = daemon.client().await;
    let mut message = MessageData::default();
    message.props.set(tags::SUBJECT, "Grüße");
    message.recipients.push(Recipient::smtp(0, RecipientType::To, "bob@example.net"));
    message.attachments.push(Attachment { data: vec![0xff; 1_000_000], ..Attachment::default() });
    assert_eq!(client.submit(Submission { message: message.clone() }).await.unwrap(), entry(1));
    assert_eq!(daemon.fake.submissions.lock().unwrap()[0].message, message);

    let envelope = RawEnvelope {
        from: Some(String::new()),
        recipients: vec!["bob@example.net".into()],
        recipients_from_header: true,
        delivery_report: true,
        deferred_send_time: Some(SysTime::from_millis(5)),
        expiry_time: Some(SysTime::from_millis(9)),
        importance: Some(crate::mapi::Importance::High),
        priority: Some(crate::mapi::Priority::Urgent),
        dsn: crate::mapi::DsnRequest {
            envelope_id: Some("id".into()),
            returned: Some(crate::mapi::DsnReturned::Full),
            recipients: vec![crate::mapi::DsnRecipient {
                notify: Some(crate::mapi::DsnWish::default()),
                original: Some("b@example.net".into()),
            }],
            others: Some(crate::mapi::DsnWish::default()),
        },
        excluded: vec!["carl@example.net".into()],
        sender_name: Some("Ann".into()),
        submitter: Some("ann".into()),
    };
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let reader = Box::pin(std::io::Cursor::new(bytes.clone()));
    assert_eq!(client.submit_raw(envelope.clone(), reader).await.unwrap(), entry(2));
    assert_eq!(*daemon.fake.raw.lock().unwrap(), [(envelope, bytes)]);
    daemon.end().await;
}

#[tokio::test]
async fn errors_keep_code_and_words() {
    let fault = (MapiCode::UNABLE_TO_ABORT, "it is sent");
    let daemon = Daemon::start(FakeService::failing(fault.0, fault.1)).await;
    let client = daemon.client().await;
    let expected = MapiError::new(fault.0, fault.1);
    assert_eq!(client.cancel(&entry(1)).await.unwrap_err(), expected);
    assert_eq!(client.status().await.unwrap_err(), expected);
    assert_eq!(client.submit(Submission::default()).await.unwrap_err(), expected);
    daemon.end().await;
}

#[tokio::test]
async fn a_refused_upload_gets_its_answer() {
    let daemon = Daemon::start(FakeService::failing(MapiCode::NOT_ENOUGH_DISK, "full")).await;
    let client = daemon.client().await;
    // Many times what the socket holds: the service refuses without reading it.
    let message = Box::pin(std::io::Cursor::new(vec![b'x'; 20_000_000]));
    let refused = client.submit_raw(RawEnvelope::default(), message).await.unwrap_err();
    assert_eq!(refused, MapiError::new(MapiCode::NOT_ENOUGH_DISK, "full"));
    daemon.end().await;
}

/// Fails in the middle of the message.
struct BrokenReader(bool);

impl tokio::io::AsyncRead for BrokenReader {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Ready(Err(std::io::Error::other("gone")));
        }
        buffer.put_slice(b"Subject: half");
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn half_a_message_is_never_taken_for_a_whole_one() {
    let daemon = Daemon::start(FakeService::default()).await;
    let client = daemon.client().await;
    let sent = client.submit_raw(RawEnvelope::default(), Box::pin(BrokenReader(false))).await;
    assert!(sent.is_err());
    assert!(daemon.fake.raw.lock().unwrap().is_empty());
    daemon.end().await;
}

#[tokio::test]
async fn nobody_there_is_a_network_error() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("control.sock");
    let missing = Client::connect(&path).await.unwrap_err();
    assert_eq!(missing.code(), MapiCode::NETWORK_ERROR);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let stale = Client::connect(&path).await.unwrap_err();
    assert_eq!(stale.code(), MapiCode::NETWORK_ERROR);
}

#[tokio::test]
async fn a_broken_submission_is_told_apart_from_a_broken_question() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let rude = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 16];
            let _begun = stream.read(&mut head).await;
        }
    });
    let client = Client::connect(&path).await.unwrap();
    let question = client.status().await.unwrap_err();
    assert_eq!(question.code(), MapiCode::NETWORK_ERROR);
    let submission = client.submit(Submission::default()).await.unwrap_err();
    assert_eq!(submission.code(), MapiCode::CALL_FAILED);
    assert!(submission.detail().contains("not known"), "{submission}");
    rude.abort();
}

#[tokio::test]
async fn garbage_is_refused_in_words_and_harms_nobody() {
    let daemon = Daemon::start(FakeService::default()).await;
    assert!(daemon.raw(b"\x00\xff\x16\x03 garbage\r\n\r\n").await.contains("400"));
    let post = |path: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    for (request, named) in [
        (post("/v1/notify", "{"), "MAPI_E_INVALID_PARAMETER"),
        (post("/v1/flush", "{\"upload\": 1}"), "MAPI_E_INVALID_PARAMETER"),
        (post("/v1/messages", "[]"), "MAPI_E_INVALID_PARAMETER"),
        (post("/v1/messages/raw", "no line end"), "MAPI_E_INVALID_PARAMETER"),
        (post("/v1/messages/raw", "{}\nx"), "MAPI_E_INVALID_PARAMETER"),
        (post("/v1/queue/..%2f/cancel", ""), "MAPI_E_INVALID_ENTRYID"),
        (post("/v1/nonsense", ""), "MAPI_E_NO_SUPPORT"),
        (post("/v1/status", ""), "MAPI_E_NO_SUPPORT"),
        (post("/v1/queue/x00/wait?limit_ms=soon", ""), "MAPI_E_INVALID_PARAMETER"),
    ] {
        let answer = daemon.raw(request.as_bytes()).await;
        assert!(answer.contains(named), "{request}: {answer}");
    }
    assert!(daemon.fake.calls().is_empty(), "{:?}", daemon.fake.calls());
    daemon.client().await.status().await.unwrap();
    daemon.end().await;
}

#[tokio::test]
async fn oversized_requests_are_cut_off() {
    let daemon = Daemon::start(FakeService::default()).await;
    let long_head = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let answer = daemon.raw(long_head.as_bytes()).await;
    assert!(answer.is_empty() || answer.contains("431"), "{answer}");
    let body = " ".repeat(super::wire::LARGEST_REQUEST + 1);
    let head = "POST /v1/notify HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let large = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let answer = daemon.raw(large.as_bytes()).await;
    assert!(answer.contains("413") && answer.contains("MAPI_E_TOO_BIG"), "{answer}");
    assert!(daemon.fake.calls().is_empty());
    daemon.end().await;
}

#[tokio::test]
async fn too_many_fields_are_refused() {
    let daemon = Daemon::start(FakeService::default()).await;
    let fields: String = (0..40).map(|number| format!("x{number}: y\r\n")).collect();
    let answer = daemon.raw(format!("GET /v1/status HTTP/1.1\r\n{fields}\r\n").as_bytes()).await;
    assert!(answer.contains("431"), "{answer}");
    assert!(daemon.fake.calls().is_empty());
    daemon.end().await;
}

/// The time stands still while anything moves and jumps to the next deadline when nothing does.
#[tokio::test(start_paused = true)]
async fn who_is_slow_is_cut_off() {
    let daemon = Daemon::start(FakeService::default()).await;
    let begin = |path: &str, part: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 999\r\n\r\n{part}"
        )
    };
    let envelope = serde_json::to_string(&RawEnvelope::default()).unwrap();
    for (request, told) in [
        ("GET /v1/status HTTP/1.1\r\nhost:".to_owned(), ""),
        (begin("/v1/notify", "{"), "did not end in time"),
        (begin("/v1/messages", "{"), "did not end in time"),
        (begin("/v1/messages/raw", "{"), "did not end in time"),
        (begin("/v1/messages/raw", &format!("{envelope}\n")), "nothing came"),
    ] {
        let mut stream = UnixStream::connect(daemon.path()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let hour = Duration::from_secs(3600);
        let read = tokio::time::timeout(hour, stream.read_to_string(&mut answer)).await;
        read.expect("an end").unwrap();
        assert!(answer.contains(told), "{request}: {answer}");
    }
    assert_eq!(daemon.fake.calls(), ["submit_raw"]);
    assert!(daemon.fake.raw.lock().unwrap().is_empty());
    daemon.end().await;
}

/// `sendmail -bs` connects before its client has said a word.
#[tokio::test(start_paused = true)]
async fn who_connects_long_before_asking_is_answered() {
    let daemon = Daemon::start(FakeService::default()).await;
    let client = daemon.client().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let message = Box::pin(std::io::Cursor::new(b"Subject: x\n\n".to_vec()));
    client.submit_raw(RawEnvelope::default(), message).await.unwrap();
    daemon.end().await;
}

/// What was not sent to its end cannot have been accepted, so it may be sent again.
#[tokio::test]
async fn a_submission_that_broke_in_the_middle_may_be_repeated() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let rude = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 1000]).await.unwrap();
    };
    let client = Client::connect(&path).await.unwrap();
    let message = Box::pin(std::io::Cursor::new(vec![b'x'; 20_000_000]));
    let (sent, ()) = tokio::join!(client.submit_raw(RawEnvelope::default(), message), rude);
    assert_eq!(sent.unwrap_err().code(), MapiCode::NETWORK_ERROR);
}

#[tokio::test]
async fn who_is_told_at_the_door_that_there_is_no_place_may_try_again() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let full = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 100]).await.unwrap();
        stream.write_all(super::users_door::NO_PLACE).await.unwrap();
    };
    let client = Client::connect(&path).await.unwrap();
    let message = Box::pin(std::io::Cursor::new(b"Subject: x\n\n".to_vec()));
    let (sent, ()) = tokio::join!(client.submit_raw(RawEnvelope::default(), message), full);
    assert_eq!(sent.unwrap_err().code(), MapiCode::BUSY);
}

#[tokio::test(start_paused = true)]
async fn large_messages_wait_for_their_turn_and_nothing_else_does() {
    let daemon = Daemon::start(FakeService::default()).await;
    let head = "POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{";
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = UnixStream::connect(daemon.path()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // All four are being read once a question that came behind them is answered.
    daemon.client().await.status().await.unwrap();
    let refused = daemon.client().await.submit(Submission::default()).await.unwrap_err();
    assert_eq!(refused.code(), MapiCode::BUSY);
    daemon.client().await.status().await.unwrap();
    drop(slow);
    daemon.client().await.submit(Submission::default()).await.unwrap();
    daemon.end().await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_those_who_wait() {
    let fake = FakeService { waits_for_ever: true, ..FakeService::default() };
    let daemon = Daemon::start(fake).await;
    let client = daemon.client().await;
    let waiting = tokio::spawn(async move { client.wait(&entry(1), None).await });
    while daemon.fake.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    daemon.end().await;
    let answer = tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap();
    assert_eq!(answer.unwrap_err().code(), MapiCode::NETWORK_ERROR);
}
