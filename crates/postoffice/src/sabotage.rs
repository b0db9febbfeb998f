//! Carrying out faults on a connection.

use crate::config::Protocol;
use crate::connection::{Connection, End, Flow};
use crate::faults::{Action, Deed, Hit, ImapAction, Moment, Phase, SmtpAction};

/// Octets of a flood written at once.
const CHUNK: u64 = 64 << 10;

/// What a session does after a fault.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// What it would have done anyway.
    Proceed,
    /// Nothing: what had to be sent in place of the reply is queued.
    Replaced,
    /// This, which only the protocol knows how to do.
    Smtp(SmtpAction),
    /// This, which only the protocol knows how to do.
    Imap(ImapAction),
}

impl Connection {
    /// Looks for a fault and carries it out as far as both protocols have it in common.
    pub(crate) async fn fault(
        &mut self,
        phase: Phase,
        moment: Moment,
        subject: &str,
    ) -> Flow<Outcome> {
        match self.shared.faults.strike(phase, moment, subject) {
            Some(hit) => self.suffer(hit).await,
            None => Ok(Outcome::Proceed),
        }
    }

    /// As [`Self::fault`] for the moment after the effect, when the reply since `mark` is queued already:
    /// it goes out only if the fault lets it.
    pub(crate) async fn fault_in_reply(
        &mut self,
        phase: Phase,
        subject: &str,
        mark: usize,
    ) -> Flow<Outcome> {
        let Some(hit) = self.shared.faults.strike(phase, Moment::After, subject) else {
            return Ok(Outcome::Proceed);
        };
        let reply = self.take_back(mark);
        let outcome = self.suffer(hit).await?;
        if matches!(outcome, Outcome::Proceed) {
            self.put(&reply);
        }
        Ok(outcome)
    }

    /// Carries out a fault that strikes now.
    pub(crate) async fn suffer(&mut self, hit: Hit) -> Flow<Outcome> {
        self.note(&format!("fault: {}", describe(&hit.deed)));
        // Replies to earlier commands are not part of the fault.
        self.flush().await?;
        match hit.deed.clone() {
            Deed::Smtp(SmtpAction::Common(action)) | Deed::Imap(ImapAction::Common(action)) => {
                self.act(action, &hit).await
            }
            Deed::Smtp(action) => {
                hit.announce();
                Ok(Outcome::Smtp(action))
            }
            Deed::Imap(action) => {
                hit.announce();
                Ok(Outcome::Imap(action))
            }
        }
    }

    async fn act(&mut self, action: Action, hit: &Hit) -> Flow<Outcome> {
        // Announced before waiting: a test that waits for the hit may be the one who releases it.
        hit.announce();
        match action {
            Action::Hang => self.hang(hit).await?,
            Action::Delay(time) => self.pause(time).await?,
            Action::Drop => {
                self.drop_now();
                return Err(End::Closed);
            }
            Action::Reset => {
                self.reset_now();
                return Err(End::Closed);
            }
            Action::HalfClose => {
                self.half_close().await?;
                return Err(End::Closed);
            }
            Action::Replace(bytes) => {
                self.put(&bytes);
                return Ok(Outcome::Replaced);
            }
            Action::Inject(bytes) => self.put(&bytes),
            Action::Append(bytes) => self.appendix = bytes,
            Action::Flood { mut line, times } => {
                line.extend_from_slice(b"\r\n");
                for _ in 0..times {
                    self.put(&line);
                    self.flush_if_full().await?;
                }
            }
            Action::EndlessLine { bytes } => {
                let mut left = bytes;
                while left > 0 {
                    let count = left.min(CHUNK);
                    self.put(&vec![b'x'; usize::try_from(count).unwrap_or_default()]);
                    self.flush().await?;
                    left -= count;
                }
                self.put(b"\r\n");
            }
            Action::Dribble { pause } => self.dribble = Some(pause),
        }
        Ok(Outcome::Proceed)
    }

    /// The faults before any protocol is spoken; answers the handshake when TLS is implicit.
    pub(crate) async fn open(&mut self, implicit_tls: bool) -> Flow {
        let connect = Phase::connect(self.protocol);
        self.fault(connect, Moment::Before, "").await?;
        self.flush().await?;
        if implicit_tls {
            self.secure().await?;
        }
        Ok(())
    }

    /// The handshake with its faults. Returns how many octets came in clear before it.
    pub(crate) async fn secure(&mut self) -> Flow<usize> {
        let phase = Phase::handshake(self.protocol);
        if let Outcome::Replaced = self.fault(phase, Moment::Before, "").await? {
            // Garbage instead of a handshake: the peer gives up, or we do.
            self.flush().await?;
            self.half_close().await?;
        }
        self.handshake().await
    }
}

fn describe(deed: &Deed) -> String {
    let mut text = match deed {
        Deed::Smtp(action) => format!("{action:?}"),
        Deed::Imap(action) => format!("{action:?}"),
    };
    if text.len() > 200 {
        text = text.chars().take(200).collect();
    }
    text
}

/// The verb of a command line, for counting: the first word of SMTP, the second of IMAP (with UID, two).
pub(crate) fn verb(protocol: Protocol, line: &str) -> String {
    // Cut, so that nonsense cannot make the table of counters big.
    let upper = |word: &str| word.chars().take(16).collect::<String>().to_ascii_uppercase();
    let mut words = line.split_ascii_whitespace().map(upper);
    match protocol {
        Protocol::Smtp => words.next().unwrap_or_default(),
        Protocol::Imap => match words.nth(1) {
            Some(uid) if uid == "UID" => format!("UID {}", words.next().unwrap_or_default()),
            Some(verb) => verb,
            None => String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_counted_in_capitals() {
        assert_eq!(verb(Protocol::Smtp, "mail from:<a@b>"), "MAIL");
        assert_eq!(verb(Protocol::Imap, "a1 uid fetch 1 BODY[]"), "UID FETCH");
        assert_eq!(verb(Protocol::Imap, "a1 noop"), "NOOP");
        assert_eq!(verb(Protocol::Imap, "a1"), "");
    }
}
