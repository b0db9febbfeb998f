#![allow(clippy::unwrap_used)]
use super::*;

fn scan(bytes: &[u8]) -> Facts {
    let mut scanner = Scanner::new();
    scanner.push(bytes).unwrap();
    scanner.finish()
}

#[test]
fn finds_what_the_envelope_needs() {
    let facts = scan(
        b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nFrom: Ann <ann@example.org>\r\n\
          To: bob@example.org,\r\n \"C, D\" <cd@example.org>\r\nBcc : eve@example.org\r\n\
          Date: x\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n",
    );
    let header = &facts.header;
    assert_eq!(header.subject, "Grüße");
    assert_eq!(header.from, [Mailbox::new("Ann", "ann@example.org")]);
    let addresses: Vec<String> = header.recipients().into_iter().map(|m| m.address).collect();
    assert_eq!(addresses, ["bob@example.org", "cd@example.org", "eve@example.org"]);
    assert!(header.has_date);
    assert_eq!(header.message_id.as_deref(), Some("<1@x>"));
    assert_eq!((facts.body, facts.header_octets), (Octets::SevenBit, Octets::SevenBit));
    assert!(!facts.needs_short_lines() && !facts.open_end);
}

#[test]
fn of_resent_blocks_only_the_first_counts() {
    let facts = scan(
        b"Resent-From: r@x\r\nResent-To: new@x\r\nResent-Bcc: hidden@x\r\nReceived: by y\r\n\
          Resent-From: old@x\r\nResent-To: older@x\r\nTo: first@x\r\n\r\n",
    );
    let addresses: Vec<String> = facts.header.recipients().into_iter().map(|m| m.address).collect();
    assert_eq!(addresses, ["new@x", "hidden@x"]);
    assert_eq!(facts.header.originator().unwrap().address, "r@x");
}

#[test]
fn measures_what_the_wire_does_not_take() {
    let mut long = b"A: b\r\n\r\n".to_vec();
    long.resize(long.len() + 999, b'x');
    let facts = scan(&long);
    assert_eq!(facts.longest_line, 999);
    assert!(facts.needs_short_lines() && facts.open_end);
    assert!(scan(b"A: b\r\n\r\nc\rd\r\n").bare_cr);
    assert!(scan(b"A: b\r\n\r\nc\nd\r\n").bare_lf);
    assert_eq!(scan(b"A: b\r\n\r\nc\0").nul, Some(9));
    assert_eq!(scan("A: b\r\n\r\nü\r\n".as_bytes()).body, Octets::EightBit);
    assert_eq!(scan("A: ü\r\n\r\n".as_bytes()).header_octets, Octets::EightBit);
}

#[test]
fn an_endless_header_is_refused() {
    let mut scanner = Scanner::new();
    let line = format!("X: {}\r\n", "y".repeat(60_000));
    let result = (0..30).try_for_each(|_| scanner.push(line.as_bytes()));
    assert_eq!(result, Err(MimeError::HeaderTooLarge { limit: crate::mime::MAX_HEADER }));
}

#[test]
fn one_endless_line_of_text_is_a_body() {
    let mut scanner = Scanner::new();
    (0..30).for_each(|_| scanner.push(&[b'-'; 60_000]).unwrap());
    assert_eq!(scanner.finish().longest_line, 1_800_000);
}

use crate::mime::Mailbox;
use proptest::prelude::*;

proptest! {
    /// How the bytes are cut changes nothing.
    #[test]
    fn cuts_do_not_matter(
        text in "([A-Ca:<@>, \t]|\r|\n|\r\n|ü|From |Bcc: ){0,60}",
        cuts in prop::collection::vec(0_usize..80, 0..4),
    ) {
        let bytes = text.as_bytes();
        let mut scanner = Scanner::new();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            scanner.push(bytes.get(from..cut).unwrap()).unwrap();
            from = cut;
        }
        prop_assert_eq!(scanner.finish(), scan(bytes));
    }
}
