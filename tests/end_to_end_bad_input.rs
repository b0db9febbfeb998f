//! What cannot be: the right exit code, one line that says what is wrong, and nothing stored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;

use office::office;
use postoffice::{Listener, PostOffice};
use program::{Program, assert_one_line};
use serde_json::Value;

/// Submits in every way that is there: by a command of its own, and through the daemon.
async fn with_and_without_a_daemon(check: impl AsyncFn(&Program)) {
    let office = office().await;
    let program = Program::new(&office, &[]);
    check(&program).await;
    let daemon = program.daemon().await;
    check(&program).await;
    drop(daemon);
    assert_eq!(office.accepted_count(), 0);
}

async fn assert_nothing_stored(program: &Program, what: &str) {
    assert_eq!(program.json(&["queue"]).await, Value::Array(Vec::new()), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_message_may_have_is_bad_data() {
    const BOB: &str = "bob@example.org";
    let cases: &[&[&str]] = &[
        &["-t", "nobody"],
        &["-t", "two words@example.org"],
        &["-t", "@example.org"],
        &["-t", "bob@"],
        &["-t", "bob@exa mple.org"],
        &["-t", BOB, "--cc", "<<bob@example.org>"],
        &["-t", "bob@example.org\r\nBcc: eve@example.org"],
        &["-t", "bob@example.org\nRCPT TO:<eve@example.org>"],
        &["-t", "Bob\r\nX: y <bob@example.org>"],
        &["-t", BOB, "--bcc", "eve@example.org\rx@example.org"],
        &["-t", BOB, "-s", "hello\r\nBcc: eve@example.org"],
        &["-t", BOB, "-s", "hello\nX-Injected: yes"],
        &["-t", BOB, "-s", "hello\rX-Injected: yes"],
        &["-t", BOB, "-f", "ann@example.org\r\nX: y"],
        &["-t", BOB, "-f", "no address"],
        &["-t", BOB, "-f", "Ann\nX: y <ann@example.org>"],
    ];
    with_and_without_a_daemon(async |program| {
        for case in cases {
            let arguments = [&["send", "--body", "x"], *case].concat();
            let said = program.run(&arguments).await;
            assert_eq!((said.code, said.out.as_str()), (65, ""), "{case:?}: {said:?}");
            assert_one_line(&said);
            assert!(!said.err.contains('\r'), "{said:?}");
        }
        assert_nothing_stored(program, "bad data").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nul_and_what_is_no_text_is_bad_data() {
    with_and_without_a_daemon(async |program| {
        let send = ["send", "-t", "bob@example.org"];
        for body in [&b"a\0b\n"[..], b"\xff\xfe\n"] {
            let said = program.run_with(&send, body).await;
            assert_eq!((said.code, said.out.as_str()), (65, ""), "{said:?}");
            assert_one_line(&said);
        }
        let raw = ["send", "--raw", "-t", "bob@example.org"];
        for message in [
            &b"Subject: x\r\n\r\na\0b\r\n"[..],
            b"Subject: x\0\r\n\r\n",
            b"Subject: x\rBcc: eve@example.org\r\n\r\n",
        ] {
            let said = program.run_with(&raw, message).await;
            assert_eq!((said.code, said.out.as_str()), (65, ""), "{said:?}");
            assert_one_line(&said);
        }
        assert_nothing_stored(program, "NUL").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_nobody_is_wrong_usage() {
    with_and_without_a_daemon(async |program| {
        let said = program.run(&["send", "--body", "x"]).await;
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{said:?}");
        assert!(said.err.contains("MAPI_E_NO_RECIPIENTS"), "{said:?}");
        assert_one_line(&said);
        let said = program.run_with(&["send", "--raw"], b"Subject: x\r\n\r\nx\r\n").await;
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{said:?}");
        assert!(said.err.contains("MAPI_E_NO_RECIPIENTS"), "{said:?}");
        assert_nothing_stored(program, "no recipients").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_message_is_refused_for_good() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let file = program.path("large");
    std::fs::File::create(&file).unwrap().set_len(65 << 20).unwrap();
    let file = file.display().to_string();
    let said = program.run(&["send", "-t", "bob@example.org", "--body", "x", "-a", &file]).await;
    assert_eq!((said.code, said.out.as_str()), (69, ""), "{said:?}");
    assert!(said.err.contains("MAPI_E_TOO_BIG"), "{said:?}");
    assert_one_line(&said);
    assert_nothing_stored(&program, "too big").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_server_finds_too_large_comes_back() {
    let office = PostOffice::builder().user("ann", "secret").max_message_size(20_000);
    let office = office.start().await.unwrap();
    let program = Program::new(&office, &[]);
    let body = "0123456789\n".repeat(3000);
    let send = ["send", "-t", "bob@example.org", "-s", "large", "--wait"];
    let said = program.run_with(&send, body.as_bytes()).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("bob@example.org\tfailed\t"), "{said:?}");
    assert_nothing_stored(&program, "refused by the server").await;
    assert_eq!(office.accepted_count(), 0);
    assert!(office.port(Listener::Smtps) != 0);
    let inbox = std::fs::read_dir(program.maildir().join("new")).unwrap();
    assert_eq!(inbox.count(), 1, "not exactly one report");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_usage_and_a_wrong_profile_have_their_codes() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    for (arguments, code) in [
        (&["frobnicate"][..], 64),
        (&["send", "--frobnicate"], 64),
        (&["cancel"], 64),
        (&["cancel", "not-an-id"], 64),
        (&["notify", "begin-everything"], 64),
        (&["cancel", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], 1),
        (&["queue", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], 1),
        (&["export", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], 1),
        (&["notify", "begin-inbound"], 75),
        (&["--profile", "another", "queue"], 78),
        (&["--profile", "../escape", "queue"], 64),
    ] {
        let said = program.run(arguments).await;
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{arguments:?}: {said:?}");
        assert_one_line(&said);
    }
    let text = std::fs::read_to_string(program.path("config/test.toml")).unwrap();
    for (from, to, named) in [
        ("[queue]", "[queue]\nfrobnicate = 1", "frobnicate"),
        ("tls = \"implicit\"", "tls = \"maybe\"", "tls"),
        ("identity = ", "identiti = ", "identi"),
        ("port = ", "port = 1", "port"),
        ("[store]", "[store", "test.toml"),
    ] {
        program.write_profile(&text.replacen(from, to, 1));
        for command in [&["queue"][..], &["send", "-t", "bob@example.org", "--body", "x"]] {
            let said = program.run(command).await;
            assert_eq!((said.code, said.out.as_str()), (78, ""), "{to}: {said:?}");
            assert_one_line(&said);
            assert!(said.err.contains("test.toml") && said.err.contains(named), "{said:?}");
        }
    }
    program.write_profile(&text);
    assert_nothing_stored(&program, "wrong profile").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_without_authorities_is_told_what_to_install() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let smtp = "host = \"localhost\"\nport = 1\ntls = \"implicit\"";
    program.write_profile(&format!(
        "[[transport]]\nname = \"work\"\nidentity = \"ann@example.org\"\n[transport.smtp]\n{smtp}\n\
         [store]\nmaildir = {:?}\n",
        program.maildir()
    ));
    let mut command = program.command(&["profile", "check", "test"]);
    let nowhere = program.path("nowhere");
    let child = command.env("SSL_CERT_FILE", &nowhere).env("SSL_CERT_DIR", &nowhere).spawn();
    let said = program::said(child.unwrap()).await;
    assert_ne!(said.code, 0);
    let words =
        "no certificates of authorities on this system; install ca-certificates or set ca_file";
    assert!(said.out.contains(words), "{said:?}");
}
