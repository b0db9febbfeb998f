//! Servers whom nobody can be sure of, and logins that are not taken.

use std::time::Duration;

use postoffice::{Action, Fault, Flaw, Protocol, SmtpAction, SmtpExtension, SmtpPhase};

use super::rig::{Rig, Shape, office};
use crate::net::{Fingerprint, TlsMode, Trust};
use crate::spool::QueueState;
use crate::transport::events::TroubleKind;

/// Sends one message, sees it wait for the reason named, mends the server, sees it go. Nothing
/// may be said to a server that is not the one of the profile.
async fn waits_for(rig: &Rig, kind: TroubleKind, words: &str, mend: impl AsyncFnOnce()) {
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let trouble = rig.hears_trouble().await;
    assert_eq!(trouble.kind, kind, "{}", trouble.words);
    assert!(trouble.words.contains(words), "{}", trouble.words);
    assert!(trouble.next_attempt.is_some());
    let row = rig.row_when(&entry, |row| row.state == QueueState::Due).await;
    assert_eq!((row.attempts, rig.recipient(&entry, 0).await), (0, "pending"));
    assert_eq!(rig.office.counters(Protocol::Smtp).logins, 0);
    mend().await;
    rig.clock.advance(Duration::from_secs(3600));
    rig.hears_end_of(&entry).await;
    assert_eq!(rig.recipient(&entry, 0).await, "delivered");
    assert_eq!(rig.office.accepted_count(), 1);
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_keeps_the_mail_here() {
    for tls in [TlsMode::Implicit, TlsMode::StartTls] {
        for (flaw, words) in [
            (Flaw::Expired, "has expired"),
            (Flaw::NotYetValid, "not valid yet"),
            (Flaw::WrongName, "for another name"),
            (Flaw::UnknownIssuer, "signed by nobody known"),
        ] {
            let rig = Rig::shaped(Shape { tls, ..Shape::default() }, office().await).await;
            rig.office.present(flaw).unwrap();
            waits_for(&rig, TroubleKind::Tls, words, async || {
                rig.office.present(Flaw::None).unwrap();
            })
            .await;
        }
    }
}

#[tokio::test]
async fn another_certificate_than_the_one_of_the_profile_keeps_the_mail_here() {
    let trust = Some(Trust::Fingerprint(Fingerprint([7; 32])));
    let shape = Shape { tls: TlsMode::Implicit, trust, ..Shape::default() };
    let rig = Rig::shaped(shape, office().await).await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let trouble = rig.hears_trouble().await;
    assert_eq!(trouble.kind, TroubleKind::Tls);
    assert!(trouble.words.contains("not the one the profile names"), "{}", trouble.words);
    rig.row_when(&entry, |row| row.state == QueueState::Due && row.attempts == 0).await;
    assert_eq!(rig.office.counters(Protocol::Smtp).logins, 0);
}

#[tokio::test]
async fn starttls_that_is_not_to_be_had_keeps_the_mail_here() {
    let shape = || Shape { tls: TlsMode::StartTls, ..Shape::default() };
    let rig = Rig::shaped(shape(), office().await).await;
    rig.office.withhold(SmtpExtension::StartTls);
    waits_for(&rig, TroubleKind::Tls, "does not offer STARTTLS", async || {
        rig.office.offer(SmtpExtension::StartTls);
    })
    .await;
    for (code, enhanced, words) in
        [(502, "5.5.1", "refuses STARTTLS"), (454, "4.7.0", "no TLS now")]
    {
        let rig = Rig::shaped(shape(), office().await).await;
        let reply = SmtpAction::reply(code, enhanced, "no TLS now");
        rig.office.inject(Fault::smtp(SmtpPhase::StartTls, reply).once());
        waits_for(&rig, TroubleKind::Tls, words, async || {}).await;
    }
}

#[tokio::test]
async fn words_in_clear_behind_the_starttls_reply_are_not_believed() {
    for injected in ["250 injected\r\n", "\0", "250-PIPELINING\r\n250 AUTH PLAIN\r\n"] {
        let shape = Shape { tls: TlsMode::StartTls, ..Shape::default() };
        let rig = Rig::shaped(shape, office().await).await;
        let append = Action::Append(injected.as_bytes().to_vec());
        rig.office.inject(Fault::smtp(SmtpPhase::StartTls, append).once());
        waits_for(&rig, TroubleKind::Tls, "tampering", async || {}).await;
    }
}

#[tokio::test]
async fn a_login_that_is_not_taken_keeps_the_mail_here() {
    let rig = Rig::new().await;
    rig.office.set_password("ann", "another");
    waits_for(&rig, TroubleKind::LoginRefused, "check user and password", async || {
        rig.office.set_password("ann", "secret");
    })
    .await;
    let rig = Rig::new().await;
    let later = SmtpAction::reply(454, "4.7.0", "not now");
    rig.office.inject(Fault::smtp(SmtpPhase::Auth, later).once());
    waits_for(&rig, TroubleKind::Throttled, "not now", async || {}).await;
}
