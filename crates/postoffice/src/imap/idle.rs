//! IDLE (RFC 2177).

use imap_codec::IdleDoneCodec;
use imap_codec::decode::Decoder;

use super::session::Session;
use super::view::Expunges;
use crate::connection::{Flow, Line};
use crate::faults::{ImapPhase, Moment, Phase};
use crate::sabotage::Outcome;
use crate::smtp::ViolationKind;
use crate::transcript::Speaker;

/// Longest line a client may end its idling with.
const LINE: usize = 1024;

impl Session {
    pub(super) async fn idle(&mut self, tag: &str) -> Flow {
        self.connection.say("+ idling\r\n");
        let phase = Phase::Imap(ImapPhase::Idle);
        let outcome = self.connection.fault(phase, Moment::After, "IDLE").await?;
        let goes_on = match outcome {
            Outcome::Replaced => true,
            outcome => self.spoil(tag, outcome).await?,
        };
        if !goes_on {
            self.done_already();
            return Ok(());
        }
        let mut changes = self.connection.shared.mail_changes();
        loop {
            changes.borrow_and_update();
            self.announce(Expunges::Announced).await?;
            // All output is out before the wait, which may be dropped when mail arrives.
            self.connection.flush().await?;
            let line = tokio::select! {
                _ = changes.changed() => continue,
                line = self.connection.line(LINE) => line?,
            };
            let done = match &line {
                Line::Whole(line) => {
                    self.connection.record(Speaker::Client, line);
                    IdleDoneCodec::default().decode(line).is_ok()
                }
                Line::TooLong => false,
            };
            let phase = Phase::Imap(ImapPhase::Done);
            let outcome = self.connection.fault(phase, Moment::Before, "DONE").await?;
            let goes_on = match outcome {
                Outcome::Replaced => false,
                outcome => self.spoil(tag, outcome).await?,
            };
            if !goes_on {
                self.done_already();
            } else if done {
                self.done(tag, "OK idle is over");
            } else {
                self.violation(ViolationKind::Syntax, "something other than DONE in IDLE");
                self.done(tag, "BAD expected DONE");
            }
            return Ok(());
        }
    }
}
