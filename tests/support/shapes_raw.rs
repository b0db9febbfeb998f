//! Messages of every shape that come as RFC 5322 bytes.

use postrider::session::RawEnvelope;

use crate::shapes::{Fidelity, Letter, Shape};

/// Bytes that are submitted, before they are addressed.
pub(crate) struct Raw {
    name: &'static str,
    given: Vec<u8>,
    /// What is stored, where it can be told.
    stored: Option<Vec<u8>>,
    fidelity: Fidelity,
    /// Whether the header says who gets it.
    by_header: bool,
}

impl Raw {
    /// A message that is stored as it is given.
    fn kept(name: &'static str, given: impl Into<Vec<u8>>) -> Self {
        let given = given.into();
        let stored = Some(given.clone());
        Raw { name, given, stored, fidelity: Fidelity::Exact, by_header: false }
    }

    /// A message that is changed when it is stored.
    fn changed(name: &'static str, given: impl Into<Vec<u8>>, stored: impl Into<Vec<u8>>) -> Self {
        Raw { stored: Some(stored.into()), ..Self::kept(name, given) }
    }

    /// A message that gets what it lacks.
    fn completed(name: &'static str, given: impl Into<Vec<u8>>) -> Self {
        Raw { stored: None, ..Self::kept(name, given) }
    }

    fn reencoded(self) -> Self {
        Raw { fidelity: Fidelity::Reencoded, ..self }
    }

    fn by_header(self) -> Self {
        Raw { by_header: true, ..self }
    }

    /// Sends it; in the bytes, `@@` stands for the domain, `TO@@` for the recipient, `FROM@@` for
    /// the sender.
    pub(crate) fn address(self, domain: &str, from: String, to: String) -> Shape {
        let fill = |bytes: Vec<u8>| {
            let bytes = replace(&bytes, b"FROM@@", from.as_bytes());
            let bytes = replace(&bytes, b"TO@@", to.as_bytes());
            replace(&bytes, b"@@", format!("@{domain}").as_bytes())
        };
        let recipients = if self.by_header { Vec::new() } else { vec![to.clone()] };
        let stored = self.stored.map(&fill);
        let given = fill(self.given);
        let envelope = RawEnvelope {
            from: Some(from),
            recipients,
            recipients_from_header: self.by_header,
            ..RawEnvelope::default()
        };
        let hidden = if self.by_header { vec![format!("user1@{domain}")] } else { Vec::new() };
        Shape {
            name: self.name,
            stored,
            letter: Letter::Raw(envelope, given),
            fidelity: self.fidelity,
            copies: 1,
            hidden,
        }
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(from) {
            Some(tail) => {
                out.extend_from_slice(to);
                rest = tail;
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// A header that lacks nothing; `id` makes the message id differ.
fn header(id: &str, more: &str) -> String {
    format!(
        "From: Sender <FROM@@>\r\nTo: TO@@\r\nDate: Mon, 01 Jan 2024 12:00:00 +0000\r\n\
         Message-ID: <{id}@raw.example>\r\n{more}"
    )
}

fn message(id: &str, more: &str, body: &[u8]) -> Vec<u8> {
    [header(id, more).as_bytes(), b"\r\n", body].concat()
}

fn with_lf(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| *byte != b'\r').collect()
}

pub(crate) fn raws() -> Vec<Raw> {
    let mut raws = line_ends();
    raws.extend(contents());
    raws.extend(headers());
    raws.extend(impossible());
    raws
}

fn line_ends() -> Vec<Raw> {
    let crlf = message("crlf", "Subject: CRLF\r\n", b"one\r\n.\r\n..two\r\n");
    let lf = message("lf", "Subject: LF\r\n", b"one\r\n.\r\n..two\r\n");
    let mixed = message("mixed", "Subject: mixed\r\n", b"one\r\ntwo\r\n\r\nthree\r\n");
    let half = header("mixed", "Subject: mixed\r\n\r\n") + "one\ntwo\r\n\nthree";
    let cut = message("cut", "Subject: cut\r\n", b"no line end");
    let complete = [cut.as_slice(), b"\r\n"].concat();
    let mbox = message("mbox", "Subject: mbox\r\n", b"from a mailbox file\r\n");
    let lines = [b"From ann@@ Mon Jan  1 12:00:00 2024\n".as_slice(), &with_lf(&mbox)].concat();
    vec![
        Raw::kept("raw with CRLF", crlf),
        Raw::changed("raw with LF", with_lf(&lf), lf),
        Raw::changed("raw with both", half, mixed),
        Raw::changed("raw without final line end", cut, complete),
        Raw::changed("raw from an mbox", lines, mbox),
        Raw::kept("raw with dots", message("dots", "", b".\r\n..\r\n.\r\n.a\r\n\r\n.\r\n")),
    ]
}

fn contents() -> Vec<Raw> {
    let eight = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 Content-Transfer-Encoding: 8bit\r\n";
    let latin = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\
                 Content-Transfer-Encoding: 8bit\r\n";
    let nested = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"outer\"\r\n";
    let many: Vec<u8> = b"0123456789 abcdefghijklmnopqrstuvwxyz\r\n".repeat(27_000);
    vec![
        Raw::kept("raw 8-bit", message("utf8", eight, "Grüße 🚂\r\n".as_bytes())),
        Raw::kept("raw Latin 1", message("latin", latin, b"Gr\xfc\xdfe\r\n")),
        Raw::kept("raw unlabelled 8-bit", message("bare8", "", b"\xff\xfe\x80\r\n")),
        Raw::kept("raw nested multipart", message("nested", nested, NESTED.as_bytes())),
        Raw::kept("raw 1 MB", message("big", "Subject: 1 MB\r\n", &many)),
        Raw::kept("raw line of 998", message("fits", "", &[&[b'x'; 998][..], b"\r\n"].concat())),
        Raw::kept("raw empty body", message("empty", "Subject: empty\r\n", b"")),
    ]
}

const NESTED: &str = "preamble  \r\n--outer\r\nContent-Type: multipart/alternative;\r\n\
    \tboundary=inner\r\n\r\n--inner\r\n\r\nplain\r\n--inner  \r\nContent-Type: text/html;\r\n \
    charset=\"utf-8\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<p>ü</p>\r\n\r\n--inner--\r\n\
    between\r\n--outer\r\nContent-Type: message/rfc822\r\n\r\nSubject: inside\r\n\
    Content-Type: multipart/mixed; boundary=\"in=_side\"\r\n\r\n--in=_side\r\n\r\n.\r\n\
    --in=_side--\r\n\r\n--outer\r\nContent-Type: application/octet-stream\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nAAECAw==\r\n--outer--\r\nepilogue\r\n \r\n";

fn headers() -> Vec<Raw> {
    let odd = "subject:  odd  \r\nX-Folded: one\r\n\ttwo\r\n  three\r\nX-Empty:\r\n\
               Received: from there by here;\r\n Sun, 31 Dec 2023 23:59:59 +0000\r\n\
               X-Long: ";
    let odd = format!("{odd}{}\r\nDKIM-Signature: v=1; a=x;\r\n\tb=abc def\r\n", "y".repeat(900));
    let blind = message("blind", "Bcc: user1@@\r\nSubject: blind\r\n", b"hush\r\n");
    let seen = message("blind", "Subject: blind\r\n", b"hush\r\n");
    vec![
        Raw::kept("raw with odd headers", message("odd", &odd, b"x\r\n")),
        Raw::changed("raw with Bcc", blind, seen).by_header(),
        Raw::completed("raw without From, Date, Message-ID", "Subject: bare\n\nbody\n"),
        Raw::completed("raw header only", "Subject: only a header\n"),
        Raw::completed("raw body only", "\nonly a body\n"),
    ]
}

/// What no server takes as it is.
fn impossible() -> Vec<Raw> {
    let plain = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n";
    let eight = format!("{plain}Content-Transfer-Encoding: 8bit\r\n");
    let line = |text: &str| [text.repeat(3000).as_bytes(), b"\r\nshort\r\n"].concat();
    vec![
        Raw::kept("raw long line", message("long", plain, &line("a"))).reencoded(),
        Raw::kept("raw long 8-bit line", message("long8", &eight, &line("ü"))).reencoded(),
        Raw::kept("raw bare CR", message("cr", plain, b"one\rtwo\r\n")).reencoded(),
    ]
}
