//! `profile new` at a real terminal (a pseudo terminal), against Dovecot and Postfix.
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

#[path = "support/terminal.rs"]
mod terminal;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use postrider::profile::{Environment, Profile};
use realservers::{Dovecot, DovecotOptions, Postfix, PostfixOptions};
use terminal::Session;

fn start(home: &Path, arguments: &[&str]) -> Session {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm")
        .args(arguments);
    Session::start(command)
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

/// Ann's provider, and the file in which it says where its servers are.
struct Provider {
    postfix: Postfix,
    dovecot: Dovecot,
    home: tempfile::TempDir,
}

impl Provider {
    fn start() -> Self {
        let dovecot = Dovecot::start(DovecotOptions::default()).unwrap();
        let postfix = Postfix::start(&dovecot, PostfixOptions::default()).unwrap();
        let provider = Provider { postfix, dovecot, home: tempfile::tempdir().unwrap() };
        let (smtp, imap) =
            (provider.postfix.submissions_address(), provider.dovecot.imaps_address());
        let server = |tag: &str, kind: &str, place: std::net::SocketAddr| {
            format!(
                "<{tag} type=\"{kind}\"><hostname>{}</hostname><port>{}</port>\
                 <socketType>SSL</socketType><username>%EMAILLOCALPART%</username>\
                 <authentication>password-cleartext</authentication></{tag}>",
                place.ip(),
                place.port()
            )
        };
        let text = format!(
            "<clientConfig version=\"1.1\"><emailProvider id=\"x\">{}{}</emailProvider></clientConfig>",
            server("incomingServer", "imap", imap),
            server("outgoingServer", "smtp", smtp)
        );
        fs::write(provider.config(), text).unwrap();
        provider
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config-v1.1.xml")
    }

    fn authority(&self) -> String {
        self.dovecot.certificates().authority_file().display().to_string()
    }

    fn password(&self) -> String {
        self.dovecot.password_of("ann").unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(".config/postrider").join(name)
    }
}

#[test]
fn a_new_user_is_led_to_an_account_that_works() {
    let provider = Provider::start();
    let config = provider.config();
    let arguments = ["profile", "new", "home", "--autoconfig", config.to_str().unwrap()];
    let mut session = start(provider.home.path(), &arguments);
    session.answer("Your mail address", "nonsense");
    session.expect("is not an address");
    session.answer("Your mail address", "ann@example.test");
    session.answer("Your name", "Ann Example");
    session.expect("receive from");
    session.answer("Use them", "");
    session.expect("Password of ann");
    session.expect(": ");
    // What is typed can be mended and is not shown.
    session.type_in("wrong\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}not right\n");
    session.answer("Folder for your mail", "");
    // Nobody known has signed the certificates.
    session.expect("failed");
    session.answer("[certificate]", "");
    session.answer("PEM file with its authority", &provider.authority());
    session.expect("sends with");
    session.expect("failed");
    session.expect("What now");
    session.expect("[password]: ");
    session.type_in("\n");
    session.expect("Password of ann");
    session.expect(": ");
    let password = provider.password();
    session.type_in(&format!("{password}\n"));
    session.expect("ok");
    session.expect("receives from");
    session.expect("ok");
    let status = session.end();
    assert!(status.success(), "{}", session.seen);
    assert!(!session.seen.contains("not right") && !session.seen.contains(&password));
    assert_eq!(mode(&provider.file("home.toml")), 0o600);
    assert_eq!(mode(&provider.file("home.password")), 0o600);
    let text = fs::read_to_string(provider.file("home.toml")).unwrap();
    let env = Environment::empty().with("HOME", provider.home.path());
    let profile = Profile::parse("home", &text, &provider.file("home.toml"), &env).unwrap();
    assert!(profile.default && !profile.has_text_password());

    // The same name again is refused before the first question.
    let mut again = start(provider.home.path(), &["profile", "new", "home"]);
    assert_eq!(again.end().code(), Some(78));
    assert!(again.seen.contains("is there already") && !again.seen.contains("address"));
    assert_eq!(fs::read_to_string(provider.file("home.toml")).unwrap(), text);

    // A second account of the same profile.
    let arguments = ["profile", "add", "home", "--autoconfig", config.to_str().unwrap()];
    let authority = provider.authority();
    let arguments = [&arguments[..], &["--ca-file", &authority]].concat();
    let mut session = start(provider.home.path(), &arguments);
    session.answer("Your mail address", "Bob <bob@example.test>");
    session.answer("Use them", "send");
    session.expect("Password of bob");
    session.expect(": ");
    session.type_in(&format!("{}\n", provider.dovecot.password_of("bob").unwrap()));
    assert!(session.end().success(), "{}", session.seen);
    let text = fs::read_to_string(provider.file("home.toml")).unwrap();
    let profile = Profile::parse("home", &text, &provider.file("home.toml"), &env).unwrap();
    assert_eq!(profile.transports.len(), 2);
}

#[test]
fn ctrl_c_in_the_password_leaves_a_terminal_that_shows_what_is_typed() {
    use rustix::termios::{LocalModes, tcgetattr};
    let home = tempfile::tempdir().unwrap();
    let arguments = ["profile", "new", "home", "--address", "ann@example.test", "--smtp"];
    let arguments = [&arguments[..], &["smtps://ann@127.0.0.1:1"]].concat();
    let mut session = start(home.path(), &arguments);
    session.expect("Password of ann");
    session.expect(": ");
    session.type_in("secret\u{3}");
    assert_eq!(session.end().code(), Some(130), "{}", session.seen);
    let modes = tcgetattr(&session.keyboard).unwrap().local_modes;
    assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
    assert!(!session.seen.contains("secret"));
    assert!(!home.path().join(".config").exists());
}
