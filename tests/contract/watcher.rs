//! Writes down every change of a row of the status table, in order.

use std::sync::Arc;

use postrider::mapi::StatusCode;
use postrider::session::Session;
use postrider::spi::StatusRow;
use postrider::spooler::{StatusChange, StatusTable};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::house::PATIENCE;

/// All rows seen so far; the first is the row as it was at the start.
pub(crate) struct Watcher {
    seen: watch::Receiver<Vec<StatusRow>>,
    gone: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Watches a transport from now on.
    pub(crate) fn of(session: &Session, transport: &str) -> Self {
        let transport = transport.to_owned();
        Watcher::on(session.status_table().unwrap(), move |row| row.display_name == transport)
    }

    /// Watches those rows that are wanted.
    pub(crate) fn on(
        table: &Arc<StatusTable>,
        wanted: impl Fn(&StatusRow) -> bool + Send + 'static,
    ) -> Self {
        let mut subscription = table.subscribe();
        let (sender, seen) = watch::channel(Vec::<StatusRow>::new());
        let (going, gone) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                let rows = match subscription.changed().await {
                    StatusChange::Table(rows) => rows,
                    StatusChange::Row(row) => vec![row],
                    StatusChange::Gone(id) => {
                        if sender.borrow().iter().any(|row| row.row_id == id) {
                            going.send_replace(true);
                        }
                        continue;
                    }
                };
                let rows = rows.into_iter().filter(&wanted);
                sender.send_modify(|seen| seen.extend(rows));
            }
        });
        Watcher { seen, gone, task }
    }

    /// The rows so far.
    pub(crate) fn rows(&self) -> Vec<StatusRow> {
        self.seen.borrow().clone()
    }

    /// The states so far, each once until it changes.
    pub(crate) fn codes(&self) -> Vec<StatusCode> {
        codes(&self.seen.borrow())
    }

    /// Waits until what was seen is as it should be, and gives the states.
    pub(crate) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&[StatusCode]) -> bool,
    ) -> Vec<StatusCode> {
        let mut seen = self.seen.clone();
        let wait = seen.wait_for(|rows| condition(&codes(rows)));
        let waited = tokio::time::timeout(PATIENCE, wait).await.map(|_| ());
        assert!(waited.is_ok(), "it was never seen that {what}: {:#?}", self.codes());
        self.codes()
    }

    /// Waits until the row has gone, so that nothing more can be seen, and gives the states.
    pub(crate) async fn until_gone(&self) -> Vec<StatusCode> {
        let mut gone = self.gone.clone();
        let waited = tokio::time::timeout(PATIENCE, gone.wait_for(|gone| *gone)).await.map(|_| ());
        assert!(waited.is_ok(), "the row never went: {:#?}", self.codes());
        self.codes()
    }

    /// Waits until the last state is as it should be.
    pub(crate) async fn until_last(
        &self,
        what: &str,
        condition: impl Fn(StatusCode) -> bool,
    ) -> Vec<StatusCode> {
        self.until(what, |codes| codes.last().is_some_and(|last| condition(*last))).await
    }
}

fn codes(rows: &[StatusRow]) -> Vec<StatusCode> {
    let mut codes: Vec<StatusCode> = rows.iter().map(|row| row.status_code).collect();
    codes.dedup();
    codes
}

/// How often `bit` was set, that is, appeared where it was not before.
pub(crate) fn times_set(codes: &[StatusCode], bit: StatusCode) -> usize {
    codes.windows(2).filter(|two| !two[0].contains(bit) && two[1].contains(bit)).count()
}
