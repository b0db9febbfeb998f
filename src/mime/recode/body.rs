//! Re-encodes the body of one part.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::mime::encode::QuotedPrintable;
use crate::mime::walk::{End, Piece, Transfer};

/// Octets that make one line of base64.
const GROUP: usize = 57;
/// Digits of base64 in a line.
const DIGITS: usize = 76;

/// How one body is re-encoded.
pub(super) enum BodyCoder {
    /// Text to quoted-printable.
    Quote(QuotedPrintable),
    /// Quoted-printable already: wrapped, 8-bit octets encoded.
    Requote {
        encoder: QuotedPrintable,
        /// An `=` and what followed it so far.
        escape: Vec<u8>,
    },
    /// Octets to base64.
    Encode {
        rest: Vec<u8>,
        /// The last line end, which may belong to a boundary.
        line_end: Vec<u8>,
        /// Whether a line was written.
        wrote: bool,
    },
    /// Base64 already: wrapped anew.
    Rewrap { column: usize, lines: bool },
}

impl BodyCoder {
    pub(super) fn new(transfer: Transfer, text: bool) -> Self {
        match (transfer, text) {
            (Transfer::Identity, true) => BodyCoder::Quote(QuotedPrintable::default()),
            (Transfer::Identity, false) => {
                BodyCoder::Encode { rest: Vec::new(), line_end: Vec::new(), wrote: false }
            }
            (Transfer::QuotedPrintable, _) => {
                BodyCoder::Requote { encoder: QuotedPrintable::default(), escape: Vec::new() }
            }
            (Transfer::Base64, _) => BodyCoder::Rewrap { column: 0, lines: false },
        }
    }

    /// The `Content-Transfer-Encoding` of the result.
    pub(super) fn name(&self) -> &'static str {
        match self {
            BodyCoder::Quote(_) | BodyCoder::Requote { .. } => "quoted-printable",
            BodyCoder::Encode { .. } | BodyCoder::Rewrap { .. } => "base64",
        }
    }

    /// Whether the body had no encoding before.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, BodyCoder::Quote(_) | BodyCoder::Encode { .. })
    }

    pub(super) fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        match self {
            BodyCoder::Quote(encoder) => {
                encoder.octets(piece.text, out);
                if !piece.end.is_empty() {
                    encoder.line_end(out);
                }
            }
            BodyCoder::Requote { encoder, escape } => {
                piece.text.iter().for_each(|octet| requote(encoder, escape, *octet, out));
                if !piece.end.is_empty() {
                    flush_escape(encoder, escape, out);
                    encoder.hard_line_end(out);
                }
            }
            BodyCoder::Encode { rest, line_end, wrote } => {
                rest.append(line_end);
                rest.extend_from_slice(piece.text);
                line_end.extend_from_slice(piece.end);
                let whole = rest.len() - rest.len() % GROUP;
                *wrote |= whole > 0;
                encode_lines(rest.get(..whole).unwrap_or_default(), out);
                rest.drain(..whole);
            }
            BodyCoder::Rewrap { column, lines } => {
                *lines |= !piece.end.is_empty();
                for &octet in piece.text {
                    if !octet.is_ascii_alphanumeric() && !matches!(octet, b'+' | b'/' | b'=') {
                        continue;
                    }
                    if *column == DIGITS {
                        out.extend_from_slice(b"\r\n");
                        *column = 0;
                    }
                    out.push(octet);
                    *column += 1;
                }
            }
        }
    }

    pub(super) fn finish(self, end: End, out: &mut Vec<u8>) {
        match self {
            BodyCoder::Quote(mut encoder) => encoder.finish(out),
            BodyCoder::Requote { mut encoder, mut escape } => {
                flush_escape(&mut encoder, &mut escape, out);
            }
            BodyCoder::Encode { mut rest, line_end, wrote } => {
                if end == End::Message {
                    rest.extend_from_slice(&line_end);
                }
                encode_lines(&rest, out);
                if rest.is_empty() && !wrote && !line_end.is_empty() {
                    out.extend_from_slice(b"\r\n");
                }
            }
            BodyCoder::Rewrap { lines, .. } => {
                if lines {
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }
}

fn encode_lines(octets: &[u8], out: &mut Vec<u8>) {
    for group in octets.chunks(GROUP) {
        out.extend_from_slice(STANDARD.encode(group).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes an octet of quoted-printable text; an escape is never torn apart.
fn requote(encoder: &mut QuotedPrintable, escape: &mut Vec<u8>, octet: u8, out: &mut Vec<u8>) {
    if octet == b'=' {
        flush_escape(encoder, escape, out);
        escape.push(octet);
    } else if escape.is_empty() {
        match octet {
            b'\r' | 128.. => encoder.hex(octet, out),
            _ => encoder.piece(&[octet], out),
        }
    } else {
        escape.push(octet);
        if escape.len() == 3 || !octet.is_ascii_hexdigit() {
            flush_escape(encoder, escape, out);
        }
    }
}

fn flush_escape(encoder: &mut QuotedPrintable, escape: &mut Vec<u8>, out: &mut Vec<u8>) {
    if escape.is_empty() {
        return;
    }
    if escape.is_ascii() && !escape.contains(&b'\r') {
        encoder.piece(escape, out);
    } else {
        for octet in escape.iter() {
            match octet {
                b'\r' | 128.. => encoder.hex(*octet, out),
                _ => encoder.piece(&[*octet], out),
            }
        }
    }
    escape.clear();
}
