//! Logins at servers nobody here wrote: tokens that Dovecot shows to the authorization server, and
//! SCRAM, at Dovecot's IMAP and at Postfix.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use postoffice::AuthorizationServer;
use postrider::profile::{Environment, Profile};
use postrider::session::{
    Logon, RecipientRowState, Service, Session, SessionOptions, check_profile,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
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

/// Files of a client certificate for `user`, and of the authority that signed it.
fn client_certificate(folder: &Path, user: &str) -> (PathBuf, PathBuf, PathBuf) {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "authority of clients");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, user);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let file = |name: &str, text: String| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    };
    (
        file("client-ca.pem", authority.pem()),
        file("client.pem", certificate.pem()),
        file("client.key", key.serialize_pem()),
    )
}

/// RFC 4422 appendix A: who logs in is who the certificate names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dovecot_takes_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, certificate, key) = client_certificate(folder.path(), "ann");
    let dovecot = Dovecot::start(DovecotOptions {
        extra_config: format!(
            "ssl_ca = <{}\nssl_require_crl = no\nssl_verify_client_cert = yes\n\
             auth_ssl_username_from_cert = yes\nauth_mechanisms = plain external\n\
             passdb {{\n  driver = static\n  mechanisms = external\n  args = nopassword\n}}\n",
            authority.display()
        ),
        ..DovecotOptions::default()
    })
    .unwrap();
    dovecot.lmtp_deliver("ann", b"Subject: by certificate\r\n\r\nhello\r\n").unwrap();
    let ca = dovecot.certificates().authority_file();
    let with = |certificate: &Path, key: &Path| {
        let server = Server::implicit(dovecot.imaps_address(), ca)
            .with("auth = \"external\"")
            .with(format!("client_cert = {:?}", certificate.display().to_string()))
            .with(format!("client_key = {:?}", key.display().to_string()));
        let account = Account::new("work", "Ann <ann@example.test>").imap(server);
        let text = profile_text(&[account], &folder.path().join("Mail"));
        Profile::parse("test", &text, &folder.path().join("p.toml"), &Environment::empty()).unwrap()
    };
    let profile = with(&certificate, &key);
    let options = SessionOptions::new(folder.path().join("state")).logon(Logon::Full);
    let session = Session::open(&profile, options).await.unwrap();
    await_messages(&folder.path().join("Mail"), "INBOX", 1).await;
    session.shutdown(GRACE).await.unwrap();

    // A key that others can read is not used.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let checked = check_profile(&with(&certificate, &key)).await.unwrap();
    let why = checked[0].error.as_deref().unwrap();
    assert!(why.contains("client_key") && why.contains("chmod 600"), "{why}");
    // Nor is a certificate of an authority the server does not know.
    let other = tempfile::tempdir().unwrap();
    let (_, certificate, key) = client_certificate(other.path(), "ann");
    let checked = check_profile(&with(&certificate, &key)).await.unwrap();
    assert!(!checked[0].ok, "{checked:?}");
}
