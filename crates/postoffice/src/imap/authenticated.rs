//! Commands on mailboxes: SELECT, CREATE, STATUS, APPEND and their kin (RFC 3501 section 6.3).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use imap_codec::imap_types::datetime::DateTime;
use imap_codec::imap_types::flag::Flag;
use imap_codec::imap_types::status::StatusDataItemName;

use super::literal::string;
use super::session::Session;
use super::view::View;
use crate::config::{Feature, ImapCapability};
use crate::mailbox::{MailboxError, Store};

/// The flags a client finds defined.
const FLAGS: &str = "\\Answered \\Flagged \\Deleted \\Seen \\Draft";

impl Session {
    pub(super) fn select(&mut self, tag: &str, user: &str, name: &str, read_only: bool) {
        self.selected = None;
        let opened = self.connection.shared.with_store(|store| {
            let mailbox = store.mailbox_mut(user, name)?;
            let view = View::new(crate::mailbox::canonical(name), mailbox, read_only);
            if !read_only {
                mailbox.recent_from = mailbox.uid_next;
            }
            let unseen = mailbox.messages.values().find(|message| !message.has_flag("\\Seen"));
            let unseen = unseen.and_then(|message| view.number(message.uid));
            Ok::<_, MailboxError>((view, unseen, mailbox.uid_validity, mailbox.uid_next))
        });
        let (view, unseen, validity, next) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.done(tag, &format!("NO [NONEXISTENT] {error}")),
        };
        let mut out = format!("* FLAGS ({FLAGS})\r\n");
        let permanent = if read_only { String::new() } else { format!("{FLAGS} \\*") };
        let _ = write!(out, "* {} EXISTS\r\n* {} RECENT\r\n", view.len(), view.recent());
        if let Some(unseen) = unseen {
            let _ = write!(out, "* OK [UNSEEN {unseen}] first unseen\r\n");
        }
        let _ = write!(out, "* OK [PERMANENTFLAGS ({permanent})] limited\r\n");
        if self.connection.shared.offers(Feature::UidNext) {
            let _ = write!(out, "* OK [UIDNEXT {next}] next\r\n");
        }
        let _ = write!(out, "* OK [UIDVALIDITY {validity}] valid\r\n");
        self.connection.say(&out);
        self.selected = Some(view);
        let access = if read_only { "READ-ONLY" } else { "READ-WRITE" };
        self.done(tag, &format!("OK [{access}] selected"));
    }

    /// A change that answers OK or NO.
    pub(super) fn change(
        &mut self,
        tag: &str,
        work: impl FnOnce(&mut Store) -> Result<(), MailboxError>,
    ) {
        match self.connection.shared.with_store(work) {
            Ok(()) => {
                self.connection.shared.mail_changed();
                self.done(tag, "OK done");
            }
            Err(error) => {
                let code = match error {
                    MailboxError::NoSuchMailbox(_) | MailboxError::NoSuchUser(_) => "NONEXISTENT",
                    MailboxError::AlreadyExists(_) => "ALREADYEXISTS",
                    MailboxError::Inbox => "CANNOT",
                };
                self.done(tag, &format!("NO [{code}] {error}"));
            }
        }
    }

    pub(super) fn status(
        &mut self,
        tag: &str,
        user: &str,
        name: &str,
        items: &[StatusDataItemName],
    ) {
        let answer = self.connection.shared.with_store(|store| {
            let mailbox = store.mailbox(user, name)?;
            let mut parts = Vec::new();
            for item in items {
                parts.push(match item {
                    StatusDataItemName::Messages => format!("MESSAGES {}", mailbox.messages.len()),
                    StatusDataItemName::Recent => {
                        let recent = mailbox.messages.range(mailbox.recent_from..).count();
                        format!("RECENT {recent}")
                    }
                    StatusDataItemName::UidNext => format!("UIDNEXT {}", mailbox.uid_next),
                    StatusDataItemName::UidValidity => {
                        format!("UIDVALIDITY {}", mailbox.uid_validity)
                    }
                    StatusDataItemName::Unseen => format!("UNSEEN {}", mailbox.unseen()),
                    _ => continue,
                });
            }
            Ok::<_, MailboxError>(parts.join(" "))
        });
        match answer {
            Ok(parts) => {
                self.connection.say(&format!("* STATUS {} ({parts})\r\n", string(name)));
                self.done(tag, "OK status");
            }
            Err(error) => self.done(tag, &format!("NO [NONEXISTENT] {error}")),
        }
    }

    pub(super) fn append(
        &mut self,
        tag: &str,
        user: &str,
        name: &str,
        message: &[u8],
        flags: &[Flag<'_>],
        date: Option<&DateTime>,
    ) {
        let date = date.map_or_else(SystemTime::now, internal_date);
        let flags: BTreeSet<String> = flags.iter().map(ToString::to_string).collect();
        let bytes: Arc<[u8]> = message.into();
        let appended = self.connection.shared.with_store(|store| {
            let mailbox = store.mailbox_mut(user, name)?;
            let uid = mailbox.append(bytes, flags, date);
            Ok::<_, MailboxError>((mailbox.uid_validity, uid))
        });
        match appended {
            Ok((validity, uid)) => {
                self.connection.shared.mail_changed();
                let code = if self.connection.shared.offers(ImapCapability::UidPlus) {
                    format!("[APPENDUID {validity} {uid}] ")
                } else {
                    String::new()
                };
                self.done(tag, &format!("OK {code}appended"));
            }
            Err(error) => self.done(tag, &format!("NO [TRYCREATE] {error}")),
        }
    }
}

fn internal_date(date: &DateTime) -> SystemTime {
    let seconds = date.as_ref().timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let date = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    date.unwrap_or(SystemTime::UNIX_EPOCH)
}
