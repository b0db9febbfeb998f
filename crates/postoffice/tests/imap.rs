//! IMAP as clients see it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::time::Instant;

use futures_util::TryStreamExt;
use postoffice::{AuthPolicy, ImapCapability, Listener, PostOffice, Protocol, ViolationKind};
use support::{Client, SOON};

const MAIL: &str = "Subject: one\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n";

async fn office() -> PostOffice {
    PostOffice::builder().user("ann", "secret").token("ann", "token").start().await.unwrap()
}

async fn ready(office: &PostOffice) -> Client {
    let mut client = Client::plain(office.address(Listener::Imap)).await;
    client.login("ann", "secret").await;
    client
}

async fn selected(office: &PostOffice) -> Client {
    let mut client = ready(office).await;
    client.imap_ok("s SELECT INBOX").await;
    client
}

#[tokio::test]
async fn starttls_implicit_tls_and_every_way_to_log_in() {
    let office = PostOffice::builder()
        .user("ann", "secret")
        .token("ann", "token")
        .auth(AuthPolicy::RequiredWithinTls)
        .start()
        .await
        .unwrap();
    let mut client = Client::plain(office.address(Listener::Imap)).await;
    let greeting = client.line().await;
    assert!(greeting.contains("STARTTLS") && greeting.contains("LOGINDISABLED"), "{greeting}");
    assert!(!greeting.contains("AUTH="), "{greeting}");
    let refused = client.imap("a LOGIN ann secret").await;
    assert!(refused[0].starts_with("a NO [PRIVACYREQUIRED]"), "{refused:?}");
    client.imap_ok("b STARTTLS").await;
    let mut client = client.secure(&office).await.unwrap();
    let capability = client.imap_ok("c CAPABILITY").await[0].clone();
    assert!(capability.contains("AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER"), "{capability}");
    assert!(!capability.contains("STARTTLS") && !capability.contains("LOGINDISABLED"));
    assert!(client.imap("d LOGIN ann wrong").await[0].contains("NO [AUTHENTICATIONFAILED]"));
    assert!(client.imap("e SELECT INBOX").await[0].starts_with("e BAD"));
    client.imap_ok("f LOGIN {3+}\r\nann {6+}\r\nsecret").await;
    assert!(client.imap("g LOGIN ann secret").await[0].starts_with("g BAD"));

    let imaps = office.address(Listener::Imaps);
    let mut client = Client::tls(&office, imaps).await;
    client.line().await;
    client.send("a AUTHENTICATE PLAIN").await;
    assert_eq!(client.line().await, "+ ");
    client.send("*").await;
    assert!(client.line().await.starts_with("a BAD"));
    client.send("b AUTHENTICATE PLAIN").await;
    client.line().await;
    client.send("AGFubgBzZWNyZXQ=").await;
    assert!(client.line().await.starts_with("b OK"));
    let mut client = Client::tls(&office, imaps).await;
    client.line().await;
    client.imap_ok("a AUTHENTICATE PLAIN AGFubgBzZWNyZXQ=").await;
    let mut client = Client::tls(&office, imaps).await;
    client.line().await;
    client.send("a AUTHENTICATE XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgd3JvbmcBAQ==").await;
    assert!(client.line().await.starts_with("+ ey"));
    client.send("").await;
    assert!(client.line().await.starts_with("a NO"));
    client.imap_ok("b AUTHENTICATE XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgdG9rZW4BAQ==").await;
    let counters = office.counters(Protocol::Imap);
    assert_eq!((counters.logins, counters.login_failures), (4, 3));
    let transcript = office.transcript_text();
    for secret in ["secret", "AGFubgBzZWNyZXQ", "dXNlcj1hbm4"] {
        assert!(!transcript.contains(secret), "{transcript}");
    }
}

#[tokio::test]
async fn select_fetch_and_sections() {
    let office = office().await;
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    office.deliver("ann", "INBOX", *b"Subject: two\r\n\r\n").unwrap();
    let mut client = ready(&office).await;
    let untagged = client.imap_ok("a SELECT inbox").await.join("\n");
    let validity = office.uid_validity("ann", "INBOX").unwrap();
    for part in ["* 2 EXISTS", "* 2 RECENT", "[UNSEEN 1]", "[UIDNEXT 3]", "* FLAGS ("] {
        assert!(untagged.contains(part), "{part}: {untagged}");
    }
    assert!(untagged.contains(&format!("[UIDVALIDITY {validity}]")), "{untagged}");
    let fetched = client.imap_ok("b UID FETCH 1 (FLAGS RFC822.SIZE BODY.PEEK[])").await;
    let expected =
        format!("* 1 FETCH (UID 1 FLAGS (\\Recent) RFC822.SIZE {0} BODY[] {{{0}}}", MAIL.len());
    assert_eq!(fetched[0], expected);
    assert_eq!(fetched[1..].join("\r\n"), format!("{MAIL})"));
    for (item, label, octets) in [
        ("BODY.PEEK[]<3.5>", "BODY[]<3>", "ject:"),
        ("BODY.PEEK[]<500.5>", "BODY[]<500>", ""),
        ("BODY.PEEK[HEADER]", "BODY[HEADER]", "Subject: one\r\nMessage-ID: <1@x>\r\n\r\n"),
        ("BODY.PEEK[TEXT]", "BODY[TEXT]", "body\r\n"),
        (
            "BODY.PEEK[HEADER.FIELDS (subject)]",
            "BODY[HEADER.FIELDS (SUBJECT)]",
            "Subject: one\r\n\r\n",
        ),
        ("RFC822.HEADER", "RFC822.HEADER", "Subject: one\r\nMessage-ID: <1@x>\r\n\r\n"),
    ] {
        client.send(&format!("c FETCH 1 {item}")).await;
        assert_eq!(client.line().await, format!("* 1 FETCH ({label} {{{}}}", octets.len()));
        assert_eq!(client.exactly(octets.len()).await, octets.as_bytes());
        assert_eq!(client.line().await, ")");
        client.line().await;
    }
    let dates = client.imap_ok("d FETCH 1:* (INTERNALDATE UID)").await;
    assert!(dates[1].starts_with("* 2 FETCH (INTERNALDATE \""), "{dates:?}");
    assert!(client.imap("e FETCH 3 UID").await[0].starts_with("e BAD"));
    assert_eq!(client.imap_ok("f UID FETCH 9 UID").await, Vec::<String>::new());
    assert!(client.imap("g FETCH 1 ENVELOPE").await[0].starts_with("g NO [CANNOT]"));
    let seen = client.imap_ok("h FETCH 2 BODY[TEXT]").await;
    assert!(seen.last().unwrap().ends_with("FLAGS (\\Seen \\Recent))"), "{seen:?}");
    assert!(office.messages("ann", "INBOX").unwrap()[1].has_flag("\\seen"));
    client.imap_ok("i EXAMINE INBOX").await;
    client.imap_ok("j FETCH 1 BODY[]").await;
    assert!(!office.messages("ann", "INBOX").unwrap()[0].has_flag("\\Seen"));
    assert!(client.imap("k STORE 1 +FLAGS \\Seen").await[0].contains("READ-ONLY"));
    assert_eq!(office.violations(), []);
}

#[tokio::test]
async fn store_copy_move_and_expunge() {
    let office = office().await;
    for number in 1..=5 {
        office.deliver("ann", "INBOX", format!("Subject: {number}\r\n\r\n").into_bytes()).unwrap();
    }
    let mut client = selected(&office).await;
    let stored = client.imap_ok("a UID STORE 1:2 +FLAGS (\\Seen $Junk)").await;
    assert_eq!(stored[0], "* 1 FETCH (UID 1 FLAGS ($Junk \\Seen \\Recent))");
    assert_eq!(client.imap_ok("b UID STORE 1 -FLAGS.SILENT ($Junk)").await, Vec::<String>::new());
    client.imap_ok("c STORE 3 FLAGS.SILENT (\\Deleted)").await;
    client.imap_ok("d UID STORE 4 +FLAGS.SILENT (\\Deleted)").await;
    assert!(client.imap("e UID COPY 1:2 Archive").await[0].starts_with("e NO [TRYCREATE]"));
    client.imap_ok("f CREATE Archive").await;
    let validity = office.uid_validity("ann", "Archive").unwrap();
    let copied = client.imap("g UID COPY 1:2 Archive").await;
    assert_eq!(copied[0], format!("g OK [COPYUID {validity} 1:2 1:2] copied"));
    let moved = client.imap_ok("h UID MOVE 5 Archive").await;
    assert_eq!(moved, [format!("* OK [COPYUID {validity} 5 3] moved"), "* 5 EXPUNGE".to_owned()]);
    assert_eq!(client.imap_ok("i UID EXPUNGE 4").await, ["* 4 EXPUNGE"]);
    assert_eq!(client.imap_ok("j EXPUNGE").await, ["* 3 EXPUNGE"]);
    client.imap_ok("k UID STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    client.imap_ok("l CLOSE").await;
    let left: Vec<u32> =
        office.messages("ann", "INBOX").unwrap().iter().map(|message| message.uid).collect();
    assert_eq!(left, [2]);
    let archive = office.messages("ann", "Archive").unwrap();
    assert_eq!(archive.len(), 3);
    assert!(archive[1].has_flag("$Junk"));
    assert_eq!(&*archive[2].bytes, b"Subject: 5\r\n\r\n");
    client.imap_ok("m SELECT Archive").await;
    client.imap_ok("n UID STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    client.imap_ok("o UNSELECT").await;
    assert_eq!(office.message_count("ann", "Archive"), 3);
}

#[tokio::test]
async fn mailboxes_append_and_status() {
    let office = office().await;
    let mut client = ready(&office).await;
    client.imap_ok("a CREATE \"Old stuff/2026\"").await;
    assert!(client.imap("b CREATE \"Old stuff/2026\"").await[0].contains("ALREADYEXISTS"));
    assert_eq!(client.imap_ok("c LIST \"\" \"\"").await, ["* LIST (\\Noselect) \"/\" \"\""]);
    assert_eq!(
        client.imap_ok("d LIST \"\" *").await,
        ["* LIST () \"/\" \"INBOX\"", "* LIST () \"/\" \"Old stuff/2026\""]
    );
    assert_eq!(client.imap_ok("e LIST \"\" %").await, ["* LIST () \"/\" \"INBOX\""]);
    client.imap_ok("f SUBSCRIBE \"Old stuff/2026\"").await;
    assert_eq!(client.imap_ok("g LSUB \"Old stuff/\" *").await.len(), 1);
    client.imap_ok("h UNSUBSCRIBE \"Old stuff/2026\"").await;
    client.imap_ok("i RENAME \"Old stuff/2026\" New").await;
    // A synchronizing literal waits for leave, another one does not.
    let date = "\"02-Jan-2026 03:04:05 +0100\"";
    client.send(&format!("j APPEND New (\\Flagged) {date} {{{}}}", MAIL.len())).await;
    assert!(client.line().await.starts_with('+'));
    client.send(MAIL).await;
    let validity = office.uid_validity("ann", "New").unwrap();
    assert_eq!(client.line().await, format!("j OK [APPENDUID {validity} 1] appended"));
    client.imap_ok(&format!("k APPEND New {{{}+}}\r\n{MAIL}", MAIL.len())).await;
    assert!(client.imap("l APPEND None {1+}\r\nx").await[0].contains("TRYCREATE"));
    let messages = office.messages("ann", "New").unwrap();
    assert_eq!(&*messages[0].bytes, MAIL.as_bytes());
    assert!(messages[0].has_flag("\\Flagged"));
    let status = client.imap_ok("m STATUS New (MESSAGES UNSEEN UIDNEXT UIDVALIDITY RECENT)").await;
    assert_eq!(
        status[0],
        format!("* STATUS \"New\" (MESSAGES 2 UNSEEN 2 UIDNEXT 3 UIDVALIDITY {validity} RECENT 2)")
    );
    client.imap_ok("n SELECT New").await;
    let dates = client.imap_ok("o FETCH 1 INTERNALDATE").await;
    assert!(dates[0].contains("\" 2-Jan-2026 02:04:05 +0000\""), "{dates:?}");
    assert_eq!(client.imap_ok("p NAMESPACE").await, ["* NAMESPACE ((\"\" \"/\")) NIL NIL"]);
    client.imap_ok("q ID NIL").await;
    client.imap_ok("r ENABLE CONDSTORE").await;
    client.imap_ok("s CHECK").await;
    client.imap_ok("t DELETE New").await;
    client.imap_ok("u CREATE New").await;
    client.imap_ok("v SELECT New").await;
    office.delete_mailbox("ann", "New").unwrap();
    client.send("w NOOP").await;
    assert!(client.line().await.starts_with("* BYE"));
    let mut client = ready(&office).await;
    assert_eq!(client.imap("a LOGOUT").await, ["* BYE logging out", "a OK logged out"]);
    assert_eq!(client.end().await, std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn search_by_message_id_date_and_flag() {
    let office = office().await;
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    office.deliver("ann", "INBOX", *b"Message-ID: <2@x>\r\n\r\n").unwrap();
    office.remove("ann", "INBOX", 1).unwrap();
    office.set_flags("ann", "INBOX", 2, &["\\Seen"]).unwrap();
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    let mut client = selected(&office).await;
    for (query, found) in [
        ("ALL", "* SEARCH 2 3"),
        ("UNSEEN", "* SEARCH 3"),
        ("HEADER Message-ID <2@x>", "* SEARCH 2"),
        ("UID 3:* SINCE 1-Jan-2020", "* SEARCH 3"),
        ("UID 9", "* SEARCH"),
    ] {
        assert_eq!(client.imap_ok(&format!("a UID SEARCH {query}")).await, [found], "{query}");
    }
    assert_eq!(client.imap_ok("b SEARCH ALL").await, ["* SEARCH 1 2"]);
}

#[tokio::test]
async fn mail_arriving_is_pushed_whatever_way_it_came() {
    let office = office().await;
    let mut idler = selected(&office).await;
    idler.send("i IDLE").await;
    assert_eq!(idler.line().await, "+ idling");
    let mut smtp = Client::plain(office.address(Listener::Smtp)).await;
    smtp.hello().await;
    smtp.submit("ann@example.org", MAIL).await;
    assert_eq!(idler.line().await, "* 1 EXISTS");
    assert_eq!(idler.line().await, "* 1 RECENT");
    let mut other = selected(&office).await;
    other.imap_ok(&format!("a APPEND INBOX {{{}+}}\r\n{MAIL}", MAIL.len())).await;
    assert_eq!(idler.line().await, "* 2 EXISTS");
    idler.line().await;
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    assert_eq!(idler.line().await, "* 3 EXISTS");
    idler.line().await;
    other.imap_ok("b UID STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    other.imap_ok("c EXPUNGE").await;
    assert_eq!(idler.line().await, "* 1 EXPUNGE");
    idler.send("DONE").await;
    assert_eq!(idler.until("i").await, ["i OK idle is over"]);
    // While a FETCH by number is answered, numbers do not shift.
    office.remove("ann", "INBOX", 2).unwrap();
    assert_eq!(idler.imap_ok("j FETCH 2 UID").await, ["* 2 FETCH (UID 3)"]);
    assert_eq!(idler.imap_ok("k NOOP").await, ["* 1 EXPUNGE"]);
    idler.send("l IDLE").await;
    idler.line().await;
    office.rebuild_mailbox("ann", "INBOX").unwrap();
    assert!(idler.line().await.starts_with("* BYE"));
}

#[tokio::test]
async fn capabilities_can_be_withheld() {
    let office = office().await;
    for capability in ImapCapability::ALL {
        office.withhold(capability);
    }
    let mut client = Client::plain(office.address(Listener::Imap)).await;
    let greeting = client.line().await;
    assert!(
        greeting.contains("[CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER]"),
        "{greeting}"
    );
    assert!(client.imap("a STARTTLS").await[0].starts_with("a BAD"));
    assert!(client.imap("b AUTHENTICATE PLAIN AGFubgBzZWNyZXQ=").await[0].starts_with("b BAD"));
    client.imap_ok("c LOGIN ann secret").await;
    client.imap_ok("d SELECT INBOX").await;
    let commands =
        ["IDLE", "UID MOVE 1 X", "UID EXPUNGE 1", "UNSELECT", "ENABLE X", "ID NIL", "NAMESPACE"];
    for command in commands {
        let answer = client.imap(&format!("e {command}")).await;
        assert_eq!(answer, ["e BAD not offered"], "{command}");
    }
    assert_eq!(office.violations().len(), commands.len() + 2);
    office.offer(ImapCapability::Id);
    client.imap_ok("f ID NIL").await;
}

#[tokio::test]
async fn nonsense_is_answered_bad_and_the_session_goes_on() {
    let office = PostOffice::builder().user("ann", "x").max_message_size(10).start().await.unwrap();
    let mut client = ready_with(&office, "x").await;
    assert!(client.imap("a NONSENSE").await[0].starts_with("a BAD"));
    client.send("").await;
    assert!(client.line().await.starts_with("* BAD"));
    client.send("b NOOP {5}").await;
    assert!(client.line().await.starts_with("b BAD"));
    client.send("c APPEND INBOX {11}").await;
    assert!(client.line().await.starts_with("c NO [TOOBIG]"));
    client.send("d APPEND INBOX {11+}\r\n12345678901").await;
    assert!(client.line().await.starts_with("d NO [TOOBIG]"));
    // An empty literal has to be granted as well.
    client.send("e SEARCH HEADER {0}").await;
    assert!(client.line().await.starts_with('+'));
    client.send(" x").await;
    assert!(client.line().await.starts_with("e BAD"));
    client.imap_ok("f NOOP").await;
    let kinds: Vec<_> = office.violations().iter().map(|found| found.kind).collect();
    assert!(kinds.contains(&ViolationKind::Syntax));
}

async fn ready_with(office: &PostOffice, password: &str) -> Client {
    let mut client = Client::plain(office.address(Listener::Imap)).await;
    client.login("ann", password).await;
    client
}

#[tokio::test]
async fn a_hundred_thousand_messages_are_no_burden() {
    const MANY: usize = 100_000;
    let office = office().await;
    office.deliver_all("ann", "INBOX", (0..MANY).map(|_| MAIL.as_bytes())).unwrap();
    let start = Instant::now();
    let mut client = ready(&office).await;
    let untagged = client.imap_ok("a SELECT INBOX").await.join("\n");
    assert!(untagged.contains("* 100000 EXISTS"), "{untagged}");
    let fetched = client.imap_ok("b UID FETCH 1:* (UID FLAGS RFC822.SIZE)").await;
    assert_eq!(fetched.len(), MANY);
    let found = client.imap_ok("c UID SEARCH UNSEEN").await;
    assert_eq!(found[0].split(' ').count(), MANY + 2);
    client.imap_ok("d UID STORE 1:* +FLAGS.SILENT (\\Deleted)").await;
    let expunged = client.imap_ok("e UID EXPUNGE 1:99999").await;
    assert_eq!(expunged.len(), MANY - 1);
    println!("select, fetch, search, store, expunge of {MANY}: {:?}", start.elapsed());
    assert!(start.elapsed() < SOON * 6, "{:?}", start.elapsed());
    assert_eq!(office.message_count("ann", "INBOX"), 1);
}

#[tokio::test]
async fn async_imap_fetches_what_was_sent() {
    let office = office().await;
    let big = format!("Subject: big\r\n\r\n{}", "line of text\r\n".repeat(100_000));
    office.deliver("ann", "INBOX", big.clone().into_bytes()).unwrap();
    office.deliver("ann", "INBOX", MAIL.as_bytes()).unwrap();
    let tcp =
        tokio::net::TcpStream::connect(office.address(Listener::Imap).unwrap()).await.unwrap();
    let mut client = async_imap::Client::new(tcp);
    client.read_response().await.unwrap();
    let mut session = client.login("ann", "secret").await.map_err(|(error, _)| error).unwrap();
    let mailbox = session.select("INBOX").await.unwrap();
    assert_eq!(mailbox.exists, 2);
    let fetched: Vec<_> = session
        .uid_fetch("1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(fetched.len(), 2);
    assert_eq!(fetched[0].body(), Some(big.as_bytes()));
    assert_eq!(fetched[1].body(), Some(MAIL.as_bytes()));
    assert_eq!(fetched[1].size, Some(u32::try_from(MAIL.len()).unwrap()));
    assert!(fetched[1].internal_date().is_some());
    session.create("Archive").await.unwrap();
    session.uid_mv("1", "Archive").await.unwrap();
    let names: Vec<_> = session.list(None, Some("*")).await.unwrap().try_collect().await.unwrap();
    assert_eq!(names.len(), 2);
    session.logout().await.unwrap();
    assert_eq!(&*office.messages("ann", "Archive").unwrap()[0].bytes, big.as_bytes());
    assert_eq!(office.violations(), []);
}

#[tokio::test]
async fn hostile_mailbox_names_are_told_as_they_are() {
    let office = office().await;
    for name in ["../../etc", "a\r\n* BYE", "quote\"back\\slash", "caf\u{e9}"] {
        office.create_mailbox("ann", name).unwrap();
    }
    let mut client = ready(&office).await;
    let listed = client.imap_ok("a LIST \"\" *").await.join("\r\n");
    for shown in
        ["\"../../etc\"", "{8}\r\na\r\n* BYE", "\"quote\\\"back\\\\slash\"", "{5}\r\ncaf\u{e9}"]
    {
        assert!(listed.contains(shown), "{shown}: {listed}");
    }
    client.imap_ok("b SELECT {8+}\r\na\r\n* BYE").await;
}
