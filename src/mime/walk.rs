//! Walks over the MIME tree of a message as its bytes stream by (RFC 2045, RFC 2046).

use mail_parser::parsers::MessageStream;

use super::MAX_HEADER;
use super::header::{Field, fields};

/// Deeper trees are not looked into: what is below counts as text.
const MAX_DEPTH: usize = 50;

/// Lines are handed on in pieces of at most about this size. No boundary is as long.
const PIECE: usize = 4096;

/// `Content-Transfer-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// 7bit, 8bit, binary or nothing: the octets themselves.
    Identity,
    QuotedPrintable,
    Base64,
}

/// What an entity is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A multipart with its boundary.
    Multipart { boundary: Vec<u8>, signed: bool, digest: bool },
    /// An encapsulated message.
    Message,
    /// Anything else.
    Leaf { transfer: Transfer, text: bool },
}

/// An entity: a message or a part of one, numbered in the order of their headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entity {
    pub(crate) number: usize,
    /// The entity it is part of.
    pub(crate) parent: Option<usize>,
    /// Whether its header is that of a message and not of a part.
    pub(crate) message: bool,
    /// Whether it lies below a multipart/signed.
    pub(crate) signed: bool,
}

/// Why a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At a boundary: the last line end before it belongs to the boundary.
    Boundary,
    /// With the message.
    Message,
}

/// A piece of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// The octets without the line end.
    pub(crate) text: &'a [u8],
    /// The line end, empty when the line goes on in the next piece.
    pub(crate) end: &'a [u8],
}

/// Sees the parts of a message in their order.
pub(crate) trait Visitor {
    /// A header block; `blank` is the line that ended it.
    fn header(&mut self, entity: Entity, kind: &Kind, block: &[u8], blank: &[u8]);
    /// A piece of the body of a leaf.
    fn body(&mut self, entity: Entity, piece: Piece<'_>);
    /// The body of a leaf ended.
    fn body_end(&mut self, entity: Entity, end: End);
    /// A boundary line.
    fn boundary(&mut self, line: &[u8]);
    /// A piece of a preamble or an epilogue.
    fn between(&mut self, piece: Piece<'_>);
}

struct Container {
    entity: Entity,
    boundary: Vec<u8>,
    digest: bool,
}

enum State {
    Header { entity: Entity, block: Vec<u8>, digest: bool },
    Leaf(Entity),
    Between,
}

/// The walker.
pub(crate) struct Walker<V> {
    pub(crate) visitor: V,
    stack: Vec<Container>,
    state: State,
    entities: usize,
    line: Vec<u8>,
    /// The current line began in a piece that was handed on already.
    inside_line: bool,
}

impl<V: Visitor> Walker<V> {
    pub(crate) fn new(visitor: V) -> Self {
        let root = Entity { number: 0, parent: None, message: true, signed: false };
        Walker {
            visitor,
            stack: Vec::new(),
            state: State::Header { entity: root, block: Vec::new(), digest: false },
            entities: 1,
            line: Vec::new(),
            inside_line: false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.is_empty() && piece.ends_with(b"\n") {
                self.piece(piece);
                continue;
            }
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") || self.line.len() > PIECE {
                let mut line = std::mem::take(&mut self.line);
                // The line feed of this carriage return may be in the next piece.
                let carriage_return = line.pop_if(|last| *last == b'\r').is_some();
                self.piece(&line);
                line.clear();
                line.extend(carriage_return.then_some(b'\r'));
                self.line = line;
            }
        }
    }

    pub(crate) fn finish(mut self) -> V {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.piece(&line);
        }
        self.end_entity(End::Message);
        self.visitor
    }

    fn piece(&mut self, piece: &[u8]) {
        let starts = !self.inside_line;
        self.inside_line = !piece.ends_with(b"\n");
        if starts && piece.starts_with(b"--") && self.try_boundary(piece) {
            return;
        }
        match &mut self.state {
            State::Header { block, .. } => {
                let blank = starts && matches!(piece, b"\r\n" | b"\n");
                if !blank {
                    block.extend_from_slice(piece);
                }
                if blank || block.len() > MAX_HEADER {
                    self.end_header(if blank { piece } else { b"" });
                }
            }
            State::Leaf(entity) => self.visitor.body(*entity, split_end(piece)),
            State::Between => self.visitor.between(split_end(piece)),
        }
    }

    fn try_boundary(&mut self, line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(b"--") else {
            return false;
        };
        // From the inside out: an outer boundary ends everything within.
        let Some((level, closes)) =
            self.stack.iter().enumerate().rev().find_map(|(level, open)| {
                let tail = rest.strip_prefix(open.boundary.as_slice())?;
                let (closes, tail) = match tail.strip_prefix(b"--") {
                    Some(tail) => (true, tail),
                    None => (false, tail),
                };
                tail.iter().all(u8::is_ascii_whitespace).then_some((level, closes))
            })
        else {
            return false;
        };
        self.end_entity(End::Boundary);
        self.stack.truncate(level + usize::from(!closes));
        self.visitor.boundary(line);
        self.state = State::Between;
        if !closes && let Some(open) = self.stack.last() {
            let (parent, digest) = (open.entity, open.digest);
            let entity = self.entity(parent, false);
            self.state = State::Header { entity, block: Vec::new(), digest };
        }
        true
    }

    fn entity(&mut self, parent: Entity, message: bool) -> Entity {
        let number = self.entities;
        self.entities += 1;
        Entity { number, parent: Some(parent.number), message, signed: parent.signed }
    }

    fn end_header(&mut self, blank: &[u8]) {
        let State::Header { entity, block, digest } =
            std::mem::replace(&mut self.state, State::Between)
        else {
            return;
        };
        let kind = if self.stack.len() < MAX_DEPTH {
            kind_of(&block, digest)
        } else {
            Kind::Leaf { transfer: Transfer::Identity, text: true }
        };
        self.visitor.header(entity, &kind, &block, blank);
        self.state = match kind {
            Kind::Multipart { boundary, signed, digest } => {
                let entity = Entity { signed: entity.signed || signed, ..entity };
                self.stack.push(Container { entity, boundary, digest });
                State::Between
            }
            Kind::Message => State::Header {
                entity: self.entity(entity, true),
                block: Vec::new(),
                digest: false,
            },
            Kind::Leaf { .. } => State::Leaf(entity),
        };
    }

    fn end_entity(&mut self, end: End) {
        if matches!(self.state, State::Header { .. }) {
            // A message within that has no blank line has nothing below its header.
            self.end_header(b"");
            if matches!(self.state, State::Header { .. }) {
                self.end_header(b"");
            }
        }
        if let State::Leaf(entity) = self.state {
            self.visitor.body_end(entity, end);
        }
        self.state = State::Between;
    }
}

/// Separates the line end.
fn split_end(piece: &[u8]) -> Piece<'_> {
    let length = match piece {
        [.., b'\r', b'\n'] => piece.len() - 2,
        [.., b'\n'] => piece.len() - 1,
        _ => piece.len(),
    };
    let (text, end) = piece.split_at_checked(length).unwrap_or((piece, &[]));
    Piece { text, end }
}

fn kind_of(block: &[u8], digest: bool) -> Kind {
    let mut transfer = Transfer::Identity;
    let mut content_type: Option<Field<'_>> = None;
    for field in fields(block) {
        if field.is("content-transfer-encoding") {
            transfer = transfer_of(&field.text());
        } else if field.is("content-type") && content_type.is_none() {
            content_type = Some(field);
        }
    }
    let Some(field) = content_type else {
        return match digest && transfer == Transfer::Identity {
            true => Kind::Message,
            false => Kind::Leaf { transfer, text: true },
        };
    };
    let line = format!("{}\n", field.text());
    let mail_parser::HeaderValue::ContentType(value) =
        MessageStream::new(line.as_bytes()).parse_content_type()
    else {
        return Kind::Leaf { transfer, text: true };
    };
    let main = value.ctype().to_ascii_lowercase();
    let sub = value.subtype().unwrap_or_default().to_ascii_lowercase();
    match (main.as_str(), sub.as_str(), transfer) {
        ("multipart", _, Transfer::Identity) => match value.attribute("boundary") {
            Some(boundary) if !boundary.is_empty() && boundary.len() < PIECE / 2 => {
                Kind::Multipart {
                    boundary: boundary.as_bytes().to_vec(),
                    signed: sub == "signed",
                    digest: sub == "digest",
                }
            }
            _ => Kind::Leaf { transfer, text: true },
        },
        ("message", "rfc822" | "global", Transfer::Identity) => Kind::Message,
        _ => Kind::Leaf { transfer, text: matches!(main.as_str(), "text" | "message") },
    }
}

/// Reads a `Content-Transfer-Encoding`; an unknown one is left alone like 8bit.
fn transfer_of(value: &str) -> Transfer {
    let word = value.split(['(', ';', ' ']).find(|word| !word.is_empty()).unwrap_or_default();
    if word.eq_ignore_ascii_case("base64") {
        Transfer::Base64
    } else if word.eq_ignore_ascii_case("quoted-printable") {
        Transfer::QuotedPrintable
    } else {
        Transfer::Identity
    }
}
