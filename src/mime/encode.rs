//! The encodings of headers and bodies: RFC 2047 encoded words, folding, RFC 2231 parameters,
//! quoted-printable.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::parsers::MessageStream;

/// Lines are folded to this many octets where that is possible (RFC 5322 section 2.1.1).
pub(crate) const LINE: usize = 78;

/// Decodes the encoded words of an unstructured value (RFC 2047) and unfolds it.
pub(crate) fn decode_text(value: &str) -> String {
    if !value.contains("=?") && !value.contains(['\r', '\n']) {
        return value.to_owned();
    }
    let line = format!("{value}\n");
    match MessageStream::new(line.as_bytes()).parse_unstructured() {
        mail_parser::HeaderValue::Text(text) => text.into_owned(),
        _ => String::new(),
    }
}

/// Whether a value can stand in a header as it is: printable ASCII, single spaces only inside,
/// nothing that looks like an encoded word, no word that could not be folded.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && !value.contains("=?")
        && !value.contains("  ")
        && !value.starts_with(' ')
        && !value.ends_with(' ')
        && value.split(' ').all(|word| word.len() <= LINE * 4)
}

/// The value of an unstructured header `name`, encoded where it must be, and folded.
pub(crate) fn unstructured(name: &str, value: &str) -> String {
    let mut folder = Folder::new(name.len() + 2);
    if is_plain(value) {
        value.split(' ').for_each(|word| folder.word(word));
    } else {
        encoded_words(value, name.len() + 2).iter().for_each(|word| folder.word(word));
    }
    folder.out
}

/// The text as encoded words of at most 75 octets each, split between characters; the first one
/// starts at `column` of its line, and lines with encoded words have 76 octets at most (RFC 2047
/// section 2).
pub(crate) fn encoded_words(text: &str, column: usize) -> Vec<String> {
    // 75 - len("=?utf-8?B??=") leaves 63 digits of base64, whole groups of four: 45 octets.
    const OCTETS: usize = 45;
    let mut room = (LINE.saturating_sub(column + 14) / 4 * 3).clamp(6, OCTETS);
    let mut words = Vec::new();
    let mut piece = String::new();
    let mut flush = |piece: &mut String| {
        if !piece.is_empty() {
            words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(piece.as_bytes())));
            piece.clear();
        }
    };
    for c in text.chars() {
        if piece.len() + c.len_utf8() > room {
            flush(&mut piece);
            room = OCTETS;
        }
        piece.push(c);
    }
    flush(&mut piece);
    words
}

/// A name to show in front of an address: bare, quoted, or as encoded words.
pub(crate) fn phrase(name: &str) -> Vec<String> {
    if !name.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        || name.contains("=?")
        || name.len() > LINE - 20
    {
        return encoded_words(name, LINE / 2);
    }
    vec![quoted_phrase(name)]
}

/// A name to show for people: quoted when it has characters of meaning.
pub(crate) fn quoted_phrase(name: &str) -> String {
    let plain = name.split(' ').all(|word| {
        !word.is_empty()
            && word.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    });
    if plain {
        return name.to_owned();
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Puts words into lines.
pub(crate) struct Folder {
    /// The lines, without the last CR LF.
    pub(crate) out: String,
    column: usize,
    first: bool,
}

impl Folder {
    /// Starts at `column`, behind the name of the header.
    pub(crate) fn new(column: usize) -> Self {
        Folder { out: String::new(), column, first: true }
    }

    /// Adds a word, behind a space unless it is the first.
    pub(crate) fn word(&mut self, word: &str) {
        if self.first {
            // Not folded right behind the name: some readers take the value for empty then.
            self.first = false;
        } else if self.column + 1 + word.len() > LINE {
            self.out.push_str("\r\n ");
            self.column = 1;
        } else {
            self.out.push(' ');
            self.column += 1;
        }
        self.out.push_str(word);
        self.column += word.len();
    }
}

/// A parameter of a MIME header, `; name=value`, by RFC 2231 when it is long or not ASCII.
/// Written on lines of its own.
pub(crate) fn parameter(name: &str, value: &str) -> String {
    let plain =
        value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    if plain && !value.contains("=?") && name.len() + value.len() <= LINE - 6 {
        return format!(";\r\n {name}=\"{value}\"");
    }
    let mut out = String::new();
    let mut segment = 0_u32;
    let mut line = format!(";\r\n {name}*0*=utf-8''");
    let mut length = line.len() - 3;
    // Whole characters in each segment: some readers decode them one by one.
    for c in value.chars() {
        let piece = match c {
            '0'..='9' | 'a'..='z' | 'A'..='Z' | '.' | '-' | '_' => c.to_string(),
            _ => c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect(),
        };
        if length + piece.len() > LINE - 1 {
            out.push_str(&line);
            segment += 1;
            line = format!(";\r\n {name}*{segment}*=");
            length = line.len() - 3;
        }
        length += piece.len();
        line.push_str(&piece);
    }
    out.push_str(&line);
    out
}

/// Encodes octets as quoted-printable (RFC 2045 section 6.7), line by line, with memory of
/// where in the output line it is.
#[derive(Debug, Default)]
pub(crate) struct QuotedPrintable {
    column: usize,
    /// A blank that may turn out to end its line.
    blank: Option<u8>,
}

impl QuotedPrintable {
    /// Appends octets that are no line end.
    pub(crate) fn octets(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        for &octet in octets {
            if let Some(blank) = self.blank.take() {
                self.piece(&[blank], out);
            }
            match octet {
                b' ' | b'\t' => self.blank = Some(octet),
                b'=' | 0..=32 | 127.. => self.hex(octet, out),
                _ => self.piece(&[octet], out),
            }
        }
    }

    /// Ends a line of the text.
    pub(crate) fn line_end(&mut self, out: &mut Vec<u8>) {
        self.finish(out);
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }

    /// Ends a line whose text was given in pieces.
    pub(crate) fn hard_line_end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }

    /// Ends the text without a line end.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(blank) = self.blank.take() {
            self.hex(blank, out);
        }
    }

    /// Appends an octet in its escaped form.
    pub(crate) fn hex(&mut self, octet: u8, out: &mut Vec<u8>) {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
        let digit = |value: u8| DIGITS.get(usize::from(value)).map_or(b'0', |digit| *digit as u8);
        self.piece(&[b'=', digit(octet >> 4), digit(octet & 15)], out);
    }

    /// Appends what must not be torn apart.
    pub(crate) fn piece(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        // 76 octets at most, the soft line break's `=` among them.
        if self.column + piece.len() > 75 {
            out.extend_from_slice(b"=\r\n");
            self.column = 0;
            if piece == b"-" {
                // What follows could look like a boundary at the start of a line.
                return self.hex(b'-', out);
            }
        }
        out.extend_from_slice(piece);
        self.column += piece.len();
    }
}

/// Encodes a whole text as quoted-printable; CR LF are its line ends.
pub(crate) fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    let mut encoder = QuotedPrintable::default();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let (line, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        encoder.octets(line, &mut out);
        encoder.line_end(&mut out);
        rest = tail.get(2..).unwrap_or_default();
    }
    encoder.octets(rest, &mut out);
    encoder.finish(&mut out);
    out
}

/// Encodes octets as base64 in lines of 76 digits, without a CR LF at the end.
pub(crate) fn base64_lines(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() / 3 * 4 + octets.len() / 28 + 8);
    for (number, line) in octets.chunks(57).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(STANDARD.encode(line).as_bytes());
    }
    out
}

/// The beginning of boundaries that occur in no part for which `taken` answers no. From the
/// digest of the message id, so that equal messages have equal boundaries; `=_` occurs in neither
/// quoted-printable nor base64, so only parts that stay as they are matter.
pub(crate) fn boundary_stem(message_id: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut salt = 0_u32;
    loop {
        let digest = blake3::hash(format!("{message_id}{salt}").as_bytes()).to_hex();
        let stem = format!("=_{}", digest.get(..24).unwrap_or_default());
        if !taken(&stem) {
            return stem;
        }
        salt += 1;
    }
}
