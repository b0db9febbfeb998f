//! Passwords that others keep: the keyring of the desktop (the real program asks GNOME Keyring over a
//! session bus of the test's own) and the service manager.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    unreachable_pub
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use house::{PATIENCE, profile_text};
use office::{account, office};
use postoffice::PostOffice;
use program::{Program, Said, said};
use realservers::wait;

const ENTRY: &str = "ann at the office";

/// A session bus, and the keyring at it.
struct Desktop {
    folder: tempfile::TempDir,
    bus: Child,
    address: String,
    keyring: Option<Child>,
}

impl Drop for Desktop {
    fn drop(&mut self) {
        if let Some(keyring) = &mut self.keyring {
            end(keyring);
        }
        end(&mut self.bus);
    }
}

fn end(child: &mut Child) {
    let _ended = child.kill();
    let _reaped = child.wait();
}

impl Desktop {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = folder.path().join("run");
        std::fs::create_dir(&runtime).unwrap();
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700)).unwrap();
        // Without the services of the system: nothing is started that this test does not start.
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            folder.path().join("bus").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = environment("dbus-daemon", folder.path());
        command.arg("--nofork").arg("--print-address=1").arg("--config-file").arg(&config);
        let mut bus = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim_end().to_owned();
        Desktop { folder, bus, address, keyring: None }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = environment(program, self.folder.path());
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.address);
        command
    }

    /// Starts the keyring, unlocked by its password or locked, and waits until it answers.
    fn keyring(&mut self, password: Option<&str>) {
        if let Some(mut before) = self.keyring.take() {
            end(&mut before);
        }
        let mut command = self.command("gnome-keyring-daemon");
        command.args(["--foreground", "--components=secrets"]);
        if password.is_some() {
            command.arg("--unlock");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut keyring = command.spawn().unwrap();
        let mut stdin = keyring.stdin.take().unwrap();
        stdin.write_all(password.unwrap_or_default().as_bytes()).unwrap();
        drop(stdin);
        self.keyring = Some(keyring);
        let waited = wait::until("the keyring at the bus", PATIENCE, || {
            let mut asked = self.command("dbus-send");
            asked.args(["--session", "--print-reply", "--dest=org.freedesktop.DBus", "/"]);
            asked.args(["org.freedesktop.DBus.GetNameOwner", "string:org.freedesktop.secrets"]);
            let answered = asked.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            answered.success().then_some(())
        });
        waited.unwrap();
    }

    /// Keeps a password as the documentation says.
    fn store(&self, password: &str) {
        let mut command = self.command("secret-tool");
        command.args(["store", "--label=postrider", "service", "postrider", "username", ENTRY]);
        let mut storing = command.stdin(Stdio::piped()).spawn().unwrap();
        storing.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        assert!(storing.wait().unwrap().success());
    }

    /// Has the program try its logins, at this desktop.
    async fn check(&self, program: &Program) -> Said {
        let mut command = program.command(&["-vvvvv", "profile", "check"]);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.address);
        said(command.spawn().unwrap()).await
    }
}

fn environment(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let below = |name: &str| -> PathBuf { folder.join(name) };
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", below("home"))
        .env("XDG_RUNTIME_DIR", below("run"))
        .env("XDG_DATA_HOME", below("data"));
    command
}

/// Ann's profile, whose password is elsewhere.
fn with_password(office: &PostOffice, password: &str) -> Program {
    let program = Program::new(office, &[]);
    let text = profile_text(&[account(office, &program.path("config"), &[])], &program.maildir());
    let text: Vec<&str> = text
        .lines()
        .map(|line| if line.trim().starts_with("password") { password } else { line })
        .collect();
    assert!(text.contains(&password));
    program.write_profile(&text.join("\n"));
    program
}

fn with_keyring(office: &PostOffice) -> Program {
    with_password(office, &format!("password = {{ keyring = {ENTRY:?} }}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_comes_from_the_keyring() {
    let office = office().await;
    let program = with_keyring(&office);
    let mut desktop = Desktop::start();

    let nobody = desktop.check(&program).await;
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.out.contains("no keyring answers"), "{nobody:?}");

    desktop.keyring(Some("keyring's own"));
    let missing = desktop.check(&program).await;
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.out.contains("secret-tool store --label=postrider service"), "{missing:?}");

    desktop.store("secret");
    let found = desktop.check(&program).await;
    assert_eq!(found.code, 0, "{found:?}");
    assert!(!format!("{} {}", found.out, found.err).contains("secret\""), "{found:?}");

    // A new desktop session, whose keyring nobody has unlocked.
    desktop.keyring(None);
    let locked = desktop.check(&program).await;
    assert_eq!(locked.code, 1, "{locked:?}");
    assert!(locked.out.contains("the keyring is locked"), "{locked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_desktop_the_error_says_what_to_use_instead() {
    let office = office().await;
    let program = with_keyring(&office);
    let mut command = program.command(&["profile", "check"]);
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    let said = said(command.spawn().unwrap()).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("let a command, a file or a credential hold"), "{said:?}");
}

/// `$CREDENTIALS_DIRECTORY` as systemd makes it for a unit with a user of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_has_its_password_from_the_service_manager() {
    let office = office().await;
    let program = with_password(&office, "password = { credential = \"mail\" }");
    let credentials = program.path("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("mail"), "secret\n").unwrap();
    // The mask of the access control list that lets the user of the unit read it.
    let mode = std::fs::Permissions::from_mode(0o440);
    std::fs::set_permissions(credentials.join("mail"), mode).unwrap();
    let mut command = program.command(&["profile", "check"]);
    command.env("CREDENTIALS_DIRECTORY", &credentials);
    let inside = said(command.spawn().unwrap()).await;
    assert_eq!(inside.code, 0, "{inside:?}");
    let outside = program.run(&["profile", "check"]).await;
    assert_eq!(outside.code, 1, "{outside:?}");
    assert!(outside.out.contains("LoadCredential=mail:"), "{outside:?}");
}
