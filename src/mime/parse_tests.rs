#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::mapi::SysTime;
use proptest::prelude::*;

#[test]
fn properties_of_a_received_message() {
    let message = "Received: from x\r\nFrom: =?utf-8?Q?J=C3=BCrgen?= <j@example.org>\r\n\
        To: Ann <ann@example.org>, bob@example.org, broken\r\nCc: c@example.org\r\n\
        Subject: =?iso-8859-1?Q?gr=FCn?=\r\n and more\r\nMessage-ID: <1@x>\r\n\
        Date: Tue, 14 Nov 2023 23:13:20 +0100 (CET)\r\nImportance: High\r\n\r\nTo: z@z\r\n";
    let mut header = IncomingHeader::default();
    message.as_bytes().chunks(3).for_each(|piece| header.push(piece));
    let ParsedHeader { props, recipients } = header.parse();
    assert_eq!(props.text(tags::SUBJECT), Some("grün and more"));
    assert_eq!(props.text(tags::SENDER_NAME), Some("Jürgen"));
    assert_eq!(props.text(tags::SENDER_EMAIL_ADDRESS), Some("j@example.org"));
    assert_eq!(props.text(tags::SENDER_ADDRTYPE), Some("SMTP"));
    assert_eq!(props.text(tags::INTERNET_MESSAGE_ID), Some("<1@x>"));
    assert_eq!(props.text(tags::DISPLAY_TO), Some("Ann; bob@example.org"));
    assert_eq!(props.long(tags::IMPORTANCE), Some(2));
    let time = props.time(tags::CLIENT_SUBMIT_TIME).unwrap();
    assert_eq!(time, SysTime::from_millis(1_700_000_000_000));
    assert!(props.text(tags::TRANSPORT_MESSAGE_HEADERS).unwrap().ends_with("Importance: High\r\n"));
    let rows: Vec<(u32, &str)> =
        recipients.iter().map(|row| (row.row, row.address.as_str())).collect();
    assert_eq!(rows, [(0, "ann@example.org"), (1, "bob@example.org"), (2, "c@example.org")]);
    assert!(recipients.iter().all(|row| row.is_type("SMTP") && !row.display_name.is_empty()));
}

#[test]
fn what_a_peer_sends_is_bounded() {
    let mut header = IncomingHeader::default();
    header.push(b"Subject: ");
    (0..100).for_each(|_| header.push(&[b'x'; 100_000]));
    assert!(header.kept.len() <= MAX_KEPT);
    let parsed = header.parse();
    assert_eq!(parsed.props.text(tags::SUBJECT).unwrap().len(), MAX_TEXT);
    assert!(parsed.props.text(tags::TRANSPORT_MESSAGE_HEADERS).unwrap().len() <= MAX_SHOWN);
    let many = format!("To: {}\r\n\r\n", "a@example.org, ".repeat(5_000));
    assert_eq!(ParsedHeader::of(many.as_bytes()).recipients.len(), MAX_RECIPIENTS);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut message = b"Subject: =?utf-8?B?".to_vec();
        message.extend_from_slice(&bytes);
        let mut header = IncomingHeader::default();
        header.push(&message);
        let _ = header.parse();
        let mut message = b"Date: ".to_vec();
        message.extend_from_slice(&bytes);
        let _ = ParsedHeader::of(&message);
    }

    #[test]
    fn encoded_words_never_panic(text in "(=\\?|\\?=|\\?|[BQbq]|utf-8|iso-2022-jp|koi8-r|utf-7|[ -~]|\r\n |ü){0,40}") {
        let _ = ParsedHeader::of(format!("Subject: {text}\r\nFrom: {text} <a@b>\r\n").as_bytes());
    }
}

#[test]
fn hostile_encoded_words_cost_no_more_than_their_length() {
    for piece in ["=?utf-8?Q?", "=?", "=?utf-8?B?=?=", "\"", "(", "<", "a@", "\\"] {
        let value = piece.repeat(MAX_KEPT / piece.len());
        let started = std::time::Instant::now();
        let _ = ParsedHeader::of(format!("Subject: {value}\r\nFrom: {value}\r\n").as_bytes());
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{piece}");
    }
}
