#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;
use crate::transport::outbound::reply::Scope;

fn connected() -> (Connection, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let deadlines = Deadlines { rcpt: Duration::from_millis(50), ..Deadlines::default() };
    (Connection::new(Box::new(ours), "mx", Capabilities::default(), deadlines), theirs)
}

async fn read(bytes: &[u8]) -> Result<Response, Failure> {
    let (mut connection, mut server) = connected();
    server.write_all(bytes).await.unwrap();
    drop(server);
    connection.reply(Phase::Mail, Duration::from_secs(5)).await
}

#[tokio::test]
async fn replies_are_read_leniently() {
    let one = read(b"250 2.1.0 fine\r\n").await.unwrap();
    let words = reply_of(&one, "mx");
    assert_eq!((words.code, words.enhanced.as_str(), words.text.as_str()), (250, "2.1.0", "fine"));
    let many = read(b"550-5.1.1 no\x07 such\r\n550-5.1.1 user\n550 5.1.1\r\n").await.unwrap();
    let words = reply_of(&many, "mx");
    assert_eq!(words.enhanced, "5.1.1");
    assert_eq!(words.text, "no  such user");
    assert_eq!(words.host, "mx");
    assert_eq!(u16::from(read(b"250\r\n").await.unwrap().code()), 250);
    let latin = read(b"250 gr\xfc\xdfe\r\n").await.unwrap();
    assert_eq!(latin.first_line(), Some("gr\u{fffd}\u{fffd}e"));
}

#[tokio::test]
async fn what_is_no_reply_breaks_the_connection_and_nothing_else() {
    let long = [b"250 ".as_slice(), &vec![b'x'; MAX_REPLY_LINE], b"\r\n"].concat();
    let endless = b"250-more\r\n".repeat(MAX_REPLY_LINES + 1);
    let cases: &[&[u8]] = &[
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"250x\r\n",
        b"150 what\r\n",
        b"290 what\r\n",
        b"\x00\x00\x00\x00\r\n",
        b"250-one\r\n550 two\r\n",
        &long,
        &endless,
    ];
    for bytes in cases {
        let failure = read(bytes).await.unwrap_err();
        assert_eq!(failure.verdict.scope, Scope::Network, "{bytes:?}");
        assert!(failure.reply.text.contains("mx"), "{}", failure.reply.text);
    }
    let closed = read(b"250 no end of line").await.unwrap_err();
    assert_eq!(closed.reply.enhanced, "4.4.2");
}

#[tokio::test]
async fn texts_for_the_record_are_bounded() {
    let flood = b"550-5.7.1 all work and no play makes a dull boy\r\n".repeat(200);
    let bytes = [flood.as_slice(), b"550 5.7.1 end\r\n"].concat();
    let words = reply_of(&read(&bytes).await.unwrap(), "mx");
    assert!(words.text.chars().count() <= MAX_REPLY_TEXT);
    assert!(!words.text.contains("5.7.1"));
}

#[tokio::test]
async fn an_enhanced_code_is_a_refusal_where_the_code_is_one() {
    for (line, enhanced) in [
        (b"250 5.1.1 odd\r\n".as_slice(), ""),
        (b"550 2.1.1 odd\r\n", ""),
        (b"550 4.1.1 odd\r\n", "4.1.1"),
        (b"450 5.1.1 odd\r\n", "5.1.1"),
        (b"550 5.1.1.1 odd\r\n", ""),
        (b"550 5.1 odd\r\n", ""),
        (b"550 5.x.1 odd\r\n", ""),
        (b"550 5.7.139 long\r\n", "5.7.139"),
    ] {
        assert_eq!(reply_of(&read(line).await.unwrap(), "mx").enhanced, enhanced);
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (mut connection, _server) = connected();
    let deadline = connection.deadlines().rcpt;
    let failure = connection.command(Phase::Rcpt, "RCPT TO:<a@b>\r\n", deadline).await.unwrap_err();
    assert_eq!(failure.reply.enhanced, "4.4.1");
    assert!(failure.words().contains("in time"), "{}", failure.words());
}

#[tokio::test]
async fn a_dropped_exchange_takes_the_connection_out_of_use() {
    let (mut connection, _server) = connected();
    assert!(!connection.begin());
    {
        let exchange = connection.command(Phase::Mail, "MAIL FROM:<>\r\n", Duration::from_secs(60));
        tokio::select! {
            biased;
            _ = exchange => unreachable!("nobody answers"),
            () = std::future::ready(()) => {}
        }
    }
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn an_unfinished_exchange_asks_for_rset_first() {
    let (mut connection, _server) = connected();
    assert!(!connection.begin());
    connection.end_unfinished();
    assert!(connection.is_usable() && connection.is_used());
    assert!(connection.begin());
    connection.end();
    assert!(!connection.begin());
}

#[tokio::test]
async fn quit_is_said_only_in_step() {
    let (connection, mut server) = connected();
    server.write_all(b"221 bye\r\n").await.unwrap();
    connection.quit().await;
    let mut heard = String::new();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "QUIT\r\n");

    let (mut connection, mut server) = connected();
    connection.begin();
    connection.quit().await;
    let mut heard = String::new();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "");
}

/// A wire that takes so many octets and then breaks; it may break at the flush, as TLS does.
struct Narrow {
    room: usize,
    breaks_at_flush: bool,
}

impl AsyncRead for Narrow {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let taken = bytes.len().min(self.room).min(3);
        self.room -= taken;
        std::task::Poll::Ready(match taken {
            0 => Err(ErrorKind::BrokenPipe.into()),
            taken => Ok(taken),
        })
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(match self.breaks_at_flush {
            true => Err(ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        })
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// Whether a message whose final dot is the end of the first has left, as far as one can know.
#[tokio::test]
async fn of_two_things_written_at_once_it_is_known_whether_the_first_left() {
    let write = async |room: usize, breaks_at_flush: bool, second: &str| {
        let wire = Box::new(Narrow { room, breaks_at_flush });
        let deadlines = Deadlines::default();
        let mut connection = Connection::new(wire, "mx", Capabilities::default(), deadlines);
        let deadline = Duration::from_secs(5);
        match connection.write_both(Phase::Body, b"12345", second, deadline).await {
            Ok(()) => "both",
            Err(Unwritten::First(_)) => "not the first",
            Err(Unwritten::Second) => "not the second",
        }
    };
    assert_eq!(write(10, false, "67890").await, "both");
    assert_eq!(write(5, false, "").await, "both");
    for room in 0..5 {
        assert_eq!(write(room, false, "67890").await, "not the first", "{room}");
    }
    for room in 5..10 {
        assert_eq!(write(room, false, "67890").await, "not the second", "{room}");
    }
    assert_eq!(write(10, true, "67890").await, "not the second");
    // With nothing behind it, the end of the first is what did not leave.
    assert_eq!(write(5, true, "").await, "not the first");
}
