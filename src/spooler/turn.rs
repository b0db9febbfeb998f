//! The order in which SubmitMessage is called when many messages are handed over at once (OB-14).

use tokio::sync::oneshot;

/// A message's turn to call SubmitMessage: it comes when the one before it has called, and passes
/// on by itself when the message needs no call after all.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    behind: Option<oneshot::Sender<()>>,
}

/// Hands out turns, each behind the last.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    last: Option<oneshot::Receiver<()>>,
}

impl Turns {
    pub(crate) fn next(&mut self) -> Turn {
        let (passed, passes) = oneshot::channel();
        Turn { before: self.last.replace(passes), behind: Some(passed) }
    }
}

impl Turn {
    /// Waits for the turn. Cancel-safe.
    pub(crate) async fn come(&mut self) {
        if let Some(before) = &mut self.before {
            // Passed on by a drop is passed on as well.
            let _ = before.await;
            self.before = None;
        }
    }

    /// Lets the next one call.
    pub(crate) fn pass(&mut self) {
        self.behind = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: OB-14
    #[tokio::test]
    async fn turns_come_in_order_and_pass_on_by_themselves() {
        let mut turns = Turns::default();
        let (mut first, second, mut third) = (turns.next(), turns.next(), turns.next());
        first.come().await;
        assert!(futures_util::FutureExt::now_or_never(third.come()).is_none());
        first.pass();
        assert!(futures_util::FutureExt::now_or_never(third.come()).is_none());
        drop(second);
        third.come().await;
        Turn::default().come().await;
    }
}
