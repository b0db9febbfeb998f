//! Carrying out parsed commands: which state they need, which capability, who does the work.

use imap_codec::imap_types::command::{Command, CommandBody};
use imap_codec::imap_types::extensions::binary::LiteralOrLiteral8;

use super::list::mailbox_name;
use super::selected::Transfer;
use super::sequence::Ranges;
use super::session::Session;
use super::view::Expunges;
use crate::config::ImapCapability;
use crate::connection::{End, Flow};
use crate::faults::{ImapPhase, Moment, Phase};
use crate::smtp::ViolationKind;

/// The state a command needs (RFC 3501 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    NoLogin,
    Login,
    Mailbox,
}

impl Session {
    pub(super) async fn execute(&mut self, command: Command<'_>) -> Flow {
        let tag = command.tag.as_ref().to_owned();
        let tag = tag.as_str();
        if !self.allowed(tag, &command.body) {
            return Ok(());
        }
        let user = self.user.clone().unwrap_or_default();
        let user = user.as_str();
        match &command.body {
            CommandBody::Capability => {
                let capabilities = self.capabilities();
                self.connection.say(&format!("* CAPABILITY {capabilities}\r\n"));
                self.done(tag, "OK capabilities");
            }
            CommandBody::Noop | CommandBody::Check => {
                self.announce(Expunges::Announced).await?;
                self.done(tag, "OK done");
            }
            CommandBody::Logout => {
                self.connection.say("* BYE logging out\r\n");
                self.done(tag, "OK logged out");
            }
            CommandBody::StartTLS => self.done(tag, "OK begin TLS"),
            CommandBody::Login { username, password } => {
                self.login(tag, username.as_ref(), password.declassify().as_ref());
            }
            CommandBody::Authenticate { mechanism, initial_response } => {
                let initial = initial_response.as_ref().map(|secret| secret.declassify().as_ref());
                self.authenticate(tag, mechanism, initial).await?;
            }
            CommandBody::Id { .. } => {
                self.connection.say("* ID (\"name\" \"postoffice\")\r\n");
                self.done(tag, "OK identified");
            }
            CommandBody::Namespace => {
                let delimiter = self.connection.shared.config.delimiter;
                self.connection.say(&format!("* NAMESPACE ((\"\" \"{delimiter}\")) NIL NIL\r\n"));
                self.done(tag, "OK namespaces");
            }
            CommandBody::Enable { .. } => {
                self.connection.say("* ENABLED\r\n");
                self.done(tag, "OK nothing to enable");
            }
            CommandBody::Idle => self.idle(tag).await?,
            body => {
                self.on_mailboxes(tag, user, body).await?;
                if matches!(body, CommandBody::Select { .. } | CommandBody::Examine { .. }) {
                    let phase = Phase::Imap(ImapPhase::MidSelect);
                    let outcome = self.connection.fault(phase, Moment::Before, "").await?;
                    if !self.spoil(tag, outcome).await? {
                        self.done_already();
                        return Ok(());
                    }
                }
                // Sequence numbers must not shift under a client that is using them.
                let expunges = match body {
                    CommandBody::Fetch { uid: false, .. }
                    | CommandBody::Store { uid: false, .. }
                    | CommandBody::Search { uid: false, .. } => Expunges::Deferred,
                    _ => Expunges::Announced,
                };
                self.announce(expunges).await?;
            }
        }
        Ok(())
    }

    async fn on_mailboxes(&mut self, tag: &str, user: &str, body: &CommandBody<'_>) -> Flow {
        match body {
            CommandBody::Select { mailbox } => {
                self.select(tag, user, &mailbox_name(mailbox), false);
            }
            CommandBody::Examine { mailbox } => {
                self.select(tag, user, &mailbox_name(mailbox), true);
            }
            CommandBody::Create { mailbox } => {
                let delimiter = self.connection.shared.config.delimiter;
                let name = mailbox_name(mailbox);
                let name = name.trim_end_matches(delimiter);
                self.change(tag, |store| store.create(user, name));
            }
            CommandBody::Delete { mailbox } => {
                self.leave(&mailbox_name(mailbox));
                self.change(tag, |store| store.delete(user, &mailbox_name(mailbox)));
            }
            CommandBody::Rename { from, to } => {
                let (from, to) = (mailbox_name(from), mailbox_name(to));
                self.leave(&from);
                self.change(tag, |store| store.rename(user, &from, &to));
            }
            CommandBody::Subscribe { mailbox } => {
                self.change(tag, |store| store.subscribe(user, &mailbox_name(mailbox)));
            }
            CommandBody::Unsubscribe { mailbox } => {
                self.change(tag, |store| store.unsubscribe(user, &mailbox_name(mailbox)));
            }
            CommandBody::List { reference, mailbox_wildcard } => {
                self.list(tag, "LIST", user, reference, mailbox_wildcard);
            }
            CommandBody::Lsub { reference, mailbox_wildcard } => {
                self.list(tag, "LSUB", user, reference, mailbox_wildcard);
            }
            CommandBody::Status { mailbox, item_names } => {
                self.status(tag, user, &mailbox_name(mailbox), item_names);
            }
            CommandBody::Append { mailbox, flags, date, message } => {
                let octets = match message {
                    LiteralOrLiteral8::Literal(literal) => literal.as_ref(),
                    LiteralOrLiteral8::Literal8(literal) => &literal.data,
                };
                let name = mailbox_name(mailbox);
                self.append(tag, user, &name, octets, flags, date.as_ref());
            }
            body => self.on_messages(tag, user, body).await?,
        }
        Ok(())
    }

    /// Unselects a mailbox this session itself is about to take away.
    fn leave(&mut self, name: &str) {
        let name = crate::mailbox::canonical(name);
        self.selected = self.selected.take().filter(|view| view.mailbox != name);
    }

    async fn on_messages(&mut self, tag: &str, user: &str, body: &CommandBody<'_>) -> Flow {
        let set = match body {
            CommandBody::Fetch { sequence_set, uid, .. }
            | CommandBody::Store { sequence_set, uid, .. }
            | CommandBody::Copy { sequence_set, uid, .. }
            | CommandBody::Move { sequence_set, uid, .. } => Some((sequence_set, *uid)),
            _ => None,
        };
        let uids = match (set, &self.selected) {
            (Some((set, uid)), Some(view)) => {
                match view.resolve(&Ranges::new(set, view.largest(uid)), uid) {
                    Some(uids) => uids,
                    None => {
                        self.done(tag, "BAD no such message");
                        return Ok(());
                    }
                }
            }
            _ => Vec::new(),
        };
        match body {
            CommandBody::Fetch { macro_or_item_names, uid, .. } => {
                self.fetch(tag, &uids, macro_or_item_names, *uid).await?;
            }
            CommandBody::Store { kind, response, flags, uid, .. } => {
                self.store(tag, user, &uids, (*kind, *response), flags, *uid);
            }
            CommandBody::Copy { mailbox, .. } => {
                self.transfer(tag, user, &uids, &mailbox_name(mailbox), Transfer::Copy);
            }
            CommandBody::Move { mailbox, .. } => {
                self.transfer(tag, user, &uids, &mailbox_name(mailbox), Transfer::Move);
            }
            CommandBody::Expunge => self.expunge(tag, user, None),
            CommandBody::ExpungeUid { sequence_set } => {
                let largest = self.selected.as_ref().map_or(0, |view| view.largest(true));
                self.expunge(tag, user, Some(&Ranges::new(sequence_set, largest)));
            }
            CommandBody::Search { criteria, uid, .. } => {
                self.search(tag, user, criteria.as_ref(), *uid);
            }
            CommandBody::Close => {
                if self.selected.as_ref().is_some_and(|view| !view.read_only) {
                    self.remove_deleted(user, None);
                }
                self.selected = None;
                self.done(tag, "OK closed");
            }
            CommandBody::Unselect => {
                self.selected = None;
                self.done(tag, "OK unselected");
            }
            _ => self.done(tag, "BAD not offered"),
        }
        Ok(())
    }

    /// What has to happen once the reply is queued: LOGOUT closes, STARTTLS begins TLS.
    pub(super) async fn aftermath(&mut self, phase: ImapPhase) -> Flow {
        match phase {
            ImapPhase::Logout => {
                self.connection.close().await;
                Err(End::Closed)
            }
            ImapPhase::StartTls if self.start_tls_possible() => {
                let in_clear = self.connection.secure().await?;
                if in_clear > 0 {
                    let detail = format!("{in_clear} octets");
                    self.violation(ViolationKind::PlaintextBehindStartTls, &detail);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn start_tls_possible(&self) -> bool {
        !self.connection.is_tls()
            && self.user.is_none()
            && self.connection.shared.offers(ImapCapability::StartTls)
    }

    /// Whether the command fits the state and is offered; answers if not.
    fn allowed(&mut self, tag: &str, body: &CommandBody<'_>) -> bool {
        let capability = match body {
            CommandBody::Idle => Some(ImapCapability::Idle),
            CommandBody::Move { .. } => Some(ImapCapability::Move),
            CommandBody::ExpungeUid { .. } => Some(ImapCapability::UidPlus),
            CommandBody::Unselect => Some(ImapCapability::Unselect),
            CommandBody::Enable { .. } => Some(ImapCapability::Enable),
            CommandBody::Id { .. } => Some(ImapCapability::Id),
            CommandBody::Namespace => Some(ImapCapability::Namespace),
            CommandBody::StartTLS => Some(ImapCapability::StartTls),
            _ => None,
        };
        let withheld = capability.filter(|&needed| !self.connection.shared.offers(needed));
        if let Some(capability) = withheld {
            self.violation(ViolationKind::NotOffered, capability.keyword());
            self.done(tag, "BAD not offered");
            return false;
        }
        let fits = match needs(body) {
            Needs::Nothing => true,
            Needs::NoLogin => {
                let late = matches!(body, CommandBody::StartTLS) && self.connection.is_tls();
                self.user.is_none() && !late
            }
            Needs::Login => self.user.is_some(),
            Needs::Mailbox => self.selected.is_some(),
        };
        if !fits {
            self.violation(ViolationKind::BadSequence, body.name());
            self.done(tag, "BAD not in this state");
        }
        fits
    }
}

fn needs(body: &CommandBody<'_>) -> Needs {
    match body {
        CommandBody::Capability
        | CommandBody::Noop
        | CommandBody::Logout
        | CommandBody::Id { .. } => Needs::Nothing,
        CommandBody::StartTLS | CommandBody::Login { .. } | CommandBody::Authenticate { .. } => {
            Needs::NoLogin
        }
        CommandBody::Check
        | CommandBody::Close
        | CommandBody::Unselect
        | CommandBody::Expunge
        | CommandBody::ExpungeUid { .. }
        | CommandBody::Search { .. }
        | CommandBody::Sort { .. }
        | CommandBody::Thread { .. }
        | CommandBody::Fetch { .. }
        | CommandBody::Store { .. }
        | CommandBody::Copy { .. }
        | CommandBody::Move { .. } => Needs::Mailbox,
        _ => Needs::Login,
    }
}

pub(super) fn phase(body: &CommandBody<'_>) -> ImapPhase {
    match body {
        CommandBody::Capability => ImapPhase::Capability,
        CommandBody::StartTLS => ImapPhase::StartTls,
        CommandBody::Login { .. } | CommandBody::Authenticate { .. } => ImapPhase::Login,
        CommandBody::Select { .. } | CommandBody::Examine { .. } => ImapPhase::Select,
        CommandBody::List { .. } | CommandBody::Lsub { .. } => ImapPhase::List,
        CommandBody::Status { .. } => ImapPhase::Status,
        CommandBody::Search { .. } => ImapPhase::Search,
        CommandBody::Fetch { .. } => ImapPhase::Fetch,
        CommandBody::Store { .. } => ImapPhase::Store,
        CommandBody::Copy { .. } => ImapPhase::Copy,
        CommandBody::Move { .. } => ImapPhase::Move,
        CommandBody::Append { .. } => ImapPhase::Append,
        CommandBody::Expunge | CommandBody::ExpungeUid { .. } => ImapPhase::Expunge,
        CommandBody::Idle => ImapPhase::Idle,
        CommandBody::Noop | CommandBody::Check => ImapPhase::Noop,
        CommandBody::Close | CommandBody::Unselect => ImapPhase::Close,
        CommandBody::Logout => ImapPhase::Logout,
        _ => ImapPhase::Other,
    }
}
