//! Times and sizes of receiving.

use std::time::Duration;

/// Times and sizes; the defaults are for servers at large, tests shrink them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// How long IDLE stays open before it is renewed. RFC 2177 allows 29 minutes; NAT boxes drop
    /// silent connections after 5 to 15 (default 5 min).
    pub(crate) idle_renew: Duration,
    /// How long the server may take to end IDLE (default 15 s).
    pub(crate) idle_done: Duration,
    /// How long a mailbox under push goes without a look, for servers whose IDLE has gone silent
    /// (default 15 min).
    pub(crate) safety_look: Duration,
    /// How long nothing at all may come while an answer is due (default 90 s).
    pub(crate) silence: Duration,
    /// What a command may take beside the time for its bytes (default 3 min).
    pub(crate) command: Duration,
    /// The slowest rate at which bytes may come, bytes a second (default 1 KiB/s).
    pub(crate) slowest: u64,
    /// A message above this is fetched in pieces (default 1 MiB).
    pub(crate) small: u32,
    /// Length of a piece (default 512 KiB).
    pub(crate) piece: u32,
    /// Bytes fetched and not yet handed over (default 8 MiB).
    pub(crate) budget: u32,
    /// Messages and bytes asked for with one command (default 200, 2 MiB).
    pub(crate) batch: (usize, u64),
    /// UIDs listed with one command (default 1,000).
    pub(crate) window: u32,
    /// Messages known and not yet on disk as fetched, for each mailbox (default 4,000).
    pub(crate) spread: usize,
    /// Pause after a failed connection: first and longest (default 1 s, 5 min).
    pub(crate) network_pause: (Duration, Duration),
    /// Pause after a refused login: first and longest (default 30 s, 15 min).
    pub(crate) login_pause: (Duration, Duration),
    /// Pause after a request for patience without a time: first and longest (default 1 min, 1 h).
    pub(crate) throttle_pause: (Duration, Duration),
    /// Pause before a message that failed is tried again (default 5 s).
    pub(crate) retry_pause: Duration,
    /// Pause while the local store takes nothing (default 30 s).
    pub(crate) storage_pause: Duration,
    /// Tries before a message is set aside (default 3).
    pub(crate) tries: u32,
    /// Pause before a message that was set aside is taken up again over the same connection
    /// (default 1 h; a new connection and a flush take it up at once).
    pub(crate) set_aside_pause: Duration,
    /// How many fetched messages must have gone from the server before their rows are looked for
    /// (default 64; always an eighth of all, so that each row that goes costs a few that stay).
    pub(crate) sweep_least: u32,
    /// How many owed `after` actions are worth a command while messages still come (default 100).
    pub(crate) after_batch: u64,
    /// Ranges of UIDs whose `after` action is owed, beyond which no more is fetched from a
    /// mailbox (default 10,000: up to 100 KB in each record of the cursor).
    pub(crate) most_owed: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        let seconds = Duration::from_secs;
        Tuning {
            idle_renew: seconds(5 * MINUTE),
            idle_done: seconds(15),
            safety_look: seconds(15 * MINUTE),
            silence: seconds(90),
            command: seconds(3 * MINUTE),
            slowest: 1024,
            small: 1 << 20,
            piece: 512 << 10,
            budget: 8 << 20,
            batch: (200, 2 << 20),
            window: 1000,
            spread: 4000,
            network_pause: (seconds(1), seconds(5 * MINUTE)),
            login_pause: (seconds(30), seconds(15 * MINUTE)),
            throttle_pause: (seconds(MINUTE), seconds(60 * MINUTE)),
            retry_pause: seconds(5),
            storage_pause: seconds(30),
            tries: 3,
            set_aside_pause: seconds(60 * MINUTE),
            sweep_least: 64,
            after_batch: 100,
            most_owed: 10_000,
        }
    }
}

impl Tuning {
    /// What a command that answers with so many bytes may take.
    pub(super) fn patience(&self, bytes: u64) -> Duration {
        self.command + Duration::from_secs(bytes / self.slowest.max(1))
    }
}

/// The pause before attempt number `failures` + 1: doubled each time, at most the longest, with
/// jitter downwards so that many clients of one server do not come back together.
pub(super) fn backoff((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(longest).mul_f64(0.75 + 0.25 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let bounds = (Duration::from_secs(1), Duration::from_secs(300));
        for (failures, full) in [(0, 1), (1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (4000, 300)]
        {
            let full = Duration::from_secs(full);
            let pause = backoff(bounds, failures);
            assert!(pause <= full && pause >= full.mul_f64(0.75), "{failures}: {pause:?}");
        }
    }
}
