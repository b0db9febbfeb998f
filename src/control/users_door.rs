//! The door of the submission socket: every user comes in, and none takes the places of all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::SubmissionSocket;
use super::routes::submissions;
use super::routes::submit::no_place;
use super::server::{Door, Guest};
use crate::session::Service;

/// Most connections of one user at the same time.
const MOST_OF_A_USER: usize = 32;

/// Most connections of one user that are being told so.
const MOST_TURNED_AWAY: usize = 8;

/// How long that may take.
const TURNING_AWAY: Duration = Duration::from_secs(5);

/// What the others are told: there is no time to read what they ask.
pub(super) const NO_PLACE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Who comes to the door.
pub(super) trait Callers: Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next one and the number of its user. Cancel-safe.
    fn next(&self) -> impl Future<Output = (Self::Stream, u32)> + Send;
}

impl Callers for SubmissionSocket {
    type Stream = UnixStream;

    async fn next(&self) -> (UnixStream, u32) {
        self.accept().await
    }
}

/// Lets every user in, to hand over messages.
pub(super) struct UsersDoor<'a, C> {
    callers: &'a C,
    service: Arc<dyn Service>,
    inside: Places,
    turned_away: Places,
}

impl<'a, C> UsersDoor<'a, C> {
    pub(super) fn new(callers: &'a C, service: Arc<dyn Service>) -> Self {
        UsersDoor {
            callers,
            service,
            inside: Places::new(MOST_OF_A_USER),
            turned_away: Places::new(MOST_TURNED_AWAY),
        }
    }
}

impl<C: Callers> Door for UsersDoor<'_, C> {
    type Stream = C::Stream;

    async fn next(&self) -> Guest<C::Stream> {
        loop {
            let (mut stream, user) = self.callers.next().await;
            if let Some(place) = self.inside.take(user) {
                let router = submissions(Arc::clone(&self.service), user);
                return Guest { place: Some(place), ..Guest::new(stream, router) };
            }
            if let Some(place) = self.turned_away.take(user) {
                let stay = Some(TURNING_AWAY);
                return Guest { place: Some(place), stay, ..Guest::new(stream, no_place()) };
            }
            let _full = stream.write_all(NO_PLACE).now_or_never();
        }
    }
}

/// The places of each user.
struct Places {
    most: usize,
    /// Who runs the daemon; they have as many as there are, and so has root.
    owner: u32,
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Places {
    fn new(most: usize) -> Self {
        let owner = rustix::process::geteuid().as_raw();
        Places { most, owner, taken: Arc::default() }
    }

    /// `None` when the user has all of theirs.
    fn take(&self, user: u32) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(user).or_default();
        if *count >= self.most && user != self.owner && user != 0 {
            return None;
        }
        *count += 1;
        drop(taken);
        Some(Place { user, taken: Arc::clone(&self.taken) })
    }
}

/// One place; it is free again when this is dropped.
pub(super) struct Place {
    user: u32,
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.user).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.user);
        } else {
            taken.insert(self.user, left);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::path::Path;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::control::Client;
    use crate::control::fake::FakeService;
    use crate::control::server::serve_door;
    use crate::mapi::{EntryId, MapiCode, MapiResult};
    use crate::session::RawEnvelope;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Two users: each comes by a socket of its own. Neither of them runs the daemon.
    struct TwoUsers {
        temp: tempfile::TempDir,
        sockets: [SubmissionSocket; 2],
    }

    impl TwoUsers {
        async fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let at = |name: &str| temp.path().join(name);
            let (first, second) = (at("first.sock"), at("second.sock"));
            let first = SubmissionSocket::bind(&first).await.unwrap();
            let second = SubmissionSocket::bind(&second).await.unwrap();
            TwoUsers { temp, sockets: [first, second] }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.temp.path().join(name)
        }
    }

    impl Callers for TwoUsers {
        type Stream = UnixStream;

        async fn next(&self) -> (UnixStream, u32) {
            let own = rustix::process::geteuid().as_raw();
            let [first, second] = &self.sockets;
            tokio::select! {
                (stream, _) = first.accept() => (stream, own + 1),
                (stream, _) = second.accept() => (stream, own + 2),
            }
        }
    }

    async fn hand_over(path: &Path, text: &[u8]) -> MapiResult<EntryId> {
        let client = Client::connect_to_submit(path).await?;
        let message = Box::pin(std::io::Cursor::new(text.to_vec()));
        client.submit_raw(RawEnvelope::default(), message).await
    }

    /// Waits until the server has closed it, and says what it had written.
    async fn rest_of(mut stream: UnixStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_holds_all_their_places_keeps_nobody_else_out() {
        let users = TwoUsers::new().await;
        let fake = Arc::new(FakeService::default());
        let door = UsersDoor {
            inside: Places::new(2),
            turned_away: Places::new(1),
            ..UsersDoor::new(&users, Arc::clone(&fake) as _)
        };
        let (first, second) = (users.path("first.sock"), users.path("second.sock"));
        let asking = async {
            // They say nothing, and stay.
            let silent = UnixStream::connect(&first).await.unwrap();
            let other = UnixStream::connect(&first).await.unwrap();
            let large = vec![b'x'; 3_000_000];
            let refused = hand_over(&first, &large).await.unwrap_err();
            assert_eq!(refused.code(), MapiCode::BUSY, "{refused}");
            hand_over(&second, b"Subject: x\n\n").await.unwrap();
            // Who does not even listen to the refusal is not waited for.
            let deaf = UnixStream::connect(&first).await.unwrap();
            let told = rest_of(UnixStream::connect(&first).await.unwrap()).await;
            assert!(told.contains("503"), "{told}");
            hand_over(&second, b"Subject: y\n\n").await.unwrap();
            drop((silent, other, deaf));
            // The server sees that they have gone soon, not at once.
            while hand_over(&first, b"Subject: z\n\n").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = serve_door(&door, 4, std::future::pending()) => unreachable!(),
            asked = tokio::time::timeout(DEADLINE, asking) => asked.unwrap(),
        }
        assert_eq!(fake.raw.lock().unwrap().len(), 3);
        assert!(door.inside.taken.lock().unwrap().len() <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_or_too_slow_does_not_stay() {
        let users = TwoUsers::new().await;
        let fake = Arc::new(FakeService::default());
        let door = UsersDoor::new(&users, Arc::clone(&fake) as _);
        let envelope = serde_json::to_string(&RawEnvelope::default()).unwrap();
        let head = "POST /v1/messages/raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                    content-length: 999\r\n\r\n";
        let asking = async {
            for (said, within, answer) in [
                (String::new(), 11, ""),
                ("POST /v1/messages/raw HTTP/1.1\r\nhost:".to_owned(), 11, ""),
                (format!("{head}{{"), 31, "did not end in time"),
                (format!("{head}{envelope}\nSubject:"), 81, "nothing came"),
            ] {
                let mut stream = UnixStream::connect(users.path("first.sock")).await.unwrap();
                stream.write_all(said.as_bytes()).await.unwrap();
                let limit = Duration::from_secs(within);
                let told = tokio::time::timeout(limit, rest_of(stream)).await.expect(&said);
                assert!(told.contains(answer), "{said}: {told}");
            }
        };
        tokio::select! {
            () = serve_door(&door, 4, std::future::pending()) => unreachable!(),
            () = asking => {}
        }
        assert!(fake.raw.lock().unwrap().is_empty());
    }

    #[test]
    fn who_runs_the_daemon_and_root_have_as_many_as_there_are() {
        let places = Places { owner: 1000, ..Places::new(1) };
        let held: Vec<_> = [0, 0, 1000, 1000, 1001].map(|user| places.take(user)).into();
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(1001).is_none() && places.take(1002).is_some());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty());
        assert!(places.take(1001).is_some());
    }
}
