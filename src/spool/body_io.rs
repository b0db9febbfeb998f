//! Writing a new body, and reading one with its digest verified on the way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use sled::IVec;
use tokio::io::{AsyncRead, ReadBuf};

use super::batch::StagedPlace;
use super::bodies::{BodyFolder, PartFile};
use super::codec::{FORMAT, MAX_VALUE};
use super::space::{Need, Space};
use super::{BodyId, BodyWriter, SpoolError, StagedBody};

/// Bodies up to this size stand in a row: a file costs two syncs of its own, a row shares those
/// of its group.
pub(super) const INLINE_LIMIT: usize = MAX_VALUE;

/// How much is gathered before it is written to a file.
const CHUNK: usize = 256 * 1024;

/// Takes the bytes of a new body: small ones stay in memory, larger ones go to a file.
pub(super) struct SpoolBodyWriter {
    folder: Arc<BodyFolder>,
    space: Arc<Space>,
    size: u64,
    sink: Sink,
}

enum Sink {
    /// The format byte of the row, then the bytes.
    Memory(Vec<u8>),
    File(FileSink),
    /// A write failed or its caller went away in the middle.
    Broken,
}

struct FileSink {
    part: PartFile,
    hasher: Box<blake3::Hasher>,
    /// Bytes that are neither hashed nor written yet.
    pending: Vec<u8>,
}

impl FileSink {
    fn flush(mut self) -> Result<Self, SpoolError> {
        self.hasher.update(&self.pending);
        self.part.write(&self.pending)?;
        self.pending.clear();
        Ok(self)
    }
}

impl SpoolBodyWriter {
    pub(super) fn new(
        folder: Arc<BodyFolder>,
        space: Arc<Space>,
        size_hint: Option<u64>,
    ) -> Result<Self, SpoolError> {
        space.admit(Need::Progress, size_hint.unwrap_or(0))?;
        Ok(SpoolBodyWriter { folder, space, size: 0, sink: Sink::Memory(vec![FORMAT]) })
    }

    /// Writes what is pending to the file, off the async threads.
    async fn flush(&mut self, file: FileSink) -> Result<FileSink, SpoolError> {
        self.space.admit(Need::Progress, u64::try_from(file.pending.len()).unwrap_or(u64::MAX))?;
        blocking("write a body", move || file.flush()).await
    }

    /// The file that follows the `bytes` in memory.
    async fn spill(&self, bytes: Vec<u8>) -> Result<FileSink, SpoolError> {
        let folder = Arc::clone(&self.folder);
        let part = blocking("start a body", move || folder.begin()).await?;
        let pending = bytes.get(1..).unwrap_or_default().to_vec();
        Ok(FileSink { part, hasher: Box::default(), pending })
    }
}

#[async_trait]
impl BodyWriter for SpoolBodyWriter {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        // Whoever drops this future, or sees an error, leaves the sink broken behind.
        let mut file = match std::mem::replace(&mut self.sink, Sink::Broken) {
            Sink::Memory(mut memory) => {
                if memory.len() + bytes.len() <= 1 + INLINE_LIMIT {
                    memory.extend_from_slice(bytes);
                    self.size += u64::try_from(bytes.len()).unwrap_or(0);
                    self.sink = Sink::Memory(memory);
                    return Ok(());
                }
                self.spill(memory).await?
            }
            Sink::File(file) => file,
            Sink::Broken => return Err(broken()),
        };
        for chunk in bytes.chunks(CHUNK) {
            file.pending.extend_from_slice(chunk);
            if file.pending.len() >= CHUNK {
                file = self.flush(file).await?;
            }
        }
        self.size += u64::try_from(bytes.len()).unwrap_or(0);
        self.sink = Sink::File(file);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<StagedBody, SpoolError> {
        match std::mem::replace(&mut self.sink, Sink::Broken) {
            Sink::Memory(bytes) => {
                let digest = blake3::hash(bytes.get(1..).unwrap_or_default());
                // In the form the tree takes it: the writer has no time for copies.
                let place = StagedPlace::Inline(IVec::from(bytes));
                Ok(StagedBody::new(BodyId(*digest.as_bytes()), self.size, place))
            }
            Sink::File(file) => {
                let file = self.flush(file).await?;
                let (folder, size) = (Arc::clone(&self.folder), self.size);
                blocking("finish a body", move || {
                    let id = BodyId(*file.hasher.finalize().as_bytes());
                    let staged = folder.finish(file.part, id)?;
                    Ok(StagedBody::new(id, size, StagedPlace::File(staged)))
                })
                .await
            }
            Sink::Broken => Err(broken()),
        }
    }
}

fn broken() -> SpoolError {
    let why = io::Error::other("an earlier write failed or was abandoned");
    SpoolError::io("write a body", why)
}

/// Runs what waits for the disk where it may wait.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SpoolError::io(what, io::Error::other(error))),
    }
}

/// Hands out `left` bytes and compares their digest before the last of them goes out.
pub(super) struct Verified<R> {
    inner: R,
    body: BodyId,
    left: u64,
    hasher: Box<blake3::Hasher>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Reading,
    Verified,
    Damaged,
}

impl<R> Verified<R> {
    pub(super) fn new(inner: R, body: BodyId, size: u64) -> Self {
        Verified { inner, body, left: size, hasher: Box::default(), state: State::Reading }
    }

    fn damaged(&mut self, what: &str) -> io::Error {
        self.state = State::Damaged;
        io::Error::new(io::ErrorKind::InvalidData, format!("body {} {what}", self.body))
    }

    /// Compares the digest of all bytes.
    fn verify(&mut self) -> io::Result<()> {
        if self.hasher.finalize() != blake3::Hash::from_bytes(self.body.0) {
            return Err(self.damaged("does not match its digest"));
        }
        self.state = State::Verified;
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Verified<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.state {
            State::Verified => return Poll::Ready(Ok(())),
            State::Damaged => return Poll::Ready(Err(this.damaged("is damaged"))),
            State::Reading if this.left == 0 => return Poll::Ready(this.verify()),
            State::Reading if buf.remaining() == 0 => return Poll::Ready(Ok(())),
            State::Reading => {}
        }
        let most = usize::try_from(this.left).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        std::task::ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
        let read = part.filled();
        if read.is_empty() {
            return Poll::Ready(Err(this.damaged("is shorter than it was")));
        }
        this.hasher.update(read);
        let read = read.len();
        this.left -= u64::try_from(read).unwrap_or(0);
        if this.left == 0 {
            this.verify()?;
        }
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}
