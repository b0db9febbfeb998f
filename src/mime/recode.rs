//! Re-encodes a message for a server that does not take it as it is: without 8BITMIME, or with
//! lines that are too long for any.

mod body;
mod fields;

use body::BodyCoder;

use super::MAX_LINE;
use super::scan::Octets;
use super::walk::{End, Entity, Kind, Piece, Visitor, Walker};

/// What a server takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// Octets above 127 in bodies (8BITMIME, RFC 6152).
    pub eight_bit_mime: bool,
    /// UTF-8 in headers (SMTPUTF8, RFC 6531).
    pub smtputf8: bool,
}

/// What the octets of one entity are like.
#[derive(Clone, Copy, Debug, Default)]
struct Nature {
    eight_bit: bool,
    /// A long line or a bare CR: impossible on any wire.
    impossible: bool,
    signed: bool,
    parent: Option<u32>,
}

impl Nature {
    fn must_change(self, accepts: Accepts) -> bool {
        self.impossible || (self.eight_bit && !accepts.eight_bit_mime)
    }
}

/// The first of two passes over a message: finds which parts must be re-encoded. Takes the bytes
/// in pieces of any size; holds a few bytes for each part and one header block.
pub struct Survey {
    walker: Walker<Surveyor>,
}

impl Default for Survey {
    fn default() -> Self {
        Self::new()
    }
}

impl Survey {
    /// A survey at the start of a message.
    pub fn new() -> Self {
        Survey { walker: Walker::new(Surveyor::default()) }
    }

    /// Takes more octets. Line ends must be CR LF, as a [`Normaliser`](super::Normaliser) makes
    /// them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.walker.push(bytes);
    }

    /// Ends the message.
    pub fn finish(self) -> Surveyed {
        let surveyor = self.walker.finish();
        Surveyed { entities: surveyor.entities, header: surveyor.header, between: surveyor.between }
    }
}

/// What a [`Survey`] found.
#[derive(Clone, Debug, Default)]
pub struct Surveyed {
    entities: Vec<Nature>,
    /// All headers together.
    header: Nature,
    /// All preambles and epilogues together.
    between: Nature,
}

impl Surveyed {
    /// Whether the message must be changed for a server that takes `accepts`.
    pub fn must_change(&self, accepts: Accepts) -> bool {
        self.header.impossible
            || (self.header.eight_bit && !accepts.smtputf8)
            || self.between.must_change(accepts)
            || self.entities.iter().any(|nature| nature.must_change(accepts))
    }

    /// Whether that breaks a signature (multipart/signed): it cannot be helped, but the sender
    /// may want to know.
    pub fn breaks_signature(&self, accepts: Accepts) -> bool {
        self.entities.iter().any(|nature| nature.signed && nature.must_change(accepts))
    }

    fn actions(&self, accepts: Accepts) -> Vec<Action> {
        let mut actions: Vec<Action> = self
            .entities
            .iter()
            .map(|nature| match nature.must_change(accepts) {
                true => Action::Recode { eight_bit: nature.eight_bit },
                false => Action::Keep,
            })
            .collect();
        // Children have higher numbers than their parents.
        for number in (0..actions.len()).rev() {
            let changed = actions.get(number).is_some_and(|action| *action != Action::Keep);
            let parent = self.entities.get(number).and_then(|nature| nature.parent);
            if changed
                && let Some(parent) = parent
                && let Some(action @ Action::Keep) = actions.get_mut(parent as usize)
            {
                *action = Action::Contains;
            }
        }
        actions
    }
}

/// What happens to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Keep,
    /// Something within is re-encoded.
    Contains,
    Recode {
        eight_bit: bool,
    },
}

#[derive(Default)]
struct Surveyor {
    entities: Vec<Nature>,
    header: Nature,
    between: Nature,
    line: u64,
}

impl Surveyor {
    fn look(&mut self, piece: Piece<'_>) -> (bool, bool) {
        self.line += piece.text.len() as u64;
        let impossible = self.line > MAX_LINE || piece.text.contains(&b'\r');
        if !piece.end.is_empty() {
            self.line = 0;
        }
        (!piece.text.is_ascii(), impossible)
    }
}

impl Visitor for Surveyor {
    fn header(&mut self, entity: Entity, _kind: &Kind, block: &[u8], _blank: &[u8]) {
        let parent = entity.parent.and_then(|parent| u32::try_from(parent).ok());
        self.entities.push(Nature { signed: entity.signed, parent, ..Nature::default() });
        self.header.eight_bit |= !block.is_ascii();
        self.header.impossible |= fields::is_unsendable(block);
        self.line = 0;
    }

    fn body(&mut self, entity: Entity, piece: Piece<'_>) {
        let (eight_bit, impossible) = self.look(piece);
        if let Some(nature) = self.entities.get_mut(entity.number) {
            nature.eight_bit |= eight_bit;
            nature.impossible |= impossible;
        }
    }

    fn body_end(&mut self, _entity: Entity, _end: End) {
        self.line = 0;
    }

    fn boundary(&mut self, line: &[u8]) {
        self.between.impossible |= fields::is_unsendable(line);
        self.line = 0;
    }

    fn between(&mut self, piece: Piece<'_>) {
        let (eight_bit, impossible) = self.look(piece);
        self.between.eight_bit |= eight_bit;
        self.between.impossible |= impossible;
    }
}

/// The second pass: re-encodes what the [`Survey`] found and leaves everything else byte for
/// byte.
///
/// Text becomes quoted-printable, everything else base64; what is encoded already is only
/// wrapped. `Content-Transfer-Encoding` follows, also of what is around; a missing charset of
/// 8-bit text becomes `unknown-8bit` (RFC 1428), a missing `MIME-Version` is added. Raw UTF-8 in
/// header fields becomes encoded words where the server lacks SMTPUTF8. Parts of a
/// multipart/signed are treated alike, which breaks the signature: see
/// [`Surveyed::breaks_signature`].
pub struct Recoder {
    walker: Walker<Rewriter>,
}

impl Recoder {
    /// A filter at the start of the message that was surveyed.
    pub fn new(survey: &Surveyed, accepts: Accepts) -> Self {
        let changed = survey.must_change(accepts);
        Recoder {
            walker: Walker::new(Rewriter {
                actions: survey.actions(accepts),
                accepts,
                changed,
                coder: None,
                column: 0,
                header_octets: Octets::SevenBit,
                out: Vec::new(),
            }),
        }
    }

    /// Takes more octets of the same message and appends to `out` what is certain.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.walker.push(bytes);
        out.append(&mut self.walker.visitor.out);
    }

    /// Ends the message. Answers which octets the headers have now: 8-bit ones are left without
    /// SMTPUTF8 where no encoding is possible, as in addresses.
    pub fn finish(self, out: &mut Vec<u8>) -> Octets {
        let mut visitor = self.walker.finish();
        out.append(&mut visitor.out);
        visitor.header_octets
    }
}

struct Rewriter {
    actions: Vec<Action>,
    accepts: Accepts,
    /// Whether anything at all is changed.
    changed: bool,
    coder: Option<BodyCoder>,
    /// Where in its line a preamble or epilogue is.
    column: usize,
    header_octets: Octets,
    out: Vec<u8>,
}

impl Visitor for Rewriter {
    fn header(&mut self, entity: Entity, kind: &Kind, block: &[u8], blank: &[u8]) {
        let action = self.actions.get(entity.number).copied().unwrap_or(Action::Keep);
        let start = self.out.len();
        let mut rewrite = fields::Rewrite::new(self.accepts);
        if let Kind::Leaf { transfer, text } = kind
            && let Action::Recode { eight_bit } = action
        {
            let coder = BodyCoder::new(*transfer, *text);
            rewrite.encoding = Some(coder.name());
            rewrite.charset = eight_bit && *text && coder.is_new();
            self.coder = Some(coder);
        } else if action == Action::Contains {
            rewrite.container = true;
        }
        rewrite.mime_version = entity.message && action != Action::Keep;
        if self.changed {
            rewrite.write(block, &mut self.out);
            fields::blank_bare_crs(self.out.get_mut(start..).unwrap_or_default());
            // Fields that were taken as they are may still have lines that are too long.
            if self.out.get(start..).is_some_and(fields::has_long_line) {
                let long = self.out.split_off(start);
                fields::refold(&long, &mut self.out);
            }
        } else {
            self.out.extend_from_slice(block);
        }
        if !self.out.get(start..).unwrap_or_default().is_ascii() {
            self.header_octets = Octets::EightBit;
        }
        self.out.extend_from_slice(blank);
        self.column = 0;
    }

    fn body(&mut self, _entity: Entity, piece: Piece<'_>) {
        match &mut self.coder {
            Some(coder) => coder.piece(piece, &mut self.out),
            None => {
                self.out.extend_from_slice(piece.text);
                self.out.extend_from_slice(piece.end);
            }
        }
    }

    fn body_end(&mut self, _entity: Entity, end: End) {
        if let Some(coder) = self.coder.take() {
            coder.finish(end, &mut self.out);
        }
    }

    fn boundary(&mut self, line: &[u8]) {
        if fields::is_unsendable(line) {
            // Behind a boundary there is nothing but space (RFC 2046 section 5.1.1).
            self.out.extend_from_slice(line.trim_ascii_end());
            if line.ends_with(b"\n") {
                self.out.extend_from_slice(b"\r\n");
            }
        } else {
            self.out.extend_from_slice(line);
        }
        self.column = 0;
    }

    /// Preambles and epilogues are no content: what cannot be sent is replaced.
    fn between(&mut self, piece: Piece<'_>) {
        for &octet in piece.text {
            if self.column >= MAX_LINE as usize {
                self.out.extend_from_slice(b"\r\n ");
                self.column = 1;
            }
            self.out.push(match octet {
                b'\r' => b' ',
                128.. if !self.accepts.eight_bit_mime => b'?',
                _ => octet,
            });
            self.column += 1;
        }
        self.out.extend_from_slice(piece.end);
        if !piece.end.is_empty() {
            self.column = 0;
        }
    }
}

/// The message for a server that takes `accepts`, both passes over bytes in memory.
pub fn recode(message: &[u8], accepts: Accepts) -> Vec<u8> {
    let mut survey = Survey::new();
    survey.push(message);
    let mut recoder = Recoder::new(&survey.finish(), accepts);
    let mut out = Vec::with_capacity(message.len() + message.len() / 3);
    recoder.push(message, &mut out);
    recoder.finish(&mut out);
    out
}

/// The message with octets up to 127 in its body only, for a server without 8BITMIME (and
/// without SMTPUTF8).
pub fn to_seven_bit(message: &[u8]) -> Vec<u8> {
    recode(message, Accepts::default())
}

/// The message with lines that every server takes; 8-bit octets stay where lines are short.
pub fn to_short_lines(message: &[u8]) -> Vec<u8> {
    recode(message, Accepts { eight_bit_mime: true, smtputf8: true })
}

#[cfg(test)]
mod tests;
