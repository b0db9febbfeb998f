//! Every source gives its secret, or says why not without it.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use secrecy::ExposeSecret;

use super::*;

async fn ask(password: Password) -> Result<String, String> {
    let secret = password.source().secret().await;
    secret.map(|s| s.expose_secret().to_owned()).map_err(|error| error.to_string())
}

fn file(text: &str, mode: u32) -> (tempfile::TempDir, Password) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (dir, Password::File(path))
}

#[tokio::test]
async fn every_source_gives_its_secret() {
    let (_dir, from_file) = file("s3cret \r\nsecond line\n", 0o600);
    assert_eq!(ask(from_file).await.unwrap(), "s3cret ");
    assert_eq!(ask(Password::Text("plain".into())).await.unwrap(), "plain");
    assert_eq!(ask(Password::Shell("printf 'a b\\nc'".into())).await.unwrap(), "a b");
    let program = ["printf", "%s", "$HOME"].map(str::to_owned).to_vec();
    assert_eq!(ask(Password::Program(program)).await.unwrap(), "$HOME");
    let here = ask(Password::Env("CARGO_PKG_NAME".into())).await.unwrap();
    assert_eq!(here, "postrider");
}

#[tokio::test]
async fn a_file_others_can_read_is_refused() {
    for mode in [0o640, 0o604, 0o644] {
        let (_dir, password) = file("s3cret\n", mode);
        let why = ask(password).await.unwrap_err();
        assert!(why.contains("chmod 600") && !why.contains("s3cret"), "{why}");
    }
}

/// The service manager gives the user of the unit its credentials by an access control list,
/// whose mask is where the rights of the group stand.
#[tokio::test]
async fn credentials_of_the_service_manager_may_show_rights_of_the_group() {
    for (mode, allowed) in [(0o400, true), (0o440, true), (0o444, false)] {
        let (dir, _) = file("s3cret\n", mode);
        let read = read(dir.path().join("password"), Access::ServiceManager).await;
        assert_eq!(read.is_ok(), allowed, "{mode:o}");
    }
    let (_dir, own) = file("s3cret\n", 0o440);
    assert!(ask(own).await.unwrap_err().contains("chmod 600"));
}

#[tokio::test]
async fn faults_name_the_source_and_never_the_secret() {
    let (_dir, empty) = file("\nsecond\n", 0o600);
    let (_dir, long) = file(&"x".repeat(LONGEST_SECRET + 1), 0o600);
    for (password, named) in [
        (empty, "first line is empty"),
        (long, "too long"),
        (Password::File("/nonexistent/pw".into()), "/nonexistent/pw"),
        (Password::Env("POSTRIDER_NO_SUCH_VARIABLE".into()), "POSTRIDER_NO_SUCH_VARIABLE"),
        (Password::Shell("echo s3cret; echo s3cret >&2; exit 3".into()), "exit status: 3"),
        (Password::Shell("true".into()), "first line is empty"),
        (Password::Program(vec!["/nonexistent/pw".into()]), "could not be started"),
    ] {
        let why = ask(password).await.unwrap_err();
        assert!(why.contains(named), "{why}");
        let told = why.replace("`echo s3cret; echo s3cret >&2; exit 3`", "");
        assert!(!told.contains("s3cret"), "{why}");
    }
}

#[tokio::test]
async fn a_failing_command_is_quoted_without_what_it_printed() {
    let ask = |line: &str| ask(Password::Shell(line.into()));
    let why = ask("echo s3cret; echo 'no key for s3cret\tfound' >&2; exit 2").await.unwrap_err();
    assert!(why.ends_with("failed (exit status: 2): no key for *** found"), "{why}");
    let why = ask("yes complaint | head -c 1000000 >&2; exit 1").await.unwrap_err();
    assert!(why.len() < 1500, "{}", why.len());
    let why = ask("exit 1").await.unwrap_err();
    assert!(why.ends_with("run it by hand to see why"), "{why}");
    // Something that stays behind with the pipe in its hand does not hold anybody up.
    let began = Instant::now();
    let why = ask("echo gone >&2; sleep 600 >/dev/null & exit 1").await.unwrap_err();
    assert!(why.ends_with(": gone") && began.elapsed() < Duration::from_secs(30), "{why}");
    assert_eq!(ask("echo s3cret; echo careful >&2").await.unwrap(), "s3cret");
}

#[tokio::test]
async fn only_the_exit_code_and_the_first_line_count() {
    let ask = |line: &str| ask(Password::Shell(line.into()));
    assert_eq!(ask("printf 'one\r\ntwo\n'").await.unwrap(), "one");
    assert!(ask("echo s3cret; exit 1").await.is_err());
    assert!(ask("echo s3cret; kill -9 $$").await.unwrap_err().contains("signal"));
    let words = ["printf", "%s|", "a b", "$(id)", "; id"].map(str::to_owned).to_vec();
    let program = Password::Program(words).source().secret().await.unwrap();
    assert_eq!(program.expose_secret(), "a b|$(id)|; id|");
}

#[tokio::test]
async fn a_command_does_not_see_the_passwords_of_others() {
    let name = "CARGO_PKG_NAME".to_owned();
    let command = Password::Shell("printf %s \"${CARGO_PKG_NAME-hidden}\"".into());
    let told = command.source_hiding(&[name]).secret().await.unwrap();
    assert_eq!(told.expose_secret(), "hidden");
    assert_eq!(ask(command).await.unwrap(), "postrider");
}

#[tokio::test]
async fn a_hanging_command_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let line = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
    let source = CommandSource {
        words: vec!["/bin/sh".into(), "-c".into(), line],
        shown: "pass".into(),
        hidden: Vec::new(),
        deadline: Duration::from_millis(500),
    };
    let begun = Instant::now();
    let why = source.secret().await.unwrap_err().to_string();
    assert!(why.contains("`pass` gave no answer"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    while !gone() && begun.elapsed() < Duration::from_secs(30) {
        tokio::task::yield_now().await;
    }
    assert!(gone(), "the child of the command still runs");
}

#[test]
fn nothing_shows_a_password() {
    let password = Password::Text("s3cret".into());
    assert!(!format!("{password} {password:?}").contains("s3cret"));
}
