#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::VecDeque;
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::super::maildir::Origin;
use super::*;
use crate::clock::ManualClock;
use crate::spool::disk::RealDisk;

/// Nothing a test waits for takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    dir: tempfile::TempDir,
    hand: Arc<Hand>,
    clock: ManualClock,
}

fn staging(root: &Path, clock: &ManualClock) -> Arc<Maildir> {
    let disk = Arc::new(RealDisk);
    Arc::new(Maildir::open(root, "host".to_owned(), clock.now(), disk).unwrap())
}

impl Rig {
    fn new(receiver: Receiver, timeout: Duration) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(SysTime::from_millis(1_700_000_000_000));
        let options =
            HandOptions { receiver, recipient: "ann@example.org".to_owned(), timeout, at_once: 2 };
        let hand = Self::hand(options, dir.path(), &clock);
        Rig { dir, hand, clock }
    }

    fn hand(options: HandOptions, dir: &Path, clock: &ManualClock) -> Arc<Hand> {
        let staging = staging(&dir.join("incoming"), clock);
        Hand::new(options, staging, "client", Arc::new(clock.clone()), Handle::current())
    }

    /// A program of the shell's; `$OUT` is a folder of the test.
    fn shell(script: &str, timeout: Duration) -> Rig {
        let out = tempfile::tempdir().unwrap();
        let script = format!("OUT={}\n{script}", out.path().display());
        let words = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
        let receiver = Receiver::Program { words, hidden: vec!["CARGO_PKG_NAME".to_owned()] };
        let mut rig = Rig::new(receiver, timeout);
        let old = std::mem::replace(&mut rig.dir, out);
        // Both folders live as long as the rig.
        std::fs::rename(old.keep(), rig.dir.path().join("state")).unwrap();
        rig
    }

    /// The same folders under a hand that begins anew, as after a crash.
    fn again(&self) -> Arc<Hand> {
        let state = match self.out("state").exists() {
            true => self.out("state"),
            false => self.dir.path().to_owned(),
        };
        Self::hand(self.hand.options.clone(), &state, &self.clock)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.out(name)).unwrap_or_default()
    }

    async fn give(&self, key: u8, text: &[u8]) -> MapiResult<()> {
        give(&self.hand, key, text, Look::Here).await
    }
}

async fn give(hand: &Arc<Hand>, key: u8, text: &[u8], look: Look) -> MapiResult<()> {
    let mut draft = hand.staging.draft().unwrap();
    draft.write(text).unwrap();
    let letter = Letter {
        sender: "bob@example.com".to_owned(),
        mailbox: "Lists/rust".to_owned(),
        token: Token::of(Origin::Received, &[key]),
        look,
    };
    let work = hand.deliver(draft, letter);
    tokio::time::timeout(PATIENCE, work).await.expect("it was handed over in time")
}

#[tokio::test]
async fn a_program_gets_the_octets_and_what_is_known_of_them() {
    let script = "cat > $OUT/text; echo $SENDER $RECIPIENT $MAILBOX $REPEATED $DELIVERY_ID \
                  ${CARGO_PKG_NAME-hidden} > $OUT/facts";
    let rig = Rig::shell(script, PATIENCE);
    let text: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    rig.give(1, &text).await.unwrap();
    assert!(std::fs::read(rig.out("text")).unwrap() == text, "octet for octet");
    let id = Token::of(Origin::Received, &[1]).id();
    let facts = format!("bob@example.com ann@example.org Lists/rust 0 {id} hidden\n");
    assert_eq!(rig.read("facts"), facts);
    assert_eq!(std::fs::read_dir(rig.out("state/incoming/tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn exit_codes_say_whose_fault_it_is() {
    for (code, expected) in [
        (0, None),
        (1, Some(MapiCode::BUSY)),
        (64, Some(MapiCode::BUSY)),
        (65, Some(MapiCode::CALL_FAILED)),
        (67, Some(MapiCode::CALL_FAILED)),
        (69, Some(MapiCode::CALL_FAILED)),
        (75, Some(MapiCode::BUSY)),
        (77, Some(MapiCode::CALL_FAILED)),
        (78, Some(MapiCode::BUSY)),
        (127, Some(MapiCode::BUSY)),
    ] {
        let rig = Rig::shell(&format!("echo no room >&2; exit {code}"), PATIENCE);
        let given = rig.give(1, b"x").await;
        assert_eq!(given.as_ref().err().map(MapiError::code), expected, "{code}");
        if let Err(error) = given {
            let words = error.to_string();
            assert!(words.contains("no room") && words.contains(&code.to_string()), "{words}");
        }
    }
    let rig = Rig::shell("kill -9 $$", PATIENCE);
    let error = rig.give(1, b"x").await.unwrap_err();
    assert!(error.code() == MapiCode::BUSY && error.to_string().contains("signal"), "{error}");
    let words = vec!["/nonexistent/mda".to_owned()];
    let rig = Rig::new(Receiver::Program { words, hidden: Vec::new() }, PATIENCE);
    let error = rig.give(1, b"x").await.unwrap_err();
    assert!(error.code() == MapiCode::BUSY && error.to_string().contains("mda"), "{error}");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_its_children() {
    let script = "sleep 600 & echo $! > $OUT/pid; wait";
    let rig = Rig::shell(script, Duration::from_secs(2));
    let error = rig.give(1, b"x").await.unwrap_err();
    assert_eq!(error.code(), MapiCode::BUSY);
    assert!(error.to_string().contains("2s"), "{error}");
    let stat = format!("/proc/{}/stat", rig.read("pid").trim());
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    let wait = async {
        while !gone() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("its child still runs");
}

#[tokio::test]
async fn who_does_not_read_or_leaves_something_behind_is_believed_all_the_same() {
    let rig = Rig::shell("sleep 600 2>&1 & echo $! > $OUT/pid; exit 0", PATIENCE);
    let large = vec![b'x'; 1_000_000];
    rig.give(1, &large).await.unwrap();
    let pid = rig.read("pid").trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn no_more_run_at_once_than_allowed() {
    // Each waits until the test lets go, and counts those beside it.
    let script = "echo >> $OUT/begun; while [ ! -e $OUT/go ]; do sleep 0.02; done; \
                  echo >> $OUT/ended";
    let rig = Rig::shell(script, PATIENCE);
    let all: Vec<_> = (0..5)
        .map(|key| {
            let hand = Arc::clone(&rig.hand);
            tokio::spawn(async move { give(&hand, key, b"x", Look::Here).await })
        })
        .collect();
    let lines = |name: &str| rig.read(name).lines().count();
    while lines("begun") < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.hand.places.available_permits(), 0);
    assert_eq!(lines("begun"), 2);
    std::fs::write(rig.out("go"), "").unwrap();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(lines("ended"), 5);
}

/// Proves: IB-6
#[tokio::test]
async fn what_was_handed_over_is_handed_over_again_only_if_the_note_of_it_is_lost() {
    let rig = Rig::shell("echo $REPEATED $DELIVERY_ID >> $OUT/log; cat >/dev/null", PATIENCE);
    rig.give(1, b"x").await.unwrap();
    // A crash before the cursor was on disk: the transport hands it over as a possible repetition.
    give(&rig.again(), 1, b"x", Look::Everywhere).await.unwrap();
    assert_eq!(rig.read("log").lines().count(), 1);
    // A crash right behind the program's answer: the note was never made.
    let notes = rig.out("state/incoming/cur");
    for note in std::fs::read_dir(&notes).unwrap() {
        std::fs::remove_file(note.unwrap().path()).unwrap();
    }
    give(&rig.again(), 1, b"x", Look::Everywhere).await.unwrap();
    let id = Token::of(Origin::Received, &[1]).id();
    assert_eq!(rig.read("log"), format!("0 {id}\n1 {id}\n"));
    // What was not handed over leaves no note.
    let rig = Rig::shell("exit 75", PATIENCE);
    rig.give(2, b"x").await.unwrap_err();
    assert_eq!(std::fs::read_dir(rig.out("state/incoming/cur")).unwrap().count(), 0);
}

#[tokio::test]
async fn notes_are_kept_for_thirty_days() {
    let rig = Rig::shell("cat >/dev/null", PATIENCE);
    rig.give(1, b"x").await.unwrap();
    let root = rig.out("state/incoming");
    let count = || std::fs::read_dir(root.join("cur")).unwrap().count();
    rig.clock.advance(REMEMBERED);
    forget(&root, rig.clock.now());
    assert_eq!(count(), 1);
    rig.clock.advance(Duration::from_secs(1));
    forget(&root, rig.clock.now());
    assert_eq!(count(), 0);
}

#[tokio::test]
async fn a_message_is_to_blame_only_when_others_went_through() {
    let rig = Rig::shell("read -r line; [ \"$line\" != bad ] || exit 75", PATIENCE);
    for _ in 0..3 {
        assert_eq!(rig.give(1, b"bad\n").await.unwrap_err().code(), MapiCode::BUSY);
    }
    rig.give(2, b"good\n").await.unwrap();
    assert_eq!(rig.give(1, b"bad\n").await.unwrap_err().code(), MapiCode::CALL_FAILED);
    assert_eq!(rig.give(1, b"bad\n").await.unwrap_err().code(), MapiCode::BUSY);
    // Another one is not to blame for what the first one did.
    assert_eq!(rig.give(3, b"bad\n").await.unwrap_err().code(), MapiCode::BUSY);
}

/// What a scripted LMTP server does instead of being good.
#[derive(Clone, Copy, Debug)]
enum Act {
    Say(&'static str),
    Close,
    Hang,
}

/// Serves one connection after the other: on a line that begins with the prefix (`.` for the final
/// dot, `text` for the first line of a message, an empty one for the greeting), it acts, once for each connection that is left in the list.
async fn lmtp(acts: Vec<(&'static str, Act)>) -> (Rig, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let mut acts: VecDeque<_> = acts.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let act = acts.pop_front();
            tokio::spawn(serve(stream, act, Arc::clone(&log)));
        }
    });
    let address = LmtpAddress::Tcp { host: address.ip().to_string(), port: address.port() };
    (Rig::new(Receiver::Lmtp(address), Duration::from_secs(3)), heard)
}

async fn serve(
    stream: tokio::net::TcpStream,
    act: Option<(&'static str, Act)>,
    log: Arc<Mutex<Vec<String>>>,
) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut in_text = false;
    loop {
        let good = match line.trim_end() {
            "" if line.is_empty() => "220 here",
            "." if in_text => "250 2.0.0 stored",
            _ if in_text => "",
            "DATA" => "354 go",
            "QUIT" => "221 bye",
            command if command.starts_with("LHLO") => "250-here\r\n250-8BITMIME\r\n250 DSN",
            _ => "250 2.0.0 ok",
        };
        let matches = |prefix: &str| match prefix {
            "" => line.is_empty(),
            "." => in_text && line == ".\r\n",
            "text" => in_text,
            prefix => !in_text && line.starts_with(prefix),
        };
        match act.filter(|(prefix, _)| matches(prefix)) {
            Some((_, Act::Close)) => return,
            Some((_, Act::Hang)) => {
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            Some((_, Act::Say(words))) => {
                let _ = stream.write_all(format!("{words}\r\n").as_bytes()).await;
                if words.starts_with("421") {
                    return;
                }
            }
            None if good.is_empty() => {}
            None => {
                let _ = stream.write_all(format!("{good}\r\n").as_bytes()).await;
            }
        }
        in_text = match in_text {
            true => line != ".\r\n",
            false => line == "DATA\r\n",
        };
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        log.lock().unwrap().push(line.clone());
    }
}

#[tokio::test]
async fn lmtp_stores_a_message_dots_and_all() {
    let (rig, heard) = lmtp(Vec::new()).await;
    rig.give(1, b"Subject: x\r\n\r\n.\r\n..\r\nend").await.unwrap();
    let id = Token::of(Origin::Received, &[1]).id();
    let expected = format!(
        "LHLO client\r\nMAIL FROM:<bob@example.com> BODY=8BITMIME ENVID={id}\r\n\
         RCPT TO:<ann@example.org>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n...\r\nend\r\n.\r\nQUIT\r\n"
    );
    assert_eq!(heard.lock().unwrap().concat(), expected);
}

#[tokio::test]
async fn what_an_lmtp_server_does_is_told_apart() {
    let busy = MapiCode::BUSY;
    let refused = MapiCode::CALL_FAILED;
    for (phase, act, code) in [
        ("", Act::Say("421 4.3.2 shutting down"), busy),
        ("", Act::Say("554 5.3.2 no service"), busy),
        ("", Act::Say("hello"), busy),
        ("", Act::Close, busy),
        ("", Act::Hang, busy),
        ("LHLO", Act::Say("500 5.5.1 what"), busy),
        ("LHLO", Act::Close, busy),
        ("MAIL", Act::Say("452 4.3.1 no room"), busy),
        ("MAIL", Act::Say("552 5.3.4 too big"), refused),
        ("RCPT", Act::Say("452 4.2.2 mailbox full"), busy),
        ("RCPT", Act::Say("550 5.1.1 no such user"), busy),
        ("DATA", Act::Say("451 4.3.0 later"), busy),
        ("DATA", Act::Say("554 5.6.0 not this one"), refused),
        ("DATA", Act::Hang, busy),
        (".", Act::Say("451 4.3.0 later"), busy),
        (".", Act::Say("552 5.2.2 too big for the mailbox"), refused),
        (".", Act::Say("421 4.3.2 shutting down"), busy),
        (".", Act::Close, busy),
        (".", Act::Hang, busy),
        (".", Act::Say("what"), busy),
    ] {
        let (rig, heard) = lmtp(vec![(phase, act)]).await;
        let error = rig.give(1, b"x\r\n").await.unwrap_err();
        assert_eq!(error.code(), code, "{phase:?} {act:?}: {error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
        // It is not lost: the next time it is taken.
        heard.lock().unwrap().clear();
        rig.give(1, b"x\r\n").await.unwrap();
        assert!(heard.lock().unwrap().concat().contains("DATA\r\nx\r\n.\r\n"), "{phase:?} {act:?}");
    }
}

#[tokio::test]
async fn a_message_at_which_the_server_hangs_up_is_to_blame_when_others_go_through() {
    let (never, amid) = (("never", Act::Close), ("text", Act::Close));
    let (rig, _) = lmtp(vec![amid, never, amid, never, amid]).await;
    // So much that the server has gone before the last of it is written.
    let large = b"a line of no importance\r\n".repeat(1_000_000);
    assert_eq!(rig.give(1, &large).await.unwrap_err().code(), MapiCode::BUSY);
    rig.give(2, b"x\r\n").await.unwrap();
    assert_eq!(rig.give(1, &large).await.unwrap_err().code(), MapiCode::CALL_FAILED);
    rig.give(3, b"x\r\n").await.unwrap();
    assert_eq!(rig.give(4, &large).await.unwrap_err().code(), MapiCode::BUSY);
}

#[tokio::test]
async fn an_lmtp_server_that_is_not_there_keeps_mail_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let address = LmtpAddress::Unix(dir.path().join("lmtp"));
    let rig = Rig::new(Receiver::Lmtp(address), PATIENCE);
    for _ in 0..5 {
        assert_eq!(rig.give(1, b"x").await.unwrap_err().code(), MapiCode::BUSY);
    }
}

#[test]
fn the_return_path_is_found_and_only_a_harmless_one_is_used() {
    for (header, address) in [
        ("Return-Path: <bob@example.org>\r\nSubject: x\r\n\r\n", "bob@example.org"),
        ("Subject: x\nreturn-path :<bob@example.org>\n\n", "bob@example.org"),
        ("Return-Path: <>\r\n\r\n", ""),
        ("Subject: x\r\n\r\nReturn-Path: <bob@example.org>\r\n", ""),
        ("Return-Path: <bob@example.org> SIZE=1>\r\n\r\n", ""),
        ("Return-Path: <b o@example.org>\r\n\r\n", ""),
        ("Return-Path: <b\u{fc}@example.org>\r\n\r\n", ""),
        ("Return-Path: bob@example.org\r\n\r\n", ""),
        ("Return-Path: <bob>\r\n\r\n", ""),
        ("", ""),
    ] {
        assert_eq!(return_path(header.as_bytes()), address, "{header:?}");
    }
}
