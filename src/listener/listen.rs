//! The open port, or the socket in the file system.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::settings::{ListenAddress, Reach};

/// How long somebody who listens at a socket already may take to accept a connection.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// An open port or socket. The file of a socket is removed when this is dropped.
#[derive(Debug)]
pub struct Listener(Open);

#[derive(Debug)]
enum Open {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Removes the file.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Opens the port or makes the socket.
    ///
    /// # Errors
    /// Those of the system: the address is in use, is none of this machine's, or not permitted.
    /// `AddrInUse`, too, for a path at which somebody listens or something else is than a socket.
    pub async fn bind(address: &ListenAddress, reach: Reach) -> io::Result<Self> {
        Ok(Listener(match address {
            ListenAddress::Tcp(address) => Open::Tcp(TcpListener::bind(address).await?),
            ListenAddress::Unix(path) => {
                let (listener, file) = make_socket(path, reach).await?;
                Open::Unix(listener, file)
            }
        }))
    }

    /// Listens at a socket that somebody else has opened, such as the service manager. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// Those of the system.
    pub fn inherit(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Listener(Open::Tcp(TcpListener::from_std(socket)?)))
    }

    /// Where it listens, with the port that was chosen.
    ///
    /// # Errors
    /// Those of the system.
    pub fn local_address(&self) -> io::Result<ListenAddress> {
        match &self.0 {
            Open::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Open::Unix(_, file) => Ok(ListenAddress::Unix(file.0.clone())),
        }
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> Stream {
        loop {
            match self.accept_one().await {
                Ok(stream) => return stream,
                Err(error) => {
                    // No file descriptors, most likely: wait until some are given back.
                    tracing::warn!(%error, "A connection to the listener was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept_one(&self) -> io::Result<Stream> {
        match &self.0 {
            Open::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Replies are small and each is waited for.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "A connection keeps its delay");
                }
                Ok(Stream::Tcp(stream))
            }
            Open::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

/// Makes a socket under a name of its own, gives it its mode and only then its place: nobody
/// connects before he may.
async fn make_socket(path: &Path, reach: Reach) -> io::Result<(UnixListener, SocketFile)> {
    let in_use = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return in_use("there is something else in its place");
        }
        Ok(_) if is_answered(path).await => return in_use("somebody listens there already"),
        _ => {}
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push("~");
    let draft = PathBuf::from(draft);
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    let mode = match reach {
        Reach::Owner => 0o600,
        Reach::Everybody => 0o666,
    };
    let placed = std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&draft, path));
    if let Err(error) = placed {
        let _gone_already = std::fs::remove_file(&draft);
        return Err(error);
    }
    Ok((listener, SocketFile(path.to_owned())))
}

async fn is_answered(path: &Path) -> bool {
    let connected = tokio::time::timeout(ANSWER_DEADLINE, UnixStream::connect(path)).await;
    // A full backlog also means that somebody is there.
    match connected {
        Ok(Ok(_)) | Err(_) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, octets),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_has_the_reach_it_is_given_and_goes_with_its_listener() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("smtp");
        let address = ListenAddress::Unix(path.clone());
        for (reach, expected) in [(Reach::Owner, 0o600), (Reach::Everybody, 0o666)] {
            let listener = Listener::bind(&address, reach).await.unwrap();
            assert_eq!(mode(&path), expected);
            assert_eq!(listener.local_address().unwrap(), address);
            drop(listener);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_answers_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("smtp");
        let address = ListenAddress::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&address, Reach::Owner).await.unwrap();
        let second = Listener::bind(&address, Reach::Owner).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        std::fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&address, Reach::Owner).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
