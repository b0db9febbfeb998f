//! What can be saved of a spool, as files: each message as RFC 5322 with a note of its envelope
//! beside it, each record in quarantine as it is.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{ExportError, Exported};
use crate::mapi::{EntryId, MapiResult};
use crate::session::QueueRow;
use crate::session::queue_view::{Traffic, outgoing_row};
use crate::spool::{BodyId, OutboxRecord, Place, QueueRecord, SledSpool, Spool, SpoolError};
use crate::store::LocalStore;

/// Rows read at once.
const PAGE: usize = 64;

/// The longest name that is made of an entry id.
const LONGEST_NAME: usize = 100;

/// What stands beside a message.
#[derive(Serialize)]
struct Note<'a> {
    /// Whether the message is whole.
    complete: bool,
    /// Why it is not; `null` when it is.
    problem: Option<String>,
    /// The envelope, and where the message stood.
    #[serde(flatten)]
    row: &'a QueueRow,
}

/// What stands beside a record of quarantine.
#[derive(Serialize)]
struct RecordNote<'a> {
    key: &'a str,
    reason: &'a str,
}

/// Exports everything.
pub(super) async fn all(
    spool: &SledSpool,
    store: &LocalStore,
    folder: &Path,
) -> MapiResult<Exported> {
    let mut exported = Exported { folder: folder.to_owned(), ..Exported::default() };
    make_folder(folder).await?;
    let mut last: Option<EntryId> = None;
    loop {
        let page = spool.outbox_page(last.as_ref(), PAGE).await?;
        let Some((end, _)) = page.last() else { break };
        last = Some(end.clone());
        for (entry, outbox) in page {
            let queue = spool.queue(&entry).await?;
            let whole = message(spool, store, folder, &entry, &outbox, queue.as_ref()).await?;
            exported.messages += 1;
            exported.incomplete += u64::from(!whole);
        }
    }
    records(spool, folder, &mut exported).await?;
    sync(folder).await?;
    Ok(exported)
}

async fn message(
    spool: &SledSpool,
    store: &LocalStore,
    folder: &Path,
    entry: &EntryId,
    outbox: &OutboxRecord,
    queue: Option<&QueueRecord>,
) -> MapiResult<bool> {
    let mut name = entry.to_string();
    if name.len() > LONGEST_NAME {
        name = blake3::hash(entry.as_bytes()).to_hex().to_string();
    }
    let file = folder.join(format!("{name}.eml"));
    let problem = content(spool, store, &file, entry, outbox, queue).await?;
    let row = outgoing_row(entry, outbox, queue, Traffic::Stopped);
    let note = Note { complete: problem.is_none(), problem, row: &row };
    let whole = note.complete;
    write_note(&folder.join(format!("{name}.json")), &note).await?;
    Ok(whole)
}

/// Writes the best there is: what would be sent, else what was submitted, else what is left of
/// either. Says what is wrong with it.
async fn content(
    spool: &SledSpool,
    store: &LocalStore,
    file: &Path,
    entry: &EntryId,
    outbox: &OutboxRecord,
    queue: Option<&QueueRecord>,
) -> Result<Option<String>, ExportError> {
    let mut problem = None;
    if let Some(queue) = queue {
        match spool.open_body(queue.body).await {
            Ok(body) => match copy(body.reader, file).await? {
                Ok(()) => return Ok(None),
                Err(why) => problem = Some(why),
            },
            Err(error) => problem = Some(error.to_string()),
        }
    }
    match store.export(entry).await {
        Ok(reader) => match copy(reader, file).await? {
            Ok(()) => return Ok(problem.map(|why| format!("as it was submitted, because {why}"))),
            Err(why) => problem = Some(why),
        },
        Err(error) => problem = Some(problem.unwrap_or_else(|| error.to_string())),
    }
    let left = queue.map(|queue| queue.body).into_iter().chain(outbox.content);
    for body in left {
        if let Some(reader) = damaged(spool, body).await
            && let Ok(()) = copy(reader, file).await?
        {
            return Ok(problem);
        }
    }
    // The file is there all the same, so that the note has its message.
    copy(Box::pin(tokio::io::empty()), file).await?.ok();
    Ok(problem.or_else(|| Some("nothing of its content is left".to_owned())))
}

async fn damaged(spool: &SledSpool, body: BodyId) -> Option<Pin<Box<dyn AsyncRead + Send>>> {
    spool.open_damaged(body).await.ok().flatten()
}

/// Copies to a file; the inner result says whether all could be read.
async fn copy(
    mut reader: Pin<Box<dyn AsyncRead + Send>>,
    file: &Path,
) -> Result<Result<(), String>, ExportError> {
    let mut out = create(file).await?;
    let mut buffer = vec![0; 64 * 1024];
    let end = loop {
        match reader.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(count) => out.write_all(buffer.get(..count).unwrap_or_default()).await?,
            Err(error) => break Err(error.to_string()),
        }
    };
    sync_file(out).await?;
    Ok(end)
}

async fn records(
    spool: &SledSpool,
    folder: &Path,
    exported: &mut Exported,
) -> Result<(), ExportError> {
    let aside = folder.join("quarantine");
    let mut place: Option<Place> = None;
    loop {
        let (page, end) = spool.quarantined(place.as_ref(), PAGE).map_err(ExportError)?;
        if page.is_empty() {
            return Ok(());
        }
        place = end;
        make_folder(&aside).await?;
        for record in page {
            exported.records += 1;
            let name = format!("{:06}", exported.records);
            write(&aside.join(format!("{name}.bin")), &record.bytes).await?;
            let note = RecordNote { key: &record.key, reason: &record.reason };
            write_note(&aside.join(format!("{name}.json")), &note).await?;
        }
    }
}

/// Exports the body files of a tree that cannot be opened, those that are whole as messages.
pub(super) async fn bodies(files: &[PathBuf], folder: &Path) -> MapiResult<Exported> {
    let mut exported = Exported { folder: folder.to_owned(), ..Exported::default() };
    make_folder(folder).await?;
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("body");
        let bytes = match tokio::fs::File::open(file).await {
            Ok(reader) => reader,
            Err(error) => {
                tracing::warn!(%error, name, "A body cannot be read");
                continue;
            }
        };
        let to = folder.join(format!("{name}.eml"));
        copy(Box::pin(bytes), &to).await?.ok();
        exported.records += 1;
    }
    sync(folder).await?;
    Ok(exported)
}

async fn make_folder(folder: &Path) -> Result<(), ExportError> {
    let mut builder = tokio::fs::DirBuilder::new();
    Ok(builder.recursive(true).mode(0o700).create(folder).await?)
}

/// A file for the owner alone, in place of an earlier export.
async fn create(file: &Path) -> Result<tokio::fs::File, ExportError> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(no_follow);
    options
        .open(file)
        .await
        .map_err(|error| ExportError(SpoolError::io(format!("write {}", file.display()), error)))
}

async fn write(file: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut out = create(file).await?;
    out.write_all(bytes).await?;
    sync_file(out).await
}

/// What a write behind the scenes came to is told by a flush; a sync keeps it to itself.
async fn sync_file(mut file: tokio::fs::File) -> Result<(), ExportError> {
    file.flush().await?;
    Ok(file.sync_all().await?)
}

async fn write_note(file: &Path, note: &impl Serialize) -> Result<(), ExportError> {
    let mut text = serde_json::to_vec_pretty(note).map_err(std::io::Error::other)?;
    text.push(b'\n');
    write(file, &text).await
}

async fn sync(folder: &Path) -> Result<(), ExportError> {
    Ok(tokio::fs::File::open(folder).await?.sync_all().await?)
}
