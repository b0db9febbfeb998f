//! The daemon's submission socket: opened, kept across reloads, served.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::exit::Failure;
use crate::control::{SubmissionSocket, serve_submissions};
use crate::session::Service;

/// Where the daemon takes mail of every user; often nowhere.
#[derive(Default)]
pub(crate) struct Submissions {
    open: Option<SubmissionSocket>,
}

impl Submissions {
    /// Opens what is wanted and closes what is not. What is open already stays open; when the new
    /// one cannot be opened, the old one does.
    pub(crate) async fn change(&mut self, wanted: Option<&Path>) -> Result<(), Failure> {
        let Some(wanted) = wanted else {
            self.open = None;
            return Ok(());
        };
        if self.open.as_ref().is_some_and(|open| open.path() == wanted) {
            return Ok(());
        }
        let bound = SubmissionSocket::bind(wanted).await;
        self.open = Some(bound.map_err(|error| failure(wanted, &error))?);
        Ok(())
    }

    /// Takes mail until `shutdown` is ready.
    pub(crate) async fn serve(
        &self,
        service: Arc<dyn Service>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        match &self.open {
            Some(socket) => serve_submissions(socket, service, shutdown).await,
            None => shutdown.await,
        }
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::listening(format_args!("take mail at {}", path.display()), error, "")
}
