//! Large messages: fetched in pieces as the host takes them, never whole in memory.
//!
//! What a host has kept of an earlier try is not fetched again, except for its first and last
//! octets: a server that makes a message anew each time it is asked for, with other boundaries,
//! would have it put together of two that do not fit.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::claim::Claim;
use super::cursor::Ending;
use super::fault::{LaneFault, asks_for_patience};
use super::key::content_digest;
use super::lane::is_closed;
use super::mailbox::{Mailbox, Match};
use super::plan::{PieceStep, Pieces};
use super::queue::{Body, Kept, Piece};
use super::work::Work;

/// What asking for a piece gave.
enum Got {
    Bytes(Bytes),
    Anew,
    End,
    Failed(String),
}

impl Work {
    /// Fetches one message in pieces: it waits until the host takes it, then asks for a piece
    /// whenever the last one is written.
    pub(super) async fn fetch_in_pieces(
        &mut self,
        mailbox: &Arc<Mailbox>,
        claim: Claim,
    ) -> Result<(), LaneFault> {
        let (uid, size) = (claim.uid, claim.size);
        mailbox.commit().await?;
        debug_assert!(mailbox.is_announced(uid), "the window is on disk");
        let claim = if mailbox.is_rematched(uid) {
            match self.matched(mailbox, claim).await? {
                Some(claim) => claim,
                None => return Ok(()),
            }
        } else {
            claim
        };
        let (ask, asked) = oneshot::channel();
        let (to_host, pieces) = mpsc::channel(1);
        self.hand_on(claim, Body::Pieces { taken: ask, pieces });
        match self.wait_until_taken(mailbox, asked).await? {
            Some(kept) => self.feed(uid, size, kept, &to_host).await,
            None => Ok(()),
        }
    }

    /// What the host has already; `None` when nobody takes it any more.
    async fn wait_until_taken(
        &mut self,
        mailbox: &Arc<Mailbox>,
        mut asked: oneshot::Receiver<Kept>,
    ) -> Result<Option<Kept>, LaneFault> {
        let keepalive = self.account.settings.tuning.idle_renew;
        loop {
            tokio::select! {
                taken = &mut asked => return Ok(taken.ok()),
                changed = self.control.changed() => {
                    if changed.is_err() || is_closed(&self.control.borrow_and_update()) {
                        // What the host has taken in this instant is not in the queue any more
                        // and is completed (TN-7).
                        self.take_back(mailbox);
                        return Ok(asked.await.ok());
                    }
                }
                () = tokio::time::sleep(keepalive) => {
                    if let Err(fault) = self.session.noop().await {
                        self.take_back(mailbox);
                        return Err(fault);
                    }
                }
            }
        }
    }

    async fn feed(
        &mut self,
        uid: u32,
        size: u32,
        kept: Kept,
        to_host: &mpsc::Sender<Piece>,
    ) -> Result<(), LaneFault> {
        let mut pieces = Pieces::new(size, self.account.settings.tuning.piece).behind(kept.octets);
        let mut step = pieces.first();
        let mut compared = kept.octets == 0;
        loop {
            let work = async {
                if !std::mem::replace(&mut compared, true) && !self.is_beginning(uid, &kept).await?
                {
                    pieces = pieces.behind(0);
                    step = pieces.first();
                    return Ok(Got::Anew);
                }
                self.piece(uid, &mut pieces, &mut step).await
            };
            let got = tokio::select! {
                biased;
                // A host that has cancelled waits for nothing, least of all for a server that has
                // gone silent amid an answer; the connection cannot be used behind that (TN-14).
                () = to_host.closed() => None,
                got = work => Some(got),
            };
            let Some(got) = got else { return Err(self.forsake()) };
            let got = match got {
                Ok(got) => got,
                Err(fault) => {
                    let words = fault.words(self.account.connector.name());
                    // The host may have gone; then there is nobody to tell.
                    let _ = to_host.send(Piece::Lost(words)).await;
                    return Err(fault);
                }
            };
            let (piece, last) = match got {
                Got::Bytes(bytes) => {
                    (Piece::Bytes(self.account.budget.hold(bytes, &mut None)), false)
                }
                Got::Anew => (Piece::Anew, false),
                Got::End => (Piece::End, true),
                Got::Failed(words) => (Piece::Failed(words), true),
            };
            // A host that has cancelled or failed takes no more.
            if to_host.send(piece).await.is_err() || last {
                return Ok(());
            }
        }
    }

    /// Whether what the host has is how this message begins, as far as a look at both of its ends tells.
    async fn is_beginning(&mut self, uid: u32, kept: &Kept) -> Result<bool, LaneFault> {
        let behind = u64::try_from(kept.tail.len()).unwrap_or(kept.octets);
        for (offset, octets) in [(0, &kept.head), (kept.octets.saturating_sub(behind), &kept.tail)]
        {
            let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
            match self.session.fetch_piece(uid, offset, length).await? {
                Ok(Some(piece)) if piece == *octets => {}
                Err(reply) if asks_for_patience(&reply) => {
                    return Err(LaneFault::refused("UID FETCH", reply));
                }
                Ok(_) | Err(_) => {
                    tracing::info!(uid, "what was kept of a large message is not how it begins");
                    return Ok(false);
                }
            }
        }
        tracing::debug!(uid, octets = kept.octets, "a large message goes on where it stopped");
        Ok(true)
    }

    async fn piece(
        &mut self,
        uid: u32,
        pieces: &mut Pieces,
        step: &mut PieceStep,
    ) -> Result<Got, LaneFault> {
        loop {
            match *step {
                PieceStep::Complete => return Ok(Got::End),
                PieceStep::Broken(why) => {
                    return Ok(Got::Failed(format!("{why} (after {} bytes)", pieces.received())));
                }
                PieceStep::Ask { offset, length } => {
                    match self.session.fetch_piece(uid, offset, length).await? {
                        Ok(piece) => {
                            *step = pieces.next(piece.as_ref().map(Bytes::len));
                            if let Some(bytes) = piece.filter(|bytes| !bytes.is_empty())
                                && !matches!(step, PieceStep::Broken(_))
                            {
                                return Ok(Got::Bytes(bytes));
                            }
                        }
                        Err(reply) if asks_for_patience(&reply) => {
                            return Err(LaneFault::refused("UID FETCH", reply));
                        }
                        Err(reply) => {
                            return Ok(Got::Failed(format!(
                                "the server answers {}",
                                reply.words()
                            )));
                        }
                    }
                }
            }
        }
    }

    /// Compares a large message of a rebuilt mailbox with what was delivered before. `None` when
    /// it was, or when it could not be read.
    async fn matched(
        &mut self,
        mailbox: &Arc<Mailbox>,
        mut claim: Claim,
    ) -> Result<Option<Claim>, LaneFault> {
        let _moving = self.account.moving();
        let mut pieces = Pieces::new(claim.size, self.account.settings.tuning.piece);
        let mut step = pieces.first();
        let mut hasher = blake3::Hasher::new();
        loop {
            let got = match self.piece(claim.uid, &mut pieces, &mut step).await {
                Ok(got) => got,
                Err(fault) => {
                    let words = fault.words(self.account.connector.name());
                    self.count_failure(claim, &words);
                    return Err(fault);
                }
            };
            match got {
                Got::Bytes(bytes) => {
                    hasher.update(&bytes);
                }
                Got::End => break,
                // Nothing came before.
                Got::Anew => {}
                Got::Failed(words) => {
                    self.count_failure(claim, &words);
                    return Ok(None);
                }
            }
        }
        let digest = content_digest(&hasher);
        match mailbox.decide(claim.uid, digest).await? {
            Match::New(origin) => {
                claim.save_as(origin);
                Ok(Some(claim))
            }
            Match::Known => {
                claim.end(Ending::Known(digest));
                Ok(None)
            }
        }
    }
}
