//! Where a command writes: data to standard output, everything else to standard error.

use std::fmt;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::args::LogFormat;
use super::exit::{Exit, Failure};
use super::text::one_line;
use crate::profile::Environment;

/// What the terminal of a stream can show; none of it when the stream is no terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Columns; `None` when it is no terminal.
    pub(crate) width: Option<u16>,
    /// Whether colours are wanted.
    pub(crate) colours: Colours,
}

/// Whether colours are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Colours {
    #[default]
    None,
    Wanted,
}

/// How JSON is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In one line.
    Compact,
    /// Spread out for people.
    Pretty,
}

/// The narrowest terminal that tables are fitted to.
const NARROWEST: u16 = 40;

/// Where a command writes.
pub(crate) struct Console<'a> {
    out: &'a mut (dyn Write + Send),
    err: &'a mut (dyn Write + Send),
    /// Whether data is written as JSON.
    pub(crate) json: bool,
    /// What standard output can show.
    pub(crate) terminal: Terminal,
    /// Whether standard error is a terminal, so that progress can be shown.
    pub(crate) shows_progress: bool,
    /// The name in front of what is no data.
    program: String,
    /// How what is no data is written.
    pub(crate) log_format: LogFormat,
}

impl<'a> Console<'a> {
    pub(crate) fn new(
        out: &'a mut (dyn Write + Send),
        err: &'a mut (dyn Write + Send),
        json: bool,
    ) -> Self {
        let (terminal, program) = (Terminal::default(), "postrider".to_owned());
        let (shows_progress, log_format) = (false, LogFormat::Text);
        Console { out, err, json, terminal, shows_progress, program, log_format }
    }

    /// Puts this name in front of what is no data.
    pub(crate) fn call_itself(&mut self, program: &str) {
        self.program = one_line(program);
    }

    /// Looks at what the streams of this process are.
    pub(crate) fn look_at_streams(&mut self, environment: &Environment) {
        let dumb = environment.value("TERM").is_none_or(|term| term == "dumb");
        let unwanted = environment.value("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colours = if dumb || unwanted { Colours::None } else { Colours::Wanted };
        if std::io::stdout().is_terminal() {
            let size = rustix::termios::tcgetwinsize(std::io::stdout());
            let width = size.map_or(80, |size| size.ws_col);
            let width = if width == 0 { 80 } else { width.max(NARROWEST) };
            self.terminal = Terminal { width: Some(width), colours };
        }
        self.shows_progress = !dumb && std::io::stderr().is_terminal();
    }

    /// Writes a line of data.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.out, "{line}").map_err(|error| Failure::output(&error))
    }

    /// Writes data as it is.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// How a JSON document is laid out.
    pub(crate) fn json_layout(&self) -> Layout {
        if self.terminal.width.is_some() { Layout::Pretty } else { Layout::Compact }
    }

    /// Writes one JSON document, spread out on a terminal.
    pub(crate) fn document<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failure> {
        self.json_text(match self.json_layout() {
            Layout::Pretty => serde_json::to_string_pretty(value),
            Layout::Compact => serde_json::to_string(value),
        })
    }

    /// Writes one JSON document in one line, of several that follow each other.
    pub(crate) fn document_line<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
    ) -> Result<(), Failure> {
        self.json_text(serde_json::to_string(value))
    }

    fn json_text(&mut self, text: serde_json::Result<String>) -> Result<(), Failure> {
        let text = text.map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
        self.line(text)
    }

    /// Makes sure that what was written has left.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::output(&error))
    }

    /// Says something that is no data.
    pub(crate) fn note(&mut self, words: impl fmt::Display) {
        if self.log_format == LogFormat::Json {
            return tracing::info!("{words}");
        }
        // Nowhere is left to complain about standard error.
        let _unheard = writeln!(self.err, "{}: {}", self.program, one_line(&words.to_string()));
    }

    /// Says why the command failed.
    pub(crate) fn complain(&mut self, failure: &Failure) {
        if let Some(line) = failure.line_of(&self.program) {
            if self.log_format == LogFormat::Json {
                let words = line.strip_prefix(&self.program).unwrap_or(&line);
                return tracing::error!("{}", words.trim_start_matches(": "));
            }
            let _unheard = writeln!(self.err, "{line}");
        }
    }
}
