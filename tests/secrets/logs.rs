//! Everything any crate logs while sessions log in, with success and without, is searched.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use postoffice::{
    Fault, ImapAction, ImapCapability, ImapPhase, Listener, PostOffice, Protocol, SmtpAction,
    SmtpPhase,
};
use postrider::session::{Logon, QueueRowState, Service, Session};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::detector::Detector;
use crate::house::{Account, GRACE, House, PATIENCE, Server};
use crate::letters::letter;
use crate::maildir::await_messages;

/// With everything that has to be escaped somewhere.
const PASSWORD: &str = r#"tr0ub4dor"&\3{} zebra%"#;
const WRONG: &str = r#"wr0ng-"pass\word" crocodile"#;

/// What was logged so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// What was logged, but for the diary of the test's own server, which is no part of the
    /// program and says what it is told to say.
    fn text(&self) -> String {
        let all = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        let ours = all.split_inclusive('\n').filter(|line| !line.contains(" postoffice::"));
        ours.collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// Listens to every target at every level, those of the `log` crate included. Nothing is filtered
/// as the program does it.
fn listen() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let start = || {
        let log = Log::default();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(log.clone());
        tracing_subscriber::registry().with(lines).try_init().unwrap();
        log
    };
    LOG.get_or_init(start).clone()
}

/// How the two servers are reached and logged in to.
#[derive(Clone, Copy, Debug)]
enum Way {
    Implicit,
    StartTls,
    Clear,
}

fn server(office: &PostOffice, house: &tempfile::TempDir, way: Way, imap: bool) -> Server {
    let ca = house.path().join("ca.pem");
    std::fs::write(&ca, office.ca_pem()).unwrap();
    let (implicit, plain) = match imap {
        true => (Listener::Imaps, Listener::Imap),
        false => (Listener::Smtps, Listener::Smtp),
    };
    let address = |listener| office.address(listener).unwrap();
    match way {
        Way::Implicit => Server::implicit(address(implicit), &ca),
        Way::StartTls => Server::starttls(address(plain), &ca),
        Way::Clear => Server::plain(address(plain)),
    }
}

fn house(office: &PostOffice, way: Way, auth: &str, secret: &str) -> House {
    let folder = tempfile::tempdir().unwrap();
    let part = |imap| {
        let server = server(office, &folder, way, imap).login("ann", secret);
        match auth {
            "" => server,
            auth => server.with(format!("auth = {auth:?}")),
        }
    };
    let account = Account::new("work", "Ann Example <ann@example.org>");
    let house = House::new(&[account.smtp(part(false)).imap(part(true))]);
    house.keep(folder);
    house
}

async fn new_office() -> PostOffice {
    PostOffice::builder().user("ann", PASSWORD).user("bob", "secret").start().await.unwrap()
}

/// What a session tells people.
async fn shown(session: &Session) -> String {
    let status = session.status().await.unwrap();
    let queue = session.queue(None, 100).await.unwrap();
    let rows = session.status_table().unwrap().rows();
    let json = (serde_json::to_string(&status).unwrap(), serde_json::to_string(&queue).unwrap());
    format!("{status:?} {queue:?} {rows:?} {json:?}")
}

/// Mail goes both ways.
async fn works(office: &PostOffice, house: &House, what: &str) -> String {
    let session = house.open(Logon::Full).await;
    let entry = session.submit(letter(what, &["bob@example.org"])).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert_eq!(row.state, QueueRowState::Finished, "{what}: {row:?}");
    let mail = format!("Subject: {what}\r\n\r\nhello\r\n");
    office.deliver("ann", "INBOX", mail.into_bytes()).unwrap();
    let count = office.message_count("ann", "INBOX");
    await_messages(&house.maildir(), "INBOX", count).await;
    let shown = shown(&session).await;
    session.shutdown(GRACE).await.unwrap();
    shown
}

/// Both servers refuse the login; gives what people are told of it.
async fn is_refused(office: &PostOffice, house: &House, what: &str) -> String {
    let tried = |office: &PostOffice| {
        let count = |protocol, verbs: [&str; 2]| {
            let counters = office.counters(protocol);
            verbs.iter().map(|verb| counters.command(verb)).sum::<u64>()
        };
        (count(Protocol::Smtp, ["AUTH", "-"]), count(Protocol::Imap, ["AUTHENTICATE", "LOGIN"]))
    };
    let before = tried(office);
    let session = house.open(Logon::Full).await;
    session.submit(letter(what, &["bob@example.org"])).await.unwrap();
    let both = office.wait_until("both logins", PATIENCE, |office| {
        let now = tried(office);
        now.0 > before.0 && now.1 > before.1
    });
    both.await.unwrap();
    let told = realservers::wait::until_async("both refusals to be told", PATIENCE, async || {
        let told = shown(&session).await;
        (told.contains("refuses") || told.contains("535")).then_some(told)
    });
    let told = told.await.unwrap();
    // Whatever is still under way gets its answer.
    session.shutdown(GRACE).await.unwrap();
    told
}

/// Proves: LG-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crate_logs_a_secret_at_any_level() {
    let log = listen();
    let mut shown = String::new();
    for way in [Way::Implicit, Way::StartTls, Way::Clear] {
        let office = new_office().await;
        for auth in ["", "plain", "login"] {
            let house = house(&office, way, auth, PASSWORD);
            shown += &works(&office, &house, &format!("{way:?} by {auth:?}")).await;
        }
        // AUTHENTICATE in two steps, and LOGIN with nothing else on offer.
        office.withhold(ImapCapability::SaslIr);
        let two_steps = house(&office, way, "plain", PASSWORD);
        shown += &works(&office, &two_steps, &format!("{way:?} in two steps")).await;
        office.withhold(postoffice::Mechanism::Plain);
        let command = house(&office, way, "", PASSWORD);
        shown += &works(&office, &command, &format!("{way:?} by command")).await;
    }
    for way in [Way::Implicit, Way::StartTls, Way::Clear] {
        let office = new_office().await;
        for auth in ["plain", "login"] {
            let house = house(&office, way, auth, WRONG);
            shown += &is_refused(&office, &house, &format!("{way:?} refused by {auth:?}")).await;
        }
    }
    let everything = log.text() + &shown;
    for (user, secret) in [("ann", PASSWORD), ("ann", WRONG)] {
        let detector = Detector::new(user, secret);
        for line in everything.lines() {
            let found = detector.found(line);
            assert!(found.is_empty(), "{secret} is logged {found:?}: {line}");
        }
    }
    // The capture hears whom it has to hear, and the search finds what is there.
    for target in ["postrider::", "rustls", "sled"] {
        assert!(everything.contains(target), "nothing was heard of {target}");
    }
    assert!(everything.contains(" TRACE "), "nothing was heard at the level of traces");
    let detector = Detector::new("ann", PASSWORD);
    for (what, form) in detector.forms() {
        tracing::trace!(target: "lettre::transport", "C: AUTH {form} and so on");
        let text = log.text();
        let line = text.lines().rfind(|line| line.contains("C: AUTH")).unwrap();
        assert!(!detector.found(line).is_empty(), "not found {what}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_repeats_the_secret_is_not_quoted() {
    let log = listen();
    let detector = Detector::new("ann", WRONG);
    let encoded = |text: String| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let plain = encoded(format!("\0ann\0{WRONG}"));
    for repeated in [WRONG.to_owned(), plain, encoded(WRONG.to_owned())] {
        let office = new_office().await;
        let words = format!("authentication with {repeated} failed");
        office.inject(Fault::smtp(SmtpPhase::Auth, SmtpAction::reply(535, "5.7.8", &words)));
        let no = ImapAction::No(format!("[AUTHENTICATIONFAILED] {words}"));
        office.inject(Fault::imap(ImapPhase::Login, no));
        let house = house(&office, Way::Implicit, "plain", WRONG);
        let shown = is_refused(&office, &house, "repeated").await;
        assert!(shown.contains("authentication with *** failed"), "{shown}");
        assert_eq!(detector.found(&shown), [""; 0], "{shown}");
    }
    let log = log.text();
    assert!(log.contains("authentication with *** failed"), "the refusals are not logged");
    for line in log.lines() {
        assert_eq!(detector.found(line), [""; 0], "{line}");
    }
}
