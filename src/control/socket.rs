//! The control socket as a file: who may enter, who made it, who removes it.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use crate::profile::make_private_folder;

/// How long a daemon that lives may take to accept a connection.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A listening control socket (mode 0600 in a folder with mode 0700). The file is removed when
/// this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket. One that nobody listens at any more is removed first.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there, or when there is something else than a socket; other
    /// I/O errors.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            make_private_folder(folder)?;
        }
        let listener = bind_anew(path).await?;
        let socket = ControlSocket { listener, path: path.to_owned() };
        // Nobody came in between: the folder lets only its owner pass.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(socket)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection of a process of the same user or of root; those of others are closed.
    /// Cancel-safe.
    pub(super) async fn accept(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_allowed(&stream) => return stream,
                Ok(_) => tracing::warn!("a process of another user was turned away"),
                Err(error) => {
                    // No file descriptors, most likely: wait until some are given back.
                    tracing::warn!(%error, "a connection to the control socket was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.path);
    }
}

/// Listens at a path. A socket that nobody listens at any more is removed first; anything else that
/// is there may be of use to somebody, and is `AddrInUse`.
pub(super) async fn bind_anew(path: &Path) -> io::Result<UnixListener> {
    let in_use = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return in_use("there is something else in its place");
        }
        Ok(_) if is_answered(path).await => {
            return in_use("another daemon listens there already");
        }
        _ => {}
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Whether the process at the other end is of the same user or of root.
pub(super) fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| may_enter(peer.uid(), own))
}

fn may_enter(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

async fn is_answered(path: &Path) -> bool {
    let connected = tokio::time::timeout(ANSWER_DEADLINE, UnixStream::connect(path)).await;
    // A full backlog also means that somebody is there.
    match connected {
        Ok(Ok(_)) | Err(_) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::submission_socket::SubmissionSocket;

    #[tokio::test]
    async fn only_its_owner_can_reach_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state/work/control.sock");
        let socket = ControlSocket::bind(&path).await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(socket);
        assert!(!path.exists());
        assert!(may_enter(1000, 1000) && may_enter(0, 1000) && !may_enter(1001, 1000));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = ControlSocket::bind(&path).await.unwrap();
        let second = ControlSocket::bind(&path).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(socket);
    }

    #[tokio::test]
    async fn a_link_in_its_place_is_neither_removed_nor_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (path, other) = (temp.path().join("control.sock"), temp.path().join("other"));
        let elsewhere = std::os::unix::net::UnixListener::bind(&other).unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let error = ControlSocket::bind(&path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        assert_eq!(std::fs::read_link(&path).unwrap(), other);
        assert_eq!(elsewhere.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("submit");
        std::fs::write(&path, "precious").unwrap();
        let control = ControlSocket::bind(&path).await.map(drop);
        let submission = SubmissionSocket::bind(&path).await.map(drop);
        for error in [control.unwrap_err(), submission.unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn own_processes_are_let_in() {
        let temp = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(&temp.path().join("control.sock")).await.unwrap();
        let _client = UnixStream::connect(socket.path()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), socket.accept()).await.unwrap();
    }
}
