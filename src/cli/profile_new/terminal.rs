//! The person at the terminal: questions to standard error, answers from standard input.

use std::io::{IsTerminal, Write};

use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::person::Person;
use crate::cli::exit::{Exit, Failure};
use crate::cli::text::one_line;

/// The longest answer, in bytes.
const LONGEST_ANSWER: usize = 4096;

/// A person at the terminal.
pub(crate) struct Terminal(());

impl Terminal {
    /// The terminal, when standard input and standard error are one.
    pub(crate) fn open() -> Option<Self> {
        let there = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        there.then_some(Terminal(()))
    }
}

impl Person for Terminal {
    fn ask(&mut self, question: &str, suggestion: &str) -> Result<String, Failure> {
        let shown = match suggestion {
            "" => String::new(),
            suggestion => format!(" [{}]", one_line(suggestion)),
        };
        self.begin(&format!("{question}{shown}: "))?;
        let mut line = Vec::new();
        loop {
            match read_byte()? {
                None if line.is_empty() => return Err(no_answer()),
                None | Some(b'\n') => break,
                Some(byte) if line.len() < LONGEST_ANSWER => line.push(byte),
                Some(_) => {}
            }
        }
        let answer = String::from_utf8_lossy(&line);
        let answer = answer.trim();
        Ok(if answer.is_empty() { suggestion.to_owned() } else { answer.to_owned() })
    }

    fn ask_secret(&mut self, question: &str) -> Result<Zeroizing<String>, Failure> {
        let answer = {
            // Before the question: fast fingers answer at once.
            let _blind = Blind::new()?;
            self.begin(&format!("{question}: "))?;
            read_secret()
        };
        // The Enter of the person was not shown.
        self.say("")?;
        answer
    }

    fn say(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(std::io::stderr(), "{}", one_line_indented(line)).map_err(|error| failed(&error))
    }

    fn begin(&mut self, words: &str) -> Result<(), Failure> {
        let mut err = std::io::stderr();
        let said = write!(err, "{}", one_line_indented(words)).and_then(|()| err.flush());
        said.map_err(|error| failed(&error))
    }
}

/// Words of others cannot steer the terminal; blanks at the ends stay.
fn one_line_indented(line: &str) -> String {
    let inner = line.trim();
    let start = line.len() - line.trim_start().len();
    let (before, rest) = line.split_at_checked(start).unwrap_or(("", line));
    let after = rest.get(inner.len()..).unwrap_or_default();
    format!("{before}{}{after}", one_line(inner))
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::io("ask", error)
}

fn no_answer() -> Failure {
    Failure::usage("the answers ended before the questions; nothing was written")
}

/// The next byte of standard input, which is a terminal: there is nothing to buffer.
fn read_byte() -> Result<Option<u8>, Failure> {
    let mut byte = [0_u8];
    loop {
        match rustix::io::read(std::io::stdin(), &mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(byte.first().copied()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(&error.into())),
        }
    }
}

/// What is typed is not shown, and every key comes at once; until it is dropped. Also Ctrl-C: were
/// it a signal, the terminal would stay blind behind the end of this process.
struct Blind(Termios);

impl Blind {
    fn new() -> Result<Self, Failure> {
        let before = tcgetattr(std::io::stdin()).map_err(|error| failed(&error.into()))?;
        let mut blind = before.clone();
        let shown = LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        blind.local_modes.remove(shown | LocalModes::IEXTEN);
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &blind)
            .map_err(|error| failed(&error.into()))?;
        Ok(Blind(before))
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        // Where the terminal is gone there is nobody to see it.
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Reads up to Enter, with the keys that every terminal has for mending a line.
fn read_secret() -> Result<Zeroizing<String>, Failure> {
    // Room from the start: a vector that grows leaves copies behind.
    let mut typed = Zeroizing::new(Vec::with_capacity(LONGEST_ANSWER));
    loop {
        match read_byte()? {
            Some(b'\r' | b'\n') => break,
            Some(0x03) => return Err(Failure::silent(Exit::Signal(2))),
            None | Some(0x04) if typed.is_empty() => return Err(no_answer()),
            None | Some(0x04) => break,
            Some(0x08 | 0x7f) => rub_out(&mut typed),
            Some(0x15 | 0x17) => typed.clear(),
            Some(0x1b) => skip_key()?,
            Some(0x00..=0x1f) => {}
            Some(byte) if typed.len() < LONGEST_ANSWER => typed.push(byte),
            Some(_) => {}
        }
    }
    match std::str::from_utf8(&typed) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::new(Exit::Data, "the password is not UTF-8; nothing was written")),
    }
}

/// Takes the last character away, which may have several bytes.
fn rub_out(typed: &mut Vec<u8>) {
    while let Some(byte) = typed.pop() {
        if byte & 0xc0 != 0x80 {
            return;
        }
    }
}

/// The rest of what an arrow or another such key sends.
fn skip_key() -> Result<(), Failure> {
    if read_byte()? != Some(b'[') {
        return Ok(());
    }
    while let Some(byte) = read_byte()? {
        if (0x40..=0x7e).contains(&byte) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_cannot_steer_the_terminal() {
        assert_eq!(one_line_indented("  a\u{1b}[2Jb: "), "  a?[2Jb: ");
        assert_eq!(one_line_indented("  "), "  ");
        assert_eq!(one_line_indented(""), "");
    }

    #[test]
    fn whole_characters_are_rubbed_out() {
        let mut typed = "aß".as_bytes().to_vec();
        rub_out(&mut typed);
        assert_eq!(typed, b"a");
        rub_out(&mut typed);
        rub_out(&mut typed);
        assert!(typed.is_empty());
    }
}
