//! What sending tells its logon, in the order in which it happened.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::mapi::EntryId;
use crate::spi::Yield;
use crate::transport::events::{Activity, SendingNotes, Trouble};

/// Hears of what sending does. Calls come one after the other from one task, never from under a
/// lock, and should return soon. Only what is beyond recovery is told from where it is met.
pub(crate) trait OutboundEvents: Send + Sync {
    /// A deferred message ended, or some of its recipients did (OB-11). May be repeated.
    fn sent_deferred(&self, entry: &EntryId);
    /// A message begins to move, or none moves any more (ST-4).
    fn activity(&self, activity: Activity);
    /// The account cannot work just now; `None` when it can again.
    fn trouble(&self, trouble: Option<Trouble>);
    /// An attempt of which a server heard came to this; from the task that recorded it.
    fn attempted(&self, _result: &'static str) {}
    /// Something changed that the owner wants to know although it is no trouble.
    fn notes(&self, _notes: SendingNotes) {}
    /// Messages that were answered with `MAPI_E_WAIT` may come again (SP-6).
    fn ready_to_send(&self);
    /// Flush mode has nothing left that can move (TN-12). Comes again after new work.
    fn flush_drained(&self);
    /// SpoolerYield in the middle of long work on a message that is being taken (OB-18). Called
    /// from the task that does the work.
    fn yield_to_host<'a>(&'a self, _entry: &'a EntryId) -> BoxFuture<'a, Yield> {
        Box::pin(std::future::ready(Yield::Continue))
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    SentDeferred(EntryId),
    Activity(Activity),
    Trouble(Option<Trouble>),
    Notes(SendingNotes),
    ReadyToSend,
    FlushDrained,
}

/// What reaches the task that speaks.
#[derive(Debug)]
enum Word {
    News(News),
    /// Somebody waits until all that came before has been said.
    Asked(oneshot::Sender<()>),
}

/// Takes news from anywhere, also from under a lock, and never waits.
#[derive(Clone, Debug)]
pub(super) struct Herald {
    words: mpsc::UnboundedSender<Word>,
}

impl Herald {
    /// A herald, and the task that speaks for it until `end`; what was told before is said first.
    pub(super) fn new(
        events: Arc<dyn OutboundEvents>,
        end: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let speak = async move {
            loop {
                let word = tokio::select! {
                    biased;
                    word = receiver.recv() => word,
                    () = end.cancelled() => receiver.try_recv().ok(),
                };
                let news = match word {
                    Some(Word::News(news)) => Some(news),
                    Some(Word::Asked(answer)) => {
                        // Who asked may have gone.
                        let _ = answer.send(());
                        continue;
                    }
                    None => None,
                };
                match news {
                    Some(News::SentDeferred(entry)) => events.sent_deferred(&entry),
                    Some(News::Activity(activity)) => events.activity(activity),
                    Some(News::Trouble(trouble)) => events.trouble(trouble),
                    Some(News::Notes(notes)) => events.notes(notes),
                    Some(News::ReadyToSend) => events.ready_to_send(),
                    Some(News::FlushDrained) => events.flush_drained(),
                    None => return,
                }
            }
        };
        (Herald { words: sender }, speak)
    }

    /// Passes on what happened.
    pub(super) fn tell(&self, news: News) {
        // Nobody listens any more once the logon is gone.
        let _ = self.words.send(Word::News(news));
    }

    /// Waits until everything that was told before has been said, or nobody speaks any more.
    pub(super) async fn has_said_all(&self) {
        let (answer, said) = oneshot::channel();
        let _ = self.words.send(Word::Asked(answer));
        // Dropped unanswered where the speaker has ended.
        let _ = said.await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl OutboundEvents for Counting {
        fn sent_deferred(&self, _entry: &EntryId) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn activity(&self, _activity: Activity) {}
        fn trouble(&self, _trouble: Option<Trouble>) {}
        fn ready_to_send(&self) {}
        fn flush_drained(&self) {}
    }

    #[tokio::test]
    async fn who_asks_hears_when_all_before_has_been_said() {
        let (events, end) = (Arc::new(Counting::default()), CancellationToken::new());
        let (herald, speak) = Herald::new(Arc::clone(&events) as _, end.clone());
        let speaking = tokio::spawn(speak);
        for told in 1..=3 {
            herald.tell(News::SentDeferred(EntryId::from_bytes(&[told; 16]).unwrap()));
            herald.has_said_all().await;
            assert_eq!(events.0.load(Ordering::SeqCst), usize::from(told));
        }
        end.cancel();
        speaking.await.unwrap();
        // Nobody speaks any more, and nobody waits for ever.
        herald.has_said_all().await;
    }
}
