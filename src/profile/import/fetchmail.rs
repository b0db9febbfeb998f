//! `~/.fetchmailrc`, as fetchmail(1) describes it.

use super::text::{Word, words};
use super::{Imported, ImportedAccount, Remark};
use crate::net::TlsMode;
use crate::profile::{
    AfterProfile, NewPassword, NewReceiving, NewServer, Protocol, ServerUrl, host_name,
};

/// Words without a meaning.
const NOISE: [&str; 7] = ["and", "with", "has", "wants", "options", "here", "there"];

/// Words that begin a server entry.
const ENTRIES: [&str; 4] = ["poll", "skip", "server", "defaults"];

/// Options with a value that have no counterpart.
const VALUES: [&str; 31] = [
    "aka",
    "localdomains",
    "envelope",
    "qvirtual",
    "auth",
    "authenticate",
    "timeout",
    "interface",
    "monitor",
    "plugin",
    "plugout",
    "principal",
    "preauth",
    "sslkey",
    "sslcert",
    "sslproto",
    "sslcommonname",
    "smtphost",
    "fetchdomains",
    "smtpaddress",
    "smtpname",
    "antispam",
    "mda",
    "bsmtp",
    "preconnect",
    "postconnect",
    "limit",
    "warnings",
    "batchlimit",
    "fetchlimit",
    "expunge",
];

/// Options without a value that say nothing here.
const FLAGS: [&str; 25] = [
    "dns",
    "uidl",
    "tracepolls",
    "badheader",
    "retrieve-error",
    "fetchall",
    "rewrite",
    "stripcr",
    "forcecr",
    "pass8bits",
    "dropstatus",
    "dropdelivered",
    "mimedecode",
    "flush",
    "fetchsizelimit",
    "sslcertck",
    "checkalias",
    "limitflush",
    "envelope",
    "invisible",
    "showdots",
    "spambounce",
    "softbounce",
    "bouncemail",
    "tracepoll",
];

pub(super) fn read(text: &str) -> Imported {
    let mut reader = Reader {
        words: words(text, &[',', ';', ':', '=']),
        at: 0,
        remarks: Vec::new(),
        accounts: Vec::new(),
        interval: None,
    };
    reader.file();
    let Reader { accounts, remarks, .. } = reader;
    Imported { accounts, remarks }
}

struct Reader {
    words: Vec<Word>,
    at: usize,
    remarks: Vec<Remark>,
    accounts: Vec<ImportedAccount>,
    /// Seconds between two polls.
    interval: Option<u64>,
}

/// What is said of a server, and of its users as far as they do not say otherwise.
#[derive(Clone)]
struct Poll {
    line: usize,
    host: String,
    protocol: String,
    port: Option<u16>,
    skipped: bool,
    user: User,
}

#[derive(Clone, Default)]
struct User {
    line: usize,
    name: Option<String>,
    password: Option<NewPassword>,
    ssl: bool,
    keep: bool,
    folders: Vec<String>,
    ca_file: Option<String>,
}

impl Reader {
    fn next(&mut self) -> Option<Word> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    fn value(&mut self) -> String {
        self.next().map(|word| word.text).unwrap_or_default()
    }

    fn remark(&mut self, line: usize, text: impl Into<String>) {
        self.remarks.push(Remark { line, text: text.into() });
    }

    fn file(&mut self) {
        let empty = |line| Poll {
            line,
            host: String::new(),
            protocol: "auto".to_owned(),
            port: None,
            skipped: false,
            user: User { line, ..User::default() },
        };
        let mut defaults = empty(0);
        while let Some(word) = self.next() {
            match word.text.to_ascii_lowercase().as_str() {
                "set" => self.set(word.line),
                "defaults" => {
                    defaults = empty(word.line);
                    self.entry(&mut defaults, None);
                }
                name @ ("poll" | "skip" | "server") => {
                    let mut poll = defaults.clone();
                    (poll.line, poll.user.line) = (word.line, word.line);
                    poll.host = self.value();
                    poll.skipped = name == "skip";
                    let mut users = Vec::new();
                    self.entry(&mut poll, Some(&mut users));
                    self.take(&poll, users);
                }
                // The word itself is not repeated: where the file is wrong, it may be a password.
                _ => self.remark(word.line, "a word that belongs to no server is passed over"),
            }
        }
    }

    fn set(&mut self, line: usize) {
        let name = self.value().to_ascii_lowercase();
        match name.as_str() {
            "daemon" => self.interval = self.value().parse().ok().filter(|seconds| *seconds > 0),
            "syslog" | "invisible" | "showdots" | "bouncemail" | "spambounce" | "softbounce" => {}
            "no" => {
                let _what = self.value();
            }
            _ => {
                let _value = self.value();
            }
        }
        if name != "daemon" {
            self.remark(line, format!("set {name}: not taken over; it has no counterpart"));
        }
    }

    /// The options of a server and its users, up to the next entry.
    fn entry(&mut self, poll: &mut Poll, mut users: Option<&mut Vec<User>>) {
        // Of the user that is being described; the server's own until the first one.
        let mut described: Option<User> = None;
        while let Some(word) = self.words.get(self.at).cloned() {
            let key = word.text.to_ascii_lowercase();
            let begins = ENTRIES.contains(&key.as_str()) || key == "set";
            if begins && !word.quoted {
                break;
            }
            self.at += 1;
            let line = word.line;
            match key.as_str() {
                "user" | "username" => {
                    if let (Some(user), Some(users)) = (described.take(), users.as_deref_mut()) {
                        users.push(user);
                    }
                    let name = Some(self.value());
                    let fresh = User { line, name, ..poll.user.clone() };
                    match users.is_some() {
                        true => described = Some(fresh),
                        false => poll.user = fresh,
                    }
                }
                "proto" | "protocol" => poll.protocol = self.value().to_ascii_lowercase(),
                "via" => poll.host = self.value(),
                "port" | "service" => poll.port = self.value().parse().ok(),
                _ => {
                    let mut server = poll.user.clone();
                    let user = described.as_mut().unwrap_or(&mut server);
                    self.user_option(&key, line, user);
                    if described.is_none() {
                        poll.user = server;
                    }
                }
            }
        }
        if let (Some(user), Some(users)) = (described, users) {
            users.push(user);
        }
    }

    fn user_option(&mut self, key: &str, line: usize, user: &mut User) {
        match key {
            "pass" | "password" => user.password = Some(NewPassword::Text(self.value().into())),
            "passwordfile" => user.password = Some(NewPassword::File(self.value())),
            "no" => match self.value().to_ascii_lowercase().as_str() {
                "ssl" => user.ssl = false,
                "keep" => user.keep = false,
                _ => {}
            },
            "ssl" => user.ssl = true,
            "keep" => user.keep = true,
            "nokeep" => user.keep = false,
            "idle" => {}
            "sslcertfile" => user.ca_file = Some(self.value()),
            "sslcertpath" => {
                let _folder = self.value();
                self.remark(line, "sslcertpath: name one file with ca_file instead");
            }
            "sslfingerprint" => {
                let _digest = self.value();
                self.remark(line, "sslfingerprint: it is MD5, which proves nothing; left out");
            }
            "folder" => {
                // Several may follow, and none of them is a word of the language.
                user.folders = vec![self.value()];
                while let Some(next) = self.words.get(self.at).cloned() {
                    if next.line != line || (!next.quoted && is_keyword(&next.text)) {
                        break;
                    }
                    user.folders.push(next.text);
                    self.at += 1;
                }
            }
            "is" | "to" => {
                let local = self.value();
                let text = format!("is {local}: mail goes into the Maildir of the profile instead");
                self.remark(line, text);
            }
            "interval" => {
                let _times = self.value();
                self.remark(line, "interval: every account is polled equally often");
            }
            "mda" | "smtphost" | "bsmtp" => {
                let _what = self.value();
                let text = format!("{key}: mail goes into the Maildir of the profile instead");
                self.remark(line, text);
            }
            key if NOISE.contains(&key) => {}
            key if VALUES.contains(&key) => {
                let _value = self.value();
                self.remark(line, format!("{key}: not taken over; it has no counterpart"));
            }
            key if FLAGS.contains(&key) || FLAGS.contains(&key.trim_start_matches("no")) => {
                if matches!(key, "flush" | "limitflush") {
                    self.remark(line, format!("{key}: only what was fetched is deleted"));
                }
            }
            // Not repeated: where the file is wrong, it may be a password.
            _ => self.remark(line, "a word that is not known is passed over"),
        }
    }

    fn take(&mut self, poll: &Poll, mut users: Vec<User>) {
        if users.is_empty() {
            users.push(poll.user.clone());
        }
        let host = poll.host.to_ascii_lowercase();
        if poll.skipped {
            self.remark(poll.line, format!("skip {host}: it is left out"));
            return;
        }
        if !poll.protocol.starts_with("imap") {
            let protocol = &poll.protocol;
            let text =
                format!("poll {host}: it is fetched by {protocol}, here is only IMAP; left out");
            self.remark(poll.line, text);
            return;
        }
        if host_name(&host).is_err() {
            self.remark(poll.line, "poll: this cannot be the name of a host");
            return;
        }
        for user in users {
            let account = self.account(poll, &host, user);
            self.accounts.push(account);
        }
    }

    fn account(&mut self, poll: &Poll, host: &str, user: User) -> ImportedAccount {
        let implicit = user.ssl || poll.port == Some(993);
        // Without ssl fetchmail takes STARTTLS where it is offered; here it has to be.
        let tls = match (implicit, crate::profile::is_loopback(host)) {
            (true, _) => TlsMode::Implicit,
            (false, true) => TlsMode::Plain,
            (false, false) => TlsMode::StartTls,
        };
        let title = user.name.clone().unwrap_or_else(|| host.to_owned());
        let title = if title.contains('@') { title } else { format!("{title}@{host}") };
        let mut account = ImportedAccount::new(user.line, &title);
        let url = ServerUrl {
            protocol: Protocol::Imap,
            tls,
            user: user.name,
            host: host.to_owned(),
            port: poll.port,
        };
        let server =
            NewServer { password: user.password, ca_file: user.ca_file, ..NewServer::from(url) };
        let mut receiving = NewReceiving::from(server);
        receiving.mailboxes = user.folders;
        receiving.poll_interval = self.interval.map(|seconds| format!("{seconds}s"));
        if !user.keep {
            receiving.after = AfterProfile::Delete;
            let text = format!(
                "{title}: fetchmail deletes what it has fetched, and so does after = \"delete\""
            );
            self.remark(user.line, text);
        }
        account.imap = Some(receiving);
        account
    }
}

fn is_keyword(text: &str) -> bool {
    let key = text.to_ascii_lowercase();
    let key = key.as_str();
    let own = [
        "user",
        "username",
        "pass",
        "password",
        "passwordfile",
        "ssl",
        "keep",
        "nokeep",
        "idle",
        "sslcertfile",
        "sslcertpath",
        "sslfingerprint",
        "folder",
        "is",
        "to",
        "interval",
        "set",
        "proto",
        "protocol",
        "via",
        "port",
        "service",
        "no",
    ];
    let lists = [&own[..], &NOISE, &ENTRIES, &VALUES, &FLAGS];
    lists.iter().any(|list| list.contains(&key)) || FLAGS.contains(&key.trim_start_matches("no"))
}
