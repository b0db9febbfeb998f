//! `top`: the daemon on a full screen, live. `model` is what is known, `view` how it looks; here is
//! what asks, draws and obeys.

mod model;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::access::{Access, Place};
use super::console::{Colours, Console};
use super::exit::{Exit, Failure};
use crate::control::Client;
use crate::mapi::{EntryId, MapiResult};
use crate::session::{FlushRequest, FlushSummary, Logon, QueueRow, Service};
use model::{Deed, Key, Model, Snapshot, Tone, Wish};
use view::Look;

/// Time between two looks.
const GLANCE: Duration = Duration::from_secs(1);

/// How long the keyboard is listened to before it is looked whether all is over.
const EAR: Duration = Duration::from_millis(200);

/// Most rows of the queue that are shown.
const ROWS: usize = 500;

/// Ends of messages that are asked for in one look; what more there is, is only counted.
const ENDS: usize = 20;

/// `top`.
pub(crate) async fn top(place: &Place, console: &mut Console<'_>) -> Result<(), Failure> {
    if console.json || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal; `postrider status --watch --json` is for programs",
        ));
    }
    let colours = console.terminal.colours;
    place
        .with("watch the daemon", Logon::None, async |access| match access {
            Access::Daemon(client) => watch(client, place, colours).await,
            Access::Own(..) => Err(Failure::new(
                Exit::TryAgain,
                "no daemon is running; `postrider run` starts it, `postrider queue` shows what waits",
            )),
        })
        .await
}

/// The terminal as it was, also when the work is dropped in the middle.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, Failure> {
        ratatui::try_init().map(Screen).map_err(|error| Failure::io("use the terminal", &error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What comes back from something that was asked for by a key.
enum Answer {
    Flushed(MapiResult<FlushSummary>),
    Done(Deed, String, MapiResult<()>),
}

async fn watch(client: &Client, place: &Place, colours: Colours) -> Result<(), Failure> {
    let zone = TimeZone::system();
    let mut model = Model::default();
    let mut screen = Screen::open()?;
    let mut keys = keyboard();
    let mut answers = JoinSet::new();
    let mut glances = tokio::time::interval(GLANCE);
    glances.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = glances.tick() => glance(client, &mut model).await,
            key = keys.recv() => {
                let Some(key) = key else { return Ok(()) };
                match key.map_or(Wish::Nothing, |key| model.press(key)) {
                    Wish::Quit => return Ok(()),
                    wish => obey(wish, place, &mut model, &mut answers),
                }
            }
            Some(answer) = answers.join_next() => {
                if let Ok(answer) = answer {
                    tell(answer, &mut model);
                    glance(client, &mut model).await;
                }
            }
        }
        let look = Look { now: Timestamp::now(), zone: &zone, colours };
        let drawn = screen.0.draw(|frame| look.draw(frame, &model));
        drawn.map_err(|error| Failure::io("draw on the terminal", &error))?;
    }
}

/// Keys from a thread of its own; `None` for what only asks for another drawing, such as a new
/// size. Ends with the receiver.
fn keyboard() -> mpsc::Receiver<Option<Key>> {
    let (sender, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(EAR) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let Ok(event) = event::read() else { return };
            let key = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('c' | 'd') if control => Some(Key::Letter('q')),
                        KeyCode::Char('l') if control => None,
                        code => match key_of(code) {
                            Some(key) => Some(key),
                            None => continue,
                        },
                    }
                }
                Event::Resize(..) => None,
                _ => continue,
            };
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    });
    keys
}

fn key_of(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Esc => Key::Escape,
        KeyCode::Char(letter) => Key::Letter(letter),
        _ => return None,
    })
}

/// Asks the daemon what there is.
async fn glance(client: &Client, model: &mut Model) {
    match look(client).await {
        Ok(snapshot) => {
            let gone = model.gone(&snapshot.rows);
            let now = Timestamp::now();
            model.take(snapshot, now);
            for row in ends(client, &gone).await {
                model.ended(&row, now);
            }
            if let Some(more) = gone.len().checked_sub(ENDS + 1) {
                model.say(now, Tone::Plain, &format!("{} more have left the queue", more + 1));
            }
        }
        Err(error) => model.lose(error.detail().to_owned(), Timestamp::now()),
    }
}

async fn look(client: &Client) -> MapiResult<Snapshot> {
    let report = client.status().await?;
    let rows = client.queue(None, ROWS).await?;
    let metrics = client.metrics().await?;
    let (sent, received) = (
        sum(&metrics, "postrider_messages_ended_total{how=\"finished\"}"),
        sum(&metrics, "postrider_messages_received_total{"),
    );
    Ok(Snapshot { report, rows, sent, received })
}

/// How messages ended that have left the queue.
async fn ends(client: &Client, gone: &[String]) -> Vec<QueueRow> {
    let mut rows = Vec::new();
    for id in gone.iter().take(ENDS) {
        if let Ok(entry) = id.parse::<EntryId>()
            && let Ok(row) = client.queue_row(&entry).await
        {
            rows.push(row);
        }
    }
    rows
}

/// The sum of all series that begin so.
fn sum(metrics: &str, beginning: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(beginning));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Asks for what a key wants, beside the drawing, over a connection of its own.
fn obey(wish: Wish, place: &Place, model: &mut Model, answers: &mut JoinSet<Answer>) {
    let socket = place.socket.clone();
    match wish {
        Wish::Nothing | Wish::Quit => {}
        Wish::Flush => {
            model.say(Timestamp::now(), Tone::Plain, "flushing");
            answers.spawn(async move {
                let request = FlushRequest { upload: true, download: true };
                Answer::Flushed(
                    async { Client::connect(&socket).await?.flush(request).await }.await,
                )
            });
        }
        Wish::Message(deed, id) => {
            answers.spawn(async move {
                let done = async {
                    let client = Client::connect(&socket).await?;
                    let entry: EntryId =
                        id.parse().map_err(|_| crate::mapi::MapiCode::INVALID_ENTRYID)?;
                    match deed {
                        Deed::Hold => client.hold(&entry).await,
                        Deed::Release => client.release(&entry).await,
                        Deed::Retry => client.retry(Some(&entry)).await.map(drop),
                        Deed::Cancel => client.cancel(&entry).await,
                    }
                };
                let done = done.await;
                Answer::Done(deed, id, done)
            });
        }
    }
}

fn tell(answer: Answer, model: &mut Model) {
    let now = Timestamp::now();
    match answer {
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
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up() {
        let metrics = "# TYPE a counter\na{mailbox=\"x y\"} 3\na{mailbox=\"z\"} 4\nab 9\n";
        assert_eq!(sum(metrics, "a{"), 7);
        assert_eq!(sum(metrics, "nothing"), 0);
    }
}
