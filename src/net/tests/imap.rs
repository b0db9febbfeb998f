//! Opening IMAP connections and logging in.

use std::time::Duration;

use secrecy::SecretString;

use super::super::{
    Compress, ImapLoggedIn, ImapLogin, LoginError, LoginMemory, NetErrorKind, Phase, TlsMode,
    Trust, tls,
};
use super::peer::{Flaw, Step, identity, peer};
use super::{connector, plain};
use crate::spi::SecretKind;

const GREETING: Step = Step::Say("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] hello\r\n");
const BASIC: Step = Step::Say("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hello\r\n");

async fn kind_of(script: Vec<Step>) -> NetErrorKind {
    let peer = peer(script, None).await;
    plain(peer.port).imap_open().await.unwrap_err().kind
}

async fn login(
    script: Vec<Step>,
    user: &str,
    wanted: Option<&str>,
    memory: &LoginMemory,
) -> (Result<ImapLoggedIn, LoginError>, Vec<String>) {
    let peer = peer(script, None).await;
    let connector = plain(peer.port);
    let opened = connector.imap_open().await.unwrap();
    let secret = SecretString::from("pass\"word\\");
    let login = ImapLogin {
        user,
        secret: &secret,
        kind: SecretKind::Password,
        wanted,
        memory,
        compress: Compress::Never,
    };
    let outcome = connector.imap_login(opened, login).await;
    (outcome, peer.heard().await)
}

#[tokio::test]
async fn capabilities_come_from_the_greeting_or_are_asked_for() {
    let told = peer(vec![GREETING, Step::Hang], None).await;
    let opened = plain(told.port).imap_open().await.unwrap();
    assert!(opened.capabilities.has("SASL-IR"));
    assert_eq!(opened.capabilities.mechanisms(), ["PLAIN"]);
    assert_eq!(opened.greeting, "hello");

    let script = vec![
        Step::Say("* OK hello\r\n"),
        Step::Hear("* CAPABILITY"),
        Step::Say("* CAPABILITY IMAP4rev1 Idle\r\n"),
        Step::Answer("* OK done\r\n"),
    ];
    let asked = peer(script, None).await;
    assert!(plain(asked.port).imap_open().await.unwrap().capabilities.has("IDLE"));
}

#[tokio::test]
async fn starttls_forgets_what_was_told_in_clear() {
    let identity = identity(Flaw::None);
    let script = vec![
        Step::Say("* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=LIE] hello\r\n"),
        Step::Hear("* STARTTLS"),
        Step::Answer("* OK go on\r\n"),
        Step::Tls,
        Step::Hear("* CAPABILITY"),
        Step::Say("* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n"),
        Step::Answer("* OK done\r\n"),
    ];
    let peer = peer(script, Some(identity.acceptor.clone())).await;
    let trust = Trust::Fingerprint(tls::fingerprint(&identity.certificate));
    let opened = connector(peer.port, TlsMode::StartTls, trust).imap_open().await.unwrap();
    assert_eq!(opened.capabilities.mechanisms(), ["PLAIN"]);
    assert!(opened.protection.is_some());
}

/// The same injection as in SMTP: RFC 3501 has no words for it, RFC 9051 section 11.1 does.
#[tokio::test]
async fn anything_in_clear_behind_the_starttls_reply_is_refused() {
    let identity = identity(Flaw::None);
    let script = vec![
        Step::Say("* OK [CAPABILITY IMAP4rev1 STARTTLS] hello\r\n"),
        Step::Hear("* STARTTLS"),
        Step::Answer("* OK go on\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nh2 OK done\r\n"),
        Step::Tls,
        Step::Hang,
    ];
    let peer = peer(script, Some(identity.acceptor.clone())).await;
    let trust = Trust::Fingerprint(tls::fingerprint(&identity.certificate));
    let error = connector(peer.port, TlsMode::StartTls, trust).imap_open().await.unwrap_err();
    assert_eq!(error.kind, NetErrorKind::EarlyPlaintext);
}

#[tokio::test]
async fn greetings_that_are_none_are_told_apart() {
    let cases: [(&'static str, NetErrorKind); 5] = [
        ("* PREAUTH [CAPABILITY IMAP4rev1] welcome\r\n", NetErrorKind::PreAuthenticated),
        ("* BYE too busy\r\n", NetErrorKind::Unavailable),
        ("220 smtp.example.org\r\n", NetErrorKind::Protocol),
        ("* NO hello\r\n", NetErrorKind::Protocol),
        ("\r\n", NetErrorKind::Protocol),
    ];
    for (greeting, wanted) in cases {
        assert_eq!(kind_of(vec![Step::Say(greeting), Step::Hang]).await, wanted, "{greeting:?}");
    }
    assert_eq!(kind_of(vec![Step::Hang]).await, NetErrorKind::Timeout(Phase::Greeting));
    assert_eq!(kind_of(vec![]).await, NetErrorKind::Closed);
    assert_eq!(kind_of(vec![Step::Reset]).await, NetErrorKind::Closed);
    assert_eq!(kind_of(vec![Step::Flood("* OK ")]).await, NetErrorKind::Protocol);
}

#[tokio::test]
async fn endless_and_missing_answers_end() {
    let hello = || vec![Step::Say("* OK hello\r\n"), Step::Hear("* CAPABILITY")];
    let with = |step| {
        let mut script = hello();
        script.push(step);
        script
    };
    assert_eq!(kind_of(with(Step::Hang)).await, NetErrorKind::Timeout(Phase::Handshake));
    assert_eq!(kind_of(with(Step::Flood("* 3 EXISTS\r\n"))).await, NetErrorKind::Protocol);
    assert_eq!(kind_of(with(Step::Say("x9 OK wrong tag\r\n"))).await, NetErrorKind::Protocol);
    assert_eq!(kind_of(with(Step::Say("* BYE bye\r\n"))).await, NetErrorKind::Unavailable);
}

#[tokio::test]
async fn starttls_must_be_offered_and_accepted() {
    let trust = Trust::Fingerprint(super::super::Fingerprint([0; 32]));
    let none = peer(vec![GREETING, Step::Hang], None).await;
    let error = connector(none.port, TlsMode::StartTls, trust.clone()).imap_open().await;
    assert_eq!(error.unwrap_err().kind, NetErrorKind::StartTlsNotOffered);
    let script = vec![
        Step::Say("* OK [CAPABILITY IMAP4rev1 STARTTLS] hello\r\n"),
        Step::Hear("* STARTTLS"),
        Step::Answer("* BAD no\r\n"),
    ];
    let refused = peer(script, None).await;
    let error = connector(refused.port, TlsMode::StartTls, trust).imap_open().await;
    assert_eq!(error.unwrap_err().kind, NetErrorKind::StartTlsRefused);
}

#[tokio::test]
async fn plain_goes_with_the_command_where_it_may() {
    let script = vec![
        GREETING,
        Step::Hear("* AUTHENTICATE PLAIN AGFubgBwYXNzIndvcmRc"),
        Step::Answer("* OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"),
    ];
    let (outcome, _) = login(script, "ann", None, &LoginMemory::default()).await;
    assert!(outcome.unwrap().capabilities.has("IDLE"));

    let script = vec![
        BASIC,
        Step::Hear("* AUTHENTICATE PLAIN"),
        Step::Say("+ \r\n"),
        Step::Hear("AGFubgBwYXNzIndvcmRc"),
        Step::Answer("* OK in\r\n"),
        Step::Hear("* CAPABILITY"),
        Step::Say("* CAPABILITY IMAP4rev1 MOVE\r\n"),
        Step::Answer("* OK done\r\n"),
    ];
    let (outcome, _) = login(script, "ann", None, &LoginMemory::default()).await;
    assert!(outcome.unwrap().capabilities.has("MOVE"));
}

#[tokio::test]
async fn a_server_that_misunderstands_its_own_offer_is_asked_without() {
    let script = vec![
        GREETING,
        Step::Hear("* AUTHENTICATE PLAIN AGFubgBwYXNzIndvcmRc"),
        Step::Answer("* BAD Parse command error\r\n"),
        Step::Hear("* AUTHENTICATE PLAIN"),
        Step::Say("+ \r\n"),
        Step::Hear("AGFubgBwYXNzIndvcmRc"),
        Step::Answer("* OK [CAPABILITY IMAP4rev1] in\r\n"),
    ];
    let (outcome, heard) = login(script, "ann", None, &LoginMemory::default()).await;
    outcome.unwrap();
    assert!(heard.iter().any(|line| line.ends_with("AUTHENTICATE PLAIN")), "{heard:?}");
}

#[tokio::test]
async fn login_is_tried_where_authenticate_fails_and_remembered_where_it_works() {
    let memory = LoginMemory::default();
    let script = vec![
        BASIC,
        Step::Hear("* AUTHENTICATE PLAIN"),
        Step::Say("+ \r\n"),
        Step::Hear("AGFubgBwYXNzIndvcmRc"),
        Step::Answer("* NO [AUTHENTICATIONFAILED] no\r\n"),
        Step::Hear("* LOGIN \"ann\" \"pass\\\"word\\\\\""),
        Step::Answer("* OK [CAPABILITY IMAP4rev1] in\r\n"),
    ];
    login(script, "ann", None, &memory).await.0.unwrap();
    let script = vec![BASIC, Step::Hear("* LOGIN \"ann\""), Step::Answer("* NO wrong now\r\n")];
    let (outcome, _) = login(script, "ann", None, &memory).await;
    assert!(matches!(outcome, Err(LoginError::Refused { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_user_name_beyond_ascii_goes_as_a_literal() {
    let script = vec![
        Step::Say("* OK [CAPABILITY IMAP4rev1] hello\r\n"),
        Step::Hear("* LOGIN {4}"),
        Step::Say("+ go on\r\n"),
        Step::Hear("Zo\u{eb} \"pass\\\"word\\\\\""),
        Step::Answer("* OK [CAPABILITY IMAP4rev1] in\r\n"),
    ];
    login(script, "Zo\u{eb}", None, &LoginMemory::default()).await.0.unwrap();
}

#[tokio::test]
async fn a_refused_login_and_a_busy_server_are_told_apart() {
    let script = |answer| {
        vec![
            Step::Say("* OK [CAPABILITY IMAP4rev1] hello\r\n"),
            Step::Hear("* LOGIN"),
            Step::Answer(answer),
        ]
    };
    let memory = LoginMemory::default();
    let (outcome, _) = login(script("* NO no such user\r\n"), "ann", None, &memory).await;
    assert!(matches!(outcome, Err(LoginError::Refused { .. })), "{outcome:?}");
    let busy = "* NO [ALERT] Too many simultaneous connections. (Failure)\r\n";
    let (outcome, _) = login(script(busy), "ann", None, &memory).await;
    let Err(LoginError::Throttled { throttle, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(throttle.connections);
    let busy = "* BAD Request is throttled. Suggested Backoff Time: 5000 milliseconds\r\n";
    let (outcome, _) = login(script(busy), "ann", None, &memory).await;
    let Err(LoginError::Throttled { throttle, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(throttle.pause, Some(Duration::from_secs(5)));
}

#[tokio::test]
async fn no_login_is_given_where_the_server_takes_none() {
    let script = || vec![Step::Say("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] hello\r\n")];
    for wanted in [None, Some("login"), Some("plain"), Some("smoke")] {
        let (outcome, heard) = login(script(), "ann", wanted, &LoginMemory::default()).await;
        assert!(matches!(outcome, Err(LoginError::Settings { .. })), "{wanted:?} {outcome:?}");
        assert!(heard.is_empty(), "{heard:?}");
    }
}

#[tokio::test]
async fn an_authenticate_without_end_ends() {
    let script = vec![BASIC, Step::Hear("* AUTHENTICATE PLAIN"), Step::Flood("+ \r\n")];
    let peer = peer(script, None).await;
    let connector = plain(peer.port);
    let opened = connector.imap_open().await.unwrap();
    let (secret, memory) = (SecretString::from("secret"), LoginMemory::default());
    let login = ImapLogin {
        user: "ann",
        secret: &secret,
        kind: SecretKind::Password,
        wanted: None,
        memory: &memory,
        compress: Compress::Never,
    };
    let error = connector.imap_login(opened, login).await.unwrap_err();
    let LoginError::Net(error) = error else { panic!("{error}") };
    assert!(matches!(error.kind, NetErrorKind::Protocol | NetErrorKind::Closed), "{error}");
}

const SCRAM: Step =
    Step::Say("* OK [CAPABILITY IMAP4rev1 AUTH=SCRAM-SHA-256 AUTH=PLAIN SASL-IR] hello\r\n");

#[tokio::test]
async fn scram_comes_first_and_plain_behind_it_unless_it_is_asked_for() {
    let refused = [
        SCRAM,
        Step::Hear("* AUTHENTICATE SCRAM-SHA-256 biwsbj1hbm4scj"),
        Step::Answer("* NO no keys for this user\r\n"),
    ];
    let mut script = refused.to_vec();
    script.push(Step::Hear("* AUTHENTICATE PLAIN AGFubgBwYXNzIndvcmRc"));
    script.push(Step::Answer("* OK [CAPABILITY IMAP4rev1] in\r\n"));
    let memory = LoginMemory::default();
    login(script, "ann", None, &memory).await.0.unwrap();
    // What worked is used alone.
    let script = vec![SCRAM, Step::Hear("* AUTHENTICATE PLAIN"), Step::Answer("* NO no\r\n")];
    let (outcome, _) = login(script, "ann", None, &memory).await;
    assert!(matches!(outcome, Err(LoginError::Refused { .. })), "{outcome:?}");
    let (outcome, heard) =
        login(refused.to_vec(), "ann", Some("scram-sha-256"), &LoginMemory::default()).await;
    assert!(matches!(outcome, Err(LoginError::Refused { .. })), "{outcome:?}");
    assert_eq!(heard.len(), 1, "{heard:?}");
}

#[tokio::test]
async fn a_server_that_agrees_without_proof_is_not_believed() {
    for challenge in ["+ djFuZXc=\r\n", "+ !\r\n"] {
        let script = vec![SCRAM, Step::Hear("* AUTHENTICATE SCRAM-SHA-256"), Step::Say(challenge)];
        let (outcome, _) = login(script, "ann", None, &LoginMemory::default()).await;
        let Err(LoginError::Net(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind, NetErrorKind::Protocol, "{error}");
    }
    let script = vec![
        SCRAM,
        Step::Hear("* AUTHENTICATE SCRAM-SHA-256"),
        Step::Answer("* OK [CAPABILITY IMAP4rev1] in\r\n"),
    ];
    let (outcome, _) = login(script, "ann", None, &LoginMemory::default()).await;
    let Err(LoginError::Net(error)) = outcome else { panic!("{outcome:?}") };
    assert!(error.detail.contains("did not prove"), "{error}");
}

#[tokio::test]
async fn a_refused_token_is_acknowledged_and_told() {
    const TOKENS: Step =
        Step::Say("* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 AUTH=OAUTHBEARER SASL-IR] hello\r\n");
    // {"status":"401","schemes":"bearer","scope":"mail"}
    const WHY: Step =
        Step::Say("+ eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=\r\n");
    for (wanted, command, acknowledged) in [
        (Some("xoauth2"), Step::Hear("* AUTHENTICATE XOAUTH2 dXNlcj1hbm4B"), Step::Hear("")),
        (None, Step::Hear("* AUTHENTICATE OAUTHBEARER bixhPWFubi"), Step::Hear("AQ==")),
    ] {
        let script = vec![
            TOKENS,
            command,
            WHY,
            acknowledged,
            Step::Answer("* NO [AUTHENTICATIONFAILED] no\r\n"),
        ];
        let peer = peer(script, None).await;
        let connector = plain(peer.port);
        let opened = connector.imap_open().await.unwrap();
        let (secret, memory) = (SecretString::from("t0ken"), LoginMemory::default());
        let login = ImapLogin {
            user: "ann",
            secret: &secret,
            kind: SecretKind::Token,
            wanted,
            memory: &memory,
            compress: Compress::Never,
        };
        let outcome = connector.imap_login(opened, login).await;
        let Err(LoginError::Refused { words, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(words.contains("status 401, scope mail") && !words.contains("t0ken"), "{words}");
        let heard = peer.heard().await;
        let last = heard.last().unwrap().trim_end();
        assert_eq!(last, if wanted.is_some() { "" } else { "AQ==" });
    }
}
