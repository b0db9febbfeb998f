//! `getmailrc`, as the documentation of getmail 6 describes it: one account a file.

use super::ini::{Section, sections, tuple};
use super::text::{sha256, switch};
use super::{Imported, ImportedAccount, Remark};
use crate::net::TlsMode;
use crate::profile::{
    AfterProfile, NewPassword, NewReceiving, NewServer, Protocol, ServerUrl, host_name,
};

pub(super) fn read(text: &str) -> Imported {
    let mut remarks = Vec::new();
    let sections = sections(text);
    let account = account(&sections, &mut remarks);
    Imported { accounts: account.into_iter().collect(), remarks }
}

fn account(sections: &[Section], remarks: &mut Vec<Remark>) -> Option<ImportedAccount> {
    let find = |name: &str| sections.iter().find(|section| section.name == name);
    let Some(retriever) = find("retriever") else {
        remarks.push(Remark { line: 1, text: "there is no [retriever] in it".to_owned() });
        return None;
    };
    let mut account = ImportedAccount::new(retriever.line, "getmail");
    let mut receiving = NewReceiving::from(server(retriever, remarks)?);
    if let Some(user) = &receiving.server.url.user {
        account.name = user.clone();
    }
    if let Some(mailboxes) = retriever.value("mailboxes") {
        receiving.mailboxes = tuple(mailboxes);
        if receiving.mailboxes.iter().any(|name| name == "ALL") {
            receiving.mailboxes.clear();
            let text = "mailboxes ALL: name the mailboxes in the profile; INBOX alone is written";
            remarks.push(Remark { line: retriever.line_of("mailboxes"), text: text.to_owned() });
        }
    }
    if let Some(destination) = find("destination") {
        let what = destination.value("path").or(destination.value("type")).unwrap_or_default();
        let text =
            format!("{what} stays with getmail; mail is put into the Maildir of the profile");
        remarks.push(Remark { line: destination.line, text });
    }
    if let Some(options) = find("options") {
        for entry in &options.entries {
            let on = switch(&entry.value) == Some(true);
            let text = match entry.key.as_str() {
                "delete" if on => {
                    receiving.after = AfterProfile::Delete;
                    continue;
                }
                "mark_read" if on => {
                    if receiving.after == AfterProfile::Keep {
                        receiving.after = AfterProfile::Seen;
                    }
                    continue;
                }
                "delete" | "mark_read" | "read_all" | "verbose" => continue,
                "delete_after" => {
                    "delete_after: what is fetched is kept or deleted at once, not after days"
                        .into()
                }
                key => format!("{key}: not taken over; it has no counterpart"),
            };
            remarks.push(Remark { line: entry.line, text });
        }
    }
    for section in sections.iter().filter(|section| section.name.starts_with("filter")) {
        let text = format!("[{}]: there are no filters here", section.name);
        remarks.push(Remark { line: section.line, text });
    }
    account.imap = Some(receiving);
    Some(account)
}

fn server(retriever: &Section, remarks: &mut Vec<Remark>) -> Option<NewServer> {
    let mut remark = |key: &str, text: String| {
        remarks.push(Remark { line: retriever.line_of(key), text });
    };
    let kind = retriever.value("type").unwrap_or_default();
    let lower = kind.to_ascii_lowercase();
    if !lower.contains("imap") {
        remark("type", format!("type {kind}: here is only IMAP; left out"));
        return None;
    }
    if lower.contains("multidrop") {
        remark("type", format!("type {kind}: all mail goes into one Maildir"));
    }
    let Some(host) = retriever.value("server").filter(|host| host_name(host).is_ok()) else {
        remark("server", "server: there is no host that can be used".to_owned());
        return None;
    };
    let tls = if lower.contains("ssl") { TlsMode::Implicit } else { TlsMode::Plain };
    let url = ServerUrl {
        protocol: Protocol::Imap,
        tls,
        user: retriever.value("username").map(str::to_owned),
        host: host.to_ascii_lowercase(),
        port: retriever.value("port").and_then(|port| port.parse().ok()),
    };
    let mut server = NewServer::from(url);
    server.password = match (retriever.value("password_command"), retriever.value("password")) {
        (Some(command), _) => Some(NewPassword::Command(shell_line(&tuple(command)))),
        (None, Some(text)) => Some(NewPassword::Text(text.to_owned().into())),
        (None, None) => None,
    };
    server.ca_file = retriever.value("ca_certs").map(str::to_owned);
    if let Some(digests) = retriever.value("ssl_fingerprints") {
        let found = tuple(digests);
        match found.as_slice() {
            [one] if sha256(one).is_some() => server.fingerprint = sha256(one),
            _ => remark("ssl_fingerprints", "ssl_fingerprints: one SHA-256 is taken".to_owned()),
        }
        if server.fingerprint.is_some() {
            server.ca_file = None;
        }
    }
    if retriever.value("use_xoauth2").and_then(switch) == Some(true) {
        let text = "use_xoauth2: the command gives a token; see the documentation about OAuth2";
        remark("use_xoauth2", text.to_owned());
    }
    let known = [
        "type",
        "server",
        "port",
        "username",
        "password",
        "password_command",
        "mailboxes",
        "ca_certs",
        "ssl_fingerprints",
        "use_xoauth2",
        "use_peek",
    ];
    for entry in retriever.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        let text = format!("{}: not taken over; it has no counterpart", entry.key);
        remarks.push(Remark { line: entry.line, text });
    }
    Some(server)
}

/// A program and its arguments as one line for a shell.
fn shell_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@%+=:,".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<String>>().join(" ")
}
