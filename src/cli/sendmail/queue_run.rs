//! `-q`: what waits in the queue is tried now.

use super::flags::Flush;
use super::whereabouts::Found;
use crate::cli::access::Access;
use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::queue_pages::{QueuePages, resolve};
use crate::mapi::{EntryId, MapiCode};
use crate::session::{FlushRequest, Logon, QueueRow};

/// `-q`. A daemon is told and goes on by itself; without one the queue is sent before this returns.
pub(super) async fn flush(
    what: &Flush,
    found: &Found,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let place = found.place();
    let flushed = place.with("flush the queue", Logon::Closed, async |access| {
        let failed = |error| Failure::contract("flush the queue", &error);
        match what {
            Flush::All => {
                access.service().retry(None).await.map_err(failed)?;
            }
            _ => {
                for entry in chosen(what, access).await? {
                    match access.service().retry(Some(&entry)).await {
                        // It has just been sent.
                        Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => {}
                        answer => drop(answer.map_err(failed)?),
                    }
                }
            }
        }
        if access.is_daemon() {
            return Ok(Vec::new());
        }
        let request = FlushRequest { upload: true, download: false };
        Ok(access.service().flush(request).await.map_err(failed)?.troubles)
    });
    for trouble in flushed.await? {
        console.note(trouble);
    }
    Ok(())
}

async fn chosen(what: &Flush, access: &Access) -> Result<Vec<EntryId>, Failure> {
    if let Flush::Id(id) = what {
        return Ok(vec![resolve(access.service(), id).await?]);
    }
    let (mut pages, mut ids) = (QueuePages::default(), Vec::new());
    loop {
        let rows = pages.next(access.service()).await;
        let rows = rows.map_err(|error| Failure::contract("read the queue", &error))?;
        if rows.is_empty() {
            return Ok(ids);
        }
        let meant = rows.iter().filter(|row| matches(what, row));
        ids.extend(meant.filter_map(|row| row.id.parse::<EntryId>().ok()));
    }
}

/// Whether a message is meant. As with sendmail any part of an address will do.
fn matches(what: &Flush, row: &QueueRow) -> bool {
    let has = |address: &str, part: &str| {
        address.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
    };
    match what {
        Flush::All => true,
        Flush::Id(id) => row.id.starts_with(id),
        Flush::Sender(part) => has(&row.from, part),
        Flush::Recipient(part) => row.recipients.iter().any(|one| has(&one.address, part)),
    }
}
