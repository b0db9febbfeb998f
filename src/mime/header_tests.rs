#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn fields_are_split_with_their_continuations() {
    let block = b"A: one\r\n two\r\nB:\r\nnonsense\r\nC : three\r\n";
    let found: Vec<(String, String)> =
        fields(block).map(|field| (field.name.to_owned(), field.text())).collect();
    let wanted = [("A", "one two"), ("B", ""), ("C", "three")];
    assert_eq!(found, wanted.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn many_mailbox_separators_are_dropped() {
    let mut reader = HeaderReader::default();
    let mut bytes = b"From x\n".repeat(50_000);
    bytes.extend_from_slice(b"A: b\n\nbody");
    let block = reader.push(&bytes).unwrap().unwrap();
    assert_eq!(block.block, b"A: b\n");
    assert_eq!((block.separator.as_slice(), block.rest.as_slice()), (&b"\n"[..], &b"body"[..]));
}

#[test]
fn broken_entries_are_reported_in_bounds() {
    let facts = HeaderFacts::of(format!("To: {}\r\n", "a b, ".repeat(50)).as_bytes());
    assert_eq!(facts.malformed.len(), 10);
}
