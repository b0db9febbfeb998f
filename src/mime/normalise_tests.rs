#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::mime::Octets;
use proptest::prelude::*;

fn defaults() -> Defaults {
    Defaults {
        from: Some(Mailbox::new("Ann Example", "ann@example.org")),
        date: SysTime::from_millis(1_700_000_000_000),
        message_id: "<id@example.org>".to_owned(),
    }
}

fn run(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Normalised), MimeError> {
    let mut filter = Normaliser::new(defaults());
    let mut out = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        filter.push(piece, &mut out)?;
    }
    let done = filter.finish(&mut out)?;
    Ok((out, done))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(run(bytes, 7).unwrap().0).unwrap()
}

const NORMAL: &[u8] =
    b"From: a@b\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <1@b>\r\n\r\nhi\r\n";

#[test]
fn what_is_normal_stays_byte_for_byte() {
    let (out, done) = run(NORMAL, 1000).unwrap();
    assert_eq!(out, NORMAL);
    assert_eq!(done.message_id, "<1@b>");
    assert_eq!(done.facts.size, NORMAL.len() as u64);
    assert_eq!(done.facts.body, Octets::SevenBit);
}

/// Proves: OB-5
#[test]
fn adds_what_is_missing_and_drops_bcc() {
    let out = text(
        b"From root Tue Nov 14\n>From x\nTo: b@c\nBcc: secret@x,\n other@x\nbcc : y@z\n\nbody",
    );
    assert_eq!(
        out,
        "To: b@c\r\nFrom: Ann Example <ann@example.org>\r\n\
         Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <id@example.org>\r\n\r\nbody\r\n"
    );
    let facts = run(b"Bcc: secret@x\n\n", 3).unwrap().1.facts;
    assert_eq!(facts.header.bcc[0].address, "secret@x");
}

#[test]
fn text_without_a_header_becomes_a_body() {
    let out = text(b"just text\nFrom here\n");
    assert!(out.ends_with("\r\n\r\njust text\r\nFrom here\r\n"), "{out}");
    assert!(out.starts_with("From: Ann"), "{out}");
}

#[test]
fn line_ends_are_mended_and_bare_cr_is_kept_in_the_body_only() {
    assert!(text(b"A: b\r\n\nx\ny\r\nz\rz\r\r\n").ends_with("\r\n\r\nx\r\ny\r\nz\rz\r\r\n"));
    assert!(text(b"A: b\r\r\n\r\nx").starts_with("A: b\r\nFrom"));
    assert!(matches!(run(b"A: b\rBcc: x@y\r\n\r\n", 5), Err(MimeError::BareCr { .. })));
}

#[test]
fn nul_is_refused_with_its_place() {
    assert_eq!(run(b"A: b\n\nxy\0z", 4), Err(MimeError::Nul { offset: 8 }));
}

#[test]
fn eight_bit_octets_are_told_apart() {
    let facts = run("Subject: ü\n\nx\n".as_bytes(), 50).unwrap().1.facts;
    assert_eq!((facts.header_octets, facts.body), (Octets::EightBit, Octets::SevenBit));
    let facts = run("Subject: u\n\nü\n".as_bytes(), 50).unwrap().1.facts;
    assert_eq!((facts.header_octets, facts.body), (Octets::SevenBit, Octets::EightBit));
}

proptest! {
    #[test]
    fn the_result_is_normal(
        text in "([A-Ca:<@>, \t]|\r|\n|\r\n|ü|From |\nBcc: x@y|Date: x\n){0,60}",
        step in 1_usize..70,
    ) {
        let Ok((out, done)) = run(text.as_bytes(), step) else {
            return Ok(());
        };
        let (again, twice) = run(&out, 1000).unwrap();
        prop_assert_eq!(&again, &out);
        prop_assert_eq!(twice.facts.size, done.facts.size);
        prop_assert!(!twice.facts.bare_lf && !twice.facts.open_end);
        prop_assert!(twice.facts.header.bcc.is_empty());
        prop_assert!(twice.facts.header.has_date && twice.facts.header.message_id.is_some());
        let (whole, _) = run(text.as_bytes(), 1000).unwrap();
        prop_assert_eq!(whole, out);
        let mut scanner = Scanner::new();
        scanner.push(&again).unwrap();
        let scanned = scanner.finish();
        prop_assert_eq!(scanned, twice.facts);
    }
}
