//! Unlinks body files behind a commit, on a thread of its own: what frees the blocks of a large
//! file takes its time, and nobody waits for it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use super::bodies::BodyFolder;
use super::body_row::file_name;
use super::{BodyId, SpoolError, keys};

/// What is to go after a commit.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Names in `staging/` of files that have a row now.
    pub(super) markers: Vec<String>,
    /// Body files that have no row any more.
    pub(super) gone: Vec<(BodyId, u64)>,
}

impl Job {
    fn is_empty(&self) -> bool {
        self.markers.is_empty() && self.gone.is_empty()
    }
}

/// The writer's end of the janitor.
pub(super) struct Janitor {
    jobs: Option<Sender<Job>>,
    swept: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

impl Janitor {
    /// Starts the thread.
    pub(super) fn start(folder: Arc<BodyFolder>) -> Result<Janitor, SpoolError> {
        let (jobs, orders) = mpsc::channel();
        let (report, swept) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("spool-janitor".to_owned())
            .spawn(move || work(&folder, &orders, &report))
            .map_err(|error| SpoolError::io("start a thread", error))?;
        Ok(Janitor { jobs: Some(jobs), swept, thread: Some(thread) })
    }

    /// Has a job done some time.
    pub(super) fn give(&self, job: Job) {
        if let Some(jobs) = self.jobs.as_ref().filter(|_| !job.is_empty()) {
            // Without the thread the work is left to the next open.
            let _ = jobs.send(job);
        }
    }

    /// Keys of tombstones whose files are durably gone since this was asked last.
    pub(super) fn swept(&self) -> impl Iterator<Item = Vec<u8>> {
        self.swept.try_iter()
    }

    /// Waits until every job is done.
    pub(super) fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(folder: &BodyFolder, orders: &Receiver<Job>, report: &Sender<Vec<u8>>) {
    while let Ok(mut job) = orders.recv() {
        for more in orders.try_iter() {
            job.markers.extend(more.markers);
            job.gone.extend(more.gone);
        }
        for swept in sweep(folder, &job) {
            let _ = report.send(swept);
        }
    }
}

/// Does a job and returns the keys of the tombstones that may go. What fails is left to the next
/// open, which finds the marker or the tombstone.
fn sweep(folder: &BodyFolder, job: &Job) -> Vec<Vec<u8>> {
    for marker in &job.markers {
        if let Err(error) = folder.unstage(marker) {
            tracing::warn!(%error, "a name in staging/ stays until the next start");
        }
    }
    let mut unlinked = Vec::new();
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    for (body, number) in &job.gone {
        match folder.unlink(*body, *number) {
            Ok(touched) => {
                folders.insert(touched);
                unlinked.push(keys::gone(&file_name(*body, *number)));
            }
            Err(error) => tracing::warn!(%error, "a body file stays until the next start"),
        }
    }
    match folders.iter().try_for_each(|touched| folder.sync(touched)) {
        Ok(()) => unlinked,
        Err(error) => {
            tracing::warn!(%error, "removed body files may come back until the next start");
            Vec::new()
        }
    }
}
