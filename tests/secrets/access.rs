//! Who may not get in: other users, by the socket, by a folder they can change, by a link.

use std::fs::{self, Permissions, set_permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postrider::spool::{SledSpool, SpoolOptions};
use rustix::process::Signal;

use crate::office::office;
use crate::program::{Program, assert_one_line};

/// A user that is neither root nor the owner.
const STRANGER: u32 = 65_533;

/// Where the part of a stranger finds the socket.
const SOCKET_VARIABLE: &str = "POSTRIDER_TEST_SOCKET";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a stranger does: not a test by itself, it runs in a process of its own.
#[test]
fn a_stranger_asks() {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else { return };
    let answer = match UnixStream::connect(Path::new(&socket)) {
        Err(error) => format!("not connected: {:?}", error.kind()),
        Ok(mut stream) => {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let asked = stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n");
            let mut answer = [0; 1024];
            match asked.and_then(|()| stream.read(&mut answer)) {
                Ok(read) => format!("answered {:?}", String::from_utf8_lossy(&answer[..read])),
                Err(error) => format!("cut off: {:?}", error.kind()),
            }
        }
    };
    println!("<{answer}>");
}

/// Runs the part of the stranger and gives what it met.
fn ask_as(user: u32, socket: &Path) -> String {
    // The program itself may lie where a stranger has no way to.
    let output = Command::new("/proc/self/exe")
        .args(["--exact", "access::a_stranger_asks", "--nocapture"])
        .env(SOCKET_VARIABLE, socket)
        .current_dir("/")
        .uid(user)
        .gid(user)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = text.find('<').unwrap_or_else(|| panic!("{output:?}"));
    text[start + 1..text.rfind('>').unwrap()].to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_kept_out_by_the_folder_and_by_the_daemon() {
    if !is_root() {
        eprintln!("only root can be somebody else; not tried");
        return;
    }
    let office = office().await;
    let program = Program::new(&office, &[]);
    let daemon = program.daemon().await;
    let socket = program.socket();
    assert_eq!(ask_as(STRANGER, &socket), "not connected: PermissionDenied");
    // Should all the folders be opened by mistake, the daemon itself still turns them away.
    for folder in socket.ancestors().skip(1).take(3) {
        set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let met = ask_as(STRANGER, &socket);
    assert!(met == "answered \"\"" || met.starts_with("cut off"), "{met}");
    let met = ask_as(0, &socket);
    assert!(met.contains("200 OK"), "the stranger is asked wrongly: {met}");
    assert_eq!(daemon.stop(Signal::TERM).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_to_a_daemon_of_another_user() {
    if !is_root() {
        eprintln!("only root can be somebody else; not tried");
        return;
    }
    let office = office().await;
    let program = Program::new(&office, &[]);
    fs::create_dir_all(program.path("state/test")).unwrap();
    set_permissions(program.path("state"), Permissions::from_mode(0o700)).unwrap();
    set_permissions(program.path("state/test"), Permissions::from_mode(0o700)).unwrap();
    // Bound by the stranger elsewhere, moved into the way by who could.
    let place = tempfile::tempdir().unwrap();
    set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    let bound = place.path().join("s");
    let script = format!(
        "use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(Local => '{}', Listen => 5) or die; \
         print \"bound\\n\"; $| = 1; $c = $s->accept; sysread($c, $b, 1000); print \"got $b\\n\";",
        bound.display()
    );
    let mut stranger = Command::new("perl")
        .args(["-e", &script])
        .uid(STRANGER)
        .gid(STRANGER)
        .current_dir("/")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let found = realservers::wait::until_async(
        "a listening stranger",
        crate::house::PATIENCE,
        async || bound.exists().then_some(()),
    );
    found.await.unwrap();
    fs::rename(&bound, program.socket()).unwrap();
    let said = program.run_with(&["send", "-t", "bob@example.org"], b"private words\n").await;
    assert_eq!(said.code, 77, "{said:?}");
    assert!(said.err.contains("another user"), "{said:?}");
    let mut heard = String::new();
    stranger.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    stranger.wait().unwrap();
    assert!(!heard.contains("private") && !heard.contains("POST"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_and_profiles_that_others_can_change_are_refused() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    assert_eq!(program.run(&["queue"]).await.code, 0);
    let mode = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let (state, config, profile) =
        (program.path("state/test"), program.path("config"), program.path("config/test.toml"));
    for (path, open, closed, told) in [
        (&state, 0o777, 0o700, "others can write to it"),
        (&state, 0o770, 0o700, "others can write to it"),
        (&program.path("state"), 0o777, 0o700, "everybody can write to"),
        (&config, 0o777, 0o700, "everybody can write to"),
        (&profile, 0o602, 0o600, "everybody can change it"),
        (&profile, 0o640, 0o600, "others can read it"),
        (&profile, 0o604, 0o600, "others can read it"),
    ] {
        mode(path, open);
        for arguments in
            [&["queue"][..], &["run"], &["send", "-t", "bob@example.org", "--body", "x"]]
        {
            let said = program.run(arguments).await;
            assert_eq!(said.code, 78, "{} {open:o} {arguments:?}: {said:?}", path.display());
            assert!(said.err.contains(told), "{said:?}");
            assert_one_line(&said);
        }
        mode(path, closed);
    }
    if is_root() {
        for path in [&state, &program.path("state"), &config, &profile] {
            chown(path, Some(STRANGER), None).unwrap();
            let said = program.run(&["queue"]).await;
            assert_eq!(said.code, 78, "{}: {said:?}", path.display());
            assert!(said.err.contains("belongs to"), "{said:?}");
            chown(path, Some(0), None).unwrap();
        }
    }
    // What others can only read is closed without a word.
    mode(&state, 0o755);
    assert_eq!(program.run(&["queue"]).await.code, 0);
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn links_in_the_spool_are_not_followed() {
    for part in ["db", "staging", "bodies", "lock"] {
        let temp = tempfile::tempdir().unwrap();
        let (spool, elsewhere) = (temp.path().join("spool"), temp.path().join("elsewhere"));
        fs::create_dir(&spool).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, spool.join(part)).unwrap();
        let opened = SledSpool::open(&spool, SpoolOptions::default());
        assert!(opened.is_err(), "{part} was followed");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{part}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_place_of_a_body_folder_is_not_followed() {
    let office = office().await;
    let program = Program::new(&office, &[]);
    assert_eq!(program.run(&["queue"]).await.code, 0);
    let elsewhere = program.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for byte in 0..=255 {
        symlink(&elsewhere, program.path(&format!("state/test/spool/bodies/{byte:02x}"))).unwrap();
    }
    let large = ("x".repeat(78) + "\n").repeat(2000);
    let said = program.run_with(&["send", "-t", "bob@example.org"], large.as_bytes()).await;
    assert_ne!(said.code, 0, "{said:?}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}
