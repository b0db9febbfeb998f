//! The rules in force, and the handles by which tests watch, release and remove them.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::{Deed, Fault, Moment, Phase};
use crate::state::{WaitError, lock};

/// A rule in force.
pub(crate) struct Rule {
    fault: Fault,
    seen: AtomicU32,
    struck: watch::Sender<u32>,
    released: watch::Sender<bool>,
}

impl Rule {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            seen: AtomicU32::new(0),
            struck: watch::Sender::new(0),
            released: watch::Sender::new(false),
        })
    }

    fn release(&self) {
        self.released.send_replace(true);
    }
}

/// A fault that strikes now.
pub(crate) struct Hit {
    pub(crate) deed: Deed,
    pub(crate) at_byte: Option<u64>,
    rule: Arc<Rule>,
}

impl Hit {
    /// Waits until a hang is released. Cancel-safe.
    pub(crate) async fn released(&self) {
        let mut released = self.rule.released.subscribe();
        // The sender lives in the rule we hold, so this ends only by release.
        let _ = released.wait_for(|released| *released).await;
    }

    /// Tells whoever waits that the server is at the fault now.
    pub(crate) fn announce(&self) {
        self.rule.struck.send_modify(|struck| *struck += 1);
    }
}

/// All rules in force.
pub(crate) struct Board {
    rules: Mutex<Vec<Arc<Rule>>>,
    /// Faults by recipient name hang on this rule, so that they can be released together.
    named: Mutex<Arc<Rule>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { rules: Mutex::default(), named: Mutex::new(named_rule()) }
    }
}

fn named_rule() -> Arc<Rule> {
    Rule::new(Fault::smtp(super::SmtpPhase::Other, super::Action::Hang))
}

impl Board {
    pub(crate) fn add(self: &Arc<Self>, fault: Fault) -> FaultHandle {
        let rule = Rule::new(fault);
        lock(&self.rules).push(Arc::clone(&rule));
        FaultHandle { rule, board: Arc::clone(self) }
    }

    /// The first rule that strikes; every rule that looks at this phase counts it as seen.
    pub(crate) fn strike(&self, phase: Phase, moment: Moment, subject: &str) -> Option<Hit> {
        let rules = lock(&self.rules);
        let mut first = None;
        for rule in rules.iter().filter(|rule| rule.fault.concerns(phase, moment, subject)) {
            let seen = rule.seen.fetch_add(1, Ordering::Relaxed) + 1;
            if first.is_none() && rule.fault.strikes(seen, *rule.struck.borrow()) {
                first = Some(Arc::clone(rule));
            }
        }
        first.map(|rule| Hit { deed: rule.fault.deed.clone(), at_byte: rule.fault.at_byte, rule })
    }

    /// Whether any rule is in force, for places too busy to describe themselves in vain.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.rules).is_empty()
    }

    /// Wraps a fault that was asked for by a recipient's name.
    pub(crate) fn named(&self, deed: Deed, at_byte: Option<u64>) -> Hit {
        Hit { deed, at_byte, rule: Arc::clone(&lock(&self.named)) }
    }

    pub(crate) fn named_hits(&self) -> u32 {
        *lock(&self.named).struck.borrow()
    }

    /// Lets everything go on that hangs now by a recipient's name; later ones hang again.
    pub(crate) fn release_named(&self) {
        let old = std::mem::replace(&mut *lock(&self.named), named_rule());
        old.release();
    }

    pub(crate) fn remove_all(&self) {
        let rules = std::mem::take(&mut *lock(&self.rules));
        for rule in rules {
            rule.release();
        }
        self.release_named();
    }

    fn remove(&self, rule: &Arc<Rule>) {
        lock(&self.rules).retain(|other| !Arc::ptr_eq(other, rule));
        rule.release();
    }
}

/// A rule that was added. Dropping the handle leaves the rule in force.
#[derive(Clone)]
pub struct FaultHandle {
    rule: Arc<Rule>,
    board: Arc<Board>,
}

impl fmt::Debug for FaultHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultHandle")
            .field("fault", &self.rule.fault)
            .field("hits", &self.hits())
            .finish_non_exhaustive()
    }
}

impl FaultHandle {
    /// How many times the fault has struck.
    pub fn hits(&self) -> u32 {
        *self.rule.struck.borrow()
    }

    /// Waits until the fault has struck at least once: the server is at that point now. Cancel-safe.
    ///
    /// # Errors
    /// [`WaitError`] if it does not happen within the given time.
    pub async fn reached(&self, within: Duration) -> Result<(), WaitError> {
        self.reached_times(1, within).await
    }

    /// Waits until the fault has struck at least `times` times. Cancel-safe.
    ///
    /// # Errors
    /// [`WaitError`] if it does not happen within the given time.
    pub async fn reached_times(&self, times: u32, within: Duration) -> Result<(), WaitError> {
        let mut struck = self.rule.struck.subscribe();
        match tokio::time::timeout(within, struck.wait_for(|struck| *struck >= times)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(WaitError::new(
                format!("{times} hits of {:?} (there were {})", self.rule.fault, self.hits()),
                within,
            )),
        }
    }

    /// Lets everything go on that hangs by this rule, and keeps it from hanging anything again.
    pub fn release(&self) {
        self.rule.release();
    }

    /// Takes the rule back; what hangs by it goes on.
    pub fn remove(&self) {
        self.board.remove(&self.rule);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::faults::{Action, SmtpPhase};

    fn strike(board: &Board) -> bool {
        let hit = board.strike(Phase::Smtp(SmtpPhase::Rcpt), Moment::Before, "");
        if let Some(hit) = &hit {
            hit.announce();
        }
        hit.is_some()
    }

    #[test]
    fn a_rule_strikes_until_it_is_used_up_or_removed() {
        let board = Arc::new(Board::default());
        let handle = board.add(Fault::smtp(SmtpPhase::Rcpt, Action::Drop).nth(2).once());
        assert_eq!([strike(&board), strike(&board), strike(&board)], [false, true, false]);
        assert_eq!(handle.hits(), 1);
        let second = board.add(Fault::smtp(SmtpPhase::Rcpt, Action::Drop));
        assert!(strike(&board));
        second.remove();
        assert!(!strike(&board));
    }

    #[tokio::test]
    async fn a_hang_ends_by_release_and_by_removal() {
        let board = Arc::new(Board::default());
        for end in [FaultHandle::release, FaultHandle::remove] {
            let handle = board.add(Fault::smtp(SmtpPhase::Rcpt, Action::Hang));
            let hit = board.strike(Phase::Smtp(SmtpPhase::Rcpt), Moment::Before, "").unwrap();
            let short = Duration::from_millis(20);
            assert!(tokio::time::timeout(short, hit.released()).await.is_err());
            assert!(handle.reached(short).await.is_err());
            hit.announce();
            handle.reached(short).await.unwrap();
            end(&handle);
            tokio::time::timeout(Duration::from_secs(5), hit.released()).await.unwrap();
            handle.remove();
        }
    }
}
