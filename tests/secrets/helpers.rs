//! What other programs can see: those that are run for a password, and whoever reads `/proc`.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

use postoffice::{Listener, PostOffice};
use rustix::process::Signal;

use crate::detector::Detector;
use crate::house::{Account, Server, profile_text};
use crate::maildir::await_messages;
use crate::program::{Daemon, Program, Said};

const PASSWORD: &str = "c0rrect-h0rse-battery";

async fn office() -> PostOffice {
    PostOffice::builder().user("ann", PASSWORD).start().await.unwrap()
}

/// A profile whose servers are those of the office, with these lines for the two passwords.
fn write_profile(program: &Program, office: &PostOffice, smtp: &str, imap: &str) {
    let ca = program.path("config/ca.pem");
    let server = |listener, password: &str| {
        let server = Server::implicit(office.address(listener).unwrap(), &ca);
        server.with("user = \"ann\"").with(format!("password = {password}"))
    };
    let account = Account::new("work", "Ann <ann@example.org>")
        .smtp(server(Listener::Smtps, smtp))
        .imap(server(Listener::Imaps, imap));
    program.write_profile(&profile_text(&[account], &program.maildir()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_command_sees_no_other_password() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let (script, seen) = (program.path("password.sh"), program.path("seen"));
    // Its own surroundings and those of the program that runs it.
    let text = format!(
        "cat /proc/self/environ /proc/self/cmdline /proc/$PPID/cmdline >> {0}\n\
         for p in /proc/[0-9]*; do cat $p/cmdline; done >> {0} 2>/dev/null\n\
         cat {1}\n",
        seen.display(),
        program.path("pw").display(),
    );
    fs::write(&script, text).unwrap();
    fs::write(program.path("pw"), format!("{PASSWORD}\n")).unwrap();
    let command = format!("{{ command = [\"/bin/sh\", {:?}] }}", script.display().to_string());
    write_profile(&program, &office, "{ env = \"PW\" }", &command);
    let mut check = program.command(&["profile", "check"]);
    let said =
        crate::program::said(check.env("PW", PASSWORD).env("OTHER", "seen").spawn().unwrap());
    let said = said.await;
    assert_eq!(said.code, 0, "{said:?}");
    let seen = String::from_utf8_lossy(&fs::read(seen).unwrap()).into_owned();
    assert!(seen.contains("OTHER=seen") && seen.contains("postrider"), "{seen}");
    assert_eq!(Detector::new("ann", PASSWORD).found(&seen), [""; 0], "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_and_no_log_shows_the_password_of_the_profile() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let text = format!("{PASSWORD:?}");
    write_profile(&program, &office, &text, &text);
    let mut everything = String::new();
    let mut note = |said: &Said| write!(everything, "{} {}", said.out, said.err).unwrap();
    for arguments in [
        &["profile", "show"][..],
        &["--json", "profile", "show"],
        &["--json", "profile", "list"],
        &["-vvvvv", "profile", "check"],
        &["-vvvvv", "--json", "profile", "check"],
        &["-vvvvv", "fetch"],
        &["-vvvvv", "send", "--wait", "-t", "ann@example.org", "--body", "x"],
    ] {
        let said = program.run(arguments).await;
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        note(&said);
    }
    // The same with a password that is refused.
    office.set_password("ann", "another");
    for arguments in [
        &["-vvvvv", "profile", "check"][..],
        &["-vvvvv", "--json", "profile", "check"],
        &["-vvvvv", "fetch"],
        &["-vvvvv", "--json", "flush"],
        &["-vvvvv", "--json", "status"],
        &["-vvvvv", "--json", "queue"],
    ] {
        note(&program.run(arguments).await);
    }
    // A profile with a fault right behind the password.
    let file = program.path("config/test.toml");
    let sound = fs::read_to_string(&file).unwrap();
    for (whole, broken) in [
        (text.clone(), format!("{text} x")),
        (text.clone(), format!("{PASSWORD:?}\npassword = {PASSWORD:?}")),
        (text.clone(), format!("\"{PASSWORD}")),
        (text.clone(), format!("{{ comand = {PASSWORD:?} }}")),
        (text.clone(), format!("[{PASSWORD:?}]")),
    ] {
        program.write_profile(&sound.replace(&whole, &broken));
        let said = program.run(&["-vvvvv", "profile", "show"]).await;
        assert_eq!(said.code, 78, "{broken}: {said:?}");
        note(&said);
    }
    assert!(everything.contains("not shown") || everything.contains("in the profile"));
    assert_eq!(Detector::new("ann", PASSWORD).found(&everything), [""; 0], "{everything}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_leaves_no_core_and_no_file_that_others_can_read() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let text = format!("{PASSWORD:?}");
    write_profile(&program, &office, &text, &text);
    let daemon = unmasked_daemon(&program).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let large = "x".repeat(200) + "\n";
    let said = program
        .run_with(&["send", "-t", "held@example.org", "--in", "1h"], large.repeat(500).as_bytes())
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    program.send("to myself", "ann@example.org").await;
    await_messages(&program.maildir(), "INBOX", 1).await;
    let mut found = Vec::new();
    walk(&program.path("state"), &mut found);
    walk(&program.maildir(), &mut found);
    let open: Vec<&String> = found.iter().filter(|line| !line.starts_with("0")).collect();
    assert!(open.is_empty(), "{open:#?}");
    for part in ["control.sock", "/bodies/", "/db/db", "/lock", "Mail/new/"] {
        assert!(found.iter().any(|line| line.contains(part)), "no {part}: {found:#?}");
    }
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

/// The daemon, started where every file is open to all unless a program sees to it.
async fn unmasked_daemon(program: &Program) -> Daemon {
    let plain = program.command(&["run"]);
    let plain = plain.as_std();
    let mut command = tokio::process::Command::new("/bin/sh");
    command
        .args(["-c", "umask 000; exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear()
        .env("HOME", program.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Daemon::start(command).await
}

/// Everything below a folder, with what others may do with it in front; for a folder that is
/// closed to them what is in it does not matter less.
fn walk(path: &std::path::Path, found: &mut Vec<String>) {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::symlink_metadata(path).unwrap();
    let others = metadata.permissions().mode() & 0o077;
    found.push(format!("{others:o} {}", path.display()));
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), found));
    }
}
