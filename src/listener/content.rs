//! The decoding of DATA (RFC 5321 section 4.5.2), without I/O.

use memchr::{memchr, memchr2};

/// A line end that is none: what lies behind it may mean one thing to us and another to the next
/// server, so the message is refused (RFC 5321 section 2.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BareNewline {
    Cr,
    Lf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    Text,
    Cr,
    /// A dot began the line.
    Dot,
    /// A dot began the line and a CR followed.
    DotCr,
}

/// Takes the dots away that the client has added, and finds the end.
#[derive(Debug)]
pub(super) struct DotDecoder {
    state: State,
    bare: Option<BareNewline>,
}

/// How far a [`DotDecoder`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Everything was used; the end is not there yet.
    More,
    /// The final dot; so many octets of the input were used, its line end included.
    End { used: usize },
}

impl DotDecoder {
    pub(super) fn new() -> Self {
        DotDecoder { state: State::LineStart, bare: None }
    }

    /// The first bare CR or LF that was met.
    pub(super) fn bare_newline(&self) -> Option<BareNewline> {
        self.bare
    }

    /// Decodes `input` behind `out`. Only `<CRLF>.<CRLF>` is the end.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Step {
        let mut rest = input;
        while let Some((&octet, behind)) = rest.split_first() {
            match (self.state, octet) {
                (State::LineStart, b'.') => {
                    self.state = State::Dot;
                    rest = behind;
                }
                (State::LineStart | State::Text, _) => rest = self.text(rest, out),
                (State::Cr, b'\n') => {
                    out.extend_from_slice(b"\r\n");
                    self.state = State::LineStart;
                    rest = behind;
                }
                (State::Cr, _) => {
                    self.met(BareNewline::Cr);
                    out.push(b'\r');
                    self.state = State::Text;
                }
                (State::Dot, b'\r') => {
                    self.state = State::DotCr;
                    rest = behind;
                }
                // Whatever follows a dot that was added is text.
                (State::Dot, _) => self.state = State::Text,
                (State::DotCr, b'\n') => {
                    return Step::End { used: input.len() - behind.len() };
                }
                (State::DotCr, _) => self.state = State::Cr,
            }
        }
        Step::More
    }

    /// Text up to and with the next CR or bare LF; returns what is behind.
    fn text<'a>(&mut self, rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let at = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (text, behind) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend_from_slice(text);
        self.state = State::Text;
        match behind.split_first() {
            Some((b'\r', behind)) => {
                self.state = State::Cr;
                behind
            }
            Some((_, behind)) => {
                self.met(BareNewline::Lf);
                out.push(b'\n');
                behind
            }
            None => &[],
        }
    }

    fn met(&mut self, bare: BareNewline) {
        self.bare.get_or_insert(bare);
    }
}

/// Looks for bare line ends in content that comes with BDAT (RFC 3030), where nothing is stuffed.
#[derive(Debug, Default)]
pub(super) struct NewlineCheck {
    after_cr: bool,
    bare: Option<BareNewline>,
}

impl NewlineCheck {
    pub(super) fn push(&mut self, input: &[u8]) {
        for octet in input {
            let after_cr = std::mem::replace(&mut self.after_cr, *octet == b'\r');
            match (after_cr, *octet == b'\n') {
                (true, false) => _ = self.bare.get_or_insert(BareNewline::Cr),
                (false, true) => _ = self.bare.get_or_insert(BareNewline::Lf),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// What was wrong, at the end of the content.
    pub(super) fn finish(&self) -> Option<BareNewline> {
        self.bare.or(self.after_cr.then_some(BareNewline::Cr))
    }
}

/// Where the line of a command ends, its line end included.
pub(super) fn line_end(input: &[u8]) -> Option<usize> {
    memchr(b'\n', input).map(|at| at + 1)
}
