//! smtp-sink as this crate starts it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use realservers::{Dump, Error, SinkOptions, SmtpSink, wait};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A session that says one line after the other and collects each reply's last line; it ends early when the
/// sink hangs up.
fn session(sink: &SmtpSink, lines: &[&[u8]]) -> Vec<String> {
    let socket = TcpStream::connect(sink.address()).unwrap();
    socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let mut reader = BufReader::new(socket);
    let mut replies = Vec::new();
    let mut next_lines = lines.iter();
    while let Some(reply) = reply(&mut reader) {
        replies.push(reply);
        let Some(line) = next_lines.next() else { break };
        reader.get_mut().write_all(line).unwrap();
    }
    replies
}

fn reply(reader: &mut impl BufRead) -> Option<String> {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line.as_bytes().get(3) != Some(&b'-') {
            return Some(line.trim_end().to_owned());
        }
    }
}

const TRANSACTION: [&[u8]; 7] = [
    b"EHLO client\r\n",
    b"MAIL FROM:<a@example.test>\r\n",
    b"RCPT TO:<b@example.test>\r\n",
    b"RCPT TO:<c@example.test>\r\n",
    b"DATA\r\n",
    b"Subject: odd\r\n\r\n..dot\r\nr\xe4w\r\n\r\n.\r\n",
    b"QUIT\r\n",
];

fn flags(flags: &[&str]) -> SinkOptions {
    SinkOptions {
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        dump: Dump::Nothing,
    }
}

#[test]
fn messages_are_counted_and_kept() {
    let sink =
        SmtpSink::start(SinkOptions { dump: Dump::Messages, ..SinkOptions::default() }).unwrap();
    assert_eq!(sink.counts().unwrap().sessions, 0);
    for _ in 0..3 {
        let replies = session(&sink, &TRANSACTION);
        assert!(replies[6].starts_with("250"), "{replies:?}");
    }
    let counts = sink.await_messages(3).unwrap();
    assert_eq!(counts.messages, 3);
    let messages = sink.messages().unwrap();
    assert_eq!(messages.len(), 3);
    for message in messages {
        assert_eq!(message.mail, "<a@example.test>");
        assert_eq!(message.recipients, ["<b@example.test>", "<c@example.test>"]);
        assert_eq!(message.content, b"Subject: odd\n\n.dot\nr\xe4w\n\n");
    }
    wait::until("three ended sessions", wait::PATIENCE, || {
        (sink.counts().unwrap().sessions == 3).then_some(())
    })
    .unwrap();
}

#[test]
fn flags_make_it_fail() {
    let soft = SmtpSink::start(flags(&["-r", "RCPT"])).unwrap();
    assert!(session(&soft, &TRANSACTION)[3].starts_with("450"));
    let hard = SmtpSink::start(flags(&["-f", "MAIL", "-B", "550 5.7.1 not you"])).unwrap();
    assert_eq!(session(&hard, &TRANSACTION)[2], "550 5.7.1 not you");
    let gone = SmtpSink::start(flags(&["-q", "DATA"])).unwrap();
    assert_eq!(session(&gone, &TRANSACTION).len(), 5);
    let closed = SmtpSink::start(flags(&["-q", "CONNECT"])).unwrap();
    assert!(session(&closed, &TRANSACTION).is_empty());
    assert_eq!(gone.counts().unwrap().messages, 0);
}

#[test]
fn stop_and_start_keep_the_port_and_begin_the_count_anew() {
    let sink = SmtpSink::start(SinkOptions::default()).unwrap();
    session(&sink, &TRANSACTION);
    sink.await_messages(1).unwrap();
    sink.stop().unwrap();
    assert!(TcpStream::connect(sink.address()).is_err());
    sink.start_again().unwrap();
    assert_eq!(sink.counts().unwrap().messages, 0);
    session(&sink, &TRANSACTION);
    assert_eq!(sink.await_messages(1).unwrap().messages, 1);
    assert!(sink.messages().unwrap().is_empty());
}

#[test]
fn a_wrong_flag_is_reported_with_its_words() {
    let error = SmtpSink::start(flags(&["-Z"])).unwrap_err();
    assert!(matches!(error, Error::Server { .. }));
    assert!(error.to_string().contains("invalid option"), "{error}");
}
