//! `~/.mbsyncrc`, as mbsync(1) describes it.

use std::collections::BTreeMap;

use super::text::words;
use super::{Imported, ImportedAccount, Remark};
use crate::net::TlsMode;
use crate::profile::{
    AfterProfile, NewPassword, NewReceiving, NewServer, Protocol, ServerUrl, host_name,
};

/// The key words that begin a section.
const SECTIONS: [&str; 5] = ["imapaccount", "imapstore", "maildirstore", "channel", "group"];

struct Section {
    line: usize,
    kind: String,
    name: String,
    keys: Vec<Key>,
}

struct Key {
    line: usize,
    name: String,
    values: Vec<String>,
}

pub(super) fn read(text: &str) -> Imported {
    let mut remarks = Vec::new();
    let sections = sections(text, &mut remarks);
    let mut accounts: BTreeMap<String, (usize, NewServer)> = BTreeMap::new();
    let mut order = Vec::new();
    for section in &sections {
        let inline = section.kind == "imapstore" && section.value("host").is_some();
        if (section.kind == "imapaccount" || inline)
            && let Some(server) = server(section, &mut remarks)
        {
            accounts.insert(section.name.clone(), (section.line, server));
            order.push(section.name.clone());
        }
    }
    // A store names its account, or is one itself.
    let mut stores: BTreeMap<&str, String> = BTreeMap::new();
    for section in sections.iter().filter(|section| section.kind == "imapstore") {
        let account = section.value("account").unwrap_or(&section.name).to_owned();
        stores.insert(&section.name, account);
        leftovers(section, &STORE_KEYS, &mut remarks);
    }
    for section in sections.iter().filter(|section| section.kind == "maildirstore") {
        let folder = section.value("inbox").or(section.value("path")).unwrap_or_default();
        let text = format!(
            "MaildirStore {}: {folder} stays with mbsync; mail is put into a Maildir of its own",
            section.name
        );
        remarks.push(Remark { line: section.line, text });
    }
    let mut mailboxes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for section in sections.iter().filter(|section| section.kind == "channel") {
        channel(section, &stores, &mut mailboxes, &mut remarks);
    }
    let taken = order.into_iter().filter_map(|name| {
        let (line, server) = accounts.remove(&name)?;
        let mut account = ImportedAccount::new(line, &name);
        let mailboxes = mailboxes.remove(&name).unwrap_or_default();
        let mut receiving = NewReceiving::from(server);
        receiving.after = AfterProfile::Keep;
        receiving.mailboxes = mailboxes;
        account.imap = Some(receiving);
        Some(account)
    });
    Imported { accounts: taken.collect(), remarks }
}

const STORE_KEYS: [&str; 16] = [
    "account",
    "host",
    "port",
    "user",
    "usercmd",
    "pass",
    "passcmd",
    "tlstype",
    "ssltype",
    "useimaps",
    "requiressl",
    "certificatefile",
    "authmechs",
    "authmech",
    "systemcertificates",
    "timeout",
];

impl Section {
    fn value(&self, name: &str) -> Option<&str> {
        let mut keys = self.keys.iter().filter(|key| key.name == name);
        keys.next_back().and_then(|key| key.values.first()).map(String::as_str)
    }

    fn line_of(&self, name: &str) -> usize {
        self.keys.iter().find(|key| key.name == name).map_or(self.line, |key| key.line)
    }
}

fn sections(text: &str, remarks: &mut Vec<Remark>) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim().is_empty() {
            // An empty line ends a section.
            open = false;
            continue;
        }
        let mut found = words(line, &[]).into_iter().map(|word| word.text);
        let Some(key) = found.next() else { continue };
        let (name, values) = (key.to_ascii_lowercase(), found.collect::<Vec<String>>());
        if SECTIONS.contains(&name.as_str()) {
            let title = values.into_iter().next().unwrap_or_default();
            sections.push(Section { line: number, kind: name, name: title, keys: Vec::new() });
            open = true;
        } else if let (true, Some(section)) = (open, sections.last_mut()) {
            section.keys.push(Key { line: number, name, values });
        } else {
            let text = format!("{key}: a setting for all of mbsync, not taken over");
            remarks.push(Remark { line: number, text });
        }
    }
    sections
}

fn server(section: &Section, remarks: &mut Vec<Remark>) -> Option<NewServer> {
    let mut remark = |line, text: String| remarks.push(Remark { line, text });
    let Some(host) = section.value("host") else {
        let what = if section.value("tunnel").is_some() { "a tunnel" } else { "no host" };
        remark(section.line, format!("{}: it has {what} and is left out", section.name));
        return None;
    };
    // Old files write imaps:host.
    let (host, by_prefix) = match host.split_once(':') {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("imaps") => (rest, true),
        _ => (host, false),
    };
    if host_name(host).is_err() {
        remark(section.line_of("host"), "Host: this cannot be the name of a host".to_owned());
        return None;
    }
    let yes =
        |key| section.value(key).is_some_and(|value| super::text::switch(value) == Some(true));
    let kind = section.value("tlstype").or(section.value("ssltype")).map(str::to_ascii_lowercase);
    let tls = match kind.as_deref() {
        Some("imaps") => TlsMode::Implicit,
        Some("none") => TlsMode::Plain,
        None if by_prefix || yes("useimaps") => TlsMode::Implicit,
        _ => TlsMode::StartTls,
    };
    let port = section.value("port").and_then(|port| port.parse::<u16>().ok());
    let user = section.value("user").map(str::to_owned);
    if user.is_none() {
        let line = section.line_of("usercmd");
        remark(line, format!("{}: it names no User; write it into the profile", section.name));
    }
    let url =
        ServerUrl { protocol: Protocol::Imap, tls, user, host: host.to_ascii_lowercase(), port };
    let mut server = NewServer::from(url);
    server.password = match (section.value("passcmd"), section.value("pass")) {
        // A plus in front asks for a terminal, which no command gets here.
        (Some(command), _) => {
            Some(NewPassword::Command(command.strip_prefix('+').unwrap_or(command).to_owned()))
        }
        (None, Some(text)) => Some(NewPassword::Text(text.to_owned().into())),
        (None, None) => None,
    };
    if section.value("certificatefile").is_some() {
        server.ca_file = section.value("certificatefile").map(str::to_owned);
    }
    if section.kind == "imapaccount" {
        leftovers(section, &STORE_KEYS, remarks);
    }
    Some(server)
}

/// Remarks about keys that nobody asked for.
fn leftovers(section: &Section, known: &[&str], remarks: &mut Vec<Remark>) {
    for key in section.keys.iter().filter(|key| !known.contains(&key.name.as_str())) {
        let text = format!("{}: not taken over; it has no counterpart", key.name);
        remarks.push(Remark { line: key.line, text });
    }
}

fn channel(
    section: &Section,
    stores: &BTreeMap<&str, String>,
    mailboxes: &mut BTreeMap<String, Vec<String>>,
    remarks: &mut Vec<Remark>,
) {
    let far = ["far", "near", "master", "slave"].iter().find_map(|side| {
        let place = section.value(side)?.strip_prefix(':')?;
        let (store, mailbox) = place.split_once(':')?;
        stores.get(store).map(|account| (account.clone(), mailbox.to_owned()))
    });
    let Some((account, mailbox)) = far else {
        let text = format!("Channel {}: no side of it is an IMAP store", section.name);
        remarks.push(Remark { line: section.line, text });
        return;
    };
    let named = mailboxes.entry(account).or_default();
    let mut add = |name: &str| {
        let name = if name.is_empty() { "INBOX" } else { name };
        if !named.iter().any(|other| other == name) {
            named.push(name.to_owned());
        }
    };
    let patterns =
        section.keys.iter().filter(|key| matches!(key.name.as_str(), "patterns" | "pattern"));
    let mut any = false;
    for key in patterns {
        any = true;
        for pattern in &key.values {
            if pattern.contains(['*', '%']) || pattern.starts_with('!') {
                let text = format!("Patterns {pattern}: name the mailboxes in the profile instead");
                remarks.push(Remark { line: key.line, text });
            } else {
                add(pattern);
            }
        }
    }
    if !any || !mailbox.is_empty() {
        add(&mailbox);
    }
    for key in &section.keys {
        let text = match key.name.as_str() {
            "far" | "near" | "master" | "slave" | "patterns" | "pattern" => continue,
            "sync" => {
                let words = key.values.join(" ");
                let pulls =
                    key.values.iter().all(|word| word.to_ascii_lowercase().starts_with("pull"));
                if pulls {
                    continue;
                }
                format!("Sync {words}: mail is only brought in; changes in the Maildir stay there")
            }
            name => format!("{name}: not taken over; it has no counterpart"),
        };
        remarks.push(Remark { line: key.line, text });
    }
}
