//! Who the server is, and what it says of the login: no password goes to a stranger, a person is
//! told what to do, and mail flows once the cause is gone.

use std::time::Duration;

use std::sync::atomic::Ordering;

use postoffice::{
    Action, Fault, FaultHandle, Flaw, ImapAction, ImapCapability, ImapPhase, Listener,
};

use super::rig::{LONG, Rig, Token, message, messages};
use crate::net::{Fingerprint, TlsMode, Trust};
use crate::transport::events::TroubleKind;
use crate::transport::settings::AfterFetch;

/// How the cause goes away.
enum Mend {
    Certificate,
    Remove(Box<FaultHandle>),
    Offer(ImapCapability),
    /// It does not: the profile would have to be changed.
    Never,
}

async fn rig(tls: TlsMode) -> Rig {
    let mut rig = Rig::new().await;
    let file = rig.folder().join("ca.pem");
    std::fs::write(&file, rig.office.ca_pem()).unwrap();
    let server = &mut rig.settings.imap.server;
    server.host = "localhost".into();
    server.trust = Trust::CaFile(file);
    server.tls = tls;
    if tls == TlsMode::Implicit {
        server.port = rig.office.port(Listener::Imaps);
    }
    rig.settings.tuning.login_pause = (Duration::from_millis(50), Duration::from_millis(200));
    rig.settings.deadlines.handshake = Duration::from_millis(500);
    rig.deliver([message(0, 300)]);
    rig
}

/// The status names the trouble, the password has not left the machine, and after the mend
/// everything comes once.
async fn refused(rig: Rig, kinds: &[TroubleKind], words: &str, mend: Mend) {
    let life = rig.start();
    let shown = life.trouble_of(kinds).await;
    assert!(shown.words.contains(words), "{words}: {shown:?}");
    assert!(shown.words.contains("localhost"), "{shown:?}");
    let counters = rig.office.counters(postoffice::Protocol::Imap);
    assert_eq!((counters.command("LOGIN"), counters.command("AUTHENTICATE")), (0, 0), "{words}");
    let transcript = rig.office.transcript_text();
    // "\0ann\0secret" in base64, and in clear.
    assert!(!transcript.contains("AGFubgBzZWNyZXQ") && !transcript.contains("secret"), "{words}");
    match mend {
        Mend::Certificate => rig.office.present(Flaw::None).unwrap(),
        Mend::Remove(fault) => fault.remove(),
        Mend::Offer(capability) => rig.office.offer(capability),
        Mend::Never => {
            assert_eq!(rig.store.len(), 0);
            life.inbound.stop(LONG).await;
            return;
        }
    }
    rig.saved(1).await;
    life.no_trouble().await;
    life.inbound.stop(LONG).await;
    rig.assert_same(vec![message(0, 300)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_password() {
    let mut cases = 0;
    for tls in [TlsMode::Implicit, TlsMode::StartTls] {
        for (flaw, words) in [
            (Flaw::Expired, "has expired"),
            (Flaw::NotYetValid, "valid"),
            (Flaw::WrongName, "name"),
            (Flaw::UnknownIssuer, "certificate"),
        ] {
            let rig = rig(tls).await;
            rig.office.present(flaw).unwrap();
            refused(rig, &[TroubleKind::Tls], words, Mend::Certificate).await;
            cases += 1;
        }
        let mut other = rig(tls).await;
        other.settings.imap.server.trust = Trust::Fingerprint(Fingerprint([7; 32]));
        refused(other, &[TroubleKind::Tls], "fingerprint", Mend::Never).await;
        cases += 1;
        // Somebody between puts an answer in front of the encrypted ones.
        if tls == TlsMode::StartTls {
            for early in ["h2 OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] trust me\r\n", "x", "\r\n"] {
                let rig = rig(tls).await;
                let fault = Action::Append(early.as_bytes().to_vec());
                let fault = rig.office.inject(Fault::imap(ImapPhase::StartTls, fault));
                refused(rig, &[TroubleKind::Tls], "", Mend::Remove(Box::new(fault))).await;
                cases += 1;
            }
            let rig = rig(tls).await;
            rig.office.withhold(ImapCapability::StartTls);
            let mend = Mend::Offer(ImapCapability::StartTls);
            refused(rig, &[TroubleKind::Configuration, TroubleKind::Tls], "STARTTLS", mend).await;
            cases += 1;
        }
        // Logged in already, it says, where a login was asked for.
        let rig = rig(tls).await;
        let fault = ImapAction::Preauth("ann".into());
        let fault = rig.office.inject(Fault::imap(ImapPhase::Greeting, fault));
        let kinds = [TroubleKind::Configuration, TroubleKind::Tls];
        refused(rig, &kinds, "", Mend::Remove(Box::new(fault))).await;
        cases += 1;
    }
    assert_eq!(cases, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_login_is_answered_decides_how_long_to_stay_away() {
    let cases = [
        ("[AUTHENTICATIONFAILED] Invalid credentials", TroubleKind::LoginRefused),
        ("[EXPIRED] That password is not valid any more", TroubleKind::LoginRefused),
        ("[AUTHORIZATIONFAILED] No such authorization", TroubleKind::LoginRefused),
        ("[CONTACTADMIN] Locked", TroubleKind::LoginRefused),
        ("Invalid credentials (Failure)", TroubleKind::LoginRefused),
        ("[UNAVAILABLE] The directory is away", TroubleKind::Throttled),
        ("[INUSE] Busy", TroubleKind::Throttled),
        ("[LIMIT] Enough for today", TroubleKind::Throttled),
        ("Temporary authentication failure", TroubleKind::Throttled),
    ];
    for (words, kind) in cases {
        let rig = Rig::new().await;
        rig.deliver([message(0, 300)]);
        let no = rig.office.inject(Fault::imap(ImapPhase::Login, ImapAction::No(words.into())));
        let life = rig.start();
        let trouble = life.trouble(kind).await;
        let said = words.rsplit_once(']').map_or(words, |(_, said)| said.trim());
        assert!(trouble.words.contains(said), "{trouble:?}");
        assert!(trouble.next_attempt.is_some(), "{trouble:?}");
        no.remove();
        rig.saved(1).await;
        life.no_trouble().await;
        let troubles = life.events.troubles.lock().unwrap().clone();
        assert!(troubles.iter().all(|it| it.kind == kind), "{troubles:?}");
        life.inbound.stop(LONG).await;
    }
}

/// A token runs out: at the login, or in the middle of a session, as different servers say it.
/// It is renewed once, the login is tried again at once, nothing is set aside or blamed on a
/// mailbox, and every message comes once.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_runs_out_is_renewed_and_nothing_else_is_blamed() {
    let no = |phase, words: &str| Fault::imap(phase, ImapAction::No(words.into()));
    let bad = |phase, words: &str| Fault::imap(phase, ImapAction::Bad(words.into()));
    let bye = |phase, words: &str| Fault::imap(phase, ImapAction::Bye(words.into()));
    let exchange = "Session invalidated - AccessTokenExpired";
    let mut cases = vec![(None, "at the login")];
    for phase in [ImapPhase::Select, ImapPhase::Fetch, ImapPhase::Store, ImapPhase::Idle] {
        cases.push((Some(no(phase, "[EXPIRED] Log in again")), "EXPIRED"));
        cases.push((Some(no(phase, "[AUTHENTICATIONFAILED] Who?")), "AUTHENTICATIONFAILED"));
        cases.push((Some(bad(phase, exchange)), exchange));
        cases.push((Some(bye(phase, exchange)), exchange));
    }
    cases.push((Some(bye(ImapPhase::Idle, exchange).after_effect()), "BYE in IDLE"));
    let count = cases.len();
    for (fault, what) in cases {
        let mut rig = Rig::new().await;
        rig.settings.imap.after = AfterFetch::Seen;
        let token = Token::new("old", "fresh");
        rig.settings.imap.credentials.password = token.clone();
        // Refusals of the account or of a mailbox would take far longer than a test may.
        rig.settings.tuning.login_pause = (Duration::from_secs(600), Duration::from_secs(600));
        rig.settings.imap.poll_interval = Duration::from_secs(600);
        rig.deliver(messages(5));
        let name = format!("{fault:?}");
        let says_bye = name.contains("Bye");
        rig.office.set_token("ann", Some("old"));
        let fault = match fault {
            None => no(ImapPhase::Login, "[AUTHENTICATIONFAILED] Token expired"),
            Some(fault) => fault,
        };
        let fault = rig.office.inject(fault.once());
        if says_bye {
            // A BYE is no answer: the next login finds out.
            let refused = no(ImapPhase::Login, "[AUTHENTICATIONFAILED] Token expired");
            rig.office.inject(refused.nth(2).once());
        }
        let life = rig.start();
        fault.reached(LONG).await.unwrap();
        // The old one is not good any more, and the provider gives another.
        rig.office.set_token("ann", Some("fresh"));
        token.provider.add_permits(1);
        rig.saved(5).await;
        rig.deliver([message(9, 300)]);
        rig.saved(6).await;
        life.flush().await;
        life.no_trouble().await;
        assert_eq!(token.renewals.load(Ordering::SeqCst), 1, "{what}: {name}");
        assert!(life.inbound.states()[0].set_aside.is_empty(), "{what}: {name}");
        let troubles = life.events.troubles.lock().unwrap().clone();
        let connection_only = troubles.iter().all(|it| it.kind == TroubleKind::Network);
        assert!(connection_only, "{what}: {name}: {troubles:?}");
        life.inbound.stop(LONG).await;
        let mut all = messages(5);
        all.push(message(9, 300));
        rig.assert_same(all);
    }
    assert_eq!(count, 18);
}

/// A login that is refused for now says nothing of the token: it is not renewed for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_for_now_is_not_renewed() {
    let mut rig = Rig::new().await;
    let token = Token::new("good", "fresh");
    rig.settings.imap.credentials.password = token.clone();
    rig.office.set_token("ann", Some("good"));
    rig.deliver(messages(2));
    let no = ImapAction::No("[UNAVAILABLE] The directory is away".into());
    let no = rig.office.inject(Fault::imap(ImapPhase::Login, no));
    let life = rig.start();
    let trouble = life.trouble(TroubleKind::Throttled).await;
    assert!(trouble.words.contains("The directory is away"), "{trouble:?}");
    no.remove();
    rig.saved(2).await;
    life.no_trouble().await;
    assert_eq!(token.renewals.load(Ordering::SeqCst), 0);
    life.inbound.stop(LONG).await;
}
