//! How far the reading of a large message is, on a terminal.

use std::pin::Pin;
use std::task::{Context, Poll};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncRead, ReadBuf};

/// Smaller ones are read before anybody could read a bar, in bytes.
const WORTH_SHOWING: u64 = 1024 * 1024;

/// Reads along and shows how far it is.
pub(crate) struct Reading<R> {
    inner: R,
    bar: ProgressBar,
    read: u64,
}

impl<R> Reading<R> {
    /// `size` is how much there is, where that is known.
    pub(crate) fn new(inner: R, size: Option<u64>) -> Self {
        let bar = match size {
            Some(size) if size < WORTH_SHOWING => ProgressBar::hidden(),
            Some(size) => styled(
                ProgressBar::new(size),
                "reading {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
            ),
            None => styled(ProgressBar::new_spinner(), "reading {bytes}  {bytes_per_sec}"),
        };
        Reading { inner, bar, read: 0 }
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Reading<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let more = buffer.filled().len().saturating_sub(before);
        self.read = self.read.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        // A pipe that brings little is not worth a line on the screen either.
        if self.bar.length().is_some() || self.read >= WORTH_SHOWING {
            self.bar.set_position(self.read);
        }
        polled
    }
}

impl<R> Drop for Reading<R> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How much a redirected standard input holds, where it is a file.
pub(crate) fn size_of_input() -> Option<u64> {
    let stat = rustix::fs::fstat(std::io::stdin()).ok()?;
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    is_file.then(|| u64::try_from(stat.st_size).ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_what_was_there_and_the_bar_follows() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut reading = Reading::new(bytes.as_slice(), Some(3_000_000));
        reading.bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        let mut first = vec![0; 1_500_000];
        reading.read_exact(&mut first).await.unwrap();
        assert_eq!((reading.bar.position(), reading.bar.length()), (1_500_000, Some(3_000_000)));
        let mut rest = Vec::new();
        reading.read_to_end(&mut rest).await.unwrap();
        assert_eq!([first, rest].concat(), bytes);
    }
}
