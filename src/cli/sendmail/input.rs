//! The message on standard input, read to its end: small ones stay in memory, large ones go into a
//! file that has no name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use memchr::memchr;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::flags::LoneDot;
use crate::cli::exit::{Exit, Failure};

/// More than this many octets are not kept in memory.
const MOST_IN_MEMORY: usize = 1024 * 1024;

/// A message this long no mail server takes, in octets: whoever writes more goes on without end.
const LONGEST: u64 = 4 * 1024 * 1024 * 1024;

/// Octets read at a time.
const CHUNK: usize = 64 * 1024;

/// A message that was read.
#[derive(Debug)]
pub(super) struct Input {
    memory: Vec<u8>,
    file: Option<File>,
}

impl Input {
    /// Reads standard input.
    ///
    /// # Errors
    /// 66 when there is nothing to read from, 65 when reading breaks, 69 for what does not end,
    /// 74 when it cannot be kept.
    pub(super) fn of_process(lone_dot: LoneDot) -> Result<Self, Failure> {
        if is_closed() {
            return Err(Failure::new(Exit::NoInput, "cannot send: standard input is closed"));
        }
        Self::read(std::io::stdin().lock(), lone_dot, &std::env::temp_dir())
    }

    #[cfg(test)]
    pub(super) fn of_text(text: &str) -> Self {
        Input { memory: text.into(), file: None }
    }

    /// Reads a message; what is large is put into `folder`.
    fn read(mut from: impl Read, lone_dot: LoneDot, folder: &Path) -> Result<Self, Failure> {
        let mut input = Input { memory: Vec::new(), file: None };
        let mut dots = DotFilter::new(lone_dot);
        let mut chunk = vec![0; CHUNK];
        let mut size = 0_u64;
        loop {
            let count = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let exit = if size == 0 { Exit::NoInput } else { Exit::Data };
                    let words = format!("cannot read the message from standard input: {error}");
                    return Err(Failure::new(exit, words));
                }
            };
            size += count as u64;
            if size > LONGEST {
                return Err(Failure::new(Exit::Unavailable, "the message does not end"));
            }
            let ended = dots.push(chunk.get(..count).unwrap_or_default(), &mut input.memory);
            input.spill(folder)?;
            if ended == Ended::Yes {
                break;
            }
        }
        if size == 0 {
            // An empty message is one: its header is made, and there is no body.
            input.memory.push(b'\n');
        }
        Ok(input)
    }

    fn spill(&mut self, folder: &Path) -> Result<(), Failure> {
        if self.memory.len() <= MOST_IN_MEMORY {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Failure::io(format_args!("keep a large message in {}", folder.display()), &error)
        };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => nameless(folder).map_err(failed)?,
        };
        file.write_all(&self.memory).map_err(failed)?;
        self.memory.clear();
        self.file = Some(file);
        Ok(())
    }

    /// The message from its beginning; as often as it is asked for, each reader for itself.
    pub(super) fn reader(&self) -> std::io::Result<Pin<Box<dyn AsyncRead + Send>>> {
        let rest = std::io::Cursor::new(self.memory.clone());
        let Some(file) = &self.file else { return Ok(Box::pin(rest)) };
        Ok(Box::pin(tokio::io::AsyncReadExt::chain(from_start(file.try_clone()?), rest)))
    }
}

/// Octets read from a file at once.
const PIECE: usize = 256 * 1024;

/// What stands in a file. Every descriptor of it shares one place to read at, which a call that broke
/// may still move: the place is named with each read.
fn from_start(file: File) -> impl AsyncRead + Send + Unpin {
    let file = Arc::new(file);
    let pieces = stream::try_unfold(0_u64, move |place| {
        let file = Arc::clone(&file);
        async move {
            let piece = tokio::task::spawn_blocking(move || piece_at(&file, place)).await;
            let piece = piece.map_err(std::io::Error::other)??;
            let next = place.saturating_add(piece.len() as u64);
            Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, next)))
        }
    });
    StreamReader::new(Box::pin(pieces))
}

fn piece_at(file: &File, place: u64) -> std::io::Result<Bytes> {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read_at(&mut piece, place) {
            Ok(count) => {
                piece.truncate(count);
                return Ok(Bytes::from(piece));
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that goes when it is closed, for its owner only.
fn nameless(folder: &Path) -> std::io::Result<File> {
    for _ in 0..100 {
        let path = folder.join(format!(".postrider-{:016x}", fastrand::u64(..)));
        let mut options = OpenOptions::new();
        match options.read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

/// Whether the caller gave no standard input at all. The standard library puts the null device in
/// its place then, open both ways, as nobody does who means it.
fn is_closed() -> bool {
    let stdin = std::io::stdin();
    let both_ways = rustix::fs::fcntl_getfl(stdin.as_fd())
        .is_ok_and(|flags| flags.contains(rustix::fs::OFlags::RDWR));
    let is_null = || {
        let null = rustix::fs::stat("/dev/null");
        let own = rustix::fs::fstat(stdin.as_fd());
        match (null, own) {
            (Ok(null), Ok(own)) => {
                null.st_rdev == own.st_rdev
                    && rustix::fs::FileType::from_raw_mode(own.st_mode).is_char_device()
            }
            _ => false,
        }
    };
    both_ways && is_null()
}

/// Whether a message has ended before its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Text,
    /// A dot began the line.
    Dot,
    /// A dot began the line and a CR followed.
    DotCr,
    Ended,
}

/// Finds the line with nothing but a dot.
pub(super) struct DotFilter {
    state: State,
    lone_dot: LoneDot,
}

impl DotFilter {
    pub(super) fn new(lone_dot: LoneDot) -> Self {
        DotFilter { state: State::LineStart, lone_dot }
    }

    /// Appends `input` to `out`, up to the end of the message.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Ended {
        if self.lone_dot == LoneDot::IsText {
            out.extend_from_slice(input);
            return Ended::No;
        }
        let mut rest = input;
        while let Some((octet, behind)) = rest.split_first() {
            match (self.state, octet) {
                (State::Ended, _) => return Ended::Yes,
                (State::LineStart, b'.') => {
                    self.state = State::Dot;
                    rest = behind;
                }
                (State::Dot, b'\r') => {
                    self.state = State::DotCr;
                    rest = behind;
                }
                (State::Dot | State::DotCr, b'\n') => {
                    self.state = State::Ended;
                    return Ended::Yes;
                }
                (State::Dot, _) => {
                    out.push(b'.');
                    self.state = State::Text;
                }
                (State::DotCr, _) => {
                    out.extend_from_slice(b".\r");
                    self.state = State::Text;
                }
                (State::LineStart | State::Text, _) => {
                    let end = memchr(b'\n', rest);
                    let (line, behind) = rest
                        .split_at_checked(end.map_or(rest.len(), |end| end + 1))
                        .unwrap_or((rest, &[]));
                    out.extend_from_slice(line);
                    self.state = if end.is_some() { State::LineStart } else { State::Text };
                    rest = behind;
                }
            }
        }
        Ended::No
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn filtered(input: &[u8], step: usize) -> Vec<u8> {
        let mut filter = DotFilter::new(LoneDot::Ends);
        let mut out = Vec::new();
        for piece in input.chunks(step) {
            if filter.push(piece, &mut out) == Ended::Yes {
                break;
            }
        }
        out
    }

    #[test]
    fn a_line_with_nothing_but_a_dot_ends_the_message() {
        for (input, wanted) in [
            ("a\n.\nb\n", "a\n"),
            ("a\r\n.\r\nb\r\n", "a\r\n"),
            (".\n", ""),
            // The last line may lack its end.
            ("a\n.", "a\n"),
            ("a\n.\r", "a\n"),
            // None of these is such a line.
            ("a\n..\nb\n", "a\n..\nb\n"),
            ("a\n.b\n", "a\n.b\n"),
            ("a\n. \n", "a\n. \n"),
            ("a.\nb\n", "a.\nb\n"),
            ("a\n.\rb\n", "a\n.\rb\n"),
            ("a\n.\r.\n", "a\n.\r.\n"),
        ] {
            for step in 1..=input.len() {
                let out = filtered(input.as_bytes(), step);
                assert_eq!(String::from_utf8(out).unwrap(), wanted, "{input:?} by {step}");
            }
        }
        let mut out = Vec::new();
        assert_eq!(DotFilter::new(LoneDot::IsText).push(b"a\n.\nb", &mut out), Ended::No);
        assert_eq!(out, b"a\n.\nb");
    }

    #[tokio::test]
    async fn large_messages_come_back_whole_as_often_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 * MOST_IN_MEMORY + 7).map(|n| (n % 251) as u8).collect();
        let input = Input::read(content.as_slice(), LoneDot::IsText, folder.path()).unwrap();
        assert!(input.file.is_some() && input.memory.len() <= MOST_IN_MEMORY);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it has no name");
        for _ in 0..2 {
            let mut read = Vec::new();
            input.reader().unwrap().read_to_end(&mut read).await.unwrap();
            assert!(read == content);
        }
    }

    /// A call that broke may still be about to read when the next one begins.
    #[tokio::test]
    async fn no_reader_moves_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..5 * MOST_IN_MEMORY + 7).map(|n| (n % 251) as u8).collect();
        let input = Input::read(content.as_slice(), LoneDot::IsText, folder.path()).unwrap();
        let (mut one, mut two) = (input.reader().unwrap(), input.reader().unwrap());
        let (mut first, mut second) = (vec![0; 1000], vec![0; 1000]);
        one.read_exact(&mut first).await.unwrap();
        two.read_exact(&mut second).await.unwrap();
        one.read_to_end(&mut first).await.unwrap();
        two.read_to_end(&mut second).await.unwrap();
        assert!(first == content && second == content);
    }

    /// Fails after this many octets.
    struct Breaks(usize);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match (self.0, buffer.first_mut()) {
                (1.., Some(first)) => {
                    self.0 -= 1;
                    *first = b'x';
                    Ok(1)
                }
                _ => Err(io::ErrorKind::IsADirectory.into()),
            }
        }
    }

    #[test]
    fn what_cannot_be_read_has_its_exit_codes() {
        let read = |octets| {
            let folder = std::env::temp_dir();
            Input::read(Breaks(octets), LoneDot::Ends, &folder).unwrap_err().exit.number()
        };
        assert_eq!((read(0), read(5)), (66, 65));
        let empty = Input::read(io::empty(), LoneDot::Ends, &std::env::temp_dir()).unwrap();
        assert_eq!(empty.memory, b"\n");
    }
}
