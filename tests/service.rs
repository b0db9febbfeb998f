//! The daemon as a service manager sees it: readiness, status, watchdog, reload, stop, and the socket that is
//! open before it runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    dead_code
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/office.rs"]
mod office;
#[path = "support/program.rs"]
mod program;

use std::os::fd::OwnedFd;
use std::process::Stdio;

use house::{PATIENCE, profile_text};
use maildir::{await_messages, contains};
use office::{account, office};
use program::{Daemon, Program};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixDatagram};

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(program: &Program) -> Self {
        let socket = UnixDatagram::bind(program.path("notify")).unwrap();
        Manager { socket, heard: Vec::new() }
    }

    /// Waits for a message of which one line begins so.
    async fn hear(&mut self, beginning: &str) -> String {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let mut buffer = vec![0; 4096];
                let length = self.socket.recv(&mut buffer).await.unwrap();
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                self.heard.push(text.clone());
                if let Some(line) = text.lines().find(|line| line.starts_with(beginning)) {
                    return line.to_owned();
                }
            }
        });
        waited.await.unwrap_or_else(|_| panic!("no {beginning} in {:?}", self.heard))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_manager_hears_of_everything() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let mut manager = Manager::new(&program);
    let mut command = program.command(&["run"]);
    command
        .env("NOTIFY_SOCKET", program.path("notify"))
        .env("WATCHDOG_USEC", "3000000")
        .stdout(Stdio::null());
    let daemon = Daemon::start(command).await;
    manager.hear("READY=1").await;
    // Whoever starts when it is ready finds the control socket.
    assert_eq!(program.json(&["status"]).await["pid"], daemon.pid());
    assert_eq!(manager.hear("STATUS=").await, "STATUS=nothing to send");
    manager.hear("WATCHDOG=1").await;
    manager.hear("WATCHDOG=1").await;
    let held = program.send("waits", "bob@example.org").await;
    let _sent_already = program.run(&["hold", &held]).await;
    daemon.reload();
    manager.hear("RELOADING=1").await;
    manager.hear("READY=1").await;
    let code = daemon.stop(Signal::TERM).await;
    manager.hear("STOPPING=1").await;
    assert_eq!(code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_of_the_manager_is_used_when_the_profile_names_it() {
    let office = office().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for named in [true, false] {
        let program = Program::new(&office, &[]);
        let account = account(&office, &program.path("config"), &[]);
        let text = profile_text(&[account], &program.maildir());
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let smtp = if named { address } else { other };
        program.write_profile(&format!("{text}[listen]\nsmtp = \"{smtp}\"\n"));
        // The socket comes in as standard input and is the third descriptor from then on.
        let command = program.command(&["run"]);
        let arguments: Vec<_> = command.as_std().get_args().map(|one| one.to_owned()).collect();
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let executable = command.as_std().get_program().to_owned();
        let mut shell = tokio::process::Command::new("sh");
        shell.arg("-c").arg(script).arg(executable).args(arguments);
        shell.env("HOME", program.path("")).kill_on_drop(true);
        shell.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        shell.stdout(Stdio::null()).stderr(Stdio::piped());
        // Somebody connects before there is a daemon.
        let early = TcpStream::connect(address).await.unwrap();
        let daemon = Daemon::start(shell).await;
        let said = daemon.said().join("\n");
        assert!(said.contains(&format!("listening for SMTP at {smtp}")), "{said}");
        let closed = format!("the socket of the service manager at {address} is closed");
        assert_eq!(said.contains(&closed), !named, "{said}");
        if named {
            hand_over(early).await;
            let inbox = await_messages(&program.maildir(), "INBOX", 1).await;
            assert!(contains(&inbox[0], b"handed over"));
        }
        assert_eq!(daemon.stop(Signal::TERM).await, 0);
    }
}

/// Hands over a message by SMTP.
async fn hand_over(stream: TcpStream) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut reply = async |expected: &str| loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap();
        let line = line.unwrap().expect("a reply");
        if line.as_bytes().get(3) == Some(&b' ') {
            assert!(line.starts_with(expected), "{line}");
            return;
        }
    };
    reply("220").await;
    for (command, expected) in [
        ("EHLO there", "250"),
        ("MAIL FROM:<ann@example.org>", "250"),
        ("RCPT TO:<ann@example.org>", "250"),
        ("DATA", "354"),
        ("From: ann@example.org\r\nSubject: handed over\r\n\r\nx\r\n.", "250"),
        ("QUIT", "221"),
    ] {
        write.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        reply(expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_finds_what_was_queued_without_it() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    let id = program.send("queued alone", "ann@example.org").await;
    let daemon = program.daemon().await;
    await_messages(&program.maildir(), "INBOX", 1).await;
    // It may come back before its end is recorded; the daemon does not go before that.
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
    let row = program.json(&["queue", "show", &id]).await;
    assert_eq!(row["state"], "finished");
    // And what is queued without one is sent without one.
    program.send("sent alone", "ann@example.org").await;
    let flushed = program.json(&["flush"]).await;
    assert_eq!((&flushed["sent"], &flushed["left"]), (&1.into(), &0.into()), "{flushed}");
    await_messages(&program.maildir(), "INBOX", 2).await;
}

/// The unit of the whole machine and `sendmail` agree on where things are.
#[test]
fn the_system_unit_has_the_folders_that_sendmail_knows() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let unit = read("dist/systemd/system/postrider.service");
    let known = read("src/cli/sendmail/whereabouts.rs");
    let has = |line: &str| unit.lines().any(|one| one == line);
    assert!(known.contains("SYSTEM_STATE: &str = \"/var/lib/postrider\""));
    assert!(known.contains("SYSTEM_SOCKET: &str = \"/run/postrider/submit.sock\""));
    assert!(has(
        "ExecStart=/usr/bin/postrider --config /etc/postrider --state /var/lib/postrider run"
    ));
    assert!(has("RuntimeDirectory=postrider") && has("RuntimeDirectoryMode=0755"));
    assert!(has("ConfigurationDirectoryMode=0755"));
    // In a user namespace of the unit every caller would be `nobody` in Received.
    assert!(!unit.contains("PrivateUsers"));
}
