//! What has to hold for the arguments and the message of a caller of sendmail(8).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::deliver::envelope;
use super::flags::{Addressees, LoneDot, parse};
use super::input::{DotFilter, Ended};
use crate::mime::{IncomingHeader, ParsedHeader};
use crate::properties::Bytes;

/// Arguments are understood or refused in one line of a length one can read; whoever is understood
/// has somebody to send to. Where a message ends and whom its header names does not depend on the
/// pieces in which it comes, and what is behind its end is nobody's.
pub fn sendmail(bytes: &[u8]) {
    let mut input = Bytes(bytes);
    let size = usize::from(input.byte()).max(1);
    let count = input.byte() % 6;
    let arguments: Vec<OsString> =
        (0..count).map(|_| OsString::from_vec(input.piece().to_vec())).collect();
    let message = input.rest();
    let mut lone_dot = LoneDot::Ends;
    match parse(&arguments) {
        Ok(call) => {
            lone_dot = call.lone_dot;
            assert!(call.operands.len() <= arguments.len());
            if let Ok(envelope) = envelope(&call) {
                let from_header = call.addressees == Addressees::Header;
                assert_eq!(envelope.recipients_from_header, from_header);
                assert!(from_header || !envelope.recipients.is_empty());
            }
        }
        Err(why) => assert!(why.contains("; usage: sendmail") && why.len() < 1000, "{why}"),
    }
    message_ends(message, size, lone_dot);
}

fn message_ends(message: &[u8], size: usize, lone_dot: LoneDot) {
    let (whole, ended) = filtered(message, message.len().max(1), lone_dot);
    assert_eq!(filtered(message, size, lone_dot), (whole.clone(), ended));
    if lone_dot == LoneDot::IsText {
        assert_eq!((whole.as_slice(), ended), (message, Ended::No));
    }
    assert!(message.starts_with(&whole), "{}", message.escape_ascii());
    if lone_dot == LoneDot::Ends {
        let mut lines = whole.split_inclusive(|octet| *octet == b'\n');
        assert!(!lines.any(|line| line == b".\n" || line == b".\r\n"), "{}", whole.escape_ascii());
        if ended == Ended::Yes {
            // A dot that ends is at the beginning of a line, and nothing follows but its end.
            assert!(whole.is_empty() || whole.ends_with(b"\n"));
            let behind = message.get(whole.len()..).unwrap_or_default();
            assert!(behind.starts_with(b".\n") || behind.starts_with(b".\r\n"));
        }
    }
    let mut incoming = IncomingHeader::default();
    whole.chunks(size).for_each(|piece| incoming.push(piece));
    let (incoming, parsed) = (incoming.parse(), ParsedHeader::of(&whole));
    assert_eq!(incoming.recipients, parsed.recipients);
}

fn filtered(message: &[u8], size: usize, lone_dot: LoneDot) -> (Vec<u8>, Ended) {
    let mut filter = DotFilter::new(lone_dot);
    let mut out = Vec::new();
    for piece in message.chunks(size) {
        if filter.push(piece, &mut out) == Ended::Yes {
            return (out, Ended::Yes);
        }
    }
    (out, Ended::No)
}
