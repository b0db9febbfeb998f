//! The order in which SubmitMessage is called when many messages are handed over at once (OB-14).

use std::collections::BTreeSet;

use tokio::sync::oneshot;

/// A message's place in the line: its call may begin when the one before it has begun. It moves on
/// by itself when the message needs no call after all.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Status rows of the transports that were open for sending when the place was given. One
    /// that has opened since is for those first that had waited for it, and they come behind.
    open: Option<BTreeSet<u32>>,
    before: Option<oneshot::Receiver<()>>,
    behind: Option<oneshot::Sender<()>>,
}

/// Hands out places, each behind the last.
#[derive(Debug, Default)]
pub(crate) struct CallingOrder {
    last: Option<oneshot::Receiver<()>>,
}

impl CallingOrder {
    pub(crate) fn next(&mut self, open: BTreeSet<u32>) -> Place {
        let (begun, begins) = oneshot::channel();
        Place { open: Some(open), before: self.last.replace(begins), behind: Some(begun) }
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

    /// Whether a message with this place may go to the transport with this status row.
    pub(crate) fn may_use(&self, row_id: u32) -> bool {
        self.open.as_ref().is_none_or(|open| open.contains(&row_id))
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

    fn open() -> BTreeSet<u32> {
        BTreeSet::from([1])
    }

    /// Proves: OB-14
    #[tokio::test]
    async fn places_come_in_order_and_move_on_by_themselves() {
        let mut order = CallingOrder::default();
        let (mut first, second, mut third) =
            (order.next(open()), order.next(open()), order.next(open()));
        first.comes().await;
        assert!(third.comes().now_or_never().is_none());
        first.leave();
        assert!(third.comes().now_or_never().is_none());
        drop(second);
        third.comes().await;
        assert!(third.may_use(1) && !third.may_use(2));
        let mut anywhere = Place::default();
        anywhere.comes().await;
        assert!(anywhere.may_use(2));
    }
}
