//! The one place the time comes from, so that tests can set it.

use std::sync::{Arc, Mutex, PoisonError};
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

/// A clock for schedules: it follows another one forwards and never runs backwards. When the
/// other is set back, times noted before would lie far ahead and everything would wait for as long
/// as the step was; this one goes on from where it was.
#[derive(Clone)]
pub(crate) struct SteadyClock {
    wall: Arc<dyn Clock>,
    state: Arc<Mutex<Steady>>,
}

#[derive(Debug)]
struct Steady {
    last: SysTime,
    /// How far it is ahead of the other clock.
    ahead: Duration,
}

impl Steady {
    /// The time when the other clock shows `wall`.
    fn at(&mut self, wall: SysTime) -> SysTime {
        if wall >= self.last {
            self.ahead = Duration::ZERO;
            self.last = wall;
        } else if wall.saturating_add(self.ahead) < self.last {
            self.ahead = self.last.saturating_since(wall);
        } else {
            self.last = wall.saturating_add(self.ahead);
        }
        self.last
    }
}

impl SteadyClock {
    /// A clock that follows `wall`.
    pub(crate) fn new(wall: Arc<dyn Clock>) -> Self {
        let state = Steady { last: wall.now(), ahead: Duration::ZERO };
        SteadyClock { wall, state: Arc::new(Mutex::new(state)) }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> SysTime {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.at(self.wall.now())
    }

    fn sleep_until(&self, until: SysTime) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            loop {
                let left = until.saturating_since(clock.now());
                if left.is_zero() {
                    return;
                }
                let wall = clock.wall.now().saturating_add(left);
                tokio::select! {
                    () = clock.wall.sleep_until(wall) => {}
                    // The other clock may have been set back.
                    () = tokio::time::sleep(LONGEST_NAP) => {}
                }
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

    /// Sets the clock, forwards or back, and wakes who waits for a time that has come.
    pub fn set(&self, to: SysTime) {
        self.now.send_replace(to);
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

    #[test]
    fn a_steady_clock_goes_on_from_where_it_was() {
        let wall = ManualClock::new(SysTime::from_millis(10_000_000));
        let steady = SteadyClock::new(Arc::new(wall.clone()));
        wall.advance(Duration::from_secs(1));
        assert_eq!(steady.now(), SysTime::from_millis(10_001_000));
        // An hour back, and on from there; once more.
        wall.set(SysTime::from_millis(6_401_000));
        assert_eq!(steady.now(), SysTime::from_millis(10_001_000));
        wall.advance(Duration::from_secs(5));
        assert_eq!(steady.now(), SysTime::from_millis(10_006_000));
        wall.set(SysTime::from_millis(2_000_000));
        assert_eq!(steady.now(), SysTime::from_millis(10_006_000));
        wall.advance(Duration::from_secs(1));
        assert_eq!(steady.now(), SysTime::from_millis(10_007_000));
        // Forwards it follows: an hour of sleep, or a clock that is put right.
        wall.set(SysTime::from_millis(20_000_000));
        assert_eq!(steady.now(), SysTime::from_millis(20_000_000));
        wall.set(SysTime::from_millis(19_999_000));
        assert_eq!(steady.now(), SysTime::from_millis(20_000_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeper_of_a_steady_clock_is_not_late_when_the_wall_is_set_back() {
        let wall = ManualClock::new(SysTime::from_millis(10_000_000));
        let steady = SteadyClock::new(Arc::new(wall.clone()));
        let sleeper = tokio::spawn(steady.sleep_until(SysTime::from_millis(10_060_000)));
        tokio::task::yield_now().await;
        wall.set(SysTime::from_millis(6_400_000));
        // The step is seen at the next nap; then it takes a minute, not an hour and a minute.
        tokio::time::sleep(LONGEST_NAP + Duration::from_secs(1)).await;
        wall.advance(Duration::from_secs(59));
        tokio::time::sleep(LONGEST_NAP + Duration::from_secs(1)).await;
        assert!(!sleeper.is_finished());
        wall.advance(Duration::from_secs(1));
        assert!(sleeper.await.is_ok());
    }

    #[tokio::test]
    async fn a_time_that_has_passed_needs_no_wait() {
        SystemClock.sleep_until(SysTime::EPOCH).await;
    }
}
