//! How long each phase of the dialogue may take.

use std::time::Duration;

use crate::net;

/// One deadline per phase; the defaults are those of RFC 5321 section 4.5.3.2, which count from
/// the last byte written to the whole reply read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Name lookup, TCP, TLS, the greeting, STARTTLS.
    pub(crate) net: net::Deadlines,
    /// EHLO, RSET, and each step of AUTH.
    pub(crate) command: Duration,
    /// MAIL (4.5.3.2.2).
    pub(crate) mail: Duration,
    /// Each RCPT (4.5.3.2.3).
    pub(crate) rcpt: Duration,
    /// DATA until its 354 (4.5.3.2.4).
    pub(crate) data: Duration,
    /// Each block of the text (4.5.3.2.5).
    pub(crate) block: Duration,
    /// The reply to the final dot (4.5.3.2.6).
    pub(crate) dot: Duration,
    /// QUIT; nothing depends on its reply.
    pub(crate) quit: Duration,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            net: net::Deadlines::default(),
            command: 5 * MINUTE,
            mail: 5 * MINUTE,
            rcpt: 5 * MINUTE,
            data: 2 * MINUTE,
            block: 3 * MINUTE,
            dot: 10 * MINUTE,
            quit: Duration::from_secs(2),
        }
    }
}

/// No lease is longer than this, however slow the server is allowed to be.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

impl Deadlines {
    /// The longest an attempt can take that keeps to every deadline: from the first byte of the
    /// connection to the reply to the final dot. A claim's lease lasts so long.
    pub(crate) fn longest_attempt(&self, recipients: usize, size: u64) -> Duration {
        // EHLO, three steps of AUTH, RSET.
        let setup = self.net.total() + 5 * self.command;
        let recipients = u32::try_from(recipients).unwrap_or(u32::MAX);
        let blocks = u32::try_from(size / (64 * 1024) + 1).unwrap_or(u32::MAX);
        setup
            .saturating_add(self.mail)
            .saturating_add(self.rcpt.saturating_mul(recipients))
            .saturating_add(self.data)
            .saturating_add(self.block.saturating_mul(blocks))
            .saturating_add(self.dot)
            .min(LONGEST_LEASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_attempt_grows_with_the_message_and_is_bounded() {
        let deadlines = Deadlines::default();
        let one = deadlines.longest_attempt(1, 4096);
        // 25 min of commands, then 5 + 5 + 2 + 3 + 10 min.
        assert_eq!(one, deadlines.net.total() + 50 * MINUTE);
        assert_eq!(deadlines.longest_attempt(2, 4096), one + 5 * MINUTE);
        assert_eq!(deadlines.longest_attempt(1, 65 * 1024), one + 3 * MINUTE);
        assert_eq!(deadlines.longest_attempt(usize::MAX, u64::MAX), LONGEST_LEASE);
    }
}
