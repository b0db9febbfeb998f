//! What `top` asks of the daemon: all of it beside the drawing, because a daemon that stands still
//! must not take the keys with it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::model::{Deed, Model, Snapshot, Tone, Wish};
use crate::mapi::{EntryId, MapiCode, MapiResult};
use crate::session::{FlushRequest, FlushSummary, QueueRow, Service};

/// From when on a daemon that owes an answer is said not to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most rows of the queue that are shown.
const ROWS: usize = 500;

/// Ends of messages that are asked for in one look; what more there is, is only counted.
const ENDS: usize = 20;

/// See the module. Nothing that was asked outlives it.
pub(super) struct Asking {
    service: Arc<dyn Service>,
    /// The look that is under way: never a second one, they would pile up before a daemon that
    /// stands still. It is not given up, so that what is shown is right as soon as it goes on.
    look: JoinSet<MapiResult<Snapshot>>,
    since: Instant,
    answers: JoinSet<Answer>,
    /// What keys have asked for and nobody has answered.
    open: Vec<(Deed, String)>,
}

/// What came back.
pub(super) enum News {
    Look(MapiResult<Snapshot>),
    Answer(Answer),
    /// Something ended without an answer.
    None,
}

pub(super) enum Answer {
    /// How messages ended, of so many that left the queue.
    Ends(Vec<QueueRow>, usize),
    Flushed(MapiResult<FlushSummary>),
    Done(Deed, String, MapiResult<()>),
}

impl Asking {
    pub(super) fn new(service: Arc<dyn Service>) -> Self {
        let (look, answers) = (JoinSet::new(), JoinSet::new());
        Asking { service, look, since: Instant::now(), answers, open: Vec::new() }
    }

    /// Asks what there is, unless that is being asked already.
    pub(super) fn look(&mut self, model: &mut Model) {
        if self.look.is_empty() {
            self.since = Instant::now();
            let service = Arc::clone(&self.service);
            self.look.spawn(async move { look(service.as_ref()).await });
        } else if self.since.elapsed() >= PATIENCE {
            let pid = model.report.as_ref().map(|report| format!(" (pid {})", report.pid));
            let why = format!("the daemon{} does not answer", pid.unwrap_or_default());
            model.lose(why, Timestamp::now());
        }
    }

    /// Waits for what comes back next. Cancel-safe.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            Some(look) = self.look.join_next() => look.map_or(News::None, News::Look),
            Some(answer) = self.answers.join_next() => answer.map_or(News::None, News::Answer),
            else => pending().await,
        }
    }

    /// Tells the model.
    pub(super) fn tell(&mut self, news: News, model: &mut Model) {
        let now = Timestamp::now();
        match news {
            News::Look(Ok(snapshot)) => {
                let gone = model.gone(&snapshot.rows);
                model.take(snapshot, now);
                if !gone.is_empty() {
                    let service = Arc::clone(&self.service);
                    self.answers.spawn(async move {
                        Answer::Ends(ends(service.as_ref(), &gone).await, gone.len())
                    });
                }
            }
            News::Look(Err(error)) => model.lose(error.detail().to_owned(), now),
            News::Answer(answer) => {
                if let Answer::Done(deed, id, _) = &answer {
                    self.open.retain(|(open, of)| (open, of) != (deed, id));
                }
                let changed = !matches!(answer, Answer::Ends(..));
                tell(answer, model, now);
                if changed {
                    self.look(model);
                }
            }
            News::None => {}
        }
    }

    /// What was asked for and is not known to be done.
    pub(super) fn unanswered(&self) -> Vec<String> {
        let told = |(deed, id): &(Deed, String)| {
            format!(
                "{}: {id}: not answered yet; `postrider queue` shows what came of it",
                deed.word()
            )
        };
        self.open.iter().map(told).collect()
    }

    /// Asks for what a key wants.
    pub(super) fn obey(&mut self, wish: Wish, model: &mut Model) {
        let service = Arc::clone(&self.service);
        let now = Timestamp::now();
        match wish {
            Wish::Nothing | Wish::Quit => {}
            Wish::Flush => {
                model.say(now, Tone::Plain, "flushing");
                self.answers.spawn(async move {
                    let request = FlushRequest { upload: true, download: true };
                    Answer::Flushed(service.flush(request).await)
                });
            }
            Wish::Message(deed, id) => {
                if model.lost.is_some() {
                    model.say(now, Tone::Plain, &format!("{}: {id}: asked", deed.word()));
                }
                self.open.push((deed, id.clone()));
                self.answers.spawn(async move {
                    let done = act(service.as_ref(), deed, &id).await;
                    Answer::Done(deed, id, done)
                });
            }
        }
    }
}

async fn look(service: &dyn Service) -> MapiResult<Snapshot> {
    let report = service.status().await?;
    let rows = service.queue(None, ROWS).await?;
    let metrics = service.metrics().await?;
    let (sent, received) = (
        sum(&metrics, "postrider_messages_ended_total{how=\"finished\"}"),
        sum(&metrics, "postrider_messages_received_total{"),
    );
    Ok(Snapshot { report, rows, sent, received })
}

/// How messages ended that have left the queue, as far as that is heard in time.
async fn ends(service: &dyn Service, gone: &[String]) -> Vec<QueueRow> {
    let mut rows = Vec::new();
    let asked = async {
        for id in gone.iter().take(ENDS) {
            if let Ok(entry) = id.parse::<EntryId>()
                && let Ok(row) = service.queue_row(&entry).await
            {
                rows.push(row);
            }
        }
    };
    // Whether it was in time shows by the rows.
    let _in_time = timeout(PATIENCE, asked).await;
    rows
}

async fn act(service: &dyn Service, deed: Deed, id: &str) -> MapiResult<()> {
    let entry: EntryId = id.parse().map_err(|_| MapiCode::INVALID_ENTRYID)?;
    match deed {
        Deed::Hold => service.hold(&entry).await,
        Deed::Release => service.release(&entry).await,
        Deed::Retry => service.retry(Some(&entry)).await.map(drop),
        Deed::Cancel => service.cancel(&entry).await,
    }
}

/// The sum of all series that begin so.
fn sum(metrics: &str, beginning: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(beginning));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn tell(answer: Answer, model: &mut Model, now: Timestamp) {
    match answer {
        Answer::Ends(rows, gone) => {
            for row in &rows {
                model.ended(row, now);
            }
            let more = gone.saturating_sub(rows.len());
            if more > 0 {
                model.say(now, Tone::Plain, &format!("{more} more left the queue"));
            }
        }
        Answer::Flushed(Ok(summary)) => {
            let FlushSummary { sent, received, left, troubles } = summary;
            let words = format!("flushed: {sent} sent, {received} received, {left} left");
            model.say(now, Tone::Good, &words);
            for trouble in troubles {
                model.say(now, Tone::Bad, &trouble);
            }
        }
        Answer::Flushed(Err(error)) => {
            model.say(now, Tone::Bad, &format!("cannot flush: {error}"));
        }
        Answer::Done(deed, id, Ok(())) => {
            model.say(now, Tone::Good, &format!("{}: {id}: done", deed.word()));
        }
        Answer::Done(deed, id, Err(error)) => {
            model.say(now, Tone::Bad, &format!("cannot {} {id}: {error}", deed.word()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::fake::{FakeService, entry, row};
    use crate::session::QueueRowState;

    fn said(model: &Model) -> Vec<&str> {
        model.log.iter().map(|line| line.words.as_str()).collect()
    }

    #[test]
    fn series_are_added_up() {
        let metrics = "# TYPE a counter\na{mailbox=\"x y\"} 3\na{mailbox=\"z\"} 4\nab 9\n";
        assert_eq!(sum(metrics, "a{"), 7);
        assert_eq!(sum(metrics, "nothing"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_look_at_a_time_and_after_a_while_the_silence_is_told() {
        let fake = Arc::new(FakeService { is_silent: true, ..FakeService::default() });
        let mut asking = Asking::new(Arc::clone(&fake) as Arc<dyn Service>);
        let mut model = Model::default();
        for _ in 0..10 {
            asking.look(&mut model);
            assert_eq!(model.lost.is_some(), asking.since.elapsed() >= PATIENCE);
            let none = timeout(Duration::from_secs(1), asking.news()).await;
            assert!(none.is_err());
        }
        assert_eq!(fake.calls(), ["status"]);
        assert_eq!(said(&model), ["the daemon does not answer"]);
    }

    #[tokio::test(start_paused = true)]
    async fn ends_that_are_not_heard_in_time_are_counted() {
        let fake = Arc::new(FakeService { is_silent: true, ..FakeService::default() });
        let mut asking = Asking::new(fake);
        let mut model = Model::default();
        let report = FakeService::default().report();
        let snapshot = |rows| Snapshot { report: report.clone(), rows, sent: 0, received: 0 };
        let rows = (1..=3).map(|n| row(n, QueueRowState::Queued)).collect();
        asking.tell(News::Look(Ok(snapshot(rows))), &mut model);
        asking.tell(News::Look(Ok(snapshot(Vec::new()))), &mut model);
        let news = asking.news().await;
        asking.tell(news, &mut model);
        assert_eq!(said(&model), ["3 more left the queue"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_before_the_answer_is_told_what_is_open() {
        let fake = Arc::new(FakeService { is_silent: true, ..FakeService::default() });
        let mut asking = Asking::new(fake);
        let id = entry(1).to_string();
        asking.obey(Wish::Message(Deed::Cancel, id.clone()), &mut Model::default());
        let words =
            format!("cancel: {id}: not answered yet; `postrider queue` shows what came of it");
        assert_eq!(asking.unanswered(), [words]);
    }

    #[tokio::test]
    async fn keys_reach_the_daemon_and_a_look_follows() {
        let fake = Arc::new(FakeService::with_rows(vec![row(1, QueueRowState::Queued)]));
        let mut asking = Asking::new(Arc::clone(&fake) as Arc<dyn Service>);
        let mut model = Model::default();
        let id = entry(1).to_string();
        asking.obey(Wish::Message(Deed::Hold, id.clone()), &mut model);
        for _ in 0..2 {
            let news = asking.news().await;
            asking.tell(news, &mut model);
        }
        assert_eq!(said(&model), [format!("hold: {id}: done")]);
        assert_eq!(asking.unanswered(), Vec::<String>::new());
        assert_eq!(model.rows.len(), 1);
        assert_eq!(fake.calls().first(), Some(&format!("hold {id}")));
    }
}
