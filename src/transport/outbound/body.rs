//! The message text on the wire: dot-stuffed (RFC 5321 section 4.5.2), in bounded memory.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Doubles the dot at the start of each line and ends the text with the final dot.
///
/// The text comes with CR LF line ends. A bare LF is taken for a line end here too, so that no
/// server, however it reads one, can see an end of the message where there is none.
#[derive(Debug)]
pub(crate) struct DotStuffer {
    last: Last,
}

/// What the text seen so far ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    LineEnd,
    Cr,
    Other,
}

impl DotStuffer {
    /// At the start of a text.
    pub(crate) fn new() -> Self {
        DotStuffer { last: Last::LineEnd }
    }

    /// Appends `text` to `out` as it goes over the wire.
    pub(crate) fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = text;
        while let Some((&first, _)) = rest.split_first() {
            if self.last == Last::LineEnd && first == b'.' {
                out.push(b'.');
            }
            let line = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => rest.get(..=end).unwrap_or(rest),
                None => rest,
            };
            out.extend_from_slice(line);
            self.last = match line.last() {
                Some(b'\n') => Last::LineEnd,
                Some(b'\r') => Last::Cr,
                _ => Last::Other,
            };
            rest = rest.get(line.len()..).unwrap_or(&[]);
        }
    }

    /// Appends the final dot, behind a line end where the text has none.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.last {
            Last::LineEnd => b".\r\n",
            Last::Cr => b"\n.\r\n",
            Last::Other => b"\r\n.\r\n",
        });
    }
}

/// A text that is read piece by piece.
pub(crate) struct TextReader {
    reader: Pin<Box<dyn AsyncRead + Send>>,
    buffer: Vec<u8>,
}

/// Bytes read at once: a few TCP windows of a fast link, nothing against a machine's memory.
const PIECE: usize = 64 * 1024;

/// Room to begin with; it doubles while a piece needs more. Most texts fit, and freeing 64 KiB makes
/// the allocator tidy up its whole heap.
const FIRST_ROOM: usize = 8 * 1024;

/// A text with fewer bytes is one piece.
pub(super) const ONE_PIECE: u64 = PIECE as u64;

impl TextReader {
    /// Reads `reader` to its end.
    pub(crate) fn new(reader: Pin<Box<dyn AsyncRead + Send>>) -> Self {
        TextReader { reader, buffer: Vec::new() }
    }

    /// The next piece, at most 64 KiB; empty at the end.
    ///
    /// # Errors
    /// Those of the reader; `InvalidData` for a body that is damaged.
    pub(crate) async fn next(&mut self) -> std::io::Result<&[u8]> {
        self.buffer.clear();
        // A short read is filled up, so that a piece is a whole one but for the last.
        while self.buffer.len() < PIECE {
            if self.buffer.len() == self.buffer.capacity() {
                self.buffer.reserve(self.buffer.len().clamp(FIRST_ROOM, PIECE / 2));
            }
            let left = (PIECE - self.buffer.len()) as u64;
            if (&mut self.reader).take(left).read_buf(&mut self.buffer).await? == 0 {
                break;
            }
        }
        Ok(&self.buffer)
    }

    /// Whether no other piece follows this one.
    pub(crate) fn is_last(piece: &[u8]) -> bool {
        piece.len() < PIECE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut stuffer, mut out) = (DotStuffer::new(), Vec::new());
        for piece in pieces {
            stuffer.push(piece, &mut out);
        }
        stuffer.finish(&mut out);
        out
    }

    #[test]
    fn dots_at_the_start_of_lines_are_doubled() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"", b".\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"..\r\n", b"...\r\n.\r\n"),
            (b"a.b", b"a.b\r\n.\r\n"),
            (b"a\r", b"a\r\n.\r\n"),
            (b"a\n.\n", b"a\n..\n.\r\n"),
        ];
        for (text, wire) in cases {
            assert_eq!(stuffed(&[text]), *wire, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn where_the_pieces_end_changes_nothing(text in "[a.\r\n]{0,40}", cut in 0usize..40) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(stuffed(&[head, tail]), stuffed(&[bytes]));
        }

        #[test]
        fn a_server_reads_back_the_text(lines in proptest::collection::vec("[a.]{0,4}", 0..8)) {
            let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let wire = String::from_utf8(stuffed(&[text.as_bytes()])).unwrap_or_default();
            let mut read = String::new();
            let mut rest = wire.as_str();
            while let Some((line, next)) = rest.split_once("\r\n") {
                rest = next;
                if line == "." {
                    break;
                }
                read += line.strip_prefix('.').unwrap_or(line);
                read += "\r\n";
            }
            prop_assert_eq!(read, text);
            prop_assert_eq!(rest, "");
        }
    }

    #[tokio::test]
    async fn pieces_are_bounded_and_complete() {
        let text = vec![b'x'; PIECE * 2 + 5];
        let mut reader = TextReader::new(Box::pin(std::io::Cursor::new(text.clone())));
        let mut read = Vec::new();
        loop {
            let piece = reader.next().await.unwrap_or(&[]);
            if piece.is_empty() {
                break;
            }
            assert!(piece.len() <= PIECE);
            read.extend_from_slice(piece);
        }
        assert!(read == text);
    }
}
