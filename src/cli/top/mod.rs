//! `top`: the daemon on a full screen, live. `model` is what is known, `view` how it looks,
//! `asking` what the daemon is asked; here is the terminal.

mod asking;
mod model;
mod view;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::access::{Access, Place};
use super::console::{Colours, Console};
use super::exit::{Exit, Failure};
use crate::session::{Logon, Service};
use asking::Asking;
use model::{Key, Model, Wish};
use view::Look;

/// Time between two looks.
const GLANCE: Duration = Duration::from_secs(1);

/// How long the keyboard is listened to before it is looked whether all is over.
const EAR: Duration = Duration::from_millis(200);

/// `top`.
pub(crate) async fn top(place: &Place, console: &mut Console<'_>) -> Result<(), Failure> {
    if console.json || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal; `postrider status --watch --json` is for programs",
        ));
    }
    let colours = console.terminal.colours;
    let open = place
        .with("watch the daemon", Logon::None, async |access| match access {
            Access::Daemon(_) => watch(access.shared(), colours).await,
            Access::Own(..) => Err(Failure::new(
                Exit::TryAgain,
                "no daemon is running; `postrider run` starts it, `postrider queue` shows what waits",
            )),
        })
        .await?;
    for words in open {
        console.note(words);
    }
    Ok(())
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

/// Until a key ends it; what was asked for then and is not answered.
async fn watch(service: Arc<dyn Service>, colours: Colours) -> Result<Vec<String>, Failure> {
    let zone = TimeZone::system();
    let mut model = Model::default();
    let mut screen = Screen::open()?;
    let mut keys = keyboard();
    let mut asking = Asking::new(service);
    let mut glances = tokio::time::interval(GLANCE);
    glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // No arm may wait for the daemon: keys are heard whatever it does.
        tokio::select! {
            _ = glances.tick() => asking.look(&mut model),
            key = keys.recv() => {
                let Some(key) = key else { return Ok(asking.unanswered()) };
                match key.map_or(Wish::Nothing, |key| model.press(key)) {
                    Wish::Quit => return Ok(asking.unanswered()),
                    wish => asking.obey(wish, &mut model),
                }
            }
            news = asking.news() => asking.tell(news, &mut model),
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
