//! The socket at which every user of the machine may hand over messages, and do nothing else.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::socket::bind_anew;

/// A listening submission socket (mode 0666). The file is removed when this is dropped.
#[derive(Debug)]
pub struct SubmissionSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl SubmissionSocket {
    /// Makes the socket; the folder must be there, and should be one that only its owner can write
    /// to. A socket that nobody listens at any more is removed first.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there, or when there is something else than a socket; other
    /// I/O errors.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        let listener = bind_anew(path).await?;
        let socket = SubmissionSocket { listener, path: path.to_owned() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(socket)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection and the number of its user. Cancel-safe.
    pub(super) async fn accept(&self) -> (UnixStream, u32) {
        loop {
            let accepted = self.listener.accept().await;
            let known = accepted.and_then(|(stream, _)| {
                let user = stream.peer_cred()?.uid();
                Ok((stream, user))
            });
            match known {
                Ok(known) => return known,
                Err(error) => {
                    // No file descriptors, most likely: wait until some are given back.
                    tracing::warn!(%error, "a connection to the submission socket was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for SubmissionSocket {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.path);
    }
}
