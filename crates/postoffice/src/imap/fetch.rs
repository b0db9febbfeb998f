//! FETCH (RFC 3501 section 6.4.5).

use std::fmt::Write as _;
use std::num::NonZeroU32;

use imap_codec::imap_types::fetch::{MacroOrMessageDataItemNames, MessageDataItemName, Section};
use time::OffsetDateTime;

use super::section::{label, section, split};
use super::session::{Session, Spoiled};
use crate::connection::{End, Flow};
use crate::faults::{ImapPhase, Moment, Phase};
use crate::mailbox::MailboxMessage;
use crate::sabotage::Outcome;

/// Messages looked up at once, so that a mailbox is never locked for long and never copied.
const BATCH: usize = 64;

/// What a FETCH asks for.
struct Wanted<'a> {
    items: Vec<MessageDataItemName<'a>>,
    sets_seen: bool,
}

impl<'a> Wanted<'a> {
    /// `None` if something is asked for that is not offered.
    fn new(names: &'a MacroOrMessageDataItemNames<'a>, uid: bool) -> Option<Self> {
        let mut items = match names {
            MacroOrMessageDataItemNames::Macro(names) => names.expand(),
            MacroOrMessageDataItemNames::MessageDataItemNames(names) => names.clone(),
        };
        if uid && !items.contains(&MessageDataItemName::Uid) {
            items.insert(0, MessageDataItemName::Uid);
        }
        let offered = items.iter().all(|item| match item {
            MessageDataItemName::BodyExt { section, .. } => label(section.as_ref()).is_some(),
            MessageDataItemName::Flags
            | MessageDataItemName::InternalDate
            | MessageDataItemName::Rfc822
            | MessageDataItemName::Rfc822Header
            | MessageDataItemName::Rfc822Size
            | MessageDataItemName::Rfc822Text
            | MessageDataItemName::Uid => true,
            _ => false,
        });
        let sets_seen = items.iter().any(|item| {
            matches!(
                item,
                MessageDataItemName::BodyExt { peek: false, .. }
                    | MessageDataItemName::Rfc822
                    | MessageDataItemName::Rfc822Text
            )
        });
        offered.then_some(Self { items, sets_seen })
    }
}

impl Session {
    pub(super) async fn fetch(
        &mut self,
        tag: &str,
        uids: &[u32],
        names: &MacroOrMessageDataItemNames<'_>,
        uid: bool,
    ) -> Flow {
        let Some(wanted) = Wanted::new(names, uid) else {
            self.done(tag, "NO [CANNOT] structure, envelope and parts are not offered here");
            return Ok(());
        };
        if self.spoiled == Spoiled::FetchNothing {
            self.done(tag, "OK fetched");
            return Ok(());
        }
        for batch in uids.chunks(BATCH) {
            for (number, message, newly_seen) in self.look_up(batch, &wanted) {
                let spoiled = self.spoiled;
                match self.message_fault(tag, message.uid).await? {
                    Some(Spoiled::FetchNothing) => continue,
                    Some(other) => self.spoiled = other,
                    None if self.is_done() => return Ok(()),
                    None => {}
                }
                self.one(number, &message, newly_seen, &wanted).await?;
                self.spoiled = spoiled;
                self.connection.flush_if_full().await?;
            }
        }
        self.done(tag, "OK fetched");
        Ok(())
    }

    /// The fault of one message: how its response is spoiled, if it is.
    async fn message_fault(&mut self, tag: &str, uid: u32) -> Flow<Option<Spoiled>> {
        if self.connection.shared.faults.is_empty() {
            return Ok(None);
        }
        let phase = Phase::Imap(ImapPhase::Message);
        let outcome = self.connection.fault(phase, Moment::Before, &format!("UID {uid}")).await?;
        Ok(match outcome {
            Outcome::Proceed | Outcome::Smtp(_) => None,
            Outcome::Replaced => Some(Spoiled::FetchNothing),
            Outcome::Imap(action) if Spoiled::fetch(&action).is_some() => Spoiled::fetch(&action),
            outcome => {
                self.instead(tag, outcome).await?;
                self.done_already();
                None
            }
        })
    }

    /// The messages that are still there, with their numbers; sets \Seen where the items say so.
    fn look_up(&mut self, uids: &[u32], wanted: &Wanted<'_>) -> Vec<(u32, MailboxMessage, bool)> {
        let (Some(user), Some(view)) = (&self.user, &self.selected) else {
            return Vec::new();
        };
        let mut changed = false;
        let found = self.connection.shared.with_store(|store| {
            let Ok(mailbox) = store.mailbox_mut(user, &view.mailbox) else {
                return Vec::new();
            };
            let mut found = Vec::with_capacity(uids.len());
            for uid in uids {
                let (Some(message), Some(number)) =
                    (mailbox.messages.get_mut(uid), view.number(*uid))
                else {
                    continue;
                };
                let newly_seen = wanted.sets_seen
                    && !view.read_only
                    && message.flags.insert("\\Seen".to_owned());
                changed |= newly_seen;
                found.push((number, message.clone(), newly_seen));
            }
            found
        });
        if changed {
            self.connection.shared.mail_changed();
        }
        found
    }

    async fn one(
        &mut self,
        number: u32,
        message: &MailboxMessage,
        newly_seen: bool,
        wanted: &Wanted<'_>,
    ) -> Flow {
        let mut text = format!("* {number} FETCH (");
        let mut first = true;
        for item in &wanted.items {
            if !std::mem::take(&mut first) {
                text.push(' ');
            }
            self.item(&mut text, message, item).await?;
        }
        if newly_seen && !wanted.items.contains(&MessageDataItemName::Flags) {
            let _ = write!(text, " FLAGS ({})", self.flags(message));
        }
        text.push_str(")\r\n");
        self.connection.put(text.as_bytes());
        Ok(())
    }

    async fn item(
        &mut self,
        text: &mut String,
        message: &MailboxMessage,
        item: &MessageDataItemName<'_>,
    ) -> Flow {
        let bytes = &message.bytes;
        match item {
            MessageDataItemName::Flags => {
                let _ = write!(text, "FLAGS ({})", self.flags(message));
            }
            MessageDataItemName::Uid => {
                let uid = if let Spoiled::Uid(uid) = self.spoiled { uid } else { message.uid };
                let _ = write!(text, "UID {uid}");
            }
            MessageDataItemName::Rfc822Size => {
                let more = if let Spoiled::Size(more) = self.spoiled { more } else { 0 };
                let _ = write!(text, "RFC822.SIZE {}", off_by(bytes.len(), more));
            }
            MessageDataItemName::InternalDate => {
                let date = crate::dates::imap(OffsetDateTime::from(message.internal_date));
                let _ = write!(text, "INTERNALDATE \"{date}\"");
            }
            MessageDataItemName::BodyExt { section: part, partial, .. } => {
                return self.body(text, message, part.as_ref(), *partial).await;
            }
            MessageDataItemName::Rfc822 => {
                return self.literal_item(text, message.uid, "RFC822", bytes).await;
            }
            MessageDataItemName::Rfc822Header => {
                return self.literal_item(text, message.uid, "RFC822.HEADER", split(bytes).0).await;
            }
            MessageDataItemName::Rfc822Text => {
                return self.literal_item(text, message.uid, "RFC822.TEXT", split(bytes).1).await;
            }
            _ => {}
        }
        Ok(())
    }

    async fn body(
        &mut self,
        text: &mut String,
        message: &MailboxMessage,
        part: Option<&Section<'_>>,
        partial: Option<(u32, NonZeroU32)>,
    ) -> Flow {
        let (Some(name), Some(octets)) = (label(part), section(&message.bytes, part)) else {
            return Ok(());
        };
        match partial {
            None => self.literal_item(text, message.uid, &format!("BODY[{name}]"), &octets).await,
            Some((origin, length)) => {
                let start = usize::try_from(origin).unwrap_or(usize::MAX).min(octets.len());
                let length = usize::try_from(length.get()).unwrap_or(usize::MAX);
                let end = start.saturating_add(length).min(octets.len());
                let octets = octets.get(start..end).unwrap_or_default();
                self.literal_item(text, message.uid, &format!("BODY[{name}]<{origin}>"), octets)
                    .await
            }
        }
    }

    /// Queues what has been written so far, then the literal, perhaps with a fault in its midst.
    async fn literal_item(
        &mut self,
        text: &mut String,
        uid: u32,
        name: &str,
        octets: &[u8],
    ) -> Flow {
        if self.spoiled == Spoiled::FetchNil {
            let _ = write!(text, "{name} NIL");
            return Ok(());
        }
        let more = if let Spoiled::Literal(more) = self.spoiled { more } else { 0 };
        let _ = write!(text, "{name} {{{}}}\r\n", off_by(octets.len(), more));
        self.connection.put(text.as_bytes());
        text.clear();
        let faults = &self.connection.shared.faults;
        let hit = if faults.is_empty() {
            None
        } else {
            let phase = Phase::Imap(ImapPhase::MidLiteral);
            faults.strike(phase, Moment::Before, &format!("UID {uid} {name}"))
        };
        let Some(hit) = hit else {
            self.connection.put(octets);
            return Ok(());
        };
        let half = octets.len() / 2;
        let at = hit.at_byte.map_or(half, |at| usize::try_from(at).unwrap_or(usize::MAX));
        let (before, after) = octets.split_at(at.min(octets.len()));
        self.connection.put(before);
        match self.connection.suffer(hit).await? {
            Outcome::Proceed => self.connection.put(after),
            Outcome::Replaced => {}
            outcome => {
                self.instead("*", outcome).await?;
                // No response can follow half a literal.
                self.connection.close().await;
                return Err(End::Closed);
            }
        }
        Ok(())
    }

    pub(super) fn flags(&self, message: &MailboxMessage) -> String {
        let mut flags: Vec<&str> = message.flags.iter().map(String::as_str).collect();
        if self.selected.as_ref().is_some_and(|view| message.uid >= view.recent_from) {
            flags.push("\\Recent");
        }
        flags.join(" ")
    }
}

/// A length that is told wrong.
fn off_by(length: usize, more: i64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX).saturating_add(more).max(0)
}
