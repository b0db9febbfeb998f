#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::net::{TlsMode, Trust};
use crate::profile::{AfterProfile, sections};
use crate::transport::{AfterFetch, InDoubtPolicy, TransportSettings};

const FULL: &str = r#"
default = true
[[transport]]
name = "work"
identity = "Ann Example <ann@example.org>"
aliases = ["ann@example.net"]
  [transport.smtp]
  host = "smtp.example.org"
  port = 465
  tls = "implicit"
  user = "ann"
  password = { command = "pass show mail/ann" }
  connections = 7
  ca_file = "ca.pem"
  auth = "PLAIN"
  [transport.imap]
  host = "imap.example.org"
  tls = "starttls"
  mailboxes = ["inbox", "Archive/2026"]
  push = false
  poll_interval = "90s"
  after = { move = "Archive" }
  fingerprint = "sha256:abababababababababababababababababababababababababababababababab"
[[transport]]
name = "home"
identity = "ann@example.com"
  [transport.smtp]
  host = "::1"
  tls = "none"
  user = "ann"
  password = "text"
[store]
maildir = "$HOME/Mail"
sent = false
[queue]
lifetime = "2d"
retry = { first = "1m", factor = 3, max = "2h" }
in_doubt = "hold"
"#;

fn environment() -> Environment {
    Environment::empty().with("HOME", "/home/ann")
}

fn in_folder(text: &str, mode: u32) -> (tempfile::TempDir, Dirs) {
    let temp = tempfile::tempdir().unwrap();
    let dirs = Dirs { config: temp.path().to_owned(), state: temp.path().join("state") };
    let file = temp.path().join("work.toml");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::write(temp.path().join("ca.pem"), "").unwrap();
    (temp, dirs)
}

fn load(text: &str, mode: u32) -> Result<Profile, ProfileError> {
    let (_temp, dirs) = in_folder(text, mode);
    Profile::load(&dirs, &"work".parse().unwrap(), &environment())
}

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::parse("work", text, Path::new("/c/work.toml"), &environment())
}

#[test]
fn reads_every_key() {
    let profile = load(FULL, 0o600).unwrap();
    assert!(profile.default);
    assert_eq!(profile.store.maildir.as_deref(), Some(Path::new("/home/ann/Mail")));
    assert_eq!(profile.store.sent, crate::profile::SentProfile::Nowhere);
    assert_eq!(profile.queue.retry_factor, 3.0);
    let [work, home] = profile.transports.as_slice() else { panic!("two transports") };
    assert_eq!(work.aliases, ["ann@example.net"]);
    let smtp = work.smtp.as_ref().unwrap();
    assert_eq!(smtp.auth.as_deref(), Some("plain"));
    assert!(matches!(&smtp.server.trust, Trust::CaFile(path) if path.ends_with("ca.pem")
        && path.is_absolute()));
    let imap = work.imap.as_ref().unwrap();
    assert_eq!((imap.server.port, imap.server.tls), (143, TlsMode::StartTls));
    assert_eq!(imap.mailboxes, ["INBOX", "Archive/2026"]);
    assert_eq!(imap.after, AfterProfile::Move("Archive".into()));
    assert_eq!(imap.login.user, "ann", "taken from smtp");
    assert!(home.imap.is_none());
    assert_eq!(home.smtp.as_ref().unwrap().server.port, 25);
    assert!(!format!("{profile:?}").contains("\"text\""));
}

#[test]
fn the_transport_reads_the_same_from_the_sections() {
    let profile = load(FULL, 0o600).unwrap();
    let sections = sections(&profile);
    let work = TransportSettings::from_section(&sections[0]).unwrap();
    assert_eq!(work.identity.name, "Ann Example");
    let smtp = work.smtp.unwrap();
    assert_eq!(smtp.server, profile.transports[0].smtp.as_ref().unwrap().server);
    assert_eq!((smtp.connections, smtp.auth.as_deref()), (7, Some("plain")));
    assert_eq!(smtp.credentials.unwrap().user, "ann");
    let imap = work.imap.unwrap();
    assert_eq!(imap.server, profile.transports[0].imap.as_ref().unwrap().server);
    assert_eq!(imap.after, AfterFetch::Move("Archive".into()));
    assert_eq!(imap.poll_interval.as_secs(), 90);
    assert!(!imap.push);
    assert_eq!(work.queue.lifetime.as_secs(), 2 * 24 * 60 * 60);
    assert_eq!((work.queue.retry.first.as_secs(), work.queue.retry.factor), (60, 3.0));
    assert_eq!(work.queue.in_doubt, InDoubtPolicy::Hold);
    let home = TransportSettings::from_section(&sections[1]).unwrap();
    assert!(home.imap.is_none());
    assert_eq!(home.queue, work.queue);
}

#[test]
fn a_readable_password_is_refused() {
    for mode in [0o640, 0o604, 0o644] {
        let why = load(FULL, mode).unwrap_err();
        assert!(why.to_string().contains("chmod 600"), "{why}");
    }
    let elsewhere = FULL.replace("password = \"text\"", "password = { env = \"PW\" }");
    load(&elsewhere, 0o644).unwrap();
}

#[test]
fn errors_name_file_line_and_key() {
    let why =
        parse("[store]\nmaildir = \"~/Mail\"\nsnet = true\n[[transport]]\nname=1").unwrap_err();
    assert_eq!(why.file, Path::new("/c/work.toml"));
    assert_eq!((why.line, why.key.as_str()), (Some(5), "transport.name"));
    let text = FULL.replace("host = \"imap.example.org\"", "").replace("ca_file = \"ca.pem\"", "");
    let why = parse(&text).unwrap_err();
    assert_eq!(why.key, "transport.imap.host");
    assert_eq!(why.line, Some(16), "the line of [transport.imap]: {why}");
    let why = parse(&FULL.replace("ca_file = \"ca.pem\"", "").replace("sent =", "snet ="));
    let why = why.unwrap_err();
    assert_eq!((why.line, why.key.as_str()), (Some(34), "store.snet"));
    assert!(why.why.contains("did you mean sent?"), "{why}");
}

#[test]
fn errors_never_show_a_password() {
    for broken in ["password = \"s3cret\" x", "password = \"s3cret", "password = 's3cret\n"] {
        let text = format!("[[transport]]\n[transport.smtp]\n{broken}");
        let why = parse(&text).unwrap_err().to_string();
        assert!(!why.contains("s3cret"), "{why}");
        assert!(why.contains(":3"), "{why}");
    }
}

#[test]
fn a_missing_profile_says_how_to_make_one() {
    let (_temp, dirs) = in_folder(FULL, 0o600);
    let name = "nope".parse().unwrap();
    let why = Profile::load(&dirs, &name, &environment()).unwrap_err().to_string();
    assert!(why.contains("nope.toml") && why.contains("profile new"), "{why}");
}
