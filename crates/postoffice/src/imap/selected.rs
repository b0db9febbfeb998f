//! Commands on messages: STORE, COPY, MOVE, EXPUNGE, SEARCH (RFC 3501 section 6.4, RFC 4315, RFC 6851).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use imap_codec::imap_types::flag::{Flag, StoreResponse, StoreType};
use imap_codec::imap_types::search::SearchKey;

use super::search::{Candidate, Criterion};
use super::sequence::{Ranges, compact};
use super::session::Session;
use crate::config::ImapCapability;
use crate::mailbox::{MailboxError, MailboxMessage};

/// Whether the originals stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    Copy,
    Move,
}

impl Session {
    /// Whether the selected mailbox may be changed; says NO if not.
    fn writable(&mut self, tag: &str) -> bool {
        let writable = self.selected.as_ref().is_some_and(|view| !view.read_only);
        if !writable {
            self.done(tag, "NO [READ-ONLY] mailbox is read-only");
        }
        writable
    }

    pub(super) fn store(
        &mut self,
        tag: &str,
        user: &str,
        uids: &[u32],
        (kind, response): (StoreType, StoreResponse),
        flags: &[Flag<'_>],
        uid: bool,
    ) {
        if !self.writable(tag) {
            return;
        }
        let flags: BTreeSet<String> = flags.iter().map(ToString::to_string).collect();
        let name = self.selected_name();
        let changed: Vec<MailboxMessage> = self.connection.shared.with_store(|store| {
            let Ok(mailbox) = store.mailbox_mut(user, &name) else {
                return Vec::new();
            };
            let mut changed = Vec::new();
            for uid in uids {
                if let Some(message) = mailbox.messages.get_mut(uid) {
                    match kind {
                        StoreType::Replace => message.flags.clone_from(&flags),
                        StoreType::Add => message.flags.extend(flags.iter().cloned()),
                        StoreType::Remove => message.flags.retain(|flag| !flags.contains(flag)),
                    }
                    changed.push(message.clone());
                }
            }
            changed
        });
        self.connection.shared.mail_changed();
        if response == StoreResponse::Answer {
            let mut out = String::new();
            for message in &changed {
                let number = self.selected.as_ref().and_then(|view| view.number(message.uid));
                let Some(number) = number else { continue };
                let identifier = if uid { format!("UID {} ", message.uid) } else { String::new() };
                let flags = self.flags(message);
                let _ = write!(out, "* {number} FETCH ({identifier}FLAGS ({flags}))\r\n");
            }
            self.connection.say(&out);
        }
        self.done(tag, "OK stored");
    }

    pub(super) fn transfer(
        &mut self,
        tag: &str,
        user: &str,
        uids: &[u32],
        to: &str,
        transfer: Transfer,
    ) {
        if transfer == Transfer::Move && !self.writable(tag) {
            return;
        }
        let from = self.selected_name();
        let moved = self.connection.shared.with_store(|store| {
            store.mailbox(user, to)?;
            let source = store.mailbox_mut(user, &from)?;
            let mut taken = Vec::new();
            for uid in uids {
                let message = match transfer {
                    Transfer::Copy => source.messages.get(uid).cloned(),
                    Transfer::Move => source.remove(*uid),
                };
                taken.extend(message);
            }
            let target = store.mailbox_mut(user, to)?;
            let mut pairs = (Vec::new(), Vec::new());
            for message in taken {
                pairs.0.push(message.uid);
                let (flags, date) = (message.flags, message.internal_date);
                pairs.1.push(target.append(message.bytes, flags, date));
            }
            Ok::<_, MailboxError>((target.uid_validity, pairs))
        });
        let (validity, (old, new)) = match moved {
            Ok(moved) => moved,
            Err(error) => return self.done(tag, &format!("NO [TRYCREATE] {error}")),
        };
        self.connection.shared.mail_changed();
        let told = self.connection.shared.offers(ImapCapability::UidPlus) && !old.is_empty();
        let code = if told {
            format!("[COPYUID {validity} {} {}] ", compact(&old), compact(&new))
        } else {
            String::new()
        };
        match transfer {
            Transfer::Copy => self.done(tag, &format!("OK {code}copied")),
            Transfer::Move => {
                // RFC 6851 section 4.3: the code comes before the EXPUNGE responses.
                if told {
                    self.connection.say(&format!("* OK {code}moved\r\n"));
                }
                self.done(tag, "OK moved");
            }
        }
    }

    /// EXPUNGE, UID EXPUNGE (with a set) and the silent part of CLOSE.
    pub(super) fn remove_deleted(&mut self, user: &str, only: Option<&Ranges>) {
        let name = self.selected_name();
        let removed = self.connection.shared.with_store(|store| {
            let Ok(mailbox) = store.mailbox_mut(user, &name) else {
                return 0;
            };
            let doomed: Vec<u32> = mailbox
                .messages
                .values()
                .filter(|message| message.has_flag("\\Deleted"))
                .map(|message| message.uid)
                .filter(|uid| only.is_none_or(|only| only.contains(*uid)))
                .collect();
            doomed.iter().filter(|uid| mailbox.remove(**uid).is_some()).count()
        });
        if removed > 0 {
            self.connection.shared.mail_changed();
        }
    }

    pub(super) fn expunge(&mut self, tag: &str, user: &str, only: Option<&Ranges>) {
        if self.writable(tag) {
            self.remove_deleted(user, only);
            self.done(tag, "OK expunged");
        }
    }

    pub(super) fn search(&mut self, tag: &str, user: &str, keys: &[SearchKey<'_>], uid: bool) {
        let Some(view) = &self.selected else { return };
        let Some(criterion) = Criterion::all(keys, view) else {
            return self.done(tag, "NO [CANNOT] a search key is not offered here");
        };
        let out = self.connection.shared.with_store(|store| {
            let mut out = "* SEARCH".to_owned();
            let Ok(mailbox) = store.mailbox(user, &view.mailbox) else {
                return out;
            };
            for (number, found) in (1..).zip(view.uids()) {
                let Some(message) = mailbox.messages.get(found) else {
                    continue;
                };
                let recent = *found >= view.recent_from;
                if criterion.fits(&Candidate { number, recent, message }) {
                    let _ = write!(out, " {}", if uid { *found } else { number });
                }
            }
            out
        });
        self.connection.say(&format!("{out}\r\n"));
        self.done(tag, "OK searched");
    }

    fn selected_name(&self) -> String {
        self.selected.as_ref().map(|view| view.mailbox.clone()).unwrap_or_default()
    }
}
