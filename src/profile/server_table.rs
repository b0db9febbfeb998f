//! What `[transport.smtp]` and `[transport.imap]` have in common: server, trust, login.

use std::net::IpAddr;
use std::path::PathBuf;

use secrecy::SecretString;

use super::Password;
use super::load::Surroundings;
use super::reader::{Found, Item, TableReader, TextOrTable, TextOrTexts};
use super::transport_table::profile_path;
use crate::net::{ClientCertificate, Fingerprint, Server, TlsMode, Trust};

pub(super) fn read_server(
    table: &mut TableReader<'_>,
    surroundings: &Surroundings<'_>,
    default_port: fn(TlsMode) -> u16,
) -> Found<Item<Server>> {
    let Some(host) = table.text("host")? else {
        return Err(table.missing("host", "write the name of the server"));
    };
    let host = host.read(host_name)?;
    let tls_item = table.text("tls")?;
    let tls_at = tls_item.as_ref().map_or(host.at.clone(), |item| item.at.clone());
    let tls = match tls_item {
        None => TlsMode::Implicit,
        Some(item) => item.read(tls_mode)?.value,
    };
    let port = match table.number("port")? {
        None => default_port(tls),
        Some(item) => item.read(port_number)?.value,
    };
    let trust = read_trust(table, surroundings, tls)?;
    let client = read_client(table, surroundings, tls)?;
    let server = Server { host: host.value.to_owned(), port, tls, trust, client };
    Ok(Item { key: table.name("tls"), at: tls_at, value: server })
}

/// A host name or address, as it can be resolved and shown in one line.
pub(crate) fn host_name(host: &str) -> Result<&str, &'static str> {
    let is_address = host.parse::<IpAddr>().is_ok();
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = (1..=253).contains(&host.len()) && host.chars().all(fits);
    if is_address || is_name {
        Ok(host)
    } else {
        Err("it must be a host name or address alone, such as \"mail.example.org\"")
    }
}

fn tls_mode(text: &str) -> Result<TlsMode, &'static str> {
    match text {
        "implicit" => Ok(TlsMode::Implicit),
        "starttls" => Ok(TlsMode::StartTls),
        "none" => Ok(TlsMode::Plain),
        _ => Err("it must be \"implicit\", \"starttls\" or \"none\""),
    }
}

fn port_number(number: u64) -> Result<u16, &'static str> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or("it must be between 1 and 65535")
}

fn read_trust(
    table: &mut TableReader<'_>,
    surroundings: &Surroundings<'_>,
    tls: TlsMode,
) -> Found<Trust> {
    let ca_file = table.text("ca_file")?;
    let fingerprint = table.text("fingerprint")?;
    let first = ca_file.as_ref().or(fingerprint.as_ref());
    if let (Some(item), TlsMode::Plain) = (first, tls) {
        return Err(item.problem("without TLS there is no certificate to check"));
    }
    match (ca_file, fingerprint) {
        (None, None) => Ok(Trust::Platform),
        (Some(_), Some(item)) => Err(item.problem("ca_file and fingerprint exclude each other")),
        (Some(item), None) => {
            Ok(Trust::CaFile(item.read(|text| readable_file(text, surroundings))?.value))
        }
        (None, Some(item)) => Ok(Trust::Fingerprint(item.read(str::parse::<Fingerprint>)?.value)),
    }
}

/// The certificate that this side shows.
fn read_client(
    table: &mut TableReader<'_>,
    surroundings: &Surroundings<'_>,
    tls: TlsMode,
) -> Found<Option<ClientCertificate>> {
    let (certificate, key) = (table.text("client_cert")?, table.text("client_key")?);
    let first = certificate.as_ref().or(key.as_ref());
    if let (Some(item), TlsMode::Plain) = (first, tls) {
        return Err(item.problem("without TLS no certificate is shown"));
    }
    let file = |item: Item<&str>| -> Found<PathBuf> {
        Ok(item.read(|text| readable_file(text, surroundings))?.value)
    };
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (file(certificate)?, file(key)?);
            Ok(Some(ClientCertificate { certificate, key }))
        }
        (Some(item), None) => Err(item.problem("a certificate needs its key: write client_key")),
        (None, Some(item)) => Err(item.problem("a key needs its certificate: write client_cert")),
    }
}

/// A file that is there and can be read.
fn readable_file(text: &str, surroundings: &Surroundings<'_>) -> Result<PathBuf, String> {
    let path = profile_path(text, surroundings)?;
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// User and password as far as they are there.
pub(super) struct LoginParts {
    pub(super) user: Option<Item<String>>,
    pub(super) password: Option<Item<Password>>,
}

pub(super) fn read_login_parts(
    table: &mut TableReader<'_>,
    surroundings: &Surroundings<'_>,
) -> Found<LoginParts> {
    let user = table.text("user")?.map(|user| user.read(user_name)).transpose()?;
    Ok(LoginParts { user, password: read_password(table, surroundings)? })
}

fn user_name(user: &str) -> Result<String, &'static str> {
    let sensible = !user.is_empty() && user.len() <= 1000 && !user.chars().any(char::is_control);
    if sensible { Ok(user.to_owned()) } else { Err("it must not be empty or hold line ends") }
}

const PASSWORD_FORMS: &str = "it must be { command = \"..\" }, { env = \"..\" }, { file = \"..\" }, \
                              { credential = \"..\" }, { keyring = \"..\" } or a text";

fn read_password(
    table: &mut TableReader<'_>,
    surroundings: &Surroundings<'_>,
) -> Found<Option<Item<Password>>> {
    read_named_password(table, "password", surroundings)
}

/// A password, or another secret, at `key`.
pub(super) fn read_named_password(
    table: &mut TableReader<'_>,
    key: &'static str,
    surroundings: &Surroundings<'_>,
) -> Found<Option<Item<Password>>> {
    match table.text_or_table(key, PASSWORD_FORMS)? {
        None => Ok(None),
        Some(TextOrTable::Text(text)) => Ok(Some(text.read(text_password)?)),
        Some(TextOrTable::Table(place, mut inner)) => {
            let mut found: Vec<Password> = Vec::new();
            if let Some(command) = inner.text_or_texts("command")? {
                found.push(command.read(command_password)?.value);
            }
            if let Some(name) = inner.text("env")? {
                found.push(name.read(env_password)?.value);
            }
            if let Some(path) = inner.text("file")? {
                let path = path.read(|text| profile_path(text, surroundings))?;
                found.push(Password::File(path.value));
            }
            if let Some(name) = inner.text("credential")? {
                found.push(name.read(credential_password)?.value);
            }
            if let Some(name) = inner.text("keyring")? {
                found.push(name.read(keyring_password)?.value);
            }
            inner.finish()?;
            match (found.pop(), found.is_empty()) {
                (Some(password), true) => {
                    Ok(Some(Item { key: place.key, at: place.at, value: password }))
                }
                _ => Err(place.problem(
                    "it must name exactly one of command, env, file, credential and keyring",
                )),
            }
        }
    }
}

fn text_password(text: &str) -> Result<Password, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    Ok(Password::Text(SecretString::from(text)))
}

fn command_password(command: TextOrTexts<'_>) -> Result<Password, &'static str> {
    let words = match &command {
        TextOrTexts::Text(line) => std::slice::from_ref(line),
        TextOrTexts::Texts(words) => words.as_slice(),
    };
    if words.first().is_none_or(|word| word.trim().is_empty()) {
        return Err("it is empty");
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err("it contains a NUL");
    }
    Ok(match command {
        TextOrTexts::Text(line) => Password::Shell(line.to_owned()),
        TextOrTexts::Texts(words) => {
            Password::Program(words.into_iter().map(str::to_owned).collect())
        }
    })
}

fn env_password(name: &str) -> Result<Password, &'static str> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("it must be the name of an environment variable");
    }
    Ok(Password::Env(name.to_owned()))
}

fn credential_password(name: &str) -> Result<Password, &'static str> {
    // systemd.exec(5): a credential is a file of this name in one folder.
    let fits = |c: char| c.is_ascii_graphic() && c != '/';
    let sensible = (1..=255).contains(&name.len()) && name.chars().all(fits);
    if !sensible || matches!(name, "." | "..") {
        return Err("it must be the name of a credential, without a folder");
    }
    Ok(Password::Credential(name.to_owned()))
}

fn keyring_password(name: &str) -> Result<Password, &'static str> {
    if !(1..=255).contains(&name.len()) || name.chars().any(char::is_control) {
        return Err("it must be the name of an entry, 1 to 255 bytes without control characters");
    }
    Ok(Password::Keyring(name.to_owned()))
}

/// Refuses to send a password unprotected over a network, unless that is asked for in words.
pub(super) fn check_cleartext(
    table: &mut TableReader<'_>,
    server: &Item<Server>,
    has_login: bool,
) -> Found<()> {
    let insecure = table.switch("insecure")?.unwrap_or(false);
    let Server { host, tls, .. } = &server.value;
    if *tls != TlsMode::Plain || !has_login || insecure || is_loopback(host) {
        return Ok(());
    }
    Err(server.problem(
        "the password would travel readable for all; use tls = \"implicit\" or \"starttls\", or \
         write insecure = true to have it so",
    ))
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let by_address = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    by_address || host.trim_end_matches('.').eq_ignore_ascii_case("localhost")
}
