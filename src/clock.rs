//! The one place the time comes from, so that tests can set it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::mapi::SysTime;

/// Tells the time and waits for it.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock as of now.
    fn now(&self) -> SysTime;

    /// Waits until the wall clock shows `until` or later, also when it was set or the machine
    /// slept meanwhile. Cancel-safe.
    fn sleep_until(&self, until: SysTime) -> BoxFuture<'static, ()>;
}

/// The machine's clock. Waiting needs a tokio runtime.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The longest sleep between two looks at the wall clock: a bound on how late a jump of the
/// clock or a suspended machine is noticed.
const LONGEST_NAP: Duration = Duration::from_secs(30);

impl Clock for SystemClock {
    fn now(&self) -> SysTime {
        SysTime::from(jiff::Timestamp::now())
    }

    fn sleep_until(&self, until: SysTime) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            loop {
                let left = until.saturating_since(SystemClock.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_NAP)).await;
            }
        })
    }
}

/// A clock that moves only when told to; for tests of programs that embed the library.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<tokio::sync::watch::Sender<SysTime>>,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: SysTime) -> Self {
        ManualClock { now: Arc::new(tokio::sync::watch::Sender::new(start)) }
    }

    /// Moves the clock forward and wakes who waits for a time that has come.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = now.saturating_add(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SysTime {
        *self.now.borrow()
    }

    fn sleep_until(&self, until: SysTime) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            // An error means the clock is gone; then the time never comes.
            if now.wait_for(|now| *now >= until).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_its_sleepers() {
        let clock = ManualClock::new(SysTime::from_millis(1_000));
        let sleeper = tokio::spawn(clock.sleep_until(SysTime::from_millis(3_000)));
        clock.advance(Duration::from_secs(1));
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        assert!(sleeper.await.is_ok());
        assert_eq!(clock.now(), SysTime::from_millis(3_000));
    }

    #[tokio::test]
    async fn a_time_that_has_passed_needs_no_wait() {
        SystemClock.sleep_until(SysTime::EPOCH).await;
    }
}
