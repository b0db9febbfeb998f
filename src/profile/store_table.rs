//! `[store]`: where received mail, reports and sent copies go.

use std::path::PathBuf;
use std::time::Duration;

use super::address::parse_address;
use super::load::{Surroundings, parse_duration};
use super::reader::{Found, Item, SwitchOrText, TableReader, TextOrTexts};
use super::server_table::is_loopback;
use super::{Environment, HandProfile, ReceiverProfile, SentProfile, StoreProfile};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const DEFAULT_CONNECTIONS: u64 = 4;

/// `first_address` is whose mail it is when the table does not say.
pub(super) fn read_store(
    mut table: TableReader<'_>,
    first_address: &str,
    has_imap: bool,
    surroundings: &Surroundings<'_>,
) -> Found<StoreProfile> {
    let receiver = read_receiver(&mut table)?;
    let hand =
        receiver.map(|receiver| read_hand(&mut table, receiver, first_address)).transpose()?;
    let maildir = table.text("maildir")?;
    let maildir = maildir
        .map(|item| item.read(|text| absolute(text, surroundings.environment)))
        .transpose()?
        .map(|item| item.value);
    if maildir.is_none() && hand.is_none() {
        return Err(table.missing("maildir", "write maildir = \"~/Mail\""));
    }
    let sent = match (read_sent(&mut table, has_imap)?, &maildir) {
        (Some(SentProfile::Maildir), None) => {
            return Err(table.missing("maildir", "sent copies are kept in a Maildir"));
        }
        (Some(sent), _) => sent,
        (None, Some(_)) => SentProfile::Maildir,
        (None, None) => SentProfile::Nowhere,
    };
    if maildir.is_some() && hand.is_some() && sent == SentProfile::Nowhere {
        return Err(table.problem(
            "the maildir would hold nothing: received mail is handed over, and sent = false",
        ));
    }
    table.finish()?;
    Ok(StoreProfile { maildir, sent, hand })
}

/// Where sent copies are kept, if the table says so.
fn read_sent(table: &mut TableReader<'_>, has_imap: bool) -> Found<Option<SentProfile>> {
    let wrong = "it must be true, false or \"server\"";
    let Some(sent) = table.switch_or_text("sent", wrong)? else { return Ok(None) };
    let sent = sent.read(|sent| match sent {
        SwitchOrText::Switch(true) => Ok(SentProfile::Maildir),
        SwitchOrText::Switch(false) => Ok(SentProfile::Nowhere),
        SwitchOrText::Text("server") if has_imap => Ok(SentProfile::Server),
        SwitchOrText::Text("server") => Err("no transport has an imap part"),
        SwitchOrText::Text(_) => Err(wrong),
    })?;
    Ok(Some(sent.value))
}

/// Who gets received mail instead of the Maildir.
fn read_receiver(table: &mut TableReader<'_>) -> Found<Option<ReceiverProfile>> {
    let mda = table.text_or_texts("mda")?.map(|item| item.read(command)).transpose()?;
    let lmtp = table.text("lmtp")?.map(|item| item.read(lmtp_address)).transpose()?;
    let insecure = table.switch("insecure")?.unwrap_or(false);
    match (mda, lmtp) {
        (None, None) => Ok(None),
        (Some(_), Some(lmtp)) => Err(lmtp.problem("mail can go to mda or to lmtp, not to both")),
        (Some(mda), None) => Ok(Some(ReceiverProfile::Program(mda.value))),
        (None, Some(lmtp)) => {
            let host = lmtp.value.rsplit_once(':').map_or("", |(host, _)| host);
            let is_here = host == "unix" || lmtp.value.starts_with("unix:") || {
                is_loopback(host.trim_start_matches('[').trim_end_matches(']'))
            };
            match is_here || insecure {
                true => Ok(Some(ReceiverProfile::Lmtp(lmtp.value))),
                false => Err(lmtp.problem(
                    "the mail would travel readable for all; use a server of this machine, or \
                     write insecure = true to have it so",
                )),
            }
        }
    }
}

fn read_hand(
    table: &mut TableReader<'_>,
    receiver: ReceiverProfile,
    first_address: &str,
) -> Found<HandProfile> {
    let recipient = table.text("recipient")?.map(|item| item.read(parse_address)).transpose()?;
    let timeout = table.text("timeout")?.map(|item| item.read(parse_duration)).transpose()?;
    let connections =
        table.number("connections")?.map(|item| item.read(connections)).transpose()?;
    let value = |item: Item<u64>| item.value;
    Ok(HandProfile {
        receiver,
        recipient: recipient.map_or_else(|| first_address.to_owned(), |item| item.value),
        timeout: timeout.map_or(DEFAULT_TIMEOUT, |item| item.value),
        connections: connections.map_or(DEFAULT_CONNECTIONS, value),
    })
}

fn connections(number: u64) -> Result<u64, &'static str> {
    Some(number).filter(|number| (1..=100).contains(number)).ok_or("it must be between 1 and 100")
}

/// What a shell would take for something else than a word.
const SHELL: [char; 17] =
    ['\'', '"', '\\', '$', '`', '|', '&', ';', '<', '>', '(', ')', '*', '?', '[', '~', '#'];

/// A program and its arguments. No shell is involved, so that what looks like its language is
/// refused instead of being handed on letter by letter.
fn command(command: TextOrTexts<'_>) -> Result<Vec<String>, String> {
    let words: Vec<String> = match command {
        TextOrTexts::Text(line) => {
            if let Some(sign) = line.chars().find(|sign| SHELL.contains(sign)) {
                return Err(format!(
                    "no shell reads it, so {sign} means nothing; write a list of words, such as \
                     [\"procmail\", \"-d\", \"ann\"], or [\"/bin/sh\", \"-c\", \"..\"]"
                ));
            }
            line.split_whitespace().map(str::to_owned).collect()
        }
        TextOrTexts::Texts(words) => words.into_iter().map(str::to_owned).collect(),
    };
    match words.first() {
        None => Err("it is empty".to_owned()),
        Some(program) if program.trim().is_empty() => Err("it is empty".to_owned()),
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            Err("it contains a NUL".to_owned())
        }
        Some(_) => Ok(words),
    }
}

fn lmtp_address(text: &str) -> Result<String, &'static str> {
    let wrong = "it must be \"unix:/path\" or \"host:port\"";
    let sensible = match text.strip_prefix("unix:") {
        Some(path) => path.starts_with('/') && !path.contains('\0'),
        None => {
            let parts = text.rsplit_once(':');
            parts.is_some_and(|(host, port)| {
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let is_host = match bare {
                    Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
                    None => !host.contains(':') && super::server_table::host_name(host).is_ok(),
                };
                is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
        }
    };
    if sensible { Ok(text.to_owned()) } else { Err(wrong) }
}

pub(super) fn absolute(text: &str, environment: &Environment) -> Result<PathBuf, String> {
    let path = environment.expand(text)?;
    if path.is_absolute() { Ok(path) } else { Err("it must begin with / or ~".into()) }
}
