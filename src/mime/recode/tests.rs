#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use mail_parser::MessageParser;
use proptest::prelude::*;

/// The decoded contents of all leaves, in order, messages within included: a plain recursive
/// reading with the whole message in memory. (`MessageParser` panics on some of these trees.)
fn leaves(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    read_entity(bytes, &mut out);
    out
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|at| at == wanted)
}

fn read_entity(entity: &[u8], out: &mut Vec<Vec<u8>>) {
    let end = find(entity, b"\r\n\r\n").unwrap();
    let (head, body) = (String::from_utf8_lossy(&entity[..end]).to_lowercase(), &entity[end + 4..]);
    let value = |name: &str| -> String {
        let unfolded = head.replace("\r\n ", " ");
        let mut lines = unfolded.lines();
        lines.find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
    };
    let (kind, encoding) = (value("content-type:"), value("content-transfer-encoding:"));
    if let Some((_, boundary)) = kind.split_once("boundary=") {
        let delimiter = format!("\r\n--{}", boundary.trim_matches('"'));
        let mut rest = [b"\r\n", body].concat();
        loop {
            let at = find(&rest, delimiter.as_bytes()).unwrap();
            let line_end = at + delimiter.len();
            if rest[line_end..].starts_with(b"--") {
                return;
            }
            let part = rest[line_end + 2..].to_vec();
            // An empty body may share its line end with the boundary.
            let part_end = find(&part, delimiter.as_bytes()).unwrap();
            read_entity(&[&part[..part_end], b""].concat(), out);
            rest = part[part_end..].to_vec();
        }
    }
    match (kind.as_str(), encoding.as_str()) {
        ("message/rfc822", _) => read_entity(body, out),
        (_, "base64") => {
            let digits: Vec<u8> = body.iter().copied().filter(|b| !b"\r\n".contains(b)).collect();
            out.push(
                base64::Engine::decode(&base64::engine::general_purpose::STANDARD, digits).unwrap(),
            );
        }
        (_, "quoted-printable") => {
            let mut text = Vec::new();
            let mut rest = body;
            while let [first, tail @ ..] = rest {
                rest = tail;
                match (*first, tail) {
                    (b'=', [b'\r', b'\n', after @ ..]) => rest = after,
                    (b'=', [high, low, after @ ..]) => {
                        let hex = [*high, *low];
                        let hex = std::str::from_utf8(&hex).unwrap();
                        text.push(u8::from_str_radix(hex, 16).unwrap());
                        rest = after;
                    }
                    (octet, _) => text.push(octet),
                }
            }
            out.push(text);
        }
        _ => out.push(body.to_vec()),
    }
}

fn assert_wire_fit(bytes: &[u8], accepts: Accepts) {
    let mut scanner = crate::mime::Scanner::new();
    scanner.push(bytes).unwrap();
    let facts = scanner.finish();
    assert!(!facts.needs_short_lines(), "{}", String::from_utf8_lossy(bytes));
    assert!(!facts.bare_lf);
    if !accepts.eight_bit_mime {
        assert_eq!(facts.body, Octets::SevenBit, "{}", String::from_utf8_lossy(bytes));
    }
}

const EIGHT: Accepts = Accepts { eight_bit_mime: true, smtputf8: true };

#[test]
fn what_fits_stays_byte_for_byte() {
    let message = "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\
                   Content-Transfer-Encoding: 8bit\r\n\r\nplain\r\n--b--\r\nepi\r\n";
    assert_eq!(to_seven_bit(message.as_bytes()), message.as_bytes());
    let eight = message.replace("plain", "grün");
    assert_eq!(to_short_lines(eight.as_bytes()), eight.as_bytes());
}

#[test]
fn only_the_part_that_must_is_encoded() {
    let message = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\
        Content-Transfer-Encoding: 8bit\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 8bit\r\nX: y\r\n\r\ngrün \r\n--b\r\n\r\nplain = kept \r\n--b\r\n\
        Content-Type: application/x-thing\r\n\r\nb\u{e4}h\r\n--b--\r\n";
    let out = String::from_utf8(to_seven_bit(message.as_bytes())).unwrap();
    assert_eq!(
        out,
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\
        Content-Transfer-Encoding: 7bit\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: quoted-printable\r\nX: y\r\n\r\ngr=C3=BCn=20\r\n--b\r\n\r\n\
        plain = kept \r\n--b\r\nContent-Type: application/x-thing\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nYsOkaA==\r\n--b--\r\n"
    );
}

#[test]
fn undeclared_text_is_labelled() {
    let out = String::from_utf8(to_seven_bit("Subject: x\r\n\r\ngrün\r\n".as_bytes())).unwrap();
    assert_eq!(
        out,
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BCn\r\n"
    );
    let typed = "Content-Type: text/html\r\n\r\ngrün\r\n".as_bytes();
    let out = String::from_utf8(to_seven_bit(typed)).unwrap();
    assert!(out.starts_with("Content-Type: text/html;\r\n charset=unknown-8bit\r\n"), "{out}");
}

#[test]
fn messages_within_are_entered() {
    let message = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
                   Subject: in\r\n\r\ngrün\r\n";
    let out = String::from_utf8(to_seven_bit(message.as_bytes())).unwrap();
    assert!(out.starts_with("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n"));
    assert!(out.contains("Subject: in\r\nMIME-Version: 1.0\r\n"), "{out}");
    assert!(out.ends_with("gr=C3=BCn\r\n"), "{out}");
}

#[test]
fn long_lines_and_bare_cr_keep_their_content() {
    let long = "x".repeat(2_000);
    let message = format!("A: b\r\n\r\n{long}\r\nfoo\rbar\r\n");
    let out = to_short_lines(message.as_bytes());
    assert_wire_fit(&out, EIGHT);
    assert_eq!(leaves(&out)[0], format!("{long}\r\nfoo\rbar\r\n").as_bytes());
    assert!(!String::from_utf8(out).unwrap().contains("charset"));
}

#[test]
fn encodings_that_are_there_are_only_wrapped() {
    let digits = "QUJD".repeat(500);
    let message = format!("Content-Transfer-Encoding: base64\r\n\r\n{digits}\r\n");
    let out = to_short_lines(message.as_bytes());
    assert_wire_fit(&out, EIGHT);
    assert_eq!(leaves(&out)[0], "ABC".repeat(500).as_bytes());
    let quoted = "=41=42c".repeat(300);
    let message = format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{quoted}=\r\nü\r\n");
    let out = to_seven_bit(message.as_bytes());
    assert_wire_fit(&out, Accepts::default());
    assert_eq!(leaves(&out)[0], format!("{}ü\r\n", "ABc".repeat(300)).as_bytes());
}

#[test]
fn no_soft_break_makes_a_boundary() {
    let line = format!("{}--b and more ü", "x".repeat(75));
    let message = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{line}\r\n--b--\r\n"
    );
    assert_eq!(leaves(&to_seven_bit(message.as_bytes()))[0], line.as_bytes());
}

#[test]
fn raw_utf8_headers_become_encoded_words_where_that_can_be() {
    let message = "Subject: Grüße\r\nFrom: Jürgen <j@x>\r\nTo: jü@x\r\n\r\nplain\r\n".as_bytes();
    let mut survey = Survey::new();
    survey.push(message);
    let survey = survey.finish();
    let accepts = Accepts { eight_bit_mime: true, smtputf8: false };
    assert!(survey.must_change(accepts));
    let mut recoder = Recoder::new(&survey, accepts);
    let mut out = Vec::new();
    recoder.push(message, &mut out);
    assert_eq!(recoder.finish(&mut out), Octets::EightBit);
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("To: jü@x\r\n"), "{out}");
    let parsed = MessageParser::default().parse(out.as_bytes()).unwrap();
    assert_eq!(parsed.subject(), Some("Grüße"));
    assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some("Jürgen"));
    assert!(!out.contains("Grüße") && !out.contains("MIME-Version"), "{out}");
}

#[test]
fn long_header_lines_are_folded() {
    let message = format!(
        "X: {} {}\r\nY: {}\r\n\r\nz\r\n",
        "a".repeat(900),
        "b".repeat(900),
        "c".repeat(3_000)
    );
    let out = to_short_lines(message.as_bytes());
    assert_wire_fit(&out, EIGHT);
    let unfolded = String::from_utf8(out).unwrap().replace("\r\n ", " ");
    assert!(unfolded.contains(&format!("{} {}", "a".repeat(900), "b".repeat(900))));
}

#[test]
fn preambles_lose_what_cannot_be_sent() {
    let message =
        "Content-Type: multipart/mixed; boundary=b\r\n\r\npr\u{e4}\r\n--b\r\n\r\nx\r\n--b--\r\n";
    let out = String::from_utf8(to_seven_bit(message.as_bytes())).unwrap();
    assert!(out.contains("\r\npr??\r\n--b\r\n\r\nx\r\n"), "{out}");
}

#[test]
fn broken_signatures_are_told() {
    let message = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nü\r\n--b--\r\n";
    let mut survey = Survey::new();
    survey.push(message.as_bytes());
    let survey = survey.finish();
    assert!(survey.breaks_signature(Accepts::default()));
    assert!(!survey.breaks_signature(EIGHT));
}

/// A part: its own lines, boundary depth by depth.
fn entity(depth: u32) -> BoxedStrategy<String> {
    let text = prop::collection::vec(
        prop_oneof![
            Just("grün ".to_owned()),
            Just("plain".to_owned()),
            Just("--".to_owned()),
            Just("=\t".to_owned()),
            Just("\r\n".to_owned()),
            Just("\r\n\r\n".to_owned()),
            Just("--b".to_owned()),
            Just(".".to_owned()),
            (60_usize..90).prop_map(|n| "-".repeat(n)),
            Just("y".repeat(1_100)),
            Just("a\rb".to_owned()),
        ],
        0..8,
    )
    .prop_map(|words| words.concat());
    let head = prop_oneof![
        Just("Content-Type: text/plain; charset=utf-8\r\n"),
        Just("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"),
        Just("content-type: application/octet-stream\r\nX-Y: z\r\n"),
        Just("Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n"),
    ];
    let leaf = (head, text).prop_map(|(head, text)| format!("{head}\r\n{text}"));
    if depth == 0 {
        return leaf.boxed();
    }
    let boundary = format!("=_{depth}x");
    let multi = prop::collection::vec(entity(depth - 1), 1..4).prop_map(move |parts| {
        let body: String = parts.iter().map(|part| format!("--{boundary}\r\n{part}\r\n")).collect();
        format!(
            "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n{body}--{boundary}--\r\n"
        )
    });
    let message = entity(depth - 1)
        .prop_map(|inner| format!("Content-Type: message/rfc822\r\n\r\nSubject: in\r\n{inner}"));
    prop_oneof![2 => leaf, 3 => multi, 1 => message].boxed()
}

proptest! {
    #[test]
    fn content_survives(tree in entity(3), eight in any::<bool>(), step in 1_usize..5_000) {
        let message = format!("Subject: x\r\nMIME-Version: 1.0\r\n{tree}\r\n");
        let accepts = Accepts { eight_bit_mime: eight, smtputf8: eight };
        let mut survey = Survey::new();
        message.as_bytes().chunks(step).for_each(|piece| survey.push(piece));
        let survey = survey.finish();
        let mut recoder = Recoder::new(&survey, accepts);
        let mut out = Vec::new();
        message.as_bytes().chunks(step).for_each(|piece| recoder.push(piece, &mut out));
        recoder.finish(&mut out);
        assert_wire_fit(&out, accepts);
        prop_assert_eq!(&out, &recode(message.as_bytes(), accepts));
        if !survey.must_change(accepts) {
            prop_assert_eq!(&out, &message.as_bytes());
        }
        let (before, after) = (leaves(message.as_bytes()), leaves(&out));
        prop_assert_eq!(
            before.iter().map(|leaf| String::from_utf8_lossy(leaf)).collect::<Vec<_>>(),
            after.iter().map(|leaf| String::from_utf8_lossy(leaf)).collect::<Vec<_>>(),
            "{}\n=====\n{}", &message, String::from_utf8_lossy(&out)
        );
        prop_assert_eq!(&recode(&out, accepts), &out);
    }

    #[test]
    fn garbage_in_mime_headers_passes_without_panic(
        kind in "(multipart/|text/|message/|mixed|rfc822|;|=|\\*|\"|boundary|charset|utf-8''|%[0-9A-Z]{0,2}|\\(|\\)|[ -~]|\r\n |ü){0,25}",
        body in "(--|b|\r\n|\n|ü|Content-Type: ){0,30}",
    ) {
        let _ = to_seven_bit(format!("Content-Type: {kind}\r\n\r\n{body}ü").as_bytes());
    }

    #[test]
    fn garbage_passes_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let message: Vec<u8> = bytes.into_iter().filter(|byte| *byte != 0).collect();
        let _ = to_seven_bit(&message);
    }
}

/// No server may get one (RFC 5321 section 2.3.8), wherever it stands.
#[test]
fn bare_crs_of_part_headers_and_boundaries_are_mended() {
    let message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b \r \r\n\
        Content-Type: text/plain;\r charset=x\r\n\r\nhello\r\n--b--\r\r\n";
    let mut survey = Survey::new();
    survey.push(message);
    assert!(survey.finish().must_change(Accepts { eight_bit_mime: true, smtputf8: true }));
    let made = to_short_lines(message);
    let wanted = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
        Content-Type: text/plain;  charset=x\r\n\r\nhello\r\n--b--\r\n";
    assert_eq!(made.escape_ascii().to_string(), wanted.escape_ascii().to_string());
}

#[test]
fn no_field_of_a_part_keeps_a_line_that_is_too_long() {
    for field in ["Content-Transfer-Encoding: 8b", "Content-Type: text/", "X-Y: ", "Content-Type: "]
    {
        for accepts in [Accepts::default(), Accepts { eight_bit_mime: true, smtputf8: true }] {
            let long = "x".repeat(1200);
            let message = format!(
                "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{field}{long}\r\n\r\n\u{e4}\r\n--b--\r\n"
            );
            let made = recode(message.as_bytes(), accepts);
            let longest = made.split(|octet| *octet == b'\n').map(<[u8]>::len).max().unwrap();
            assert!(longest <= 999, "{field}: {longest}");
        }
    }
}
