//! What `top` knows and how keys and news change it. No I/O.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use crate::cli::queue::state_name;
use crate::session::{QueueRow, QueueRowState, StatusReport};

/// Lines of the log that are kept.
const LOG: usize = 200;

/// Points of the plot that are kept, one a second.
const POINTS: usize = 240;

/// What was asked of the daemon in one look.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) report: StatusReport,
    pub(crate) rows: Vec<QueueRow>,
    /// Messages sent and received since the daemon began.
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// A key, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Letter(char),
    Escape,
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    Quit,
    Flush,
    Message(Deed, String),
}

/// What is done to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Hold,
    Release,
    Retry,
    Cancel,
}

impl Deed {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Deed::Hold => "hold",
            Deed::Release => "release",
            Deed::Retry => "retry",
            Deed::Cancel => "cancel",
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    pub(crate) words: String,
    pub(crate) tone: Tone,
}

/// How a line is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) report: Option<StatusReport>,
    pub(crate) rows: Vec<QueueRow>,
    /// The entry id that is marked.
    selected: Option<String>,
    totals: Option<(u64, u64)>,
    /// Messages sent, and received, in each of the last seconds.
    pub(crate) sent: VecDeque<u64>,
    pub(crate) received: VecDeque<u64>,
    pub(crate) log: VecDeque<Entry>,
    /// The message whose cancel is to be confirmed.
    pub(crate) asks: Option<String>,
    /// Why nothing new is heard.
    pub(crate) lost: Option<String>,
}

impl Model {
    /// Takes in a look, one a second.
    pub(crate) fn take(&mut self, fresh: Snapshot, now: Timestamp) {
        if self.lost.take().is_some() {
            self.say(now, Tone::Good, "the daemon answers again");
            self.totals = None;
        }
        self.compare(&fresh, now);
        // A daemon that began anew counts from nothing.
        let (sent, received) = self.totals.unwrap_or((fresh.sent, fresh.received));
        push(&mut self.sent, fresh.sent.saturating_sub(sent));
        push(&mut self.received, fresh.received.saturating_sub(received));
        self.totals = Some((fresh.sent, fresh.received));
        self.report = Some(fresh.report);
        self.rows = fresh.rows;
        if self.selected.as_ref().is_some_and(|id| self.place_of(id).is_none()) {
            self.selected = None;
        }
        if self.asks.as_ref().is_some_and(|id| self.place_of(id).is_none()) {
            self.asks = None;
        }
    }

    /// Writes into the log what is different now.
    fn compare(&mut self, fresh: &Snapshot, now: Timestamp) {
        let Some(old) = self.report.take() else { return };
        for row in &fresh.report.rows {
            let before = old.rows.iter().find(|one| one.name == row.name);
            if before.is_none_or(|before| before.status_string != row.status_string) {
                let bad = row.flags.iter().any(|flag| flag == "STATUS_FAILURE");
                let tone = if bad { Tone::Bad } else { Tone::Plain };
                self.say(now, tone, &format!("{}: {}", row.name, row.status_string));
            }
        }
        let known: BTreeMap<&str, &QueueRow> =
            self.rows.iter().map(|row| (row.id.as_str(), row)).collect();
        let mut lines = Vec::new();
        for row in &fresh.rows {
            let whom = whom(row);
            match known.get(row.id.as_str()) {
                None => lines.push((Tone::Plain, format!("accepted: {whom}"))),
                Some(before) if before.state != row.state => {
                    let why = row.last_error.as_deref().filter(|_| {
                        matches!(row.state, QueueRowState::Deferred | QueueRowState::InDoubt)
                    });
                    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                    lines.push((Tone::Plain, format!("{}: {whom}{why}", state_name(row.state))));
                }
                Some(_) => {}
            }
        }
        for (tone, words) in lines {
            self.say(now, tone, &words);
        }
    }

    /// The messages that have left the queue in this look.
    pub(crate) fn gone(&self, fresh: &[QueueRow]) -> Vec<String> {
        let ids: std::collections::BTreeSet<&str> =
            fresh.iter().map(|row| row.id.as_str()).collect();
        let gone = self.rows.iter().filter(|row| !ids.contains(row.id.as_str()));
        gone.map(|row| row.id.clone()).collect()
    }

    /// How a message ended.
    pub(crate) fn ended(&mut self, row: &QueueRow, now: Timestamp) {
        use crate::session::RecipientRowState::Failed;
        let failed = row.recipients.iter().find(|recipient| recipient.state == Failed);
        let (tone, word, why) = match (row.state, failed) {
            (QueueRowState::Cancelled, _) => (Tone::Plain, "cancelled", ""),
            (_, Some(failed)) => (Tone::Bad, "failed", failed.reply.as_str()),
            (_, None) => (Tone::Good, "sent", ""),
        };
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        self.say(now, tone, &format!("{word}: {}{why}", whom(row)));
    }

    /// The daemon does not answer.
    pub(crate) fn lose(&mut self, why: String, now: Timestamp) {
        if self.lost.is_none() {
            self.say(now, Tone::Bad, &why);
        }
        self.lost = Some(why);
    }

    /// Adds a line to the log.
    pub(crate) fn say(&mut self, at: Timestamp, tone: Tone, words: &str) {
        let words = crate::cli::text::one_line(words);
        self.log.push_back(Entry { at, words, tone });
        while self.log.len() > LOG {
            self.log.pop_front();
        }
    }

    /// Where the marked message stands in the list.
    pub(crate) fn place(&self) -> Option<usize> {
        let marked = self.selected.as_deref().and_then(|id| self.place_of(id));
        marked.or_else(|| (!self.rows.is_empty()).then_some(0))
    }

    fn place_of(&self, id: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.id == id)
    }

    /// What a key asks for.
    pub(crate) fn press(&mut self, key: Key) -> Wish {
        if let Some(id) = self.asks.take() {
            return match key {
                Key::Letter('y' | 'Y') => Wish::Message(Deed::Cancel, id),
                _ => Wish::Nothing,
            };
        }
        match key {
            Key::Up | Key::Letter('k') => self.walk(-1),
            Key::Down | Key::Letter('j') => self.walk(1),
            Key::PageUp => self.walk(-10),
            Key::PageDown => self.walk(10),
            Key::First => self.walk(isize::MIN),
            Key::Last => self.walk(isize::MAX),
            Key::Letter('q') | Key::Escape => return Wish::Quit,
            Key::Letter('f') => return Wish::Flush,
            Key::Letter('h') => return self.deed(Deed::Hold),
            Key::Letter('r') => return self.deed(Deed::Release),
            Key::Letter('t') => return self.deed(Deed::Retry),
            Key::Letter('c') => {
                self.asks = self.marked();
            }
            Key::Letter(_) => {}
        }
        Wish::Nothing
    }

    fn marked(&self) -> Option<String> {
        self.rows.get(self.place()?).map(|row| row.id.clone())
    }

    fn deed(&self, deed: Deed) -> Wish {
        self.marked().map_or(Wish::Nothing, |id| Wish::Message(deed, id))
    }

    fn walk(&mut self, steps: isize) {
        let Some(place) = self.place() else { return };
        let last = self.rows.len().saturating_sub(1);
        let place = place.saturating_add_signed(steps).min(last);
        self.selected = self.rows.get(place).map(|row| row.id.clone());
    }
}

fn push(points: &mut VecDeque<u64>, point: u64) {
    points.push_back(point);
    while points.len() > POINTS {
        points.pop_front();
    }
}

/// A message in a few words.
fn whom(row: &QueueRow) -> String {
    let to = match row.recipients.as_slice() {
        [] => String::new(),
        [only] => format!(" to {}", only.address),
        [first, others @ ..] => format!(" to {} +{}", first.address, others.len()),
    };
    match row.subject.as_str() {
        "" => format!("message{to}"),
        subject => format!("{subject:?}{to}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::fake::{FakeService, entry, row};
    use crate::session::RecipientRowState;

    fn at() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn look(rows: Vec<QueueRow>, sent: u64) -> Snapshot {
        Snapshot { report: FakeService::default().report(), rows, sent, received: 5 }
    }

    fn said(model: &Model) -> Vec<&str> {
        model.log.iter().map(|line| line.words.as_str()).collect()
    }

    #[test]
    fn what_changes_between_two_looks_is_logged() {
        let mut model = Model::default();
        model.take(look(vec![row(1, QueueRowState::Queued)], 7), at());
        assert!(model.log.is_empty(), "what is there at the start is no news");
        let rows = vec![row(1, QueueRowState::Deferred), row(2, QueueRowState::Queued)];
        let mut second = look(rows, 9);
        for row in &mut second.report.rows {
            row.status_string = "sending".to_owned();
        }
        model.take(second, at());
        assert_eq!(
            said(&model),
            [
                "work: sending",
                "deferred: \"message 1\" to bob@example.net (451 later)",
                "accepted: \"message 2\" to bob@example.net",
            ]
        );
        assert_eq!(model.sent, [0, 2]);
        assert_eq!(model.gone(&[row(2, QueueRowState::Queued)]), [entry(1).to_string()]);
        let mut ended = row(1, QueueRowState::Finished);
        model.ended(&ended, at());
        ended.recipients.first_mut().unwrap().state = RecipientRowState::Failed;
        model.ended(&ended, at());
        assert_eq!(
            said(&model).get(3..).unwrap(),
            [
                "sent: \"message 1\" to bob@example.net",
                "failed: \"message 1\" to bob@example.net (451 later)"
            ]
        );
        // A daemon that began anew counts from nothing.
        model.take(look(Vec::new(), 1), at());
        assert_eq!(model.sent, [0, 2, 0]);
    }

    #[test]
    fn keys_act_on_the_marked_message_and_a_cancel_is_confirmed() {
        let mut model = Model::default();
        assert_eq!(model.press(Key::Letter('h')), Wish::Nothing, "there is none");
        let rows = (1..=30).map(|n| row(n, QueueRowState::Deferred)).collect();
        model.take(look(rows, 0), at());
        let id = |n| entry(n).to_string();
        assert_eq!(model.press(Key::Letter('h')), Wish::Message(Deed::Hold, id(1)));
        model.press(Key::Down);
        model.press(Key::PageDown);
        assert_eq!(model.press(Key::Letter('r')), Wish::Message(Deed::Release, id(12)));
        model.press(Key::Last);
        model.press(Key::Down);
        assert_eq!(model.press(Key::Letter('t')), Wish::Message(Deed::Retry, id(30)));
        model.press(Key::First);
        model.press(Key::Up);
        assert_eq!(model.press(Key::Letter('c')), Wish::Nothing);
        assert_eq!(model.press(Key::Letter('n')), Wish::Nothing);
        model.press(Key::Letter('c'));
        assert_eq!(model.press(Key::Letter('y')), Wish::Message(Deed::Cancel, id(1)));
        assert_eq!(model.press(Key::Letter('y')), Wish::Nothing, "once");
        assert_eq!(model.press(Key::Letter('f')), Wish::Flush);
        assert_eq!(model.press(Key::Letter('q')), Wish::Quit);
    }

    #[test]
    fn the_mark_stays_with_its_message_and_never_slips_under_a_question() {
        let mut model = Model::default();
        let rows = |from| (from..=5).map(|n| row(n, QueueRowState::Queued)).collect::<Vec<_>>();
        model.take(look(rows(1), 0), at());
        model.press(Key::Down);
        model.press(Key::Down);
        model.take(look(rows(2), 0), at());
        assert_eq!(model.place(), Some(1));
        model.press(Key::Letter('c'));
        assert_eq!(model.asks, Some(entry(3).to_string()));
        // It was sent meanwhile: the answer must not hit another one.
        model.take(look(rows(4), 0), at());
        assert_eq!(model.press(Key::Letter('y')), Wish::Nothing);
    }

    #[test]
    fn a_daemon_that_goes_and_comes_is_told_once_each() {
        let mut model = Model::default();
        model.take(look(Vec::new(), 3), at());
        model.lose("no daemon listens".to_owned(), at());
        model.lose("no daemon listens".to_owned(), at());
        model.take(look(Vec::new(), 90), at());
        assert_eq!(said(&model), ["no daemon listens", "the daemon answers again"]);
        assert_eq!(model.sent.back(), Some(&0), "what it sent before is no throughput");
    }
}
