//! One IMAP session: the commands receiving needs, each with a deadline.
//!
//! The library frames and parses; completion is judged here, because its fetch streams end alike
//! for OK, NO and a lost connection.

use std::collections::BinaryHeap;
use std::time::Duration;

use super::fault::{LaneFault, asks_for_patience};
use super::responses::{
    Listed, body, broken, bye, completion, expect_ok, is_news, listed, lost, quoted,
};
use super::tuning::Tuning;
use super::wire::Wire;
use crate::net::{Capabilities, Connector, ImapLogin, ImapOpened, ImapReply, ReplyStatus, Stream};
use async_imap::imap_proto::{MailboxDatum, Response, ResponseCode, Status, StatusAttribute};
use bytes::Bytes;

/// Room for what stands beside the body in a FETCH response, and for a size that is a little off.
const LITERAL_SLACK: u64 = 64 * 1024;

/// Most messages that one answer may name: what is asked for never names as many, and a SEARCH
/// line of the longest that is taken has fewer.
const MOST_FOUND: usize = 200_000;

/// A session that is logged in.
#[derive(Debug)]
pub(super) struct ImapSession {
    inner: async_imap::Session<Wire<Stream>>,
    capabilities: Capabilities,
    tuning: Tuning,
    /// The open mailbox has grown since it was listed last. Servers say so whenever they like.
    news: bool,
}

/// Whether a mailbox is opened to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// EXAMINE.
    Read,
    /// SELECT.
    Write,
}

/// What the server says of a mailbox when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) uid_validity: Option<u32>,
    pub(super) uid_next: Option<u32>,
    pub(super) exists: u32,
    pub(super) read_only: bool,
    /// More came before the answer was complete, which UIDNEXT does not tell.
    pub(super) grown: bool,
}

impl ImapSession {
    /// Connects and logs in.
    pub(super) async fn open(
        connector: &Connector,
        login: ImapLogin<'_>,
        tuning: Tuning,
    ) -> Result<Self, LaneFault> {
        let opened = connector.imap_open().await?;
        Self::log_in(connector, opened, login, tuning).await
    }

    /// Logs in over a connection that is open.
    pub(super) async fn log_in(
        connector: &Connector,
        opened: ImapOpened,
        login: ImapLogin<'_>,
        tuning: Tuning,
    ) -> Result<Self, LaneFault> {
        let logged_in = connector.imap_login(opened, login).await?;
        let wire = Wire::new(logged_in.stream, tuning.silence);
        // Answered by the wire itself, see there.
        let inner = async_imap::Client::new(wire)
            .login("-", "-")
            .await
            .map_err(|(error, _)| LaneFault::Protocol(error.to_string()))?;
        let mut session =
            ImapSession { inner, capabilities: logged_in.capabilities, tuning, news: false };
        if session.capabilities.has("ID") {
            // Some providers open no mailbox for who has not said what it is.
            let command = concat!(
                "ID (\"name\" \"postrider\" \"version\" \"",
                env!("CARGO_PKG_VERSION"),
                "\")"
            );
            session.run(command, &mut |_| {}).await?;
        }
        Ok(session)
    }

    pub(super) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Runs a command that answers with little, and shows `on` what comes before its completion.
    async fn run(
        &mut self,
        command: &str,
        on: &mut (dyn FnMut(&Response<'_>) + Send),
    ) -> Result<ImapReply, LaneFault> {
        let patience = self.tuning.patience(0);
        self.run_within(command, 0, patience, on).await
    }

    async fn run_within(
        &mut self,
        command: &str,
        literals: u64,
        patience: Duration,
        on: &mut (dyn FnMut(&Response<'_>) + Send),
    ) -> Result<ImapReply, LaneFault> {
        self.inner.as_mut().expect_literals(literals.saturating_add(LITERAL_SLACK));
        self.inner.as_mut().expect_within(Some(self.tuning.silence));
        let work = async {
            let tag = self.inner.run_command(command).await.map_err(lost)?;
            loop {
                let Some(data) = self.inner.read_response().await.map_err(broken)? else {
                    return Err(LaneFault::Lost("closed by the server".into()));
                };
                match data.parsed() {
                    Response::Done { tag: other, status, outcome } => {
                        if *other != tag {
                            return Err(stray());
                        }
                        return completion(status, outcome);
                    }
                    Response::Data { status: Status::Bye, outcome } if command != "LOGOUT" => {
                        return Err(bye(outcome));
                    }
                    response => {
                        self.news |= is_news(response)?;
                        on(response);
                    }
                }
            }
        };
        match tokio::time::timeout(patience, work).await {
            Ok(result) => result,
            Err(_) => Err(LaneFault::Lost("a command took too long".into())),
        }
    }

    /// Opens a mailbox.
    pub(super) async fn open_mailbox(
        &mut self,
        wire_name: &str,
        access: Access,
    ) -> Result<Result<Opened, ImapReply>, LaneFault> {
        let verb = match access {
            Access::Read => "EXAMINE",
            Access::Write => "SELECT",
        };
        let mut opened = Opened::default();
        // What came before the answer is complete: UIDNEXT may be older than it.
        let (mut counted, mut grown) = (false, false);
        let command = format!("{verb} {}", quoted(wire_name));
        let reply = self
            .run(&command, &mut |response| match response {
                Response::Data { status: Status::Ok, outcome } => match outcome.code {
                    Some(ResponseCode::UidValidity(number)) => opened.uid_validity = Some(number),
                    Some(ResponseCode::UidNext(number)) => opened.uid_next = Some(number),
                    _ => {}
                },
                Response::MailboxData(MailboxDatum::Exists(number)) => {
                    grown |= counted && *number > opened.exists;
                    counted = true;
                    opened.exists = *number;
                }
                _ => {}
            })
            .await?;
        if reply.status != ReplyStatus::Ok {
            return match reply.throttle() {
                Some(_) => Err(LaneFault::refused(verb, reply)),
                None => Ok(Err(reply)),
            };
        }
        opened.read_only = reply.has_code("READ-ONLY");
        opened.grown = grown;
        opened.uid_next = opened.uid_next.filter(|_| !grown);
        self.news = false;
        Ok(Ok(opened))
    }

    /// Lists messages from `from` to `to` (`None`: the last one), at most `most`, lowest first.
    /// True when there are more.
    pub(super) async fn list(
        &mut self,
        from: u32,
        to: Option<u32>,
        most: usize,
    ) -> Result<(Vec<Listed>, bool), LaneFault> {
        let to_text = to.map_or("*".to_owned(), |to| to.to_string());
        let command = format!("UID FETCH {from}:{to_text} (UID RFC822.SIZE INTERNALDATE)");
        let mut lowest: BinaryHeap<Listed> = BinaryHeap::new();
        if to.is_none() {
            // This list has it all; one with an end may not have what was told beside another.
            self.news = false;
        }
        let mut more = false;
        let reply = self
            .run(&command, &mut |response| {
                let Some(listed) = listed(response) else { return };
                // "5:*" names the last message also when its number is below 5.
                if listed.uid < from || to.is_some_and(|to| listed.uid > to) {
                    return;
                }
                lowest.push(listed);
                if lowest.len() > most {
                    lowest.pop();
                    more = true;
                }
            })
            .await?;
        if reply.status != ReplyStatus::Ok && !asks_for_patience(&reply) {
            return Err(LaneFault::Refused { command: "UID FETCH", reply });
        }
        expect_ok("UID FETCH", reply)?;
        let mut all = lowest.into_sorted_vec();
        all.dedup_by_key(|listed| listed.uid);
        Ok((all, more))
    }

    /// Which of these messages are there still.
    pub(super) async fn still_there(&mut self, set: &str) -> Result<Vec<u32>, LaneFault> {
        Ok(self.sizes(set).await?.into_iter().map(|found| found.uid).collect())
    }

    /// How large these messages are; those that are gone are left out.
    pub(super) async fn sizes(&mut self, set: &str) -> Result<Vec<Listed>, LaneFault> {
        let mut there = Vec::new();
        let command = format!("UID FETCH {set} (UID RFC822.SIZE)");
        let reply = self
            .run(&command, &mut |response| {
                if there.len() <= MOST_FOUND {
                    there.extend(listed(response));
                }
            })
            .await?;
        expect_ok("UID FETCH", reply)?;
        bounded(there.len())?;
        Ok(there)
    }

    /// Fetches whole messages and shows each to `on`. `largest` is the largest announced size,
    /// `total` that of all.
    pub(super) async fn fetch(
        &mut self,
        set: &str,
        largest: u32,
        total: u64,
        on: &mut (dyn FnMut(u32, &[u8]) + Send),
    ) -> Result<ImapReply, LaneFault> {
        let command = format!("UID FETCH {set} (UID BODY.PEEK[])");
        let literals = u64::from(largest) + u64::from(largest) / 4;
        let patience = self.tuning.patience(total);
        self.run_within(&command, literals, patience, &mut |response| {
            if let Some((uid, _, Some(body))) = body(response) {
                on(uid, body);
            }
        })
        .await
    }

    /// Fetches a piece of a message; `None` when the server has no such piece of it.
    pub(super) async fn fetch_piece(
        &mut self,
        uid: u32,
        offset: u64,
        length: u32,
    ) -> Result<Result<Option<Bytes>, ImapReply>, LaneFault> {
        let command = format!("UID FETCH {uid} (UID BODY.PEEK[]<{offset}.{length}>)");
        let patience = self.tuning.patience(u64::from(length));
        let mut piece = None;
        let reply = self
            .run_within(&command, u64::from(length), patience, &mut |response| {
                match body(response) {
                    Some((found, index, data)) if found == uid => {
                        // A server that ignores the offset would send the beginning again.
                        let right = index.map_or(offset == 0, |index| u64::from(index) == offset);
                        match data {
                            Some(bytes) if right || bytes.is_empty() => {
                                piece = Some(Bytes::copy_from_slice(bytes));
                            }
                            None if offset > 0 => piece = Some(Bytes::new()),
                            _ => {}
                        }
                    }
                    _ => {}
                }
            })
            .await?;
        if reply.status == ReplyStatus::Ok { Ok(Ok(piece)) } else { Ok(Err(reply)) }
    }

    /// Runs a command that changes the mailbox; any reply but a request for patience is returned.
    pub(super) async fn change(
        &mut self,
        name: &'static str,
        command: &str,
    ) -> Result<ImapReply, LaneFault> {
        let reply = self.run(command, &mut |_| {}).await?;
        match reply.throttle() {
            Some(_) => Err(LaneFault::refused(name, reply)),
            None => Ok(reply),
        }
    }

    /// UIDs flagged `\Deleted`; `None` when the server says OK and nothing else.
    pub(super) async fn deleted(&mut self) -> Result<Option<Vec<u32>>, LaneFault> {
        self.find("UID SEARCH DELETED").await
    }

    /// UIDVALIDITY and UIDNEXT of a mailbox that is not open; `None` when there is no such one. A
    /// number that is not told is 0.
    pub(super) async fn status(
        &mut self,
        wire_name: &str,
    ) -> Result<Option<(u32, u32)>, LaneFault> {
        let command = format!("STATUS {} (UIDVALIDITY UIDNEXT)", quoted(wire_name));
        let (mut uid_validity, mut uid_next) = (0, 0);
        let reply = self
            .run(&command, &mut |response| {
                let Response::MailboxData(MailboxDatum::Status { status, .. }) = response else {
                    return;
                };
                for attribute in status {
                    match attribute {
                        StatusAttribute::UidValidity(number) => uid_validity = *number,
                        StatusAttribute::UidNext(number) => uid_next = *number,
                        _ => {}
                    }
                }
            })
            .await?;
        match reply.status {
            ReplyStatus::Ok => Ok(Some((uid_validity, uid_next))),
            _ if reply.throttle().is_some() => Err(LaneFault::refused("STATUS", reply)),
            _ => Ok(None),
        }
    }

    /// Shows `on` the first octets of each of these messages, at most `most`.
    pub(super) async fn heads(
        &mut self,
        set: &str,
        most: u32,
        on: &mut (dyn FnMut(u32, &[u8]) + Send),
    ) -> Result<(), LaneFault> {
        let command = format!("UID FETCH {set} (UID BODY.PEEK[]<0.{most}>)");
        let patience = self.tuning.patience(500 * u64::from(most));
        let reply = self
            .run_within(&command, u64::from(most), patience, &mut |response| {
                if let Some((uid, _, Some(head))) = body(response) {
                    on(uid, head);
                }
            })
            .await?;
        expect_ok("UID FETCH", reply)
    }

    /// UIDs between these two, both included (`None`: the last one); nothing when the server says
    /// OK and nothing else.
    pub(super) async fn search(
        &mut self,
        from: u32,
        to: Option<u32>,
    ) -> Result<Option<Vec<u32>>, LaneFault> {
        let to = to.map_or("*".to_owned(), |to| to.to_string());
        self.find(&format!("UID SEARCH UID {from}:{to}")).await
    }

    async fn find(&mut self, command: &str) -> Result<Option<Vec<u32>>, LaneFault> {
        let mut found: Option<Vec<u32>> = None;
        let reply = self
            .run(command, &mut |response| {
                if let Response::MailboxData(MailboxDatum::Search(uids)) = response {
                    let found = found.get_or_insert_default();
                    if found.len() <= MOST_FOUND {
                        found.extend_from_slice(uids);
                    }
                }
            })
            .await?;
        expect_ok("UID SEARCH", reply)?;
        bounded(found.as_ref().map_or(0, Vec::len))?;
        Ok(found)
    }

    /// Notes that the mailbox has more than what was listed.
    pub(super) fn has_grown(&mut self) {
        self.news = true;
    }

    /// Whether the open mailbox has grown since it was listed last.
    pub(super) fn has_news(&self) -> bool {
        self.news
    }

    /// What stands between the levels of a mailbox name (RFC 3501 section 6.3.8); `None` when
    /// there are no levels.
    pub(super) async fn delimiter(&mut self) -> Result<Option<char>, LaneFault> {
        let mut found = None;
        let reply = self
            .run("LIST \"\" \"\"", &mut |response| {
                if let Response::MailboxData(MailboxDatum::List(list)) = response {
                    found = list.delimiter.as_deref().and_then(|text| text.chars().next());
                }
            })
            .await?;
        expect_ok("LIST", reply)?;
        Ok(found)
    }

    /// Keeps the connection alive.
    pub(super) async fn noop(&mut self) -> Result<(), LaneFault> {
        let reply = self.run("NOOP", &mut |_| {}).await?;
        expect_ok("NOOP", reply)
    }

    /// Says goodbye; the connection is closed whatever is answered.
    pub(super) async fn logout(mut self, within: Duration) {
        let _ = tokio::time::timeout(within, self.run("LOGOUT", &mut |_| {})).await;
    }

    /// Begins IDLE (RFC 2177). `None` when the server refuses it.
    pub(super) async fn idle_begin(&mut self) -> Result<Option<Idling>, LaneFault> {
        self.inner.as_mut().expect_literals(LITERAL_SLACK);
        self.inner.as_mut().expect_within(Some(self.tuning.silence));
        let work = async {
            let tag = self.inner.run_command("IDLE").await.map_err(lost)?;
            loop {
                let Some(data) = self.inner.read_response().await.map_err(broken)? else {
                    return Err(LaneFault::Lost("closed by the server".into()));
                };
                match data.parsed() {
                    Response::Continue(_) => return Ok(Some(Idling { tag })),
                    Response::Done { tag: other, status, outcome } if *other == tag => {
                        return completion(status, outcome).map(|_refused| None);
                    }
                    Response::Done { .. } => return Err(stray()),
                    response => self.news |= is_news(response)?,
                }
            }
        };
        let begun = tokio::time::timeout(self.tuning.patience(0), work).await;
        begun.unwrap_or_else(|_| Err(LaneFault::Lost("IDLE was not answered".into())))
    }

    /// Waits until the server says that the mailbox has changed. Cancel-safe; the silence of the
    /// server has no bound here, the caller renews.
    pub(super) async fn idle_wait(&mut self) -> Result<(), LaneFault> {
        self.inner.as_mut().expect_within(None);
        while !self.news {
            let Some(data) = self.inner.read_response().await.map_err(broken)? else {
                return Err(LaneFault::Lost("closed by the server during IDLE".into()));
            };
            if let Response::Done { status, outcome, .. } = data.parsed() {
                completion(status, outcome)?;
                return Err(LaneFault::Lost("the server ended IDLE".into()));
            }
            self.news = is_news(data.parsed())?;
        }
        Ok(())
    }

    /// Ends IDLE, within a time of its own: a connection that died in silence shows here.
    pub(super) async fn idle_end(&mut self, idling: Idling) -> Result<(), LaneFault> {
        let work = async {
            self.inner.run_command_untagged("DONE").await.map_err(lost)?;
            loop {
                let Some(data) = self.inner.read_response().await.map_err(broken)? else {
                    return Err(LaneFault::Lost("closed by the server during IDLE".into()));
                };
                match data.parsed() {
                    Response::Done { tag, .. } if *tag == idling.tag => return Ok(()),
                    Response::Done { .. } => return Err(stray()),
                    response => self.news |= is_news(response)?,
                }
            }
        };
        match tokio::time::timeout(self.tuning.idle_done, work).await {
            Ok(result) => result,
            Err(_) => Err(LaneFault::Lost("IDLE did not end: the connection is dead".into())),
        }
    }
}

fn stray() -> LaneFault {
    LaneFault::Protocol("an answer to another command".into())
}

fn bounded(found: usize) -> Result<(), LaneFault> {
    if found <= MOST_FOUND {
        return Ok(());
    }
    Err(LaneFault::Protocol("an answer names more messages than there can be".into()))
}

/// An IDLE that is open.
#[derive(Debug)]
pub(super) struct Idling {
    tag: async_imap::imap_proto::RequestId,
}
