//! Who the server is, and what it says of the login: no password goes to a stranger, a person is
//! told what to do, and mail flows once the cause is gone.

use std::time::Duration;

use postoffice::{
    Action, Fault, FaultHandle, Flaw, ImapAction, ImapCapability, ImapPhase, Listener,
};

use super::rig::{LONG, Rig, message};
use crate::net::{Fingerprint, TlsMode, Trust};
use crate::transport::events::TroubleKind;

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
