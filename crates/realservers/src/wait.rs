//! Waiting for a condition with a hard deadline.
//!
//! Where the system offers an event (a reply on a socket, the end of a child) this crate waits for the
//! event. For the rest (a file that a server will write) the condition is asked again in a short, slowly
//! growing interval, never later than the deadline.

use crate::Error;
use std::time::{Duration, Instant};

/// The deadline for everything a healthy server does at once: generous, because test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

const FIRST_INTERVAL: Duration = Duration::from_millis(2);
const LONGEST_INTERVAL: Duration = Duration::from_millis(50);

/// Blocks the thread until `check` answers `Some`, at most `limit`. `check` is asked at least twice: at
/// once and at the deadline.
///
/// # Errors
/// [`Error::Deadline`] with `what` when the condition did not come true.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Option<T>,
) -> Result<T, Error> {
    try_until(what, limit, || Ok(check()))
}

/// Like [`until`], for a check that can fail for good, which ends the waiting.
///
/// # Errors
/// The check's own error, or [`Error::Deadline`].
pub fn try_until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let mut intervals = Intervals::new(limit);
    loop {
        if let Some(value) = check()? {
            return Ok(value);
        }
        match intervals.next() {
            Some(interval) => std::thread::sleep(interval),
            None => return Err(deadline(what, limit)),
        }
    }
}

/// Like [`until`] for a test that runs on a tokio runtime: other tasks go on between two checks.
///
/// Cancel-safe: dropping the future only ends the waiting.
///
/// # Errors
/// [`Error::Deadline`] with `what` when the condition did not come true.
pub async fn until_async<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Error> {
    let watched = async {
        let mut intervals = Intervals::new(limit);
        loop {
            if let Some(value) = check().await {
                return Some(value);
            }
            tokio::time::sleep(intervals.next()?).await;
        }
    };
    // The check itself may hang on a peer: the same deadline ends that too.
    match tokio::time::timeout(limit.saturating_add(LONGEST_INTERVAL), watched).await {
        Ok(Some(value)) => Ok(value),
        Ok(None) | Err(_) => Err(deadline(what, limit)),
    }
}

fn deadline(what: &str, waited: Duration) -> Error {
    Error::Deadline { what: what.to_owned(), waited }
}

/// The pauses between two checks; the last one ends at the deadline, and then there are no more.
struct Intervals {
    end: Instant,
    next: Duration,
}

impl Intervals {
    fn new(limit: Duration) -> Self {
        Self { end: Instant::now() + limit, next: FIRST_INTERVAL }
    }
}

impl Iterator for Intervals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let interval = self.next.min(left);
        self.next = (self.next * 2).min(LONGEST_INTERVAL);
        Some(interval)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_waiting() {
        let mut asked = 0;
        let value = until("the third question", PATIENCE, || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn the_deadline_names_what_was_waited_for() {
        let limit = Duration::from_millis(20);
        let started = Instant::now();
        let error = until("a file that never comes", limit, || None::<()>).unwrap_err();
        assert!(started.elapsed() >= limit);
        assert!(error.to_string().contains("a file that never comes"));
    }

    #[test]
    fn a_check_that_fails_for_good_is_not_asked_again() {
        let mut asked = 0;
        let result: Result<(), _> = try_until("nothing", PATIENCE, || {
            asked += 1;
            Err(Error::Usage("no such user".to_owned()))
        });
        assert_eq!((asked, result.is_err()), (1, true));
    }

    #[tokio::test]
    async fn an_asynchronous_check_that_hangs_meets_the_deadline() {
        let limit = Duration::from_millis(20);
        let hanging = until_async("an answer", limit, async || {
            std::future::pending::<()>().await;
            Some(())
        });
        assert!(matches!(hanging.await, Err(Error::Deadline { .. })));
    }
}
