//! How many messages an account may begin in a minute. Pure: no clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::mapi::SysTime;

/// The time that is looked at.
const WINDOW: Duration = Duration::from_secs(60);

/// A provider's limit on messages, kept exactly: in no 60 seconds of this process more begin than
/// it allows. A restart forgets what was begun before it.
#[derive(Debug, Default)]
pub(super) struct Rate {
    limit: Option<usize>,
    /// When messages were begun, oldest first; no more of them than the limit.
    begun: VecDeque<SysTime>,
}

impl Rate {
    /// At most `limit` messages a minute; `None` for any number.
    pub(super) fn new(limit: Option<u32>) -> Self {
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX).max(1));
        Rate { limit, begun: VecDeque::new() }
    }

    /// How many may begin now.
    pub(super) fn left(&self, now: SysTime) -> usize {
        let Some(limit) = self.limit else { return usize::MAX };
        let still = self.begun.iter().rev().take_while(|begun| counts(**begun, now)).count();
        limit.saturating_sub(still)
    }

    /// Until when none may begin; `None` when one may.
    pub(super) fn until(&self, now: SysTime) -> Option<SysTime> {
        if self.left(now) > 0 {
            return None;
        }
        let first = self.begun.iter().find(|begun| counts(**begun, now))?;
        Some(first.saturating_add(WINDOW))
    }

    /// Notes that one begins; says whether it may.
    pub(super) fn begin(&mut self, now: SysTime) -> bool {
        let Some(limit) = self.limit else { return true };
        while self.begun.front().is_some_and(|begun| !counts(*begun, now)) {
            self.begun.pop_front();
        }
        let may = self.begun.len() < limit;
        if may {
            self.begun.push_back(now);
        }
        may
    }
}

fn counts(begun: SysTime, now: SysTime) -> bool {
    now < begun.saturating_add(WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SysTime {
        SysTime::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn no_minute_has_more_than_the_limit() {
        let mut rate = Rate::new(Some(3));
        let mut begun = Vec::new();
        // Somebody asks every seven seconds, in pairs.
        for second in (0..600).step_by(7) {
            for _ in 0..2 {
                let (left, until) = (rate.left(at(second)), rate.until(at(second)));
                let may = rate.begin(at(second));
                assert_eq!(may, left > 0);
                assert_eq!(may, until.is_none());
                begun.extend(may.then_some(second));
            }
        }
        for first in 0..600 {
            let within = begun.iter().filter(|second| (first..first + 60).contains(*second));
            assert!(within.count() <= 3, "{first}: {begun:?}");
        }
        assert!(begun.len() >= 24, "it is used to the full: {begun:?}");
    }

    #[test]
    fn the_end_of_a_pause_is_when_the_oldest_is_a_minute_old() {
        let mut rate = Rate::new(Some(2));
        assert!(rate.begin(at(0)) && rate.begin(at(10)) && !rate.begin(at(20)));
        assert_eq!(rate.until(at(20)), Some(at(60)));
        assert_eq!((rate.until(at(60)), rate.left(at(60))), (None, 1));
        assert!(rate.begin(at(60)) && !rate.begin(at(60)));
        assert_eq!(rate.until(at(60)), Some(at(70)));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let mut rate = Rate::new(None);
        assert!((0..1000).all(|_| rate.begin(at(0))));
        assert_eq!((rate.left(at(0)), rate.until(at(0))), (usize::MAX, None));
        assert!(rate.begun.is_empty());
    }
}
