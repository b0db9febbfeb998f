use std::io::Cursor;

use postoffice::{
    Action, Fault, ImapAction, ImapCapability, ImapPhase, Listener, MailboxMessage, PostOffice,
    Protocol,
};

use super::*;
use crate::net::{Cleartext, Server, TlsMode, Trust};
use crate::transport::settings::{AfterFetch, Credentials};

/// A password in memory.
struct Password;

#[async_trait]
impl crate::spi::SecretSource for Password {
    async fn secret(&self) -> Result<secrecy::SecretString, crate::spi::SecretError> {
        Ok("secret".to_owned().into())
    }
}

struct Rig {
    office: PostOffice,
    sent: ImapSent,
}

const DATE: SysTime = SysTime::from_millis(1_700_000_000_000);

fn text(number: u32, lines: usize) -> Vec<u8> {
    let body = "a line of no importance\r\n".repeat(lines);
    format!("Message-ID: <{number}@x>\r\nSubject: x\r\n\r\n{body}").into_bytes()
}

fn copy_of(number: u32, bytes: Vec<u8>, repetition: Repetition) -> SentCopy {
    SentCopy {
        message_id: format!("<{number}@x>"),
        date: DATE,
        size: bytes.len() as u64,
        content: Box::pin(Cursor::new(bytes)),
        repetition,
    }
}

impl Rig {
    async fn new() -> Rig {
        Rig::with(|_| {}, |_| {}).await
    }

    async fn with(office: impl FnOnce(&PostOffice), change: impl FnOnce(&mut ImapSettings)) -> Rig {
        let running = PostOffice::builder().user("ann", "secret").start().await.unwrap();
        office(&running);
        let address = running.address(Listener::Imap).unwrap();
        let mut settings = ImapSettings {
            server: Server {
                host: address.ip().to_string(),
                port: address.port(),
                tls: TlsMode::Plain,
                trust: Trust::Platform,
                client: None,
            },
            credentials: Credentials { user: "ann".to_owned(), password: Arc::new(Password) },
            auth: None,
            mailboxes: Vec::new(),
            push: false,
            poll_interval: Duration::from_secs(60),
            after: AfterFetch::Keep,
            connections: 1,
            cleartext: Cleartext::LoopbackOnly,
            sent_mailbox: None,
            saves_sent: None,
            compress: crate::net::Compress::WhereItPays,
        };
        change(&mut settings);
        let short = Duration::from_millis(1500);
        let times = Times { command: short, stored: short, ..Times::default() };
        Rig { office: running, sent: ImapSent::new(settings, times) }
    }

    async fn put(&self, number: u32, repetition: Repetition) -> MapiResult<()> {
        self.sent.append(copy_of(number, text(number, 1), repetition)).await
    }

    fn stored(&self, mailbox: &str) -> Vec<MailboxMessage> {
        self.office.messages("ann", mailbox).unwrap_or_default()
    }
}

#[tokio::test]
async fn copies_are_stored_seen_octet_for_octet_over_one_connection() {
    for withheld in [None, Some(ImapCapability::LiteralPlus)] {
        let rig =
            Rig::with(|office| withheld.into_iter().for_each(|it| office.withhold(it)), |_| {});
        let rig = rig.await;
        let large = text(9, 100_000);
        rig.put(1, Repetition::First).await.unwrap();
        rig.sent.append(copy_of(9, large.clone(), Repetition::First)).await.unwrap();
        rig.put(2, Repetition::First).await.unwrap();
        rig.sent.rest().await;
        let stored = rig.stored("Sent");
        assert_eq!(stored.len(), 3, "{withheld:?}");
        assert!(*stored[0].bytes == text(1, 1) && *stored[1].bytes == large);
        assert!(stored.iter().all(|one| one.has_flag("\\Seen")));
        let date = std::time::UNIX_EPOCH + Duration::from_secs(DATE.as_secs());
        assert_eq!(stored[0].internal_date, date);
        assert_eq!(rig.office.counters(Protocol::Imap).connections, 1);
        assert!(rig.office.violations().is_empty(), "{:?}", rig.office.violations());
    }
}

#[tokio::test]
async fn the_profiles_mailbox_is_used_and_made() {
    let rig =
        Rig::with(|_| {}, |imap| imap.sent_mailbox = Some("Gesendet \u{fc}".to_owned())).await;
    rig.put(1, Repetition::First).await.unwrap();
    let names = rig.office.mailboxes("ann").unwrap();
    let name = names.iter().find(|name| name.starts_with("Gesendet")).unwrap();
    assert_eq!(rig.stored(name).len(), 1, "{names:?}");
    // Somebody removes it; the next try makes it again.
    rig.office.delete_mailbox("ann", name).unwrap();
    assert_eq!(rig.put(2, Repetition::First).await.unwrap_err().code(), MapiCode::CALL_FAILED);
    rig.put(2, Repetition::Possible).await.unwrap();
    assert_eq!(rig.stored(name).len(), 1);
}

/// Proves: OB-16
#[tokio::test]
async fn a_lost_reply_never_stores_a_copy_twice() {
    for action in [Action::Drop, Action::Reset, Action::Hang, Action::Replace(b"what\r\n".to_vec())]
    {
        let rig = Rig::new().await;
        let fault = Fault::imap(ImapPhase::Append, action.clone()).after_effect().once();
        rig.office.inject(fault);
        let error = rig.put(1, Repetition::First).await.unwrap_err();
        assert_eq!(error.code(), MapiCode::NETWORK_ERROR, "{action:?}: {error}");
        rig.office.remove_faults();
        rig.put(1, Repetition::Possible).await.unwrap();
        rig.put(2, Repetition::Possible).await.unwrap();
        assert_eq!(rig.stored("Sent").len(), 2, "{action:?}");
    }
}

#[tokio::test]
async fn what_goes_wrong_is_told_apart_and_the_next_try_works() {
    use ImapPhase::{Append, Connect, Greeting, List, Login, Search, Select};
    let refused = MapiCode::CALL_FAILED;
    let network = MapiCode::NETWORK_ERROR;
    for (phase, action, code) in [
        (Connect, ImapAction::from(Action::Drop), network),
        (Greeting, Action::Drop.into(), network),
        (Login, Action::Drop.into(), network),
        (List, Action::Drop.into(), network),
        (List, ImapAction::No("not now".to_owned()), refused),
        (Select, Action::Drop.into(), network),
        (Search, Action::Drop.into(), network),
        (Search, ImapAction::No("not now".to_owned()), refused),
        (Append, Action::Drop.into(), network),
        (Append, ImapAction::No("[OVERQUOTA] full".to_owned()), refused),
        (Append, ImapAction::No("[TOOBIG] too big".to_owned()), refused),
        (Append, Action::Hang.into(), network),
    ] {
        let rig =
            Rig::with(|office| office.create_mailbox("ann", "Sent").map_or((), drop), |_| {}).await;
        let fault = rig.office.inject(Fault::imap(phase, action.clone()));
        let error = rig.put(1, Repetition::Possible).await.unwrap_err();
        assert_eq!(error.code(), code, "{phase:?} {action:?}: {error}");
        fault.remove();
        rig.put(1, Repetition::Possible).await.unwrap();
        assert_eq!(rig.stored("Sent").len(), 1, "{phase:?} {action:?}");
    }
}

/// Proves: OB-16
#[tokio::test]
async fn a_mailbox_that_cannot_be_looked_at_now_is_not_taken_for_an_empty_one() {
    for words in ["[UNAVAILABLE] the store is away", "[INUSE] rebuilding", "not now"] {
        let rig = Rig::new().await;
        rig.put(1, Repetition::First).await.unwrap();
        let refusal = ImapAction::No(words.to_owned());
        let fault = rig.office.inject(Fault::imap(ImapPhase::Select, refusal));
        let error = rig.put(1, Repetition::Possible).await.unwrap_err();
        assert_eq!(error.code(), MapiCode::CALL_FAILED, "{words}: {error}");
        fault.remove();
        rig.put(1, Repetition::Possible).await.unwrap();
        assert_eq!(rig.stored("Sent").len(), 1, "{words}");
    }
}

#[tokio::test]
async fn a_mailbox_that_is_gone_holds_no_copy_whatever_the_refusal_says() {
    for words in ["[NONEXISTENT] gone", "what mailbox"] {
        let rig = Rig::new().await;
        rig.put(1, Repetition::First).await.unwrap();
        rig.office.delete_mailbox("ann", "Sent").unwrap();
        let refusal = ImapAction::No(words.to_owned());
        let fault = rig.office.inject(Fault::imap(ImapPhase::Select, refusal));
        let error = rig.put(1, Repetition::Possible).await.unwrap_err();
        assert!(error.to_string().contains("TRYCREATE"), "{words}: {error}");
        fault.remove();
        rig.put(1, Repetition::Possible).await.unwrap();
        assert_eq!(rig.stored("Sent").len(), 1, "{words}");
    }
}

#[tokio::test]
async fn a_large_copy_is_sent_only_when_it_is_asked_for() {
    let rig = Rig::new().await;
    rig.put(1, Repetition::First).await.unwrap();
    let large = text(9, 100_000);
    let announced = format!("{{{}", large.len());
    rig.sent.append(copy_of(9, large, Repetition::First)).await.unwrap();
    let transcript = rig.office.transcript_text();
    let small = text(1, 1).len();
    assert!(transcript.contains(&format!("{{{small}+}}")), "{transcript}");
    assert!(transcript.contains(&format!("{announced}}}")), "{announced}");
    assert_eq!(rig.stored("Sent").len(), 2);
}

#[tokio::test]
async fn a_copy_that_is_not_what_it_says_is_never_stored() {
    let rig = Rig::new().await;
    for size in [10, 100_000] {
        let mut copy = copy_of(1, text(1, 100), Repetition::First);
        copy.size = size;
        let error = rig.sent.append(copy).await.unwrap_err();
        assert_eq!(error.code(), MapiCode::CORRUPT_DATA, "{error}");
    }
    assert!(rig.stored("Sent").is_empty());
    rig.put(2, Repetition::First).await.unwrap();
    assert_eq!(rig.stored("Sent").len(), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_no_trouble() {
    let rig = Rig::new().await;
    rig.put(1, Repetition::First).await.unwrap();
    rig.office.disconnect_all();
    rig.put(2, Repetition::First).await.unwrap();
    assert_eq!(rig.stored("Sent").len(), 2);
}

#[test]
fn providers_that_keep_what_is_sent_are_known_by_their_host() {
    for host in ["smtp.gmail.com", "SMTP.Office365.com.", "outlook.com", "smtp-mail.outlook.com"] {
        assert!(provider_saves_sent(host), "{host}");
    }
    for host in ["smtp.example.org", "notgmail.com", "gmail.com.example.org", ""] {
        assert!(!provider_saves_sent(host), "{host}");
    }
}
