//! What the pages say is true: their commands run, each block from an empty home folder, against a
//! server of the test; those that would change the machine, build or reach a real
//! provider are marked as such and at least understood by the program; profiles parse, and quoted
//! error texts exist.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use postoffice::{Listener, PostOffice};

/// Why a block is not run.
const REASONS: [&str; 5] = [
    "asks questions",
    "builds this project",
    "changes the machine",
    "reaches a real provider",
    "runs tests",
];

/// In front of what asks a daemon.
const DAEMON: &str = "\
postrider profile new home --address ann@example.org --smtp smtps://ann@smtp.example.org \\
    --imap imaps://ann@imap.example.org --password-command 'pass show mail/ann' --maildir ~/Mail
postrider run &
until test -S ~/.local/state/postrider/home/control.sock; do sleep 0.1; done
";

/// A block of a page between fences.
#[derive(Debug)]
struct Block {
    page: PathBuf,
    /// Of its first line.
    line: usize,
    language: String,
    /// Of the remark in front of it.
    not_run: Option<String>,
    text: String,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{}", self.page.display(), self.line)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).unwrap();
    let (mut blocks, mut open, mut before) = (Vec::new(), None::<Block>, "");
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                let remark = before.strip_prefix("<!-- not run: ");
                open = Some(Block {
                    page: page.strip_prefix(root()).unwrap().to_owned(),
                    line: number + 2,
                    language: language.to_owned(),
                    not_run: remark.map(|rest| rest.strip_suffix(" -->").unwrap().to_owned()),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
        before = line;
    }
    assert!(open.is_none(), "{}: a fence is not closed", page.display());
    blocks
}

/// A home folder with programs in front of those of the system.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "home"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Home { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn shell(&self, script: &str) -> Output {
        let path = std::env::var("PATH").unwrap();
        Command::new("sh")
            .args(["-euc", script])
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("LANG", "C.UTF-8")
            .current_dir(self.path("home"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Runs the commands of the program as the page writes them, with the test's server behind the
/// names of the page.
fn with_server(home: &Home, office: &PostOffice) {
    let port = |listener| office.address(listener).unwrap().port();
    let ca = home.path("ca.pem");
    fs::write(&ca, office.ca_pem()).unwrap();
    let script = format!(
        r#"new=
for argument do
    shift
    argument=$(printf '%s\n' "$argument" | sed \
        -e 's|smtps://\(.*\)@smtp.example.org|smtps://\1@localhost:{smtps}|' \
        -e 's|imaps://\(.*\)@imap.example.org|imaps://\1@localhost:{imaps}|')
    case $argument in --smtp) new=yes;; esac
    set -- "$@" "$argument"
done
if test -n "$new"; then set -- "$@" --ca-file '{ca}'; fi
exec '{program}' "$@""#,
        smtps = port(Listener::Smtps),
        imaps = port(Listener::Imaps),
        ca = ca.display(),
        program = env!("CARGO_BIN_EXE_postrider"),
    );
    home.program("postrider", &script);
    home.program("pass", "echo secret");
    let home = home.path("home");
    fs::write(home.join("relay.password"), "secret\n").unwrap();
    fs::set_permissions(home.join("relay.password"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(home.join("etc")).unwrap();
    let smtp = port(Listener::Smtps);
    let imap = port(Listener::Imaps);
    let trust = ca.display();
    let msmtp = format!(
        "account home\nhost localhost\nport {smtp}\ntls on\ntls_starttls off\ntls_trust_file {trust}\n\
         auth on\nuser ann\nfrom ann@example.org\npasswordeval echo secret\n"
    );
    fs::write(home.join(".msmtprc"), msmtp).unwrap();
    let mbsync = format!(
        "IMAPAccount home\nHost localhost\nPort {imap}\nUser ann\nPassCmd \"echo secret\"\n\
         TLSType IMAPS\nCertificateFile {trust}\n\nIMAPStore far\nAccount home\n\n\
         MaildirStore near\nPath ~/Old/\nInbox ~/Old/INBOX\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns INBOX\n"
    );
    fs::write(home.join(".mbsyncrc"), mbsync).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_each_block_run() {
    let mut run = Vec::new();
    for page in pages() {
        let blocks: Vec<Block> = blocks(&page)
            .into_iter()
            .filter(|block| block.language == "sh" && block.not_run.is_none())
            .collect();
        // Two ways to do one thing stand beside each other: each begins in a home of its own.
        for block in blocks {
            let office =
                PostOffice::builder().user("ann", "secret").catch_all("ann").start().await.unwrap();
            let home = Home::new();
            with_server(&home, &office);
            let script = match block.text.contains("control.sock") {
                true => format!("{DAEMON}{}kill $!\n", block.text),
                false => block.text.clone(),
            };
            let output = tokio::task::spawn_blocking(move || home.shell(&script)).await.unwrap();
            assert!(output.status.success(), "{}: {}", block.place(), said(&output));
            run.push((block.place(), office.accepted_count()));
        }
    }
    let sending = run.iter().filter(|(_, accepted)| *accepted > 0).count();
    assert!(run.len() >= 6 && sending >= 3, "{run:?}");
}

/// The options of each command are those the program has: it reads them all, and then only says
/// that the configuration it is pointed at is not there, or what it would have done next.
#[test]
fn commands_that_are_not_run_are_understood() {
    let home = Home::new();
    home.program(
        "postrider",
        r#"for argument do printf '%s\037' "$argument"; done >>"$HOME/calls"; echo >>"$HOME/calls""#,
    );
    for stub in [
        "apt-get",
        "cargo",
        "chown",
        "curl",
        "rustup",
        "secret-tool",
        "security",
        "sendmail",
        "systemctl",
        "ln",
        "ci/test",
        "dist/build-deb",
    ] {
        let name = stub.rsplit('/').next().unwrap();
        home.program(name, "cat >/dev/null");
        if let Some((folder, name)) = stub.split_once('/') {
            let folder = home.path("home").join(folder);
            fs::create_dir_all(&folder).unwrap();
            let _ = symlink(home.path("bin").join(name), folder.join(name));
        }
    }
    let mut understood = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        let Some(reason) = &block.not_run else { continue };
        assert!(REASONS.contains(&reason.as_str()), "{}: {reason}", block.place());
        assert_eq!(block.language, "sh", "{}", block.place());
        let output = home.shell(&block.text);
        assert!(output.status.success(), "{}: {}", block.place(), said(&output));
        let calls = home.path("home").join("calls");
        for call in fs::read_to_string(&calls).unwrap_or_default().lines() {
            let arguments: Vec<&str> = call.split_terminator('\u{1f}').collect();
            let read = postrider::cli::definition().try_get_matches_from(
                std::iter::once("postrider").chain(arguments.iter().copied()),
            );
            assert!(read.is_ok(), "{}: {arguments:?}: {}", block.place(), read.unwrap_err());
            understood += 1;
        }
        let _ = fs::remove_file(calls);
    }
    assert!(understood >= 6, "only {understood}");
}

#[test]
fn profiles_on_the_pages_parse() {
    let mut whole = 0;
    for block in pages().iter().flat_map(|page| blocks(page)) {
        if block.language != "toml" {
            continue;
        }
        let table: Result<toml::Table, _> = block.text.parse();
        assert!(table.is_ok(), "{}: {:?}", block.place(), table.err());
        let table = table.unwrap();
        // What stands for a part of a profile lacks what every profile needs.
        if !(table.contains_key("transport") && table.contains_key("store")) {
            continue;
        }
        if table["transport"].is_table() {
            continue;
        }
        let home = Home::new();
        let config = home.path("home/config");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("page.toml"), &block.text).unwrap();
        let shown = home.shell(&format!(
            "'{}' --config config --profile page profile show page",
            env!("CARGO_BIN_EXE_postrider")
        ));
        assert!(shown.status.success(), "{}: {}", block.place(), said(&shown));
        whole += 1;
    }
    assert!(whole >= 1, "the page of the profile begins with a whole one");
}

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The words in the first column of the page of troubles stand in the program.
#[test]
fn quoted_errors_exist() {
    let mut text = String::new();
    sources(&root().join("src"), &mut text);
    // A text may go on in the next line of the source.
    let mut flat = String::new();
    for part in text.split("\\\n") {
        flat.push_str(if flat.is_empty() { part } else { part.trim_start() });
    }
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let quoted: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(words, _)| words)
        .collect();
    assert!(quoted.len() >= 20, "{quoted:?}");
    for words in quoted {
        let code = words.strip_prefix("MAPI_E_");
        let is_there = flat.contains(words) || code.is_some_and(|name| flat.contains(name));
        assert!(is_there, "docs/troubleshooting.md: nothing says {words:?}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let slug = |heading: &str| -> String {
        heading
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_')
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            if !part.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let found =
                    text.lines().filter(|line| line.starts_with('#')).any(|l| slug(l) == part);
                assert!(found, "{}: {link}", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 20, "only {links}");
}
