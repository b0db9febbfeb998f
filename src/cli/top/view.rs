//! How `top` looks. Pure: a model in, a frame out.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table, TableState};

use super::model::{Entry, Model, Tone};
use crate::cli::console::Colours;
use crate::cli::layout::{cut, telling_length};
use crate::cli::next_step::Scene;
use crate::cli::queue::{state_mood, state_name};
use crate::cli::status::{direction_words, row_mood};
use crate::cli::table::Mood;
use crate::cli::text::{one_line, relative};
use crate::session::{QueueRow, StatusReport};
use crate::spi::StatusRowKind;

/// What the view needs beside the model.
pub(crate) struct Look<'a> {
    pub(crate) now: Timestamp,
    pub(crate) zone: &'a TimeZone,
    pub(crate) colours: Colours,
}

/// From this many columns on a row of the queue says in its own line what happens next.
const WIDE: u16 = 130;

impl Look<'_> {
    /// Draws everything.
    pub(crate) fn draw(&self, frame: &mut Frame<'_>, model: &Model) {
        let accounts = model.report.as_ref().map_or(1, |report| report.rows.len());
        let accounts = u16::try_from(accounts).unwrap_or(u16::MAX).clamp(1, 6);
        let area = frame.area();
        let bottom = if area.height >= 20 { 8 } else { 5 };
        let [title, top, middle, low, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(accounts.saturating_add(2)),
            Constraint::Min(4),
            Constraint::Length(bottom),
            Constraint::Length(1),
        ])
        .areas(area);
        let [plots, log] =
            Layout::horizontal([Constraint::Max(32), Constraint::Min(20)]).spacing(1).areas(low);
        self.title(frame, title, model);
        self.accounts(frame, top, model);
        self.queue(frame, middle, model);
        self.plots(frame, plots, model);
        self.log(frame, log, model);
        self.foot(frame, foot, model);
    }

    fn style(&self, mood: Mood) -> Style {
        let colour = match mood {
            Mood::Plain => return Style::default(),
            Mood::Good => Color::Green,
            Mood::Waiting => Color::Yellow,
            Mood::Bad => Color::Red,
        };
        match self.colours {
            Colours::Wanted => Style::default().fg(colour),
            // Without colours what is wrong still stands out.
            Colours::None if mood == Mood::Bad => Style::default().add_modifier(Modifier::BOLD),
            Colours::None => Style::default(),
        }
    }

    fn title(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let clock = self.now.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
        let left = match (&model.report, &model.lost) {
            (_, Some(why)) => format!(" postrider  {}", one_line(why)),
            (Some(report), None) => {
                format!(" postrider  {}  pid {}", one_line(&report.profile), report.pid)
            }
            (None, None) => " postrider".to_owned(),
        };
        let room = usize::from(area.width).saturating_sub(clock.len() + 2);
        let style = Style::default().add_modifier(Modifier::REVERSED);
        let text = crate::cli::layout::fit(&left, room) + &clock + "  ";
        frame.render_widget(Paragraph::new(text).style(style), area);
    }

    fn accounts(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let scene = self.scene(model.report.as_ref());
        let rows = model.report.iter().flat_map(|report| &report.rows).map(|row| {
            let (out, into) = match row.kind {
                StatusRowKind::Transport => direction_words(row),
                StatusRowKind::Spooler => ("", ""),
            };
            let status =
                Span::styled(scene.plain_status(&row.status_string), self.style(row_mood(row)));
            Row::new([
                Line::from(one_line(&row.name)),
                Line::from(out),
                Line::from(into),
                Line::from(status),
            ])
        });
        let widths = [
            Constraint::Max(16),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Min(20),
        ];
        let table = Table::new(rows, widths).block(block(" accounts: out, in, status "));
        frame.render_widget(table, area);
    }

    fn scene<'a>(&'a self, status: Option<&'a StatusReport>) -> Scene<'a> {
        Scene { status, now: self.now, zone: self.zone }
    }

    fn queue(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let wide = area.width >= WIDE;
        let scene = self.scene(model.report.as_ref());
        let digits = telling_length(model.rows.iter().map(|row| row.id.as_str()));
        let marked = model.place().and_then(|place| model.rows.get(place));
        // What happens next with the marked message stands below the list, where it has room.
        let [list, next] = Layout::vertical([
            Constraint::Min(3),
            Constraint::Length(u16::from(!wide && area.height > 5)),
        ])
        .areas(area);
        let rows = model.rows.iter().map(|row| self.queue_row(row, digits, wide, &scene));
        let state_width = 8;
        let mut widths = vec![
            Constraint::Length(u16::try_from(digits).unwrap_or(26)),
            Constraint::Length(state_width),
            Constraint::Fill(2),
            Constraint::Fill(3),
            Constraint::Length(7),
        ];
        let mut heads = vec!["id", "state", "to", "subject", "age"];
        if wide {
            widths.push(Constraint::Fill(5));
            heads.push("what happens next");
        }
        let head = Row::new(heads).style(Style::default().add_modifier(Modifier::DIM));
        let table = Table::new(rows, widths)
            .header(head)
            .block(block(&queue_title(model)))
            .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
        let mut state = TableState::default().with_selected(model.place());
        frame.render_stateful_widget(table, list, &mut state);
        if let Some(row) = marked.filter(|_| next.height > 0) {
            let text = format!(" \u{2192} {}", scene.next_step(row));
            frame.render_widget(Paragraph::new(cut(&text, usize::from(next.width))), next);
        }
    }

    fn queue_row<'a>(
        &self,
        row: &'a QueueRow,
        digits: usize,
        wide: bool,
        scene: &Scene<'_>,
    ) -> Row<'a> {
        let to = match row.recipients.as_slice() {
            [] => String::new(),
            [only] => one_line(&only.address),
            [first, others @ ..] => format!("{} +{}", one_line(&first.address), others.len()),
        };
        let age = relative(&row.submitted, self.now);
        let age = age.strip_suffix(" ago").unwrap_or(&age).to_owned();
        let state = Span::styled(state_name(row.state), self.style(state_mood(row.state)));
        let mut cells = vec![
            Line::from(row.id.get(..digits).unwrap_or(&row.id).to_owned()),
            Line::from(state),
            Line::from(to),
            Line::from(one_line(&row.subject)),
            Line::from(age),
        ];
        if wide {
            cells.push(Line::from(scene.next_step(row)));
        }
        Row::new(cells)
    }

    fn plots(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let [upper, lower] =
            Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
        for (area, name, points, colour) in [
            (upper, "sent", &model.sent, Color::Green),
            (lower, "received", &model.received, Color::Cyan),
        ] {
            let minute: u64 = points.iter().rev().take(60).sum();
            let title = format!(" {name}: {minute} a minute ");
            let bordered = block(&title).borders(Borders::TOP);
            let width = usize::from(bordered.inner(area).width);
            let skipped = points.len().saturating_sub(width);
            let shown: Vec<u64> = points.iter().skip(skipped).copied().collect();
            let style = match self.colours {
                Colours::Wanted => Style::default().fg(colour),
                Colours::None => Style::default(),
            };
            frame.render_widget(
                Sparkline::default().data(&shown).style(style).block(bordered),
                area,
            );
        }
    }

    fn log(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let bordered = block(" events ").borders(Borders::TOP);
        let inner = bordered.inner(area);
        let skipped = model.log.len().saturating_sub(usize::from(inner.height));
        let lines: Vec<Line<'_>> =
            model.log.iter().skip(skipped).map(|entry| self.log_line(entry, inner.width)).collect();
        frame.render_widget(Paragraph::new(lines).block(bordered), area);
    }

    fn log_line(&self, entry: &Entry, width: u16) -> Line<'static> {
        let clock = entry.at.to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
        let mood = match entry.tone {
            Tone::Plain => Mood::Plain,
            Tone::Good => Mood::Good,
            Tone::Bad => Mood::Bad,
        };
        let text = cut(&format!("{clock} {}", entry.words), usize::from(width));
        Line::from(Span::styled(text, self.style(mood)))
    }

    fn foot(&self, frame: &mut Frame<'_>, area: Rect, model: &Model) {
        let text = match &model.asks {
            Some(id) => format!(" cancel {id} for good? y: yes, any other key: no"),
            None => " \u{2191}\u{2193} choose  h hold  r release  t retry now  c cancel  \
                     f flush all  q quit"
                .to_owned(),
        };
        let style = match model.asks {
            Some(_) => self.style(Mood::Bad).add_modifier(Modifier::BOLD),
            None => Style::default().add_modifier(Modifier::DIM),
        };
        frame.render_widget(Paragraph::new(text).style(style), area);
    }
}

fn block(title: &str) -> Block<'static> {
    Block::default().borders(Borders::TOP).title(title.to_owned())
}

fn queue_title(model: &Model) -> String {
    let Some(report) = &model.report else { return " queue ".to_owned() };
    let queue = &report.queue;
    let counts = [
        (queue.sending, "sending"),
        (queue.queued, "queued"),
        (queue.deferred, "deferred"),
        (queue.in_doubt, "in doubt"),
        (queue.held, "held"),
    ];
    let words: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    match words.is_empty() {
        true => " queue: empty ".to_owned(),
        false => format!(" queue: {} ", words.join(", ")),
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
