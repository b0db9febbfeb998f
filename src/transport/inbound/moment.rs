//! A time to wait for that neither a sleeping machine nor a clock that is set can put off.
//!
//! The wall clock jumps: forward when a machine wakes up, either way when somebody sets it. The
//! running clock of the process never jumps, and stands still while the machine sleeps. A pause
//! is over when either of them says so: after an hour of sleep at once, and never later than it
//! was long although the wall clock was set back.

use tokio::time::Instant;

use crate::clock::Clock;
use crate::mapi::SysTime;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    wall: SysTime,
    running: Option<Instant>,
}

impl Moment {
    /// Has always passed.
    pub(super) const PAST: Moment = Moment { wall: SysTime::EPOCH, running: None };
    /// Never comes.
    pub(super) const NEVER: Moment = Moment { wall: SysTime::MAX, running: None };

    pub(super) fn now(clock: &dyn Clock) -> Self {
        Moment { wall: clock.now(), running: Some(Instant::now()) }
    }

    /// So much later.
    pub(super) fn after(self, pause: std::time::Duration) -> Self {
        Moment {
            wall: self.wall.saturating_add(pause),
            running: self.running.and_then(|running| running.checked_add(pause)),
        }
    }

    /// Whether it has passed at `now`.
    pub(super) fn is_over(self, now: Moment) -> bool {
        let run_out = self.running.zip(now.running).is_some_and(|(until, now)| until <= now);
        self.wall <= now.wall || run_out
    }

    /// Whichever comes first.
    pub(super) fn first(self, other: Moment) -> Self {
        let running = [self.running, other.running].into_iter().flatten().min();
        Moment { wall: self.wall.min(other.wall), running }
    }

    /// Whichever comes last.
    pub(super) fn last(self, other: Moment) -> Self {
        let running = [self.running, other.running].into_iter().flatten().max();
        Moment { wall: self.wall.max(other.wall), running }
    }

    /// Waits for it. Cancel-safe.
    pub(super) async fn come(self, clock: &dyn Clock) {
        let run_out = async {
            match self.running {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = clock.sleep_until(self.wall) => {}
            () = run_out => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test(start_paused = true)]
    async fn either_clock_ends_a_pause() {
        const HOUR: Duration = Duration::from_secs(3600);
        let clock = ManualClock::new(SysTime::from_millis(10_000_000));
        let pause = Moment::now(&clock).after(Duration::from_secs(60));
        assert!(!pause.is_over(Moment::now(&clock)));
        // A machine that slept.
        let awake = ManualClock::new(clock.now().saturating_add(HOUR));
        assert!(pause.is_over(Moment::now(&awake)));
        pause.come(&awake).await;
        // A clock that was set back.
        let back = ManualClock::new(SysTime::from_millis(0));
        assert!(!pause.is_over(Moment::now(&back)));
        let begin = Instant::now();
        pause.come(&back).await;
        assert_eq!(begin.elapsed().as_secs(), 60);
        assert!(pause.is_over(Moment::now(&back)));
        assert!(Moment::PAST.is_over(Moment::now(&back)));
        assert!(!Moment::NEVER.is_over(Moment::now(&awake)));
        assert_eq!(Moment::NEVER.first(pause), pause);
        assert_eq!(Moment::PAST.last(pause), pause);
    }
}
