//! The program's `profile` commands, its usage errors and its exit codes, as a user meets them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs,
    dead_code,
    unreachable_pub
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A home of its own for one test.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command.env_clear().env("HOME", self.0.path()).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs and returns exit code, standard output, standard error.
    fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        told(&self.run(arguments))
    }

    fn new_profile(&self, name: &str) {
        let given = ["--address", "Ann <ann@example.org>", "--password-env", "PW"];
        let smtp = ["--smtp", "smtps://ann@smtp.example.org"];
        let arguments = [&["profile", "new", name][..], &given, &smtp].concat();
        let (code, out, err) = self.said(&arguments);
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
    }

    fn write_profile(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let folder = self.path(".config/postrider");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }
}

fn told(output: &Output) -> (i32, String, String) {
    (
        output.status.code().expect("an exit code"),
        String::from_utf8(output.stdout.clone()).unwrap(),
        String::from_utf8(output.stderr.clone()).unwrap(),
    )
}

/// A failure says one line, as this program.
fn one_line(err: &str) {
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.starts_with("postrider: ") && err.ends_with('\n'), "{err}");
}

#[test]
fn a_profile_lives_its_life() {
    let home = Home::new();
    assert_eq!(home.said(&["profile", "list", "--json"]).1, "[]\n");
    home.new_profile("work");
    home.new_profile("home");
    let file = home.path(".config/postrider/work.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, out, _) = home.said(&["profile", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list[0]["name"], "home");
    assert_eq!((&list[0]["default"], &list[1]["default"]), (&false.into(), &true.into()));
    let (code, out, _) = home.said(&["profile", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["name"]), (0, &"work".into()));
    assert_eq!(shown["transport"][0]["smtp"]["port"], 465);
    assert_eq!(home.said(&["profile", "default", "home"]).0, 0);
    assert!(home.said(&["profile", "show"]).1.contains("name = \"home\""));
    assert!(home.said(&["--profile", "work", "profile", "show"]).1.contains("name = \"work\""));
    assert_eq!(home.said(&["profile", "remove", "home"]).0, 0);
    let (code, _, err) = home.said(&["profile", "remove", "home"]);
    assert_eq!(code, 78);
    one_line(&err);
    let (code, _, err) =
        home.said(&["profile", "new", "work", "--address", "a@b.c", "--smtp", "smtp://localhost"]);
    assert_eq!(code, 78);
    assert!(err.contains("already"), "{err}");
}

#[test]
fn folders_come_from_options_then_the_environment() {
    let home = Home::new();
    let made = home
        .command(&["profile", "new", "x", "--address", "a@b.c", "--smtp", "smtp://localhost"])
        .env("POSTRIDER_CONFIG", home.path("by-env"))
        .output()
        .unwrap();
    assert!(made.status.success());
    assert!(home.path("by-env/x.toml").exists());
    let config = home.path("by-env");
    let (code, out, _) = home.said(&["profile", "show", "x", "--config", config.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(out.contains("tls = \"none\""), "{out}");
    let xdg = home
        .command(&["profile", "list"])
        .env("XDG_CONFIG_HOME", home.path("xdg"))
        .output()
        .unwrap();
    assert!(told(&xdg).2.contains("no profile yet"));
}

#[test]
fn a_text_password_is_never_shown_and_never_readable() {
    let home = Home::new();
    let text = "[[transport]]\nname = \"w\"\nidentity = \"a@b.c\"\n[transport.smtp]\n\
                host = \"h.example\"\nuser = \"u\"\npassword = \"hunter2\"\n\
                [store]\nmaildir = \"~/Mail\"\n";
    let file = home.write_profile("w", text, 0o600);
    for arguments in [
        &["profile", "show"][..],
        &["profile", "show", "--json"],
        &["profile", "list", "--json"],
        &["-vvv", "profile", "show"],
    ] {
        let (code, out, err) = home.said(arguments);
        assert_eq!(code, 0, "{err}");
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    for command in ["show", "check"] {
        let (code, _, err) = home.said(&["profile", command]);
        assert_eq!(code, 78);
        assert!(err.contains("w.toml") && err.contains("chmod 600"), "{err}");
        assert!(!err.contains("hunter2"), "{err}");
    }
}

#[test]
fn wrong_usage_is_64_in_one_line() {
    let home = Home::new();
    home.new_profile("work");
    for arguments in [
        &[][..],
        &["nonsense"],
        &["--nonsense"],
        &["cancel"],
        &["retry"],
        &["retry", "--all", "x"],
        &["notify", "begin-everything"],
        &["profile", "new", "../x"],
        &["profile", "new", ".x", "--address", "a@b.c", "--smtp", "smtp://h"],
        &["profile", "new", "y"],
        &["profile", "new", "y", "--address", "a@b.c"],
        &["profile", "new", "y", "--discover"],
        &["profile", "new", "y", "--discover", "--smtp", "smtp://h"],
        &["profile", "import"],
        &["profile", "import", "/dev/null"],
        &["profile", "new", "y", "--address", "a@b.c", "--smtp", "http://h"],
        &["profile", "new", "y", "--address", "a@b.c", "--smtp", "smtps://u:p@h"],
        &["profile", "new", "y", "--address", "a@b.c", "--imap", "imaps://h"],
        &["--profile", "a/b", "profile", "show"],
        &["send", "--body", "x"],
        &["send", "-t", "a@b.c", "--body", "x", "--at", "soon"],
        &["send", "-t", "a@b.c", "--body", "x", "--in", "soon"],
        &["send", "--raw", "-s", "x"],
        &["queue", "show"],
        &["completions", "tcl"],
    ] {
        let (code, out, err) = home.said(arguments);
        assert_eq!((code, out.as_str()), (64, ""), "{arguments:?}: {err}");
        one_line(&err);
    }
}

#[test]
fn bad_data_is_65_and_missing_files_74() {
    let home = Home::new();
    home.new_profile("work");
    for arguments in [
        &["profile", "new", "y", "--address", "nobody", "--smtp", "smtp://h"][..],
        &["send", "-t", "nobody", "--body", "x"],
        &["send", "-t", "a@b.c\r\nBcc: d@e.f", "--body", "x"],
        &["send", "-t", "a@b.c", "-f", "nobody", "--body", "x"],
        &["send", "-t", "a@b.c", "-s", "a\r\nBcc: d@e.f", "--body", "x"],
    ] {
        let (code, out, err) = home.said(arguments);
        assert_eq!((code, out.as_str()), (65, ""), "{arguments:?}: {err}");
        one_line(&err);
        assert!(err.contains("MAPI_E_INVALID_PARAMETER"), "{err}");
    }
    let mut child = home
        .command(&["send", "-t", "a@b.c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a\0b").unwrap();
    assert_eq!(told(&child.wait_with_output().unwrap()).0, 65);
    let (code, _, err) =
        home.said(&["send", "-t", "a@b.c", "--body", "x", "-a", "/nonexistent/file"]);
    assert_eq!(code, 74);
    assert!(err.contains("/nonexistent/file"), "{err}");
}

#[test]
fn without_a_usable_profile_it_is_78() {
    let home = Home::new();
    for arguments in [
        &["send", "-t", "a@b.c", "--body", "x"][..],
        &["run"],
        &["status"],
        &["profile", "show", "nope"],
        &["profile", "default", "nope"],
    ] {
        let (code, out, err) = home.said(arguments);
        assert_eq!((code, out.as_str()), (78, ""), "{arguments:?}: {err}");
        one_line(&err);
        assert!(err.contains("postrider profile"), "{err}");
    }
    let nowhere = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .env_clear()
        .args(["profile", "list"])
        .output()
        .unwrap();
    let (code, _, err) = told(&nowhere);
    assert_eq!(code, 78);
    assert!(err.contains("--config"), "{err}");
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn configurations_of_other_programs_become_profiles() {
    for (file, kind, passwords) in [
        ("msmtprc", "msmtp", 1),
        ("mbsyncrc", "mbsync", 1),
        ("fetchmailrc", "fetchmail", 1),
        ("getmailrc", "getmail", 1),
        ("outlook.prf", "prf", 0),
    ] {
        let home = Home::new();
        let file = fixture(file);
        let mut arguments = vec!["profile", "import", &file, "--name", "old"];
        if passwords == 0 {
            let (code, _, err) = home.said(&arguments);
            assert_eq!(code, 64, "{err}");
            one_line(&err);
            assert!(err.contains("--password-command"), "{err}");
            assert!(!home.path(".config").exists());
            arguments.extend(["--password-env", "PW"]);
        }
        let (code, out, err) = home.said(&arguments);
        assert_eq!(code, 0, "{kind}: {err}");
        for text in [&out, &err] {
            assert!(!text.contains("hunter2"), "{kind}: {text}");
        }
        let folder = home.path(".config/postrider");
        let written: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "password"))
            .collect();
        assert_eq!(written.len(), passwords, "{kind}");
        for file in written {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(fs::read_to_string(&file).unwrap().starts_with("hunter"), "{kind}");
        }
        let text = fs::read_to_string(folder.join("old.toml")).unwrap();
        assert!(!text.contains("hunter"), "{kind}");
        let (code, out, err) = home.said(&["profile", "show", "old"]);
        assert_eq!(code, 0, "{kind}: {err}");
        assert!(out.contains("example.org"), "{kind}: {out}");
        // What is there is never overwritten.
        let (code, _, err) = home.said(&arguments);
        assert_eq!(code, 78, "{err}");
        assert!(err.contains("already"), "{err}");
        assert_eq!(fs::read_to_string(folder.join("old.toml")).unwrap(), text);
        let (_, _, err) = home.said(&["profile", "remove", "old"]);
        assert_eq!(err.contains("its password is still in"), passwords > 0, "{kind}: {err}");
    }
}

#[test]
fn limits_of_the_provider_are_written_with_an_account() {
    let home = Home::new();
    let text = "account office\nhost smtp.office365.com\ntls on\nfrom ann@example.org\n\
                auth on\nuser ann@example.org\npasswordeval echo x\n";
    fs::write(home.path("msmtprc"), text).unwrap();
    let file = home.path("msmtprc").display().to_string();
    let (code, _, err) = home.said(&["profile", "import", &file, "--name", "office"]);
    assert_eq!(code, 0, "{err}");
    let given = ["--address", "ann@onmicrosoft.com", "--password-keyring", "ann", "--discover"];
    let (code, _, err) = home.said(&[&["profile", "new", "other"][..], &given].concat());
    assert_eq!(code, 0, "{err}");
    for name in ["office", "other"] {
        let (_, out, _) = home.said(&["profile", "show", name, "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
        let smtp = &shown["transport"][0]["smtp"];
        assert_eq!(smtp["messages_per_minute"], 28, "{name}: {shown}");
        assert_eq!(smtp["connections"], 2, "{name}: {shown}");
    }
    let (_, out, _) = home.said(&["profile", "show", "other"]);
    assert!(out.contains("keyring = \"ann\""), "{out}");
}

#[test]
fn two_halves_of_one_account_are_imported_together() {
    let home = Home::new();
    let (sends, receives) = (fixture("msmtprc"), fixture("mbsyncrc"));
    let (code, out, err) = home.said(&["profile", "import", &sends, &receives, "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["profile"], "imported");
    assert_eq!(report["transports"], serde_json::json!(["work", "side"]));
    assert!(report["remarks"].as_array().unwrap().iter().any(|one| one["line"] == 5));
    let (_, out, _) = home.said(&["profile", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    let work = &shown["transport"][0];
    assert_eq!(work["smtp"]["host"], "smtp.example.org");
    assert_eq!(work["imap"]["host"], "imap.example.org");
    assert_eq!(work["imap"]["mailboxes"], serde_json::json!(["INBOX", "Archive"]));
    assert_eq!(shown["transport"][1]["imap"], serde_json::Value::Null);
}

#[test]
fn servers_come_from_a_configuration_file() {
    let home = Home::new();
    let file = home.path("config.xml");
    let server = |tag: &str, kind: &str, host: &str, port: u16| {
        format!(
            "<{tag} type=\"{kind}\"><hostname>{host}</hostname><port>{port}</port>\
             <socketType>SSL</socketType><username>%EMAILADDRESS%</username></{tag}>"
        )
    };
    let text = format!(
        "<clientConfig><emailProvider>{}{}</emailProvider></clientConfig>",
        server("incomingServer", "imap", "imap.example.org", 993),
        server("outgoingServer", "smtp", "smtp.example.org", 465)
    );
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let given = ["--address", "Ann <ann@example.org>", "--password-env", "PW"];
    let arguments = [&["profile", "new", "home", "--autoconfig", file][..], &given].concat();
    let (code, _, err) = home.said(&arguments);
    assert_eq!(code, 0, "{err}");
    let (_, out, _) = home.said(&["profile", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["transport"][0]["smtp"]["user"], "ann@example.org");
    let given = ["--address", "ann@gmail.com", "--password-env", "PW", "--only", "send"];
    let arguments = [&["profile", "add", "home", "--discover"][..], &given].concat();
    let (code, _, err) = home.said(&arguments);
    assert_eq!(code, 0, "{err}");
    let (_, out, _) = home.said(&["profile", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["transport"][1]["name"], "gmail");
    assert_eq!(shown["transport"][1]["smtp"]["host"], "smtp.gmail.com");
    fs::write(home.path("bad.xml"), "<html/>").unwrap();
    let bad = home.path("bad.xml");
    let bad = ["profile", "new", "x", "--address", "a@b.c", "--autoconfig", bad.to_str().unwrap()];
    let (code, _, err) = home.said(&bad);
    assert_eq!(code, 65);
    one_line(&err);
    let (code, _, err) =
        home.said(&["profile", "new", "x", "--address", "a@outlook.com", "--discover"]);
    assert_eq!(code, 1);
    assert!(err.contains("OAuth2"), "{err}");
}

#[test]
fn notify_needs_a_running_session() {
    let home = Home::new();
    home.new_profile("work");
    let (code, out, err) = home.said(&["notify", "begin-inbound", "begin-outbound"]);
    assert_eq!((code, out.as_str()), (75, ""), "{err}");
    assert!(err.contains("postrider run"), "{err}");
}

#[test]
fn bad_profiles_are_told_by_file_line_and_key() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-profiles");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 50, "cases are missing");
    for folder in folders {
        let home = Home::new();
        let text = fs::read_to_string(folder.join("profile.toml")).unwrap();
        let expected = fs::read_to_string(folder.join("expected")).unwrap();
        let file = home.write_profile("profile", &text, 0o600);
        let (code, out, err) = home.said(&["profile", "show", "profile"]);
        assert_eq!((code, out.as_str()), (78, ""), "{}: {err}", folder.display());
        one_line(&err);
        let told = err.replace(&format!("{}/", file.parent().unwrap().display()), "");
        assert!(
            told.starts_with(&format!("postrider: {}", expected.trim_end())),
            "{}: expected {expected} but got {told}",
            folder.display()
        );
        assert!(!err.contains("hunter2"), "{err}");
    }
}

#[test]
fn help_version_completions_and_manual_are_there() {
    let home = Home::new();
    let (code, out, err) = home.said(&["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("notify"), "{out}");
    let (code, out, _) = home.said(&["--version"]);
    assert_eq!((code, out.as_str()), (0, concat!("postrider ", env!("CARGO_PKG_VERSION"), "\n")));
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = home.said(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(out.contains("postrider"), "{shell}");
    }
    let pages = home.path("man");
    assert_eq!(home.said(&["man", pages.to_str().unwrap()]).0, 0);
    for page in ["postrider.1", "postrider-send.1", "postrider-profile-new.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let home = Home::new();
    let mut child = home
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, err) = told(&child.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    if !Path::new("/dev/full").exists() {
        return;
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = home.command(&["completions", "bash"]).stdout(full).output().unwrap();
    let (code, _, err) = told(&output);
    assert_eq!(code, 74);
    one_line(&err);
}
