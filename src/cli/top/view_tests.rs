#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::model::{Key, Snapshot};
use super::*;
use crate::control::fake::{FakeService, row};
use crate::mapi::StatusCode;
use crate::session::{QueueRowState, StatusRowView};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn report() -> StatusReport {
    let mut report = FakeService::default().report();
    let open = StatusCode::OUTBOUND_ENABLED | StatusCode::INBOUND_ENABLED;
    report.rows[0].status_code = (open | StatusCode::FAILURE).bits();
    report.rows[0].status_string =
        "MAPI_E_LOGON_FAILED: smtp.example.org refused the login of ann; check the password \
         (next attempt 2026-01-02T03:14:00Z)"
            .to_owned();
    report.rows[0].sending_waits = Some(report.rows[0].status_string.clone());
    report.rows.push(StatusRowView {
        name: "spooler".to_owned(),
        kind: StatusRowKind::Spooler,
        status_code: StatusCode::AVAILABLE.bits(),
        flags: vec!["STATUS_AVAILABLE".to_owned()],
        status_string: "ready".to_owned(),
        sending_waits: None,
    });
    report
}

fn model(rows: usize) -> Model {
    let mut model = Model::default();
    let rows = |state| (1..=rows as u64).map(|n| row(n, state)).collect::<Vec<_>>();
    let mut look =
        Snapshot { report: report(), rows: rows(QueueRowState::Queued), sent: 0, received: 0 };
    model.take(look.clone(), at("2026-01-02T03:04:05Z"));
    for second in 1..=40_u64 {
        look.sent += second % 7;
        look.received += second % 3;
        look.rows = rows(QueueRowState::Deferred);
        model.take(look.clone(), at("2026-01-02T03:04:45Z"));
    }
    model
}

fn drawn(model: &Model, width: u16, height: u16, colours: Colours) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let look = Look { now: at("2026-01-02T03:04:55Z"), zone: &TimeZone::UTC, colours };
    terminal.draw(|frame| look.draw(frame, model)).unwrap();
    terminal
}

fn lines(model: &Model, width: u16, height: u16) -> Vec<String> {
    let terminal = drawn(model, width, height, Colours::None);
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn it_fits_a_small_terminal() {
    let shown = lines(&model(30), 80, 24);
    let text = shown.join("\n");
    assert!(shown[0].starts_with(" postrider  work  pid 42"), "{text}");
    assert!(shown[0].ends_with("03:04:55"), "{text}");
    assert!(text.contains("smtp.example.org refused the login of ann"), "{text}");
    assert!(text.contains("queue: 1 queued, 2 deferred"), "{text}");
    assert!(text.contains("\u{2192} waits for the account: smtp.example.org refused"), "{text}");
    assert!(text.contains("a minute"), "{text}");
    assert!(text.contains("03:04:45 deferred: \"message 30\""), "{text}");
    assert!(text.contains("\u{2500}  events "), "plots and events do not touch: {text}");
    assert!(shown[23].contains("h hold") && shown[23].contains("q quit"), "{text}");
    assert!(!text.contains("what happens next"), "no room for that column: {text}");
}

#[test]
fn on_a_wide_terminal_each_row_says_what_happens_next() {
    let text = lines(&model(3), 200, 50).join("\n");
    assert!(text.contains("what happens next"), "{text}");
    let said = text.matches("waits for the account: smtp.example.org refused").count();
    assert_eq!(said, 3, "{text}");
}

#[test]
fn the_marked_row_is_always_in_sight() {
    let mut model = model(100);
    model.press(Key::Last);
    let id = model.rows[99].id.clone();
    let text = lines(&model, 80, 24).join("\n");
    assert!(text.contains(&id), "{text}");
    model.press(Key::Letter('c'));
    let shown = lines(&model, 80, 24);
    assert!(shown[23].contains(&format!("cancel {id} for good?")), "{shown:?}");
}

#[test]
fn no_size_breaks_it() {
    for model in [Model::default(), model(0), model(5)] {
        for (width, height) in [(1, 1), (3, 40), (20, 5), (80, 10), (500, 3), (400, 200)] {
            drawn(&model, width, height, Colours::Wanted);
        }
    }
}

#[test]
fn colours_only_where_they_are_wanted() {
    use ratatui::style::Color as C;
    let has_colours = |colours| {
        let terminal = drawn(&model(3), 80, 24, colours);
        let cells = terminal.backend().buffer().content();
        cells.iter().any(|cell| !matches!(cell.fg, C::Reset) || !matches!(cell.bg, C::Reset))
    };
    assert!(has_colours(Colours::Wanted));
    assert!(!has_colours(Colours::None));
}

#[test]
fn a_daemon_that_is_gone_shows_in_the_title() {
    let mut model = model(3);
    model.lose("no daemon listens at /x: gone\u{1b}[2J".to_owned(), at("2026-01-02T03:04:50Z"));
    let shown = lines(&model, 80, 24);
    assert!(shown[0].contains("no daemon listens at /x: gone?[2J"), "{shown:?}");
}
