//! The Internet accounts of an Outlook profile file, as the Office resource kit describes it:
//! `[Internet Account List]` names sections, each of which is an account. There are no passwords
//! in such a file.

use super::ini::{Section, sections};
use super::{Imported, ImportedAccount, Remark};
use crate::net::TlsMode;
use crate::profile::{
    IdentityProfile, NewReceiving, NewServer, Protocol, ServerUrl, host_name, parse_address,
};

/// What an account may say that means nothing here.
const SILENT: [&str; 9] = [
    "uniqueservice",
    "accounttype",
    "connectiontype",
    "connectionoid",
    "servertimeout",
    "checknewimap",
    "defaultaccount",
    "overwriteaccount",
    "rememberpassword",
];

pub(super) fn read(text: &str) -> Imported {
    let mut imported = Imported::default();
    let sections = sections(text);
    let Some(list) = sections.iter().find(|section| section.name == "internet account list") else {
        let text = "there is no [Internet Account List] in it".to_owned();
        imported.remarks.push(Remark { line: 1, text });
        return imported;
    };
    let default = sections.iter().find(|section| section.name == "general");
    let default = default.and_then(|general| general.value("defaultaccount")).unwrap_or_default();
    for entry in &list.entries {
        let Some(section) = sections.iter().find(|section| section.name == entry.key) else {
            let text = format!("{}: there is no section for it", entry.key);
            imported.remarks.push(Remark { line: entry.line, text });
            continue;
        };
        let kind = entry.value.to_ascii_lowercase();
        if let Some(mut account) = account(section, &kind, &mut imported.remarks) {
            account.first = default.eq_ignore_ascii_case(&entry.key);
            imported.accounts.push(account);
        }
    }
    for section in sections.iter().filter(|section| section.name == "service list") {
        let text = "the services of MAPI (Exchange, address books, folders) are not taken over";
        imported.remarks.push(Remark { line: section.line, text: text.to_owned() });
    }
    imported
}

fn account(section: &Section, kind: &str, remarks: &mut Vec<Remark>) -> Option<ImportedAccount> {
    let name = section.value("accountname").or(section.value("displayname"));
    let mut account = ImportedAccount::new(section.line, name.unwrap_or(&section.name));
    let mut known = vec!["accountname", "displayname", "emailaddress"];
    let remark = |line, text: String| Remark { line, text };
    if let Some(address) = section.value("emailaddress") {
        match parse_address(address) {
            Ok(address) => {
                let name = section.value("displayname").unwrap_or_default();
                let name = if name == address { "" } else { name };
                let name = name.replace(char::is_control, " ");
                account.identity = Some(IdentityProfile { name, address });
            }
            Err(_) => {
                let text = format!("EmailAddress: {} is no address", account.name);
                remarks.push(remark(section.line_of("emailaddress"), text));
            }
        }
    }
    match kind {
        "imap_i_mail" => {
            known.extend(["imapserver", "imapport", "imapusessl", "imapusername", "imapusespa"]);
            let url = incoming(section, remarks);
            account.imap = url.map(|url| NewReceiving::from(NewServer::from(url)));
        }
        "i_mail" => {
            let text =
                format!("{}: it receives by POP3, here is only IMAP; it only sends", account.name);
            remarks.push(remark(section.line, text));
        }
        _ => {
            let text = format!("{}: accounts of the kind {kind} are left out", account.name);
            remarks.push(remark(section.line, text));
            return None;
        }
    }
    known.extend([
        "smtpserver",
        "smtpport",
        "smtpusessl",
        "smtpsecureconnection",
        "smtpuseauth",
        "smtpusername",
        "smtpauthmethod",
        "smtpusespa",
    ]);
    account.smtp = outgoing(section, remarks).map(NewServer::from);
    for key in ["imapusespa", "smtpusespa"] {
        if section.value(key).is_some_and(|value| number(value) == Some(1)) {
            let text = "UseSPA: Secure Password Authentication (NTLM) is not spoken here";
            remarks.push(remark(section.line_of(key), text.to_owned()));
        }
    }
    for entry in &section.entries {
        let pop3 = entry.key.starts_with("pop3") || entry.key == "leaveonserver";
        let key = entry.key.as_str();
        if !known.contains(&key) && !SILENT.contains(&key) && !pop3 && !entry.value.is_empty() {
            let text = format!("{key}: not taken over; it has no counterpart");
            remarks.push(remark(entry.line, text));
        }
    }
    if account.smtp.is_none() && account.imap.is_none() {
        let text = format!("{}: it names no server that can be used", account.name);
        remarks.push(remark(section.line, text));
        return None;
    }
    Some(account)
}

/// A number, decimal or `0x..`.
fn number(text: &str) -> Option<u32> {
    match text.to_ascii_lowercase().strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn port(section: &Section, key: &str) -> Option<u16> {
    let number = section.value(key).and_then(number)?;
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn host(section: &Section, key: &str, remarks: &mut Vec<Remark>) -> Option<String> {
    let host = section.value(key)?;
    if host_name(host).is_err() {
        let text = format!("{key}: this cannot be the name of a host");
        remarks.push(Remark { line: section.line_of(key), text });
        return None;
    }
    Some(host.to_ascii_lowercase())
}

fn incoming(section: &Section, remarks: &mut Vec<Remark>) -> Option<ServerUrl> {
    let host = host(section, "imapserver", remarks)?;
    let port = port(section, "imapport");
    let ssl = section.value("imapusessl").and_then(number).unwrap_or(0);
    let tls = match (ssl, port) {
        (1, _) | (_, Some(993)) => TlsMode::Implicit,
        _ => TlsMode::Plain,
    };
    let user = section.value("imapusername").map(str::to_owned);
    Some(ServerUrl { protocol: Protocol::Imap, tls, user, host, port })
}

fn outgoing(section: &Section, remarks: &mut Vec<Remark>) -> Option<ServerUrl> {
    let host = host(section, "smtpserver", remarks)?;
    let port = port(section, "smtpport");
    let ssl = section.value("smtpusessl").and_then(number).unwrap_or(0);
    // 0: none, 1: SSL, 2: TLS, 3: whichever works.
    let tls = match (section.value("smtpsecureconnection").and_then(number), ssl, port) {
        (Some(1), ..) | (None, 1, None | Some(465)) => TlsMode::Implicit,
        (Some(2), ..) | (None, 1, _) => TlsMode::StartTls,
        (Some(3), _, Some(465)) => TlsMode::Implicit,
        (Some(3), ..) => TlsMode::StartTls,
        _ => TlsMode::Plain,
    };
    let logs_in = section.value("smtpuseauth").and_then(number) == Some(1);
    let same = section.value("imapusername").or(section.value("pop3username"));
    let user = section.value("smtpusername").or(same).filter(|_| logs_in).map(str::to_owned);
    let port = port.or((tls == TlsMode::Plain).then_some(25));
    Some(ServerUrl { protocol: Protocol::Smtp, tls, user, host, port })
}
