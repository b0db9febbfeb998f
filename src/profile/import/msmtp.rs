//! `~/.msmtprc`, as msmtp(1) describes it.

use std::collections::BTreeMap;

use super::text::{key_and_value, sha256, switch};
use super::{Imported, ImportedAccount, Remark};
use crate::net::TlsMode;
use crate::profile::{
    IdentityProfile, NewPassword, NewServer, Protocol, ServerUrl, host_name, parse_address,
};

/// Values by command, with their lines.
type Commands = BTreeMap<String, (usize, String)>;

pub(super) fn read(text: &str) -> Imported {
    let mut reader = Reader::default();
    for (index, line) in text.lines().enumerate() {
        if let Some((key, value)) = key_and_value(line) {
            reader.line(index + 1, &key.to_ascii_lowercase(), value);
        }
    }
    reader.end()
}

#[derive(Default)]
struct Reader {
    defaults: Commands,
    sections: Vec<Section>,
    default: Option<(usize, String)>,
    place: Place,
    remarks: Vec<Remark>,
}

struct Section {
    line: usize,
    name: String,
    commands: Commands,
}

/// Where the next command belongs.
#[derive(Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nowhere,
    Defaults,
    Section,
}

impl Reader {
    fn remark(&mut self, line: usize, text: impl Into<String>) {
        self.remarks.push(Remark { line, text: text.into() });
    }

    fn line(&mut self, line: usize, key: &str, value: &str) {
        match key {
            "defaults" => {
                // A second such section begins anew.
                self.defaults.clear();
                self.place = Place::Defaults;
            }
            "account" => self.account(line, value),
            _ => {
                let commands = match self.place {
                    Place::Defaults => Some(&mut self.defaults),
                    Place::Section => self.sections.last_mut().map(|last| &mut last.commands),
                    Place::Nowhere => None,
                };
                match commands {
                    Some(commands) => {
                        commands.insert(key.to_owned(), (line, value.to_owned()));
                    }
                    None => self.remark(line, format!("{key}: it stands before any account")),
                }
            }
        }
    }

    fn account(&mut self, line: usize, value: &str) {
        let (name, bases) = value.split_once(':').unwrap_or((value, ""));
        let name = name.trim();
        let bases: Vec<&str> =
            bases.split(',').map(str::trim).filter(|base| !base.is_empty()).collect();
        if let ("default", [base]) = (name, bases.as_slice()) {
            self.default = Some((line, (*base).to_owned()));
            // What follows belongs to an account that is a copy of another one.
            self.place = Place::Nowhere;
            return;
        }
        let mut commands = self.defaults.clone();
        for base in bases {
            match self.sections.iter().find(|section| section.name == base) {
                Some(section) => commands.extend(section.commands.clone()),
                None => self.remark(line, format!("account {name}: there is no account {base}")),
            }
        }
        self.sections.push(Section { line, name: name.to_owned(), commands });
        self.place = Place::Section;
    }

    fn end(mut self) -> Imported {
        let mut accounts = Vec::new();
        for section in std::mem::take(&mut self.sections) {
            if let Some(mut account) = self.section(section) {
                let named = self.default.as_ref().map(|(_, name)| name.as_str());
                account.first = named.unwrap_or("default") == account.name;
                accounts.push(account);
            }
        }
        // One command of the defaults is inherited by many, and told once.
        let mut told: Vec<Remark> = Vec::new();
        for remark in self.remarks {
            if !told.contains(&remark) {
                told.push(remark);
            }
        }
        Imported { accounts, remarks: told }
    }

    fn section(&mut self, section: Section) -> Option<ImportedAccount> {
        let Section { line, name, mut commands } = section;
        let mut take = |key: &str| commands.remove(key);
        let Some((host_line, host)) = take("host") else {
            self.remark(line, format!("account {name}: it names no host and is left out"));
            return None;
        };
        if host_name(&host).is_err() {
            self.remark(host_line, "host: this cannot be the name of a host");
            return None;
        }
        let on = |value: Option<(usize, String)>, default: bool| {
            value
                .map_or(default, |(_, value)| value.is_empty() || switch(&value).unwrap_or(default))
        };
        let tls = match (on(take("tls"), false), on(take("tls_starttls"), true)) {
            (false, _) => TlsMode::Plain,
            (true, true) => TlsMode::StartTls,
            (true, false) => TlsMode::Implicit,
        };
        let usual = if tls == TlsMode::Implicit { 465 } else { 25 };
        let port = take("port").and_then(|(_, port)| port.parse::<u16>().ok()).unwrap_or(usual);
        let (user, password) = (take("user"), take("password"));
        let (command, auth) = (take("passwordeval"), take("auth"));
        let url = ServerUrl { protocol: Protocol::Smtp, tls, user: None, host, port: Some(port) };
        let mut server = NewServer::from(url);
        match auth.as_ref().map(|(line, auth)| (*line, auth.to_ascii_lowercase())) {
            None => {
                if let Some((line, _)) = &user {
                    self.remark(*line, "user: there is no auth with it, so nobody logs in");
                }
            }
            Some((_, auth)) if switch(&auth) == Some(false) => {}
            Some((line, auth)) => {
                server.url.user = user.map(|(_, user)| user);
                if server.url.user.is_none() {
                    self.remark(line, "auth: there is no user with it, so nobody logs in");
                }
                // msmtp asks the command only when there is no text.
                server.password = match (password, command) {
                    (Some((_, text)), _) => Some(NewPassword::Text(text.into())),
                    (None, Some((_, command))) => Some(NewPassword::Command(command)),
                    (None, None) => None,
                };
                match auth.as_str() {
                    "plain" | "login" => server.auth = Some(auth),
                    "" | "on" => {}
                    _ => {
                        self.remark(line, format!("auth {auth}: the best that is offered is used"))
                    }
                }
            }
        }
        if let Some((_, file)) = take("tls_trust_file").filter(|(_, file)| file != "system") {
            server.ca_file = Some(file);
        }
        if let Some((line, digest)) = take("tls_fingerprint") {
            match sha256(&digest) {
                Some(digest) => (server.fingerprint, server.ca_file) = (Some(digest), None),
                None => self.remark(line, "tls_fingerprint: only SHA-256 is taken"),
            }
        }
        if let Some((line, _)) = take("tls_certcheck").filter(|(_, on)| switch(on) == Some(false)) {
            self.remark(line, "tls_certcheck off: the certificate is checked all the same");
        }
        let mut account = ImportedAccount::new(line, &name);
        if let Some((line, from)) = take("from") {
            match parse_address(&from).ok().filter(|_| !from.contains('*')) {
                Some(address) => {
                    account.identity = Some(IdentityProfile { name: String::new(), address });
                }
                None => self.remark(line, format!("from {from}: it is no address alone")),
            }
        }
        if let (Some(identity), Some((_, name))) = (&mut account.identity, take("from_full_name")) {
            identity.name = name;
        }
        for (key, (line, _)) in commands {
            let why = match key.as_str() {
                "logfile" | "logfile_time_format" | "syslog" => {
                    "`postrider trace` and the log of the daemon tell it"
                }
                "aliases" => "there are no aliases for recipients here",
                "domain" => "the name for EHLO is chosen here",
                "undisclosed_recipients"
                | "set_from_header"
                | "set_date_header"
                | "set_msgid_header"
                | "remove_bcc_headers" => "headers are completed here as RFC 6409 says",
                "dsn_notify" | "dsn_return" => "each message says it: `send --dsn`",
                "protocol"
                | "auto_from"
                | "allow_from_override"
                | "timeout"
                | "tls_priorities"
                | "tls_min_dh_prime_bits"
                | "tls_host_override"
                | "tls_crl_file"
                | "tls_key_file"
                | "tls_cert_file"
                | "proxy_host"
                | "proxy_port"
                | "source_ip"
                | "socket"
                | "ntlmdomain"
                | "maildomain"
                | "eval"
                | "keepbcc" => "it has no counterpart",
                _ => "it is not known",
            };
            self.remark(line, format!("{key}: not taken over; {why}"));
        }
        account.smtp = Some(server);
        Some(account)
    }
}
