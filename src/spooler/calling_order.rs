//! The order in which SubmitMessage is called when many messages are handed over at once (OB-14).

use tokio::sync::oneshot;

/// A message's place in the line: its call may begin when the one before it has begun. It moves on
/// by itself when the message needs no call after all.
#[derive(Debug, Default)]
pub(crate) struct Place {
    before: Option<oneshot::Receiver<()>>,
    behind: Option<oneshot::Sender<()>>,
}

/// Hands out places, each behind the last.
#[derive(Debug, Default)]
pub(crate) struct CallingOrder {
    last: Option<oneshot::Receiver<()>>,
}

impl CallingOrder {
    pub(crate) fn next(&mut self) -> Place {
        let (begun, begins) = oneshot::channel();
        Place { before: self.last.replace(begins), behind: Some(begun) }
    }
}

impl Place {
    /// Waits until it is first in the line. Cancel-safe.
    pub(crate) async fn comes(&mut self) {
        if let Some(before) = &mut self.before {
            // An error means that the one before left the line, which is as good.
            let _ = before.await;
            self.before = None;
        }
    }

    /// Lets the next one begin.
    pub(crate) fn leave(&mut self) {
        self.behind = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Proves: OB-14
    #[tokio::test]
    async fn places_come_in_order_and_move_on_by_themselves() {
        let mut order = CallingOrder::default();
        let (mut first, second, mut third) = (order.next(), order.next(), order.next());
        first.comes().await;
        assert!(third.comes().now_or_never().is_none());
        first.leave();
        assert!(third.comes().now_or_never().is_none());
        drop(second);
        third.comes().await;
        Place::default().comes().await;
    }
}
