//! Every IMAP fault once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use postoffice::{Action, Fault, ImapAction, ImapPhase, Listener, PostOffice};
use support::{Client, SOON};

const MAIL: &str = "From: a@x\r\nDate: d\r\n\r\nbody\r\n";

async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").start().await.unwrap()
}

async fn imap(office: &PostOffice) -> Client {
    Client::plain(office.address(Listener::Imap)).await
}

async fn selected(office: &PostOffice) -> Client {
    let mut client = Client::plain(office.address(Listener::Imap)).await;
    client.login("ann", "secret").await;
    client.imap_ok("s SELECT INBOX").await;
    client
}

fn is_reset(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[tokio::test]
async fn every_imap_phase_can_be_refused() {
    let office = office().await;
    office.create_mailbox("ann", "B").unwrap();
    for (phase, command) in [
        (ImapPhase::Capability, "CAPABILITY"),
        (ImapPhase::Select, "SELECT INBOX"),
        (ImapPhase::List, "LIST \"\" *"),
        (ImapPhase::Status, "STATUS INBOX (MESSAGES)"),
        (ImapPhase::Search, "UID SEARCH ALL"),
        (ImapPhase::Fetch, "UID FETCH 1:* FLAGS"),
        (ImapPhase::Store, "UID STORE 1:* +FLAGS (\\Seen)"),
        (ImapPhase::Copy, "UID COPY 1:* B"),
        (ImapPhase::Move, "UID MOVE 1:* B"),
        (ImapPhase::Append, "APPEND B {3+}\r\nabc"),
        (ImapPhase::Expunge, "EXPUNGE"),
        (ImapPhase::Idle, "IDLE"),
        (ImapPhase::Noop, "NOOP"),
        (ImapPhase::Close, "CLOSE"),
        (ImapPhase::Other, "CREATE C"),
        (ImapPhase::Logout, "LOGOUT"),
    ] {
        let mut client = selected(&office).await;
        let text = "[UNAVAILABLE] later".to_owned();
        let no = office.inject(Fault::imap(phase, ImapAction::No(text)).once());
        assert_eq!(client.imap(&format!("a {command}")).await, ["a NO [UNAVAILABLE] later"]);
        office.inject(Fault::imap(phase, ImapAction::Bad("what".to_owned())).once());
        assert_eq!(client.imap(&format!("b {command}")).await, ["b BAD what"], "{phase:?}");
        office.inject(Fault::imap(phase, ImapAction::Bye("shutting down".to_owned())).once());
        client.send(&format!("c {command}")).await;
        assert_eq!(client.line().await, "* BYE shutting down");
        assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
        assert_eq!(no.hits(), 1);
    }
    let fault = ImapAction::No("[UNAVAILABLE] later".to_owned());
    office.inject(Fault::imap(ImapPhase::Login, fault.clone()).once());
    let mut client = imap(&office).await;
    client.line().await;
    assert_eq!(client.imap("a LOGIN ann secret").await, ["a NO [UNAVAILABLE] later"]);
    office.inject(Fault::imap(ImapPhase::StartTls, fault).once());
    assert_eq!(client.imap("b STARTTLS").await, ["b NO [UNAVAILABLE] later"]);
    client.imap_ok("c NOOP").await;
    assert_eq!(office.message_count("ann", "B"), 0);
}

#[tokio::test]
async fn greetings_may_be_preauth_bye_or_missing() {
    let office = office().await;
    office.inject(Fault::imap(ImapPhase::Greeting, ImapAction::Preauth("ann".to_owned())).once());
    let mut client = imap(&office).await;
    assert!(client.line().await.starts_with("* PREAUTH [CAPABILITY IMAP4rev1"));
    client.imap_ok("a SELECT INBOX").await;
    office.inject(Fault::imap(ImapPhase::Greeting, ImapAction::Bye("full".to_owned())).once());
    let mut client = imap(&office).await;
    assert_eq!(client.line().await, "* BYE full");
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
    for phase in [ImapPhase::Connect, ImapPhase::Greeting] {
        let handle = office.inject(Fault::imap(phase, Action::Hang).once());
        let mut client = imap(&office).await;
        handle.reached(SOON).await.unwrap();
        assert!(client.silent().await);
        handle.release();
        assert!(client.line().await.starts_with("* OK"));
        office.inject(Fault::imap(phase, Action::Drop).once());
        assert_eq!(imap(&office).await.end().await, ErrorKind::UnexpectedEof);
        office.inject(Fault::imap(phase, Action::Reset).once());
        assert!(is_reset(imap(&office).await.end().await));
    }
}

#[tokio::test]
async fn fetches_lie_break_off_and_hang() {
    let office = office().await;
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    let fetch = "UID FETCH 1 (UID BODY.PEEK[])";
    let mut client = selected(&office).await;
    let only_bodies = Fault::imap(ImapPhase::Fetch, ImapAction::FetchNothing).matching("body.peek");
    office.inject(only_bodies.once());
    assert_eq!(client.imap_ok("a UID FETCH 1 UID").await.len(), 1);
    assert_eq!(client.imap_ok(&format!("b {fetch}")).await, Vec::<String>::new());
    office.inject(Fault::imap(ImapPhase::Fetch, ImapAction::FetchNil).once());
    assert_eq!(client.imap_ok(&format!("c {fetch}")).await, ["* 1 FETCH (UID 1 BODY[] NIL)"]);
    office.inject(Fault::imap(ImapPhase::Fetch, ImapAction::WrongTag).once());
    client.send(&format!("d {fetch}")).await;
    client.until("WRONG0TAG").await;
    assert!(client.silent().await);
    office.inject(Fault::imap(ImapPhase::Fetch, ImapAction::ExistsFlood(50_000)).once());
    let lines = client.imap_ok(&format!("e {fetch}")).await;
    assert_eq!(lines.iter().filter(|line| *line == "* 1 EXISTS").count(), 50_000);

    let handle = office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Hang).at_byte(5).once());
    client.send(&format!("f {fetch}")).await;
    client.line().await;
    assert_eq!(client.exactly(5).await, &MAIL.as_bytes()[..5]);
    handle.reached(SOON).await.unwrap();
    assert!(client.silent().await);
    handle.release();
    assert_eq!(client.exactly(MAIL.len() - 5).await, &MAIL.as_bytes()[5..]);
    client.until("f").await;
    office.inject(Fault::imap(ImapPhase::Fetch, Action::Dribble { pause: Duration::ZERO }).once());
    assert!(client.imap_ok(&format!("g {fetch}")).await.len() > 2);
    office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Drop).once());
    client.send(&format!("h {fetch}")).await;
    client.line().await;
    assert_eq!(client.exactly(MAIL.len() / 2).await, &MAIL.as_bytes()[..MAIL.len() / 2]);
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
    let mut client = selected(&office).await;
    office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Reset).at_byte(0).once());
    client.send(&format!("i {fetch}")).await;
    assert!(is_reset(client.end().await));
}

#[tokio::test]
async fn a_lost_reply_leaves_the_change_made() {
    let office = office().await;
    office.create_mailbox("ann", "Archive").unwrap();
    for command in ["UID MOVE 1 Archive", "UID STORE 2 +FLAGS (\\Deleted)", "EXPUNGE"] {
        office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
        let phase = match command {
            "EXPUNGE" => ImapPhase::Expunge,
            _ if command.contains("MOVE") => ImapPhase::Move,
            _ => ImapPhase::Store,
        };
        let mut client = selected(&office).await;
        office.inject(Fault::imap(phase, Action::Drop).after_effect().once());
        client.send(&format!("a {command}")).await;
        // Not even the untagged part of the reply comes.
        assert_eq!(client.try_line().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    assert_eq!(office.message_count("ann", "Archive"), 1);
    let left = office.messages("ann", "INBOX").unwrap();
    assert_eq!(left.iter().map(|message| message.uid).collect::<Vec<_>>(), [3]);
    // A hang after the effect gives the reply when it is released.
    let mut client = selected(&office).await;
    let handle = office.inject(Fault::imap(ImapPhase::Store, Action::Hang).after_effect().once());
    client.send("b UID STORE 3 +FLAGS (\\Seen)").await;
    handle.reached(SOON).await.unwrap();
    assert!(office.messages("ann", "INBOX").unwrap()[0].has_flag("\\Seen"));
    assert!(client.silent().await);
    handle.release();
    assert_eq!(client.until("b").await.len(), 2);
}

#[tokio::test]
async fn idle_ends_badly() {
    let office = office().await;
    let bye = ImapAction::Bye("rebooting".to_owned());
    office.inject(Fault::imap(ImapPhase::Idle, bye).after_effect().once());
    let mut client = selected(&office).await;
    client.send("a IDLE").await;
    assert_eq!(client.line().await, "+ idling");
    assert_eq!(client.line().await, "* BYE rebooting");
    assert_eq!(client.end().await, ErrorKind::UnexpectedEof);
    let handle = office.inject(Fault::imap(ImapPhase::Idle, Action::Hang).after_effect());
    let mut client = selected(&office).await;
    client.send("a IDLE").await;
    client.line().await;
    handle.reached(SOON).await.unwrap();
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    assert!(client.silent().await);
    handle.remove();
    assert_eq!(client.line().await, "* 1 EXISTS");
    office.disconnect_all();
    client.end().await;
    let flood = ImapAction::ExistsFlood(1000);
    office.inject(Fault::imap(ImapPhase::Idle, flood).after_effect().once());
    let mut client = selected(&office).await;
    client.send("a IDLE").await;
    client.line().await;
    for _ in 0..1000 {
        assert_eq!(client.line().await, "* 1 EXISTS");
    }
    client.send("DONE").await;
    client.until("a").await;
}

#[tokio::test]
async fn one_message_fails_whatever_set_it_is_fetched_with() {
    let office = office().await;
    office.deliver_all("ann", "INBOX", (0..12).map(|_| MAIL.as_bytes())).unwrap();
    let mut client = selected(&office).await;
    let fetch = "UID FETCH 1:* (UID BODY.PEEK[])";
    let count = |lines: &[String]| lines.iter().filter(|line| line.contains(" FETCH (")).count();
    let vanished = Fault::imap(ImapPhase::Message, ImapAction::FetchNothing).matching("UID 1");
    let vanished = office.inject(vanished);
    let lines = client.imap_ok(&format!("a {fetch}")).await;
    assert_eq!(count(&lines), 11);
    assert!(lines[0].contains("UID 2 "), "{lines:?}");
    vanished.remove();
    office.inject(Fault::imap(ImapPhase::Message, ImapAction::FetchNil).matching("UID 3").once());
    let lines = client.imap_ok(&format!("b {fetch}")).await;
    assert_eq!(count(&lines), 12);
    assert_eq!(lines.iter().filter(|line| line.contains("UID 3 BODY[] NIL")).count(), 1);
    let no = ImapAction::No("[SERVERBUG] cannot read it".to_owned());
    office.inject(Fault::imap(ImapPhase::Message, no).matching("UID 4").once());
    let lines = client.imap(&format!("c {fetch}")).await;
    assert_eq!(count(&lines), 3);
    assert_eq!(lines.last().unwrap(), "c NO [SERVERBUG] cannot read it");
    office.inject(Fault::imap(ImapPhase::MidLiteral, Action::Drop).matching("UID 12 "));
    client.send(&format!("d {fetch}")).await;
    let mut seen = 0;
    while let Ok(line) = client.try_line().await {
        seen += usize::from(line.contains(" FETCH ("));
    }
    assert_eq!(seen, 12);
    let mut client = selected(&office).await;
    client.imap_ok("e UID FETCH 1:11 (UID BODY.PEEK[])").await;
}

#[tokio::test]
async fn fetch_may_lie_about_number_length_and_size() {
    let office = office().await;
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    let mut client = selected(&office).await;
    let fetch = |action| Fault::imap(ImapPhase::Fetch, action).once();
    office.inject(fetch(ImapAction::FetchUid(9)));
    assert_eq!(client.imap("a UID FETCH 1 UID").await[0], "* 1 FETCH (UID 9)");
    office.inject(fetch(ImapAction::SizeOff(-4)));
    let size = client.imap("b UID FETCH 1 RFC822.SIZE").await;
    assert_eq!(size[0], format!("* 1 FETCH (UID 1 RFC822.SIZE {})", MAIL.len() - 4));
    office.inject(fetch(ImapAction::LiteralLength(5)));
    client.send("c UID FETCH 1 BODY.PEEK[]").await;
    let body = format!("* 1 FETCH (UID 1 BODY[] {{{}}}", MAIL.len() + 5);
    assert_eq!(client.line().await, body);
    let mut client = selected(&office).await;
    office.inject(Fault::imap(ImapPhase::Search, ImapAction::OkOnly).once());
    assert_eq!(client.imap("d UID SEARCH ALL").await, ["d OK done"]);
    office.inject(Fault::imap(ImapPhase::Done, ImapAction::No("later".to_owned())).once());
    client.send("e IDLE").await;
    assert_eq!(client.line().await, "+ idling");
    client.send("DONE").await;
    assert_eq!(client.line().await, "e NO later");
}
