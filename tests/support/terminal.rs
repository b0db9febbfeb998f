//! The program at a terminal of its own (a pseudo terminal).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// The deadline of everything that is waited for: generous, because test machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How large the terminal is.
pub(crate) const COLUMNS: usize = 80;
pub(crate) const LINES: usize = 24;

/// A program at a terminal; killed when it is dropped.
pub(crate) struct Session {
    pub(crate) child: Child,
    pub(crate) keyboard: File,
    screen: Receiver<Vec<u8>>,
    written: Vec<u8>,
    /// What was written, as text.
    pub(crate) seen: String,
    /// How much of it earlier expectations have used up.
    used: usize,
}

impl Session {
    pub(crate) fn start(mut command: Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let (ws_row, ws_col) = (LINES.try_into().unwrap(), COLUMNS.try_into().unwrap());
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let own = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).custom_flags(own).open(name).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        // The command has copies of the terminal; the last one that is closed ends the reading.
        drop((slave, command));
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last process that leaves a terminal makes reading fail.
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Session { child, keyboard, screen, written: Vec::new(), seen: String::new(), used: 0 }
    }

    /// Waits until `text` was written, behind what was expected before.
    pub(crate) fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen[self.used..].find(text) {
                self.used += at + text.len();
                return;
            }
            self.read(deadline, text);
        }
    }

    /// Waits until the full screen shows `text`.
    pub(crate) fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !picture(&self.seen).contains(text) {
            self.read(deadline, text);
        }
    }

    fn read(&mut self, deadline: Instant, text: &str) {
        match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => self.take(&bytes),
            Err(RecvTimeoutError::Timeout) => {
                panic!("no {text:?} in:\n{}\nwhich is\n{}", self.seen, picture(&self.seen))
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!("it ended without {text:?}:\n{}", self.seen)
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        // From the beginning: a letter may have come in two pieces.
        self.seen = String::from_utf8_lossy(&self.written).into_owned();
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a question and answers it.
    pub(crate) fn answer(&mut self, question: &str, keys: &str) {
        self.expect(question);
        self.expect(": ");
        self.type_in(&format!("{keys}\n"));
    }

    /// Waits for the end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.end_within(PATIENCE)
    }

    /// Waits for the end, which has to come in that time.
    pub(crate) fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it did not end:\n{}", picture(&self.seen))
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// What a screen shows on which that was written: letters, moves to a place and erasures are
/// understood, all else changes no letter.
fn picture(written: &str) -> String {
    let mut cells = vec![[' '; COLUMNS]; LINES];
    let (mut line, mut column) = (0, 0);
    let mut letters = written.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' if letters.as_str().starts_with('[') => {
                let rest = letters.as_str();
                let length = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest.len());
                let mut numbers = rest[1..length].split(';').map(|one| one.parse().unwrap_or(1));
                match rest[length..].chars().next() {
                    Some('H') => {
                        line = numbers.next().unwrap_or(1_usize) - 1;
                        column = numbers.next().unwrap_or(1_usize) - 1;
                    }
                    Some('J') => cells = vec![[' '; COLUMNS]; LINES],
                    _ => {}
                }
                letters = rest.get(length + 1..).unwrap_or_default().chars();
            }
            '\r' => column = 0,
            '\n' => line += 1,
            letter if letter.is_control() => {}
            letter => {
                if let Some(cell) = cells.get_mut(line).and_then(|line| line.get_mut(column)) {
                    *cell = letter;
                }
                column += 1;
            }
        }
    }
    cells.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
}
