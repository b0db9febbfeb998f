//! Whether envelopes are written ahead of their turn: not for a server that cannot do with it.

use std::time::Duration;

use crate::mapi::SysTime;

/// So often in a row one may end in nothing.
const MOST_FAILURES: u32 = 3;

/// How long one thing comes after the other then.
const LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// How a server took an envelope ahead of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::outbound) enum WentAhead {
    /// It answered both messages.
    Well,
    /// The connection was of no more use, which has many reasons.
    Badly,
    /// It hung up without an answer to the final dot, or did not answer the envelope.
    Confused,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Aheads {
    one_by_one: Option<SysTime>,
    /// How often it went badly since it last went well.
    failures: u32,
}

impl Aheads {
    pub(super) fn went(&mut self, end: WentAhead, now: SysTime) {
        self.failures = match end {
            WentAhead::Well => 0,
            WentAhead::Badly => self.failures.saturating_add(1),
            WentAhead::Confused => MOST_FAILURES,
        };
        if self.failures >= MOST_FAILURES {
            self.failures = 0;
            self.one_by_one = Some(now.saturating_add(LASTS));
        }
    }

    pub(super) fn is_one_by_one(&self, now: SysTime) -> bool {
        self.one_by_one.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_for_a_day_when_it_ends_badly_again_and_again() {
        use WentAhead::{Badly, Confused, Well};
        let start = SysTime::from_millis(1_000);
        let given_up = |ends: &[WentAhead]| {
            let mut aheads = Aheads::default();
            ends.iter().for_each(|end| aheads.went(*end, start));
            let day_after = start.saturating_add(LASTS);
            assert!(!aheads.is_one_by_one(day_after));
            aheads.is_one_by_one(start)
        };
        assert!(!given_up(&[]));
        assert!(!given_up(&[Badly, Badly, Well, Badly, Badly]));
        assert!(given_up(&[Badly, Badly, Badly]));
        assert!(given_up(&[Well, Confused]));
    }
}
