//! Tables: fitted to a terminal, tab-separated elsewhere.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table as Grid, presets};

use super::console::{Colours, Console, Terminal};
use super::exit::Failure;
use super::text::one_line;

/// How a cell is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Plain,
    Good,
    Waiting,
    Bad,
}

/// A table.
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<(String, Mood)>>,
}

impl Table {
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Table { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row of plain cells.
    pub(crate) fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        self.moody_row(cells.into_iter().map(|cell| (cell, Mood::Plain)));
    }

    /// Adds a row.
    pub(crate) fn moody_row<I: IntoIterator<Item = (String, Mood)>>(&mut self, cells: I) {
        let clean = cells.into_iter().map(|(cell, mood)| (one_line(&cell), mood));
        self.rows.push(clean.collect());
    }

    /// Writes the table to standard output.
    pub(crate) fn print(self, console: &mut Console<'_>) -> Result<(), Failure> {
        let text = self.render(console.terminal);
        console.bytes(text.as_bytes())
    }

    fn render(self, terminal: Terminal) -> String {
        let Some(width) = terminal.width else { return self.tab_separated() };
        let mut grid = Grid::new();
        grid.load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
        match terminal.colours {
            Colours::Wanted => grid.enforce_styling(),
            Colours::None => grid.force_no_tty(),
        };
        grid.set_header(self.heads.iter().map(|head| {
            let cell = Cell::new(head);
            match terminal.colours {
                Colours::Wanted => cell.add_attribute(Attribute::Bold),
                Colours::None => cell,
            }
        }));
        for row in self.rows {
            grid.add_row(row.into_iter().map(|(text, mood)| coloured(Cell::new(text), mood)));
        }
        let lines: Vec<String> = grid.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }

    /// The table as it is written where there is no terminal.
    pub(crate) fn tab_separated(self) -> String {
        self.heads.join("\t") + "\n" + &self.tab_separated_rows()
    }

    /// The rows as they are written where there is no terminal.
    pub(crate) fn tab_separated_rows(self) -> String {
        let mut text = String::new();
        for row in self.rows {
            let cells: Vec<String> = row.into_iter().map(|(cell, _)| cell).collect();
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        text
    }
}

/// A text in the colour of its mood.
pub(crate) fn paint(text: &str, mood: Mood, colours: Colours) -> String {
    let colour = match (colours, mood) {
        (Colours::None, _) | (_, Mood::Plain) => return text.to_owned(),
        (Colours::Wanted, Mood::Good) => 32,
        (Colours::Wanted, Mood::Waiting) => 33,
        (Colours::Wanted, Mood::Bad) => 31,
    };
    let (word, blanks) = text.split_at(text.trim_end().len());
    format!("\u{1b}[{colour}m{word}\u{1b}[0m{blanks}")
}

fn coloured(cell: Cell, mood: Mood) -> Cell {
    match mood {
        Mood::Plain => cell,
        Mood::Good => cell.fg(Color::Green),
        Mood::Waiting => cell.fg(Color::Yellow),
        Mood::Bad => cell.fg(Color::Red),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["ID", "SUBJECT"]);
        table.moody_row([("1".into(), Mood::Bad), ("a\tb\u{1b}[2J ".repeat(9), Mood::Plain)]);
        table
    }

    #[test]
    fn elsewhere_it_is_tab_separated() {
        let text = table().render(Terminal::default());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"ID\tSUBJECT"));
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.split('\t').count() == 2), "{text}");
    }

    #[test]
    fn on_a_terminal_it_fits() {
        let text = table().render(Terminal { width: Some(40), colours: Colours::None });
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(text.lines().count() > 2 && !text.contains('\u{1b}'), "{text}");
        let text = table().render(Terminal { width: Some(40), colours: Colours::Wanted });
        assert!(text.contains("\u{1b}["), "{text}");
    }
}
