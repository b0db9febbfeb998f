//! Logins at servers nobody here wrote: tokens that Dovecot shows to the authorization server, and
//! SCRAM, at Dovecot's IMAP and at Postfix.

use postoffice::AuthorizationServer;
use postrider::profile::{Environment, Profile};
use postrider::session::{Logon, RecipientRowState, Service, Session, SessionOptions};
use realservers::{Dovecot, DovecotOptions, Postfix, PostfixOptions};

use crate::helpers::{keep_tokens, signing_profile};
use crate::house::{Account, GRACE, PATIENCE, Server, profile_text};
use crate::letters::letter;
use crate::maildir::await_messages;

struct Provider {
    postfix: Postfix,
    dovecot: Dovecot,
}

impl Provider {
    fn start(options: DovecotOptions) -> Self {
        let dovecot = Dovecot::start(options).unwrap();
        let postfix = Postfix::start(&dovecot, PostfixOptions::default()).unwrap();
        Provider { postfix, dovecot }
    }

    fn account(&self, lines: &[String]) -> Account {
        let ca = self.dovecot.certificates().authority_file();
        let with = |server: Server| lines.iter().fold(server, |server, line| server.with(line));
        Account::new("work", "Ann Example <ann@example.test>")
            .smtp(with(Server::starttls(self.postfix.submission_address(), ca)))
            .imap(with(Server::implicit(self.dovecot.imaps_address(), ca)))
    }
}

/// Sends ann a message and fetches it, beside those of the rounds before.
async fn round(folder: &tempfile::TempDir, text: &str, number: usize) {
    let file = folder.path().join("test.toml");
    let profile = Profile::parse("test", text, &file, &Environment::empty()).unwrap();
    let options = SessionOptions::new(folder.path().join("state")).logon(Logon::Full);
    let session = Session::open(&profile, options).await.unwrap();
    let entry = session.submit(letter("hello", &["ann@example.test"])).await.unwrap();
    let row = session.wait(&entry, Some(PATIENCE)).await.unwrap();
    assert!(row.recipients.iter().all(|one| one.state == RecipientRowState::Delivered), "{row:?}");
    await_messages(&folder.path().join("Mail"), "INBOX", number).await;
    session.shutdown(GRACE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dovecot_and_postfix_take_tokens_by_both_mechanisms() {
    let server = AuthorizationServer::start().await.unwrap();
    let provider = Provider::start(DovecotOptions {
        introspection_url: Some(server.url("introspect")),
        ..DovecotOptions::default()
    });
    for (number, mechanism) in (1..).zip(["oauthbearer", "xoauth2"]) {
        let folder = tempfile::tempdir().unwrap();
        let lines = ["user = \"ann\"".to_owned(), format!("auth = {mechanism:?}")];
        let maildir = folder.path().join("Mail");
        let text = signing_profile(provider.account(&lines), &server, &maildir);
        // A token that was taken away: refused by both servers, renewed once, used by both.
        let tokens = server.grant("ann");
        server.expire_tokens();
        keep_tokens(&folder.path().join("state"), &tokens, 120);
        let before = server.requests().iter().filter(|one| one.path == "/token").count();
        round(&folder, &text, number).await;
        let after = server.requests().iter().filter(|one| one.path == "/token").count();
        assert_eq!(after - before, 1, "{mechanism}");
    }
    let asked = server.requests().iter().filter(|one| one.path == "/introspect").count();
    // A refusal, and a consent in each direction, by either mechanism.
    assert!(asked >= 6, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dovecot_and_postfix_take_scram() {
    let provider = Provider::start(DovecotOptions {
        extra_config: "auth_mechanisms = scram-sha-256\n".to_owned(),
        ..DovecotOptions::default()
    });
    let password = provider.dovecot.password_of("ann").unwrap();
    // Asked for, and chosen because nothing else is offered.
    for (number, wanted) in (1..).zip([Some("auth = \"scram-sha-256\""), None]) {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = vec!["user = \"ann\"".to_owned(), format!("password = {password:?}")];
        lines.extend(wanted.map(str::to_owned));
        let text = profile_text(&[provider.account(&lines)], &folder.path().join("Mail"));
        round(&folder, &text, number).await;
    }
}

/// A server that keeps passwords for nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dovecot_and_postfix_take_cram_md5() {
    let provider = Provider::start(DovecotOptions {
        extra_config: "auth_mechanisms = cram-md5\n".to_owned(),
        ..DovecotOptions::default()
    });
    let password = provider.dovecot.password_of("ann").unwrap();
    for (number, wanted) in (1..).zip([Some("auth = \"cram-md5\""), None]) {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = vec!["user = \"ann\"".to_owned(), format!("password = {password:?}")];
        lines.extend(wanted.map(str::to_owned));
        let text = profile_text(&[provider.account(&lines)], &folder.path().join("Mail"));
        round(&folder, &text, number).await;
    }
}
