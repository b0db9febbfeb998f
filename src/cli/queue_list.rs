//! Every message that waits, a page at a time, in whatever form: `queue` and `mailq`.

use std::io::{Read, Seek, Write};

use serde::Serialize;
use tempfile::{SpooledTempFile, spooled_tempfile};

use super::access::Place;
use super::console::{Console, Layout};
use super::exit::{Exit, Failure};
use super::queue_pages::QueuePages;
use crate::session::{Logon, QueueRow, StatusReport};

/// How the queue is written.
pub(crate) trait Listing: Send {
    /// Some rows, behind those of before; `status` is that of the daemon, if one runs.
    ///
    /// # Errors
    /// What cannot be written in this form.
    fn page(&mut self, rows: &[QueueRow], status: Option<&StatusReport>)
    -> Result<String, Failure>;

    /// What stands behind the last row, or for an empty queue.
    fn end(&mut self) -> String {
        String::new()
    }

    /// Whether the status is of use.
    fn wants_status(&self) -> bool {
        false
    }
}

/// How much is kept in memory of what cannot be written yet.
const KEPT: usize = 1024 * 1024;
/// How much is copied at once.
const CHUNK: usize = 64 * 1024;

/// Writes the queue, with the memory of one page. Without a daemon nothing is written before the
/// spool is free again: who reads the list at leisure would keep everybody else from it.
///
/// # Errors
/// Those of the service, and of the console.
pub(crate) async fn list(
    place: &Place,
    console: &mut Console<'_>,
    listing: &mut dyn Listing,
) -> Result<(), Failure> {
    let mut pages = QueuePages::default();
    let mut later = spooled_tempfile(KEPT);
    // After a change of the daemon it goes on where it was.
    let listed = place.with("show the queue", Logon::None, async |access| {
        let failed = |error| Failure::contract("show the queue", &error);
        let status = match access.is_daemon() && listing.wants_status() {
            true => Some(access.service().status().await.map_err(failed)?),
            false => None,
        };
        loop {
            let rows = pages.next(access.service()).await.map_err(failed)?;
            if rows.is_empty() {
                return Ok(());
            }
            let text = listing.page(&rows, status.as_ref())?;
            match access.is_daemon() {
                true => console.bytes(text.as_bytes())?,
                false => keep(&mut later, &text)?,
            }
        }
    });
    listed.await?;
    write(&mut later, console)?;
    console.bytes(listing.end().as_bytes())
}

fn keep(later: &mut SpooledTempFile, text: &str) -> Result<(), Failure> {
    let kept = later.write_all(text.as_bytes());
    kept.map_err(|error| Failure::io("keep the list in a temporary file", &error))
}

fn write(later: &mut SpooledTempFile, console: &mut Console<'_>) -> Result<(), Failure> {
    let failed = |error| Failure::io("read the list from its temporary file", &error);
    later.rewind().map_err(failed)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = later.read(&mut chunk).map_err(failed)?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        console.bytes(bytes)?;
    }
}

/// One JSON array of all rows.
#[derive(Debug)]
pub(crate) struct JsonArray {
    layout: Layout,
    is_begun: bool,
}

impl JsonArray {
    pub(crate) fn new(layout: Layout) -> Self {
        JsonArray { layout, is_begun: false }
    }

    fn element<T: Serialize>(&mut self, value: &T) -> serde_json::Result<String> {
        let before = if std::mem::replace(&mut self.is_begun, true) { "," } else { "[" };
        Ok(match self.layout {
            Layout::Compact => format!("{before}{}", serde_json::to_string(value)?),
            Layout::Pretty => {
                // No line ends stand within the texts of JSON.
                let text = serde_json::to_string_pretty(value)?.replace('\n', "\n  ");
                format!("{before}\n  {text}")
            }
        })
    }
}

impl Listing for JsonArray {
    fn page(&mut self, rows: &[QueueRow], _: Option<&StatusReport>) -> Result<String, Failure> {
        let text: serde_json::Result<String> = rows.iter().map(|row| self.element(row)).collect();
        text.map_err(|error| Failure::new(Exit::Internal, error.to_string()))
    }

    fn end(&mut self) -> String {
        let end = match (self.is_begun, self.layout) {
            (false, _) => "[]",
            (true, Layout::Compact) => "]",
            (true, Layout::Pretty) => "\n]",
        };
        format!("{end}\n")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::fake::row;
    use crate::session::QueueRowState;

    #[test]
    fn an_array_in_pages_is_the_document_of_all_rows() {
        let rows = [1, 2, 3].map(|number| row(number, QueueRowState::Deferred));
        for count in 0..=rows.len() {
            let (rows, _) = rows.split_at(count);
            for (layout, whole) in [
                (Layout::Compact, serde_json::to_string(rows).unwrap()),
                (Layout::Pretty, serde_json::to_string_pretty(rows).unwrap()),
            ] {
                let mut array = JsonArray::new(layout);
                let pages = rows.chunks(2).map(|page| array.page(page, None).unwrap());
                let text: String = pages.collect();
                assert_eq!(text + &array.end(), whole + "\n", "{count} {layout:?}");
            }
        }
    }
}
