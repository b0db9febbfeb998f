//! What has to hold whatever comes in at the control socket.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::fake::{FakeService, entry, row};
use super::routes::router;
use super::server::serve_connection;
use crate::session::QueueRowState;

/// The connection ends soon behind the end of its input; everything that is answered is an
/// answer; nothing is done for a request that is answered as wrong.
pub fn control(bytes: &[u8]) {
    crate::properties::run(async {
        let mut fake = FakeService::with_rows(vec![row(1, QueueRowState::Held)]);
        fake.contents.insert(entry(1).to_string(), vec![b'x'; 1000]);
        let service = Arc::new(fake);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let router = router(Arc::clone(&service) as _);
        let serving = serve_connection(theirs, router, CancellationToken::new());
        let asking = async {
            let (mut read, mut write) = ours.into_split();
            // It may close before it has read everything.
            let writing = async {
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            };
            let mut answer = Vec::new();
            let reading = read.read_to_end(&mut answer);
            let ((), _reset) = tokio::join!(writing, reading);
            answer
        };
        let both = async { tokio::join!(serving, asking).1 };
        let answer = tokio::time::timeout(Duration::from_secs(20), both).await.expect("an end");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
        let text = String::from_utf8_lossy(&answer);
        if text.matches("HTTP/1.").count() == 1 && text.contains("MAPI_E_INVALID_") {
            assert!(service.calls().is_empty(), "{:?}: {text}", service.calls());
        }
    });
}
