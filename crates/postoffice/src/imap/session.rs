//! An IMAP session: greeting, commands one after the other, replies and their faults.

use std::fmt::Write as _;

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;

use super::command::phase;
use super::view::{Expunges, View};
use crate::config::{ImapCapability, Protocol};
use crate::connection::{Connection, End, Flow};
use crate::faults::{ImapAction, ImapPhase, Moment, Phase};
use crate::sabotage::{Outcome, verb};
use crate::smtp::ViolationKind;
use crate::transcript::presentable;

/// A tag no client uses, for [`ImapAction::WrongTag`].
const WRONG_TAG: &str = "WRONG0TAG";

/// What is wrong with the reply to the present command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Spoiled {
    #[default]
    Nothing,
    FetchNothing,
    FetchNil,
    /// FETCH responses name this UID.
    Uid(u32),
    /// Literals are announced with so many octets more.
    Literal(i64),
    /// Sizes are told with so many octets more.
    Size(i64),
    Tag,
}

impl Spoiled {
    /// What a fault that only FETCH knows spoils.
    pub(super) fn fetch(action: &ImapAction) -> Option<Self> {
        Some(match action {
            ImapAction::FetchNothing => Self::FetchNothing,
            ImapAction::FetchNil => Self::FetchNil,
            ImapAction::FetchUid(uid) => Self::Uid(*uid),
            ImapAction::LiteralLength(more) => Self::Literal(*more),
            ImapAction::SizeOff(more) => Self::Size(*more),
            _ => return None,
        })
    }
}

pub(crate) struct Session {
    pub(super) connection: Connection,
    pub(super) user: Option<String>,
    pub(super) selected: Option<View>,
    pub(super) spoiled: Spoiled,
    /// The tagged line, kept back until the untagged ones are queued.
    completion: Option<String>,
}

/// Speaks IMAP on a fresh connection until it ends.
pub(crate) async fn serve(mut connection: Connection, implicit_tls: bool) -> Flow {
    connection.open(implicit_tls).await?;
    let session = Session {
        connection,
        user: None,
        selected: None,
        spoiled: Spoiled::Nothing,
        completion: None,
    };
    session.run().await
}

impl Session {
    async fn run(mut self) -> Flow {
        self.greet().await?;
        loop {
            if let Some(message) = self.read_command().await? {
                self.command(&message).await?;
            }
        }
    }

    async fn greet(&mut self) -> Flow {
        let phase = Phase::Imap(ImapPhase::Greeting);
        let outcome = self.connection.fault(phase, Moment::Before, "").await?;
        if !self.connection.buffered().is_empty() {
            self.violation(ViolationKind::EarlyTalk, "before the greeting");
        }
        match outcome {
            Outcome::Replaced => return Ok(()),
            Outcome::Imap(ImapAction::Preauth(user)) => {
                self.user = Some(user);
                let capabilities = self.capabilities();
                let greeting = format!("* PREAUTH [CAPABILITY {capabilities}] postoffice\r\n");
                self.connection.say(&greeting);
                return Ok(());
            }
            Outcome::Imap(ImapAction::No(text)) => {
                self.connection.say(&format!("* NO {text}\r\n"));
                return Ok(());
            }
            Outcome::Imap(action) => {
                if !self.spoil("*", Outcome::Imap(action)).await? {
                    return Ok(());
                }
            }
            Outcome::Proceed | Outcome::Smtp(_) => {}
        }
        let capabilities = self.capabilities();
        self.connection.say(&format!("* OK [CAPABILITY {capabilities}] postoffice\r\n"));
        Ok(())
    }

    async fn command(&mut self, message: &[u8]) -> Flow {
        let first_line = message.split(|&octet| octet == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(first_line).trim_end().to_owned();
        self.connection.shared.count_command(Protocol::Imap, &verb(Protocol::Imap, &line));
        let codec = CommandCodec::default();
        let Ok((_, command)) = codec.decode(message) else {
            let shown = presentable(Protocol::Imap, first_line);
            self.violation(ViolationKind::Syntax, &shown);
            self.refuse(message, "BAD cannot parse that");
            return Ok(());
        };
        let phase = phase(&command.body);
        let tag = command.tag.as_ref().to_owned();
        self.spoiled = Spoiled::Nothing;
        self.completion = None;
        let outcome = self.connection.fault(Phase::Imap(phase), Moment::Before, &line).await?;
        if !matches!(outcome, Outcome::Proceed) && !self.spoil(&tag, outcome).await? {
            return Ok(());
        }
        let mark = self.connection.mark();
        self.execute(command).await?;
        self.complete(&tag);
        // IDLE has its own moment after: when the session idles.
        if phase != ImapPhase::Idle {
            let outcome = self.connection.fault_in_reply(Phase::Imap(phase), &line, mark).await?;
            self.instead(&tag, outcome).await?;
        }
        self.aftermath(phase).await
    }

    // ----- replies -----

    pub(super) fn violation(&self, kind: ViolationKind, detail: &str) {
        let shared = &self.connection.shared;
        shared.violation(self.connection.id, kind, detail.chars().take(200).collect());
    }

    /// Ends the command: the tagged line goes out behind everything untagged.
    pub(super) fn done(&mut self, tag: &str, text: &str) {
        let tag = if self.spoiled == Spoiled::Tag { WRONG_TAG } else { tag };
        self.completion = Some(format!("{tag} {text}\r\n"));
    }

    /// The command has been answered by a fault.
    pub(super) fn done_already(&mut self) {
        self.completion = Some(String::new());
    }

    pub(super) fn is_done(&self) -> bool {
        self.completion.is_some()
    }

    fn complete(&mut self, tag: &str) {
        let line = self.completion.take().unwrap_or_else(|| format!("{tag} BAD not done\r\n"));
        self.connection.say(&line);
    }

    /// Carries out what only IMAP knows of a fault. True if the command goes on.
    pub(super) async fn spoil(&mut self, tag: &str, outcome: Outcome) -> Flow<bool> {
        match outcome {
            Outcome::Imap(ImapAction::WrongTag) => self.spoiled = Spoiled::Tag,
            Outcome::Imap(ImapAction::ExistsFlood(times)) => {
                let exists = self.selected.as_ref().map_or(0, View::len);
                let line = format!("* {exists} EXISTS\r\n");
                for _ in 0..times {
                    self.connection.put(line.as_bytes());
                    self.connection.flush_if_full().await?;
                }
            }
            Outcome::Proceed | Outcome::Smtp(_) => {}
            Outcome::Imap(action) if Spoiled::fetch(&action).is_some() => {
                self.spoiled = Spoiled::fetch(&action).unwrap_or_default();
            }
            outcome => {
                self.instead(tag, outcome).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a fault has in place of the reply.
    pub(super) async fn instead(&mut self, tag: &str, outcome: Outcome) -> Flow {
        match outcome {
            Outcome::Imap(ImapAction::No(text)) => {
                self.connection.say(&format!("{tag} NO {text}\r\n"));
            }
            Outcome::Imap(ImapAction::Bad(text)) => {
                self.connection.say(&format!("{tag} BAD {text}\r\n"));
            }
            Outcome::Imap(ImapAction::OkOnly) => self.connection.say(&format!("{tag} OK done\r\n")),
            Outcome::Imap(ImapAction::Bye(text)) => return self.bye(&text).await,
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn bye(&mut self, text: &str) -> Flow {
        self.connection.say(&format!("* BYE {text}\r\n"));
        self.connection.close().await;
        Err(End::Closed)
    }

    /// Tells what has changed in the selected mailbox; ends the session if it is not there any more.
    pub(super) async fn announce(&mut self, expunges: Expunges) -> Flow {
        let (Some(user), Some(view)) = (&self.user, &mut self.selected) else {
            return Ok(());
        };
        let name = view.mailbox.clone();
        let changes = self.connection.shared.with_store(|store| {
            let mailbox = store.mailbox(user, &name).ok()?;
            if view.is_current(mailbox) {
                return Some(Default::default());
            }
            view.catch_up(mailbox, expunges)
        });
        let recent = view.recent();
        let Some(changes) = changes else {
            return self.bye("the mailbox is not what it was").await;
        };
        let mut out = String::new();
        for number in changes.expunged {
            let _ = write!(out, "* {number} EXPUNGE\r\n");
        }
        if let Some(exists) = changes.exists {
            let _ = write!(out, "* {exists} EXISTS\r\n* {recent} RECENT\r\n");
        }
        self.connection.say(&out);
        Ok(())
    }

    pub(super) fn capabilities(&self) -> String {
        let shared = &self.connection.shared;
        let mut out = "IMAP4rev1".to_owned();
        for capability in ImapCapability::ALL {
            let now = match capability {
                ImapCapability::StartTls => self.start_tls_possible(),
                _ => shared.offers(capability),
            };
            if now {
                let _ = write!(out, " {}", capability.keyword());
            }
        }
        if self.user.is_none() {
            for mechanism in self.mechanisms() {
                let _ = write!(out, " AUTH={}", mechanism.name());
            }
            if !self.login_command_possible() {
                out.push_str(" LOGINDISABLED");
            }
        }
        out
    }
}
