//! Tokens got, kept and renewed, against an authorization server with scripted faults.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use postoffice::{AuthorizationServer, TokenFault};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::mapi::SysTime;
use crate::net::Trust;
use crate::spi::{SecretError, SecretErrorKind, SecretKind, SecretSource};

const PATIENCE: Duration = Duration::from_secs(30);
const START: SysTime = SysTime::from_millis(1_800_000_000_000);
const COMMAND: &str = "postrider --profile test auth login work";

struct Rig {
    server: AuthorizationServer,
    folder: tempfile::TempDir,
    clock: ManualClock,
}

impl Rig {
    async fn new() -> Self {
        Rig {
            server: AuthorizationServer::start().await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
            clock: ManualClock::new(START),
        }
    }

    fn client(&self) -> Client {
        let url = |endpoint: &str| self.server.url(endpoint).parse().unwrap();
        Client::new(ClientSettings {
            client_id: "postrider".to_owned(),
            client_secret: None,
            token_url: url("token"),
            auth_url: Some(url("authorize")),
            device_url: Some(url("device")),
            revoke_url: Some(url("revoke")),
            scopes: vec!["mail".to_owned(), "offline".to_owned()],
            redirect: RedirectUri::default(),
            extra: &[],
            trust: Trust::Platform,
        })
    }

    fn store(&self) -> FileStore {
        FileStore::new(self.folder.path(), "work")
    }

    /// As another process would have one.
    fn source(&self) -> TokenSource {
        let clock = Arc::new(self.clock.clone());
        TokenSource::new("work", COMMAND, self.client(), self.store(), clock)
    }

    /// Ann signs in.
    fn sign_in(&self) -> String {
        let (access, refresh) = self.server.grant("ann");
        let grant = Grant {
            access: SecretString::from(access.clone()),
            expires_in: Some(3600),
            refresh: Some(SecretString::from(refresh)),
            scope: None,
        };
        let store = self.store();
        let lock = store.lock().unwrap();
        store.save(&Tokens::granted(grant, None, self.clock.now()), &lock).unwrap();
        access
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn renewals(&self) -> usize {
        self.server.requests().iter().filter(|request| request.path == "/token").count()
    }

    fn stored_refresh(&self) -> String {
        let tokens = self.store().load().unwrap().unwrap();
        tokens.refresh.unwrap().expose_secret().to_owned()
    }
}

async fn token(source: &TokenSource) -> Result<String, SecretError> {
    source.secret().await.map(|token| token.expose_secret().to_owned())
}

#[tokio::test]
async fn nobody_has_signed_in_is_said_with_the_way_out() {
    let rig = Rig::new().await;
    let source = rig.source();
    assert_eq!(source.kind(), SecretKind::Token);
    let error = token(&source).await.unwrap_err();
    assert_eq!(error.kind, SecretErrorKind::NeedsSignIn);
    assert!(error.words.contains(COMMAND), "{error}");
    // Whoever signs in meanwhile is found.
    let access = rig.sign_in();
    assert_eq!(token(&source).await.unwrap(), access);
    assert_eq!(rig.renewals(), 0);
}

#[tokio::test]
async fn a_token_is_renewed_ahead_and_the_next_refresh_token_is_on_disk_first() {
    let rig = Rig::new().await;
    rig.server.set_rotating(true);
    let first = rig.sign_in();
    let spent = rig.stored_refresh();
    let source = rig.source();
    rig.pass(3000);
    assert_eq!(token(&source).await.unwrap(), first);
    rig.pass(400);
    let second = token(&source).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(rig.server.user_of(&second).as_deref(), Some("ann"));
    assert_ne!(rig.stored_refresh(), spent);
    // Another process goes on from what is on disk.
    rig.pass(3400);
    let third = token(&rig.source()).await.unwrap();
    assert_ne!(third, second);
    assert_eq!(token(&source).await.unwrap(), third);
    assert_eq!(rig.renewals(), 2);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_not_for_ever() {
    let rig = Rig::new().await;
    let first = SecretString::from(rig.sign_in());
    let source = rig.source();
    rig.pass(120);
    let second = source.renew(&first).await.unwrap().unwrap();
    assert_ne!(second.expose_secret(), first.expose_secret());
    // Another connection was refused with the old one: it gets the new one, without a request.
    let same = rig.source().renew(&first).await.unwrap().unwrap();
    assert_eq!(same.expose_secret(), second.expose_secret());
    assert_eq!(token(&source).await.unwrap(), second.expose_secret());
    // The new one is refused as well: it is not the token.
    assert!(source.renew(&second).await.unwrap().is_none());
    assert_eq!(rig.renewals(), 1);
}

#[tokio::test]
async fn a_refused_renewal_waits_for_a_person() {
    let rig = Rig::new().await;
    let first = SecretString::from(rig.sign_in());
    let source = rig.source();
    rig.server.revoke_all();
    rig.pass(120);
    for _ in 0..3 {
        let error = source.renew(&first).await.unwrap_err();
        assert_eq!(error.kind, SecretErrorKind::NeedsSignIn);
        assert!(error.words.contains("invalid_grant") && error.words.contains(COMMAND), "{error}");
    }
    // Once is enough to know, also for the next process.
    assert_eq!(rig.renewals(), 1);
    assert!(rig.store().standing(rig.clock.now()).needs_sign_in());
    rig.pass(3600);
    let error = token(&rig.source()).await.unwrap_err();
    assert_eq!((error.kind, rig.renewals()), (SecretErrorKind::NeedsSignIn, 1));
    let again = rig.sign_in();
    assert_eq!(token(&source).await.unwrap(), again);
    assert!(!rig.store().standing(rig.clock.now()).needs_sign_in());
}

#[tokio::test]
async fn a_sign_in_that_ended_uses_up_what_is_good() {
    let rig = Rig::new().await;
    let first = rig.sign_in();
    let source = rig.source();
    rig.server.script(TokenFault::Refuse("invalid_grant"));
    rig.pass(3400);
    assert_eq!(token(&source).await.unwrap(), first);
    assert!(rig.store().standing(rig.clock.now()).needs_sign_in());
    rig.pass(200);
    assert_eq!(token(&source).await.unwrap_err().kind, SecretErrorKind::NeedsSignIn);
    assert_eq!(rig.renewals(), 1);
}

#[tokio::test]
async fn a_server_in_trouble_ends_no_sign_in() {
    let rig = Rig::new().await;
    let first = rig.sign_in();
    let source = rig.source();
    rig.pass(3400);
    rig.server.script(TokenFault::Status(503));
    assert_eq!(token(&source).await.unwrap(), first);
    // Not at every login.
    assert_eq!(token(&source).await.unwrap(), first);
    assert_eq!(rig.renewals(), 1);
    rig.pass(200);
    for fault in
        [TokenFault::Status(500), TokenFault::Drop, TokenFault::Refuse("temporarily_unavailable")]
    {
        rig.server.script(fault.clone());
        let error = token(&source).await.unwrap_err();
        assert_eq!(error.kind, SecretErrorKind::OutOfReach, "{fault:?}: {error}");
    }
    // A client that is wrong is for a person to mend, but not by signing in.
    rig.server.script(TokenFault::Refuse("invalid_client"));
    let error = token(&source).await.unwrap_err();
    assert_eq!(error.kind, SecretErrorKind::Unavailable);
    assert!(error.words.contains("client_id"), "{error}");
    assert_ne!(token(&source).await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_logins_of_two_processes_renew_once() {
    let rig = Rig::new().await;
    rig.server.set_rotating(true);
    rig.sign_in();
    rig.pass(7200);
    let sources = [rig.source(), rig.source()];
    let asked = (0..16).map(|number| {
        let source = sources[number % 2].clone();
        tokio::spawn(async move { token(&source).await.unwrap() })
    });
    let mut tokens = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        tokens.push(asked.await.unwrap());
    }
    tokens.dedup();
    assert_eq!((tokens.len(), rig.renewals()), (1, 1));
}

#[tokio::test]
async fn a_login_that_is_given_up_loses_no_refresh_token() {
    let rig = Rig::new().await;
    rig.server.set_rotating(true);
    rig.sign_in();
    let spent = rig.stored_refresh();
    rig.pass(7200);
    let source = rig.source();
    {
        let asked = source.secret();
        tokio::pin!(asked);
        // It has begun, and nobody waits for it any more.
        let begun = poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending()));
        assert!(begun.await);
    }
    let renewed = tokio::time::timeout(PATIENCE, async {
        while rig.stored_refresh() == spent {
            tokio::task::yield_now().await;
        }
    });
    renewed.await.unwrap();
    let access = token(&source).await.unwrap();
    assert_eq!(rig.server.user_of(&access).as_deref(), Some("ann"));
    assert_eq!(rig.renewals(), 1);
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_kept_and_tried_again() {
    let rig = Rig::new().await;
    rig.server.set_rotating(true);
    rig.sign_in();
    let spent = rig.stored_refresh();
    // A folder in its way: the new file cannot be written.
    let way = rig.folder.path().join("tokens/work.json.new");
    std::fs::create_dir(&way).unwrap();
    rig.pass(7200);
    let source = rig.source();
    let access = token(&source).await.unwrap();
    assert_eq!(rig.server.user_of(&access).as_deref(), Some("ann"));
    assert_eq!(rig.stored_refresh(), spent);
    // The spent one is not shown again.
    rig.pass(7200);
    let next = token(&source).await.unwrap();
    assert_ne!(next, access);
    std::fs::remove_dir(&way).unwrap();
    assert_eq!(token(&source).await.unwrap(), next);
    assert_ne!(rig.stored_refresh(), spent);
    assert_eq!(token(&rig.source()).await.unwrap(), next);
}

/// A clock on which every wait is over at once.
struct Leaping(ManualClock);

impl Clock for Leaping {
    fn now(&self) -> SysTime {
        self.0.now()
    }

    fn sleep_until(&self, until: SysTime) -> BoxFuture<'static, ()> {
        self.0.set(until);
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn a_device_signs_in_and_is_not_asked_too_often() {
    let rig = Rig::new().await;
    rig.server.script_device(&["authorization_pending", "slow_down", "authorization_pending"]);
    let clock = Leaping(rig.clock.clone());
    let mut shown = None;
    let client = rig.client();
    let grant = sign_in_by_device(&client, &clock, |prompt| shown = Some(prompt)).await.unwrap();
    let shown = shown.unwrap();
    assert_eq!((shown.code.as_str(), shown.url.as_str()), ("WDJB-MJHT", "http://localhost/device"));
    assert_eq!(rig.server.user_of(grant.access.expose_secret()).as_deref(), Some("ann"));
    assert!(grant.refresh.is_some());
    // 1 + 1 + 6 + 6 seconds.
    assert_eq!(rig.clock.now().saturating_since(START), Duration::from_secs(14));
    assert_eq!(rig.server.requests()[0].form["scope"], "mail offline");

    rig.server.script_device(&["access_denied"]);
    let error = sign_in_by_device(&rig.client(), &clock, |_| {}).await.unwrap_err();
    assert!(error.words.contains("denied"), "{error}");
    rig.server.script_device(&["authorization_pending"; 1000]);
    let error = sign_in_by_device(&rig.client(), &clock, |_| {}).await.unwrap_err();
    assert!(error.words.contains("in time"), "{error}");
}

/// What a browser does with an address: the head of the answer.
async fn visit(url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn location(answer: &str) -> String {
    let line = answer.lines().find_map(|line| line.strip_prefix("Location: "));
    line.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn a_browser_signs_in_and_strangers_are_not_heard() {
    let rig = Rig::new().await;
    let client = rig.client();
    let browser = Browser::begin(&client, "ann@example.org").await.unwrap();
    let url = browser.url().to_owned();
    assert!(url.contains("code_challenge_method=S256") && url.contains("scope=mail+offline"));
    let walk = async {
        let back = location(&visit(&url).await);
        let (address, _) = back.split_once('?').unwrap();
        for stranger in [format!("{address}?code=x&state=guess"), format!("{address}favicon.ico")] {
            assert!(visit(&stranger).await.starts_with("HTTP/1.1 404"), "{stranger}");
        }
        // Somebody who says nothing holds up nobody.
        let silent =
            TcpStream::connect(address.trim_start_matches("http://").trim_end_matches('/'));
        let silent = silent.await.unwrap();
        assert!(visit(&back).await.contains("You are signed in"));
        drop(silent);
    };
    let (grant, ()) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(browser.finish(), walk) })
            .await
            .unwrap();
    let access = grant.unwrap().access;
    assert_eq!(rig.server.user_of(access.expose_secret()).as_deref(), Some("ann@example.org"));
    // The verifier was shown to the token endpoint alone.
    let requests = rig.server.requests();
    assert!(!url.contains(&requests[0].form["code_verifier"]));
}

#[tokio::test]
async fn a_denied_sign_in_ends_at_once() {
    let rig = Rig::new().await;
    let client = rig.client();
    let browser = Browser::begin(&client, "").await.unwrap();
    let back = location(&visit(browser.url()).await);
    let (address, query) = back.split_once('?').unwrap();
    let state = query.split('&').find(|pair| pair.starts_with("state=")).unwrap();
    let denied = format!("{address}?error=access_denied&{state}");
    let (outcome, _) = tokio::join!(browser.finish(), visit(&denied));
    assert!(outcome.unwrap_err().words.contains("access_denied"));
    assert!(rig.server.requests().is_empty());
}

#[tokio::test]
async fn a_token_is_given_back() {
    let rig = Rig::new().await;
    let access = rig.sign_in();
    let refresh = SecretString::from(rig.stored_refresh());
    assert!(rig.client().revoke(&refresh).await.unwrap());
    assert!(rig.server.user_of(&access).is_none());
}
