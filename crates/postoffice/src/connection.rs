//! One connection: buffered reading and writing in clear or within TLS, every wait bounded and ended by a stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::Protocol;
use crate::faults::Hit;
use crate::state::Shared;
use crate::transcript::{Speaker, presentable};

/// Octets read at once.
const CHUNK: usize = 64 << 10;
/// Replies are sent at the latest when so much has gathered.
const FULL: usize = 256 << 10;

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The peer closed, or we did.
    Closed,
    /// The office stops.
    Stopped,
    /// The peer was silent, or took nothing, for too long.
    TimedOut,
    /// The socket or TLS failed.
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Stopped => f.write_str("the office stops"),
            Self::TimedOut => f.write_str("the peer was silent for too long"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

/// The result of everything that may end the session.
pub(crate) type Flow<T = ()> = Result<T, End>;

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Gone,
}

/// A line from the peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// With its line end.
    Whole(Vec<u8>),
    /// Longer than allowed; it has been read past.
    TooLong,
}

pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) protocol: Protocol,
    pub(crate) id: u64,
    stop: CancellationToken,
    stream: Stream,
    input: Vec<u8>,
    /// How much of `input` has been taken.
    taken: usize,
    output: Vec<u8>,
    /// Goes out right behind the next reply.
    pub(crate) appendix: Vec<u8>,
    /// The next replies go out one octet at a time.
    pub(crate) dribble: Option<Duration>,
    recorded: usize,
    /// Octets sent so far.
    sent: usize,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        protocol: Protocol,
        tcp: TcpStream,
        stop: CancellationToken,
    ) -> Self {
        let id = shared.next_connection();
        // Replies are small and awaited; Nagle's delay would only slow every test down.
        let _ = tcp.set_nodelay(true);
        shared.count(protocol, |counters| {
            counters.connections += 1;
            counters.open += 1;
        });
        Self {
            shared,
            protocol,
            id,
            stop,
            stream: Stream::Plain(tcp),
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            appendix: Vec::new(),
            dribble: None,
            recorded: 0,
            sent: 0,
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    // ----- recording -----

    pub(crate) fn record(&mut self, speaker: Speaker, line: &[u8]) {
        let limit = self.shared.config.limits.transcript_per_connection;
        if self.recorded >= limit {
            return;
        }
        self.recorded += 1;
        let text = match speaker {
            Speaker::Client => presentable(self.protocol, line),
            Speaker::Server | Speaker::Note => {
                // A server's line is not the client's AUTH or LOGIN, whatever it looks like.
                let text = String::from_utf8_lossy(line);
                text.trim_end_matches(['\r', '\n']).chars().take(512).collect()
            }
        };
        self.shared.record(self.protocol, self.id, speaker, text);
        if self.recorded == limit {
            let text = "further lines are not kept".to_owned();
            self.shared.record(self.protocol, self.id, Speaker::Note, text);
        }
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.record(Speaker::Note, text.as_bytes());
    }

    // ----- input -----

    /// What has arrived and not been taken.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.input.get(self.taken..).unwrap_or_default()
    }

    /// Takes so many of the buffered octets.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let end = self.taken.saturating_add(count).min(self.input.len());
        let out = self.input.get(self.taken..end).unwrap_or_default().to_vec();
        self.skip(count);
        out
    }

    /// Drops so many of the buffered octets.
    pub(crate) fn skip(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count).min(self.input.len());
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
        }
    }

    /// Waits for more input; sends what has gathered first, so that nobody waits for the other.
    pub(crate) async fn fill(&mut self) -> Flow {
        self.flush().await?;
        if self.taken > 0 {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        let (stop, idle) = (self.stop.clone(), self.shared.config.limits.idle);
        let input = &mut self.input;
        input.reserve(CHUNK);
        let read = async {
            match &mut self.stream {
                Stream::Plain(stream) => stream.read_buf(input).await,
                Stream::Tls(stream) => stream.read_buf(input).await,
                Stream::Gone => Ok(0),
            }
        };
        match bounded(&stop, idle, read).await? {
            0 => Err(End::Closed),
            _ => Ok(()),
        }
    }

    /// The next line. One longer than `limit` octets is read past and reported.
    pub(crate) async fn line(&mut self, limit: usize) -> Flow<Line> {
        let mut searched = 0;
        let mut too_long = false;
        loop {
            let buffered = self.buffered();
            let rest = buffered.get(searched..).unwrap_or_default();
            if let Some(position) = rest.iter().position(|&octet| octet == b'\n') {
                let line = self.take(searched + position + 1);
                let whole = !too_long && line.len() <= limit;
                return Ok(if whole { Line::Whole(line) } else { Line::TooLong });
            }
            searched = buffered.len();
            if searched > limit {
                too_long = true;
                self.skip(searched);
                searched = 0;
            }
            self.fill().await?;
        }
    }

    // ----- output -----

    /// Queues octets; they go out when the session next waits.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Queues one or more lines and records them.
    pub(crate) fn say(&mut self, lines: &str) {
        for line in lines.split_terminator("\r\n") {
            self.record(Speaker::Server, line.as_bytes());
        }
        self.put(lines.as_bytes());
    }

    /// Where the reply to the present command begins, counted from the start of the connection.
    pub(crate) fn mark(&self) -> usize {
        self.sent.saturating_add(self.output.len())
    }

    /// Takes back what was queued since the mark and has not been sent.
    pub(crate) fn take_back(&mut self, mark: usize) -> Vec<u8> {
        let position = mark.saturating_sub(self.sent);
        self.output.split_off(position.min(self.output.len()))
    }

    /// Sends if a lot has gathered.
    pub(crate) async fn flush_if_full(&mut self) -> Flow {
        if self.output.len() < FULL { Ok(()) } else { self.flush().await }
    }

    /// Sends everything queued.
    pub(crate) async fn flush(&mut self) -> Flow {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut output = std::mem::take(&mut self.output);
        self.sent = self.sent.saturating_add(output.len());
        output.append(&mut self.appendix);
        match self.dribble.take() {
            None => self.write(&output).await?,
            Some(pause) => {
                for octet in &output {
                    self.write(std::slice::from_ref(octet)).await?;
                    if pause.is_zero() {
                        tokio::task::yield_now().await;
                    } else {
                        self.pause(pause).await?;
                    }
                }
            }
        }
        output.clear();
        // One big message must not hold its memory for the life of the connection.
        if output.capacity() <= 2 * FULL {
            self.output = output;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Flow {
        let (stop, idle) = (self.stop.clone(), self.shared.config.limits.idle);
        let stream = &mut self.stream;
        let write = async {
            match stream {
                Stream::Plain(stream) => stream.write_all(bytes).await,
                Stream::Tls(stream) => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
                Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        bounded(&stop, idle, write).await
    }

    // ----- waiting -----

    /// Waits for the given time.
    pub(crate) async fn pause(&self, time: Duration) -> Flow {
        tokio::select! {
            () = self.stop.cancelled() => Err(End::Stopped),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Waits until the hang is released; ends the session when the peer goes away first.
    pub(crate) async fn hang(&self, hit: &Hit) -> Flow {
        tokio::select! {
            () = self.stop.cancelled() => Err(End::Stopped),
            () = hit.released() => Ok(()),
            () = self.peer_gone() => Err(End::Closed),
        }
    }

    /// Waits until the peer has closed, without reading what it sends.
    async fn peer_gone(&self) {
        let tcp = match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
            Stream::Gone => return,
        };
        loop {
            match tcp.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {}
                _ => return,
            }
            // Octets we do not want to read keep the socket readable, hence the pause.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    // ----- TLS -----

    /// Answers a TLS handshake. What the peer sent in clear before it is dropped; its size is returned.
    pub(crate) async fn handshake(&mut self) -> Flow<usize> {
        self.flush().await?;
        let in_clear = self.buffered().len();
        self.input.clear();
        self.taken = 0;
        let Stream::Plain(tcp) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(End::Closed);
        };
        let (stop, idle) = (self.stop.clone(), self.shared.config.limits.idle);
        let accept = TlsAcceptor::from(self.shared.tls()).accept(tcp);
        match bounded(&stop, idle, accept).await {
            Ok(tls) => {
                self.stream = Stream::Tls(Box::new(tls));
                self.shared.count(self.protocol, |counters| counters.tls_handshakes += 1);
                self.note("TLS established");
                Ok(in_clear)
            }
            Err(end) => {
                self.shared.count(self.protocol, |counters| counters.tls_failures += 1);
                self.note("TLS handshake failed");
                Err(end)
            }
        }
    }

    // ----- ends -----

    /// Sends what is queued and closes in good order.
    pub(crate) async fn close(&mut self) {
        let _ = self.flush().await;
        let (stop, idle) = (self.stop.clone(), self.shared.config.limits.idle);
        let stream = &mut self.stream;
        let shutdown = async {
            match stream {
                Stream::Plain(stream) => stream.shutdown().await,
                Stream::Tls(stream) => stream.shutdown().await,
                Stream::Gone => Ok(()),
            }
        };
        let _ = bounded(&stop, idle, shutdown).await;
        self.stream = Stream::Gone;
    }

    /// Closes without a word, by FIN: what has arrived is read first, else the kernel would send RST.
    pub(crate) fn drop_now(&mut self) {
        let mut sink = [0; 4096];
        if let Some(tcp) = self.tcp() {
            while matches!(tcp.try_read(&mut sink), Ok(count) if count > 0) {}
        }
        self.stream = Stream::Gone;
    }

    /// Closes by RST.
    pub(crate) fn reset_now(&mut self) {
        if let Some(tcp) = self.tcp() {
            let _ = tcp.set_zero_linger();
        }
        self.stream = Stream::Gone;
    }

    /// Closes our direction and reads on until the peer closes.
    pub(crate) async fn half_close(&mut self) -> Flow {
        let (stop, idle) = (self.stop.clone(), self.shared.config.limits.idle);
        let stream = &mut self.stream;
        let shutdown = async {
            match stream {
                Stream::Plain(stream) => stream.shutdown().await,
                Stream::Tls(stream) => stream.shutdown().await,
                Stream::Gone => Ok(()),
            }
        };
        bounded(&stop, idle, shutdown).await?;
        loop {
            self.skip(usize::MAX);
            self.fill().await?;
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Plain(tcp) => Some(tcp),
            Stream::Tls(tls) => Some(tls.get_ref().0),
            Stream::Gone => None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.note("closed");
        self.shared.count(self.protocol, |counters| {
            counters.open = counters.open.saturating_sub(1);
        });
    }
}

async fn bounded<T>(
    stop: &CancellationToken,
    idle: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Flow<T> {
    tokio::select! {
        () = stop.cancelled() => Err(End::Stopped),
        done = tokio::time::timeout(idle, work) => match done {
            Ok(result) => Ok(result?),
            Err(_) => Err(End::TimedOut),
        },
    }
}
