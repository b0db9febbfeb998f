//! The queue for people: on a terminal a line for each message, and what happens next with it,
//! beside it where there is room and beneath it where there is none; elsewhere a table.

use super::console::{Colours, Terminal};
use super::exit::Failure;
use super::layout::{cut, fit, telling_length, wrap};
use super::next_step::Scene;
use super::queue::{state_mood, state_name};
use super::queue_list::Listing;
use super::queue_pages::PAGE;
use super::table::{Table, paint};
use super::text::{one_line, relative, size};
use crate::session::{QueueRow, StatusReport};

/// From this many columns on everything stands in one line.
const WIDE: usize = 150;

/// Columns of the fields that are never longer.
const STATE: usize = 8;
const SIZE: usize = 6;
const AGE: usize = 4;

/// Blanks between two fields.
const GAP: &str = "  ";

/// The columns of a listing of some width.
struct Columns {
    /// Of the whole line.
    width: usize,
    id: usize,
    to: usize,
    subject: usize,
    /// What happens next, where it has a column.
    next: Option<usize>,
}

impl Columns {
    /// At most `width` columns, by the first rows; `are_all` when no others follow, so that the
    /// beginnings of their ids can tell them apart.
    fn new(rows: &[QueueRow], width: u16, are_all: bool) -> Self {
        let width = usize::from(width);
        let ids = || rows.iter().map(|row| row.id.as_str());
        let id = match are_all {
            true => telling_length(ids()),
            false => ids().map(str::len).max().unwrap_or_default(),
        };
        let rest = width.saturating_sub(id + STATE + SIZE + AGE + 5 * GAP.len());
        if width < WIDE {
            let to = rest * 9 / 20;
            return Columns { width, id, to, subject: rest.saturating_sub(to), next: None };
        }
        // No wider than people read, the rest for what happens next.
        let (to, subject) = ((rest / 5).min(34), (rest * 3 / 10).min(44));
        Columns {
            width,
            id,
            to,
            subject,
            next: Some(rest.saturating_sub(to + subject + GAP.len())),
        }
    }

    /// The fields of a line in their columns.
    fn line(
        &self,
        [id, state, to, subject, size, age]: [&str; 6],
        paint: impl Fn(&str) -> String,
    ) -> String {
        [
            fit(id, self.id),
            paint(&fit(state, STATE)),
            fit(to, self.to),
            fit(subject, self.subject),
            format!("{:>SIZE$}", cut(size, SIZE)),
            format!("{:>AGE$}", cut(age, AGE)),
        ]
        .join(GAP)
    }

    /// The line above the rows.
    fn head(&self) -> String {
        let head = self.line(["ID", "STATE", "TO", "SUBJECT", "SIZE", "AGE"], str::to_owned);
        match self.next {
            Some(_) => format!("{head}{GAP}WHAT HAPPENS NEXT"),
            None => head.trim_end().to_owned(),
        }
    }

    /// The lines of some rows.
    fn lines(&self, rows: &[QueueRow], scene: &Scene<'_>, colours: Colours) -> String {
        let mut lines: Vec<String> = Vec::new();
        for row in rows {
            let age = relative(&row.submitted, scene.now);
            let fields = [
                row.id.get(..self.id).unwrap_or(&row.id),
                state_name(row.state),
                &whom(row),
                &one_line(&row.subject),
                &size(row.size),
                age.strip_suffix(" ago").unwrap_or(&age),
            ];
            let mood = state_mood(row.state);
            let line = self.line(fields, |state| paint(state, mood, colours));
            let step = scene.next_step(row);
            match self.next {
                Some(next) => {
                    let mut parts = wrap(&step, next).into_iter();
                    lines.push(format!("{line}{GAP}{}", parts.next().unwrap_or_default()));
                    let indent = self.width.saturating_sub(next);
                    lines.extend(parts.map(|part| format!("{:indent$}{part}", "")));
                }
                None => {
                    lines.push(line);
                    for (place, part) in
                        wrap(&step, self.width.saturating_sub(4)).iter().enumerate()
                    {
                        let mark = if place == 0 { "  \u{2192} " } else { "    " };
                        lines.push(format!("{mark}{part}"));
                    }
                }
            }
        }
        lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// The queue as people read it.
pub(crate) struct Readable {
    terminal: Terminal,
    written: Written,
}

/// What stands above the next page.
enum Written {
    Nothing,
    Table,
    Columns(Columns),
}

impl Readable {
    pub(crate) fn new(terminal: Terminal) -> Self {
        Readable { terminal, written: Written::Nothing }
    }

    /// Whether there was nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.written, Written::Nothing)
    }

    fn table(&mut self, rows: &[QueueRow], scene: &Scene<'_>) -> String {
        let mut table =
            Table::new(&["ID", "STATE", "TO", "SUBJECT", "SIZE", "AGE", "TRIES", "NEXT"]);
        for row in rows {
            table.row([
                row.id.clone(),
                state_name(row.state).to_owned(),
                whom(row),
                row.subject.clone(),
                size(row.size),
                relative(&row.submitted, scene.now),
                row.attempts.to_string(),
                scene.next_step(row),
            ]);
        }
        match std::mem::replace(&mut self.written, Written::Table) {
            Written::Nothing => table.tab_separated(),
            Written::Table | Written::Columns(_) => table.tab_separated_rows(),
        }
    }

    fn columns(&mut self, rows: &[QueueRow], scene: &Scene<'_>, width: u16) -> String {
        let colours = self.terminal.colours;
        if let Written::Columns(columns) = &self.written {
            return columns.lines(rows, scene, colours);
        }
        // More may come whose ids begin alike.
        let columns = Columns::new(rows, width, rows.len() < PAGE);
        let text = format!("{}\n{}", columns.head(), columns.lines(rows, scene, colours));
        self.written = Written::Columns(columns);
        text
    }
}

impl Listing for Readable {
    fn page(
        &mut self,
        rows: &[QueueRow],
        status: Option<&StatusReport>,
    ) -> Result<String, Failure> {
        let zone = jiff::tz::TimeZone::system();
        let scene = Scene { status, now: jiff::Timestamp::now(), zone: &zone };
        Ok(match self.terminal.width {
            Some(width) => self.columns(rows, &scene, width),
            None => self.table(rows, &scene),
        })
    }

    fn wants_status(&self) -> bool {
        true
    }
}

/// Who a message is for, in short.
pub(crate) fn whom(row: &QueueRow) -> String {
    match row.recipients.as_slice() {
        [] => String::new(),
        [only] => one_line(&only.address),
        [first, others @ ..] => format!("{} +{}", one_line(&first.address), others.len()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::tz::TimeZone;
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::control::fake::{FakeService, row};
    use crate::mapi::StatusCode;
    use crate::session::QueueRowState;

    fn rendered(width: u16, colours: Colours) -> String {
        let mut report = FakeService::default().report();
        let code = StatusCode::AVAILABLE | StatusCode::OUTBOUND_ENABLED;
        report.rows.first_mut().unwrap().status_code = code.bits();
        let mut deferred = row(1, QueueRowState::Deferred);
        deferred.subject = "Minutes of the meeting of the committee for long subjects".to_owned();
        deferred.last_error = Some(
            "450 4.2.1 The user you are trying to contact is receiving mail \
            at a rate that prevents additional messages from being delivered"
                .to_owned(),
        );
        let rows = [deferred, row(2, QueueRowState::Held)];
        let now = "2026-01-02T03:04:35Z".parse().unwrap();
        let scene = Scene { status: Some(&report), now, zone: &TimeZone::UTC };
        let columns = Columns::new(&rows, width, true);
        format!("{}\n{}", columns.head(), columns.lines(&rows, &scene, colours))
    }

    #[test]
    fn at_80_columns_what_happens_next_stands_beneath() {
        let text = rendered(80, Colours::None);
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "ID                          STATE     TO           SUBJECT            SIZE   AGE",
                "01HF7YAT000000000000000001  deferred  bob@exampl\u{2026}  Minutes of the\u{2026}  1.0 kB   30s",
                "  \u{2192} tried again in 30s: 450 4.2.1 The user you are trying to contact is",
                "    receiving mail at a rate that prevents additional messages from being",
                "    delivered",
                "01HF7YAT000000000000000002  held      bob@exampl\u{2026}  message 2        2.0 kB   30s",
                "  \u{2192} held by you; `release` lets it go",
            ]
        );
    }

    #[test]
    fn on_a_wide_terminal_it_stands_beside() {
        let text = rendered(200, Colours::None);
        assert!(text.lines().all(|line| line.width() <= 200), "{text}");
        assert!(text.lines().next().unwrap().contains("WHAT HAPPENS NEXT"), "{text}");
        assert!(text.contains("30s  tried again in 30s: 450 4.2.1"), "{text}");
        assert!(text.contains("held by you"), "{text}");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        assert!(!rendered(80, Colours::None).contains('\u{1b}'));
        let text = rendered(80, Colours::Wanted);
        assert!(text.contains("\u{1b}[33mdeferred\u{1b}[0m"), "{text}");
    }
}
