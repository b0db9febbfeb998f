//! Programs nobody here wrote hand over their mail: each finds this program where it looks for
//! sendmail, and its message arrives as it was meant.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    dead_code
)]

#[path = "support/desk.rs"]
mod desk;
#[path = "support/house.rs"]
mod house;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;

use desk::{Desk, assert_silent, body, field};
use program::run;
use rustix::process::Signal;

/// Proves: SP-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cron_of_debian() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mail = "From: root (Cron Daemon)\nTo: ann,bob@example.org\nSubject: Cron <root@box> job\n\
                MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n\
                Content-Transfer-Encoding: 8bit\nX-Cron-Env: <SHELL=/bin/sh>\n\n\
                Grüße\n.\n.dot\nFrom the end\n";
    let call = format!("{} -FCronDaemon -i -B8BITMIME -oem ann,bob@example.org", desk.sendmail());
    assert_silent(&desk.shell(&call, mail.as_bytes()).await);
    let sent = desk.next().await;
    // A name of this machine is the owner of the account, as sender and as recipient.
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert_eq!(sent.recipients(), ["ann@example.org", "bob@example.org"]);
    let text = sent.body.text();
    assert_eq!(field(&text, "From").as_deref(), Some("Cron Daemon <ann@example.org>"));
    assert_eq!(field(&text, "X-Original-From").as_deref(), Some("root (Cron Daemon)"));
    assert_eq!(field(&text, "Reply-To"), None);
    assert_eq!(field(&text, "To").as_deref(), Some("ann <ann@example.org>, bob@example.org"));
    assert_eq!(field(&text, "X-Cron-Env").as_deref(), Some("<SHELL=/bin/sh>"));
    assert!(field(&text, "Date").is_some() && field(&text, "Message-ID").is_some());
    assert_eq!(body(&text), "Grüße\r\n.\r\n.dot\r\nFrom the end\r\n");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cronie_and_vixie_cron() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mail = "From: root (Cron Daemon)\nTo: ann\nSubject: Cron <root@box> job\n\nout\n.\nend\n";
    for call in ["-FCronDaemon -i -odi -oem -oi -t", "-FCronDaemon -odi -oem -oi -t -f root"] {
        let call = format!("{} {call}", desk.sendmail());
        assert_silent(&desk.shell(&call, mail.as_bytes()).await);
        let sent = desk.next().await;
        assert_eq!(sent.envelope.from, "ann@example.org");
        assert_eq!(sent.recipients(), ["ann@example.org"]);
        assert_eq!(body(&sent.body.text()), "out\r\n.\r\nend\r\n");
    }
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mdadm_without_dash_i() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mail = "From: mdadm monitoring <root>\nTo: ann\nSubject: TestMessage event on /dev/md0:box\n\
                \nThis is an automatically generated mail message.\n\n.md0 : active raid1\n..\n\n\
                Faithfully yours, etc.\n";
    assert_silent(&desk.shell(&format!("{} -t", desk.sendmail()), mail.as_bytes()).await);
    let sent = desk.next().await;
    assert_eq!(sent.recipients(), ["ann@example.org"]);
    let text = sent.body.text();
    assert_eq!(field(&text, "From").as_deref(), Some("mdadm monitoring <ann@example.org>"));
    let wanted = mail.split_once("\n\n").unwrap().1.replace('\n', "\r\n");
    assert_eq!(body(&text), wanted);
    // Without -i a line with nothing but a dot is the end, and what is before it arrives.
    let mail = "To: ann\nSubject: x\n\nbefore\n.\nbehind\n";
    assert_silent(&desk.shell(&format!("{} -t", desk.sendmail()), mail.as_bytes()).await);
    assert_eq!(body(&desk.next().await.body.text()), "before\r\n");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_send_email() {
    let desk = Desk::new().await;
    desk.send_over_one_connection();
    let daemon = desk.program.daemon().await;
    let line = format!(
        "set -e; export GIT_CONFIG_NOSYSTEM=1; mkdir repo; cd repo; git=/usr/bin/git; $git init -q .; \
         $git config user.name Ann; $git config user.email ann@example.org; \
         for n in 1 2 3; do echo $n > file; $git add file; $git commit -q -m \"Step $n\"; done; \
         $git format-patch -q --root -o out; \
         $git send-email --quiet --smtp-server={} --from=ann@example.org --to=bob@example.org \
         --confirm=never --suppress-cc=all out/*",
        desk.sendmail()
    );
    let mut command = desk.tool("/bin/sh");
    command.args(["-c", &line]).current_dir(desk.program.path("."));
    let said = run(command, b"").await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    for number in 1..=3 {
        let taken = realservers::wait::until_async("the patch", house::PATIENCE, async || {
            let accepted = desk.office.accepted();
            accepted.get(number - 1).cloned()
        });
        let sent = taken.await.unwrap();
        assert_eq!(
            (&*sent.envelope.from, sent.recipients()),
            ("ann@example.org", vec!["bob@example.org"])
        );
        let text = sent.body.text();
        let subject = format!("[PATCH {number}/3] Step {number}");
        assert_eq!(field(&text, "Subject"), Some(subject), "in their order");
        assert!(body(&text).contains(&format!("\r\n+{number}\r\n")), "{text}");
    }
    assert!(desk.office.violations().is_empty());
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutt() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let settings = format!(
        "set sendmail=\"{} -oem -oi\"\nset from=ann@example.org\nset realname=Ann\n\
         set use_envelope_from=yes\nset copy=no\nset charset=utf-8\nset send_charset=utf-8\n\
         set dsn_notify=\"success,failure\"\nset dsn_return=hdrs\nset use_8bitmime=yes\n",
        desk.sendmail()
    );
    let file = desk.program.path("muttrc");
    std::fs::write(&file, settings).unwrap();
    let mut mutt = desk.tool("mutt");
    mutt.arg("-F").arg(&file).args(["-s", "from mutt", "-b", "ann@example.org", "bob@example.org"]);
    let said = run(mutt, "Grüße\n.\nend\n".as_bytes()).await;
    assert_eq!(said.code, 0, "{said:?}");
    let sent = desk.next().await;
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert_eq!(sent.recipients(), ["bob@example.org", "ann@example.org"]);
    let wish = sent.envelope.recipients[0].notify.expect("NOTIFY");
    assert!(wish.success && wish.failure && !wish.delay);
    assert_eq!(sent.envelope.parameters.ret, Some(postoffice::Ret::Headers));
    let text = sent.body.text();
    assert_eq!(field(&text, "Subject").as_deref(), Some("from mutt"));
    assert_eq!(field(&text, "Bcc"), None);
    assert_eq!(body(&text), "Grüße\r\n.\r\nend\r\n");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mailx_of_bsd() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let file = desk.program.path("mailrc");
    std::fs::write(&file, format!("set sendmail={}\n", desk.sendmail())).unwrap();
    let mut mail = desk.tool("bsd-mailx");
    // Options behind `--` are for sendmail.
    mail.env("MAILRC", &file).env("USER", "root");
    mail.args(["-s", "from mailx", "-c", "ann@example.org", "bob@example.org"]);
    let said = run(mail, "hello\nGrüße\n".as_bytes()).await;
    assert_eq!(said.code, 0, "{said:?}");
    let sent = desk.next().await;
    // It writes no From; that is the identity.
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert_eq!(sent.recipients(), ["bob@example.org", "ann@example.org"]);
    let text = sent.body.text();
    assert_eq!(field(&text, "From").as_deref(), Some("Ann Example <ann@example.org>"));
    assert_eq!(field(&text, "Subject").as_deref(), Some("from mailx"));
    assert_eq!(body(&text), "hello\r\nGrüße\r\n");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_nail() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mut mail = desk.tool("s-nail");
    mail.args(["-:/", "-S", "v15-compat", "-S", &format!("mta={}", desk.sendmail())]);
    mail.args(["-r", "ann@example.org", "-s", "from s-nail", "bob@example.org"]);
    let said = run(mail, b"hello\n.\nend\n").await;
    assert_eq!(said.code, 0, "{said:?}");
    let sent = desk.next().await;
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert_eq!(sent.recipients(), ["bob@example.org"]);
    let text = sent.body.text();
    assert_eq!(field(&text, "Subject").as_deref(), Some("from s-nail"));
    assert_eq!(body(&text), "hello\r\n.\r\nend\r\n");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_of_php() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let php = |script: &str, path: &str| {
        let mut php = desk.tool("php");
        let path = format!("sendmail_path={} {path}", desk.sendmail());
        php.args(["-n", "-d", &path, "-r", script]);
        php
    };
    // Headers with CRLF, a body with LF.
    let script = r#"exit(mail("bob@example.org", "Subject", "body\n.\nend",
        "From: ann@example.org\r\nBcc: ann@example.org") ? 0 : 1);"#;
    let said = run(php(script, "-t -i"), b"").await;
    assert_eq!(said.code, 0, "{said:?}");
    let sent = desk.next().await;
    assert_eq!(sent.envelope.from, "ann@example.org");
    assert_eq!(sent.recipients(), ["bob@example.org", "ann@example.org"]);
    let text = sent.body.text();
    assert_eq!(field(&text, "Subject").as_deref(), Some("Subject"));
    assert_eq!(field(&text, "Bcc"), None);
    assert_eq!(body(&text), "body\r\n.\r\nend\r\n");
    // The sender as an additional parameter.
    let script = r#"exit(mail("bob@example.org", "S", "x", [], "-fwww-data@localhost") ? 0 : 1);"#;
    let said = run(php(script, "-t -i"), b"").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(desk.next().await.envelope.from, "ann@example.org");
    // A failure is one.
    let script = r#"exit(@mail("nobody at all", "S", "x") ? 0 : 1);"#;
    let said = run(php(script, "-t -i"), b"").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.starts_with("postrider: cannot send: "), "{said:?}");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaks_through_a_pipe() {
    let desk = Desk::new().await;
    let daemon = desk.program.daemon().await;
    let mut swaks = desk.tool("swaks");
    swaks.args(["--pipe", &format!("{} -bs", desk.sendmail()), "--helo", "laptop"]);
    swaks.args(["--from", "ann@example.org", "--to", "bob@example.org", "--body", ".dot\nend"]);
    let said = run(swaks, b"").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("queued as "), "{said:?}");
    let sent = desk.next().await;
    assert_eq!(
        (&*sent.envelope.from, sent.recipients()),
        ("ann@example.org", vec!["bob@example.org"])
    );
    assert!(body(&sent.body.text()).starts_with(".dot\r\nend\r\n"));
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}
