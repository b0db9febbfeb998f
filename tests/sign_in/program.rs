//! The real program over a post office and a scripted authorization server.

use std::fmt::Write as _;
use std::sync::Arc;

use postoffice::{
    AuthorizationServer, Fault, Listener, PostOffice, SmtpAction, SmtpPhase, TokenFault,
};
use realservers::wait;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::detector::Detector;
use crate::helpers::{keep_tokens, rig, walk, write_profile};
use crate::house::PATIENCE;
use crate::maildir::await_messages;
use crate::program::{Program, Said, said};

/// Signs in as a person would, with a browser.
async fn sign_in(program: &Program, arguments: &[&str]) -> Said {
    let mut child = program.command(arguments).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut heard = String::new();
    let url = loop {
        let line = tokio::time::timeout(PATIENCE, err.next_line()).await.unwrap().unwrap();
        let line = line.unwrap_or_else(|| panic!("no address: {heard}"));
        writeln!(heard, "{line}").unwrap();
        if let Some(at) = line.find("http://") {
            break line[at..].to_owned();
        }
    };
    assert!(walk(&url).await.contains("You are signed in"));
    let mut rest = said(child).await;
    while let Ok(Some(line)) = err.next_line().await {
        writeln!(heard, "{line}").unwrap();
    }
    rest.err = heard;
    rest
}

/// Waits until the status of the daemon fits, and gives it with the exit code of `status`.
async fn await_status(
    program: &Program,
    what: &str,
    fits: impl Fn(&Value) -> bool,
) -> (Value, i32) {
    let waited = wait::until_async(what, PATIENCE, async || {
        let said = program.run(&["--json", "status"]).await;
        let report: Value = serde_json::from_str(&said.out).unwrap();
        fits(&report).then_some((report, said.code))
    });
    waited.await.unwrap()
}

fn work_row(report: &Value) -> &Value {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == "work").unwrap()
}

fn no_token_in(server: &AuthorizationServer, everything: &str) {
    let tokens = server.tokens();
    assert!(!tokens.is_empty());
    for token in tokens {
        assert_eq!(Detector::new("ann", &token).found(everything), [""; 0], "{everything}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sign_in_serves_both_directions_and_nothing_shows_a_token() {
    let (office, server) = rig().await;
    let program = Program::new(&office, &[]);
    let mut everything = String::new();
    write_profile(&program, &office, &server, "");
    let said = program.run(&["auth", "status"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("postrider --profile test auth login work"), "{said:?}");
    let said = program.run(&["profile", "check"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("auth login work"), "{said:?}");

    let said = sign_in(&program, &["-vvvvv", "--json", "auth", "login"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let rows: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&rows[0]["state"], &rows[0]["renewable"]), (&"signed-in".into(), &true.into()));
    write!(everything, "{} {}", said.out, said.err).unwrap();

    for mechanism in ["", "auth = \"xoauth2\"", "auth = \"oauthbearer\""] {
        write_profile(&program, &office, &server, mechanism);
        for arguments in [
            &["-vvvvv", "auth", "status"][..],
            &["-vvvvv", "--json", "profile", "show"],
            &["-vvvvv", "profile", "check"],
            &["-vvvvv", "send", "--wait", "-t", "ann@example.org", "--body", "x"],
            &["-vvvvv", "fetch"],
        ] {
            let said = program.run(arguments).await;
            assert_eq!(said.code, 0, "{mechanism} {arguments:?}: {said:?}");
            write!(everything, "{} {}", said.out, said.err).unwrap();
        }
    }
    await_messages(&program.maildir(), "INBOX", 3).await;
    let spoken = office.transcript();
    let said_by_clients = |words: &str| spoken.iter().any(|line| line.text.contains(words));
    assert!(said_by_clients("AUTH XOAUTH2") && said_by_clients("AUTH OAUTHBEARER"));
    no_token_in(&server, &everything);

    let said = program.run(&["-vvvvv", "auth", "logout"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(server.tokens().is_empty(), "the provider was told");
    assert_eq!(program.run(&["auth", "status"]).await.code, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_signs_in_too() {
    let (office, server) = rig().await;
    let program = Program::new(&office, &[]);
    write_profile(&program, &office, &server, "");
    server.script_device(&["authorization_pending"]);
    let said = program.run(&["-vvvvv", "auth", "login", "--device", "work"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("WDJB-MJHT") && said.err.contains("http://localhost/device"));
    no_token_in(&server, &format!("{} {}", said.out, said.err));
    assert_eq!(program.run(&["profile", "check"]).await.code, 0);
}

/// A daemon whose token runs out goes on by itself; when the sign-in has ended the mail waits, the
/// status says so, and a new sign-in is all it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_waits_for_a_sign_in_and_is_not_returned() {
    let (office, server) = rig().await;
    let program = Program::new(&office, &[]);
    write_profile(&program, &office, &server, "");
    keep_tokens(&program.path("state/test"), &server.grant("ann"), 120);
    let daemon = program.daemon().await;
    program.send("first", "bob@example.org").await;
    office.wait_accepted(1, PATIENCE).await.unwrap();

    // The token is taken away under the daemon: refused at the next login, renewed, sent.
    keep_tokens(&program.path("state/test"), &server.grant("ann"), 120);
    server.expire_tokens();
    office.set_token("ann", None);
    office.disconnect_all();
    program.send("second", "bob@example.org").await;
    office.wait_accepted(2, PATIENCE).await.unwrap();
    let (_, code) = await_status(&program, "all is well", |report| {
        work_row(report)["status_string"] == "ready"
    })
    .await;
    assert_eq!(code, 0);

    // Now the person ends the sign-in at the provider.
    keep_tokens(&program.path("state/test"), &server.grant("ann"), 120);
    server.revoke_all();
    office.set_token("ann", None);
    office.disconnect_all();
    let third = program.send("third", "bob@example.org").await;
    let (report, code) = await_status(&program, "sign-in is needed", |report| {
        let words = work_row(report)["status_string"].as_str().unwrap();
        // It was not tried yet, and stays so.
        words.contains("auth login work") && report["queue"]["queued"] == 1
    })
    .await;
    assert_eq!(code, 1);
    assert_eq!(report["needs_sign_in"], serde_json::json!(["work"]));
    let flags = work_row(&report)["flags"].as_array().unwrap();
    assert!(flags.contains(&"STATUS_FAILURE".into()), "{report}");
    let row = wait::until_async("the message at rest", PATIENCE, async || {
        let row = program.json(&["queue", "show", &third]).await;
        (row["state"] == "queued").then_some(row)
    });
    let row = row.await.unwrap();
    assert_eq!((&row["attempts"], &row["recipients"][0]["state"]), (&0.into(), &"pending".into()));
    assert_eq!(program.run(&["auth", "status"]).await.code, 1);

    let said = sign_in(&program, &["auth", "login"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    office.wait_accepted(3, PATIENCE).await.unwrap();
    let (report, code) = await_status(&program, "all is well again", |report| {
        work_row(report)["status_string"] == "ready"
    })
    .await;
    assert_eq!((code, report.get("needs_sign_in")), (0, None));
    // Nobody got a report of failure.
    assert!(office.accepted().iter().all(|mail| mail.envelope.from == "ann@example.org"));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

/// The server forgets the login in the middle of a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_runs_out_in_mid_session_costs_nothing() {
    let (office, server) = rig().await;
    let program = Program::new(&office, &[]);
    write_profile(&program, &office, &server, "");
    keep_tokens(&program.path("state/test"), &server.grant("ann"), 120);
    // The schedule is far off: only a renewal at once is in time.
    let patient = std::fs::read_to_string(program.path("config/test.toml")).unwrap();
    let patient = patient.replace("first = \"1s\"", "first = \"1h\"");
    program.write_profile(&patient.replace("max = \"1s\"", "max = \"1h\""));
    let words = "AccessTokenExpired; log in again";
    office.inject(Fault::smtp(SmtpPhase::Mail, SmtpAction::reply(550, "5.7.1", words)).once());
    let said = program.run(&["send", "--wait", "-t", "bob@example.org", "--body", "x"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(office.accepted().len(), 1);
    let renewals = server.requests().iter().filter(|request| request.path == "/token").count();
    assert_eq!(renewals, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_out_of_reach_is_network_trouble_and_no_end() {
    let (office, server): (Arc<PostOffice>, AuthorizationServer) = rig().await;
    let program = Program::new(&office, &[]);
    write_profile(&program, &office, &server, "");
    keep_tokens(&program.path("state/test"), &server.grant("ann"), 4000);
    for _ in 0..4 {
        server.script(TokenFault::Status(503));
    }
    let daemon = program.daemon().await;
    program.send("first", "bob@example.org").await;
    office.wait_accepted(1, PATIENCE).await.unwrap();
    let (_, code) = await_status(&program, "all is well", |report| {
        work_row(report)["status_string"] == "ready"
    })
    .await;
    assert_eq!(code, 0);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

/// From nothing, without writing a file: two accounts that sign in, one daemon for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_user_has_two_accounts_that_sign_in() {
    let office = PostOffice::builder().user("ann", "unused").user("bob", "unused");
    let office = Arc::new(office.start().await.unwrap());
    let server = AuthorizationServer::start().await.unwrap();
    let told = Arc::downgrade(&office);
    server.on_token(move |user, token| {
        if let Some(office) = told.upgrade() {
            office.set_token(user, Some(token));
        }
    });
    let program = Program::new(&office, &[]);
    std::fs::remove_file(program.path("config/test.toml")).unwrap();
    let ca = program.path("config/ca.pem").display().to_string();
    let maildir = program.maildir().display().to_string();
    let url = |scheme: &str, user: &str, listener| {
        format!("{scheme}://{user}@localhost:{}", office.port(listener))
    };
    let (auth_url, token_url) = (server.url("authorize"), server.url("token"));
    let options = |user: &str| -> Vec<String> {
        let (smtp, imap) = (Listener::Smtps, Listener::Imaps);
        [
            ("--address", format!("{user}@example.org")),
            ("--smtp", url("smtps", user, smtp)),
            ("--imap", url("imaps", user, imap)),
            ("--ca-file", ca.clone()),
            ("--client-id", "postrider".to_owned()),
            ("--auth-url", auth_url.clone()),
            ("--token-url", token_url.clone()),
            ("--scope", "mail".to_owned()),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .collect()
    };
    async fn run(program: &Program, begin: &[&str], options: &[String]) -> Said {
        let all: Vec<&str> =
            begin.iter().copied().chain(options.iter().map(String::as_str)).collect();
        program.run(&all).await
    }

    let begin = ["profile", "new", "test", "--maildir", &maildir, "--transport", "work"];
    let said = run(&program, &begin, &options("ann")).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("next: `postrider auth login` signs in"), "{said:?}");
    let begin = ["profile", "add", "test", "--transport", "club"];
    let said = run(&program, &begin, &options("bob")).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("auth login club` signs in"), "{said:?}");

    // Nothing is lost before anybody has signed in, and the status says what to do.
    let early = program.send("early", "bob@example.org").await;
    let daemon = program.daemon().await;
    let said = program.run(&["status"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("auth login work"), "{said:?}");
    let said = program.run(&["auth", "login"]).await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("which one? name one of work, club"), "{said:?}");
    for transport in ["work", "club"] {
        let said = sign_in(&program, &["auth", "login", transport]).await;
        assert_eq!(said.code, 0, "{said:?}");
    }
    assert_eq!(program.run(&["auth", "status"]).await.code, 0);
    let (_, code) = await_status(&program, "both to be ready", |report| {
        let rows = report["rows"].as_array().unwrap();
        rows.iter().all(|row| row["status_string"] == "ready")
    })
    .await;
    assert_eq!(code, 0);
    // Each account sends its own mail, and each one's mail comes in.
    let arguments = ["send", "--wait", "-f", "bob@example.org", "-t", "ann@example.org"];
    let said = program.run(&[&arguments[..], &["--body", "x"]].concat()).await;
    assert_eq!(said.code, 0, "{said:?}");
    await_messages(&program.maildir(), "INBOX", 2).await;
    let senders: Vec<String> =
        office.accepted().iter().map(|mail| mail.envelope.from.clone()).collect();
    assert_eq!(senders, ["ann@example.org", "bob@example.org"]);
    assert_eq!(program.run(&["trace", &early]).await.code, 0);
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}
