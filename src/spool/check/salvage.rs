//! What is left when the tree cannot be opened, or a body is not what it was.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use tokio::io::AsyncRead;

use crate::spool::body_row::BodyPlace;
use crate::spool::codec::Rows;
use crate::spool::sled_spool::inline_bytes;
use crate::spool::{BodyId, QuarantinedRecord, SledSpool, SpoolError, keys, lock};

/// Where a page of [`SledSpool::quarantined`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Vec<u8>);

/// What was set aside with a tree that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Where it is now.
    pub folder: PathBuf,
    /// Body files in it.
    pub bodies: Vec<PathBuf>,
}

impl SledSpool {
    /// Records in quarantine behind a place, at most `limit`, and where to go on.
    ///
    /// # Errors
    /// Those of the tree.
    pub fn quarantined(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<(Vec<QuarantinedRecord>, Option<Place>), SpoolError> {
        let after = after.map(|place| place.0.as_slice());
        let (page, last) = self.store()?.quarantine(after, limit)?;
        Ok((page, last.map(Place)))
    }

    /// The bytes of a body as they lie there, whole or not, and not compared with anything; for
    /// an export of what is left. `None` when nothing is left.
    ///
    /// # Errors
    /// I/O errors, those of the tree.
    pub async fn open_damaged(
        &self,
        body: BodyId,
    ) -> Result<Option<Pin<Box<dyn AsyncRead + Send>>>, SpoolError> {
        let Ok(Some(row)) = self.store()?.body(body) else { return Ok(None) };
        match row.place {
            BodyPlace::Inline { slot } => {
                let bytes = self.store()?.value(&keys::inline(slot))?;
                Ok(bytes.map(|bytes| Box::pin(inline_bytes(bytes)) as _))
            }
            BodyPlace::File { number } => match self.folder().open_file(body, number) {
                Ok(file) => Ok(Some(Box::pin(tokio::fs::File::from_std(file)))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(SpoolError::io(format!("open body {body}"), error)),
            },
        }
    }
}

/// Moves a tree that cannot be opened, with its journals and bodies, to a folder `damaged-TIME` beside it, so
/// that the next open begins anew and nothing is deleted. Blocks the thread, at most `wait` on
/// another process.
///
/// # Errors
/// [`SpoolError::Locked`]; I/O errors.
pub fn set_aside_unreadable(dir: &Path, wait: Duration) -> Result<Salvaged, SpoolError> {
    let failed =
        |what: &Path, error| SpoolError::io(format!("set aside {}", what.display()), error);
    let _lock = lock::acquire(dir, wait)?;
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let folder = dir.join(format!("damaged-{time}-{:08x}", fastrand::u32(..)));
    crate::spool::bodies::make_private_dir(&folder)?;
    // The tree goes last: as long as it is there, this is tried again.
    for part in ["staging", "bodies", "journal", "db"] {
        let from = dir.join(part);
        match std::fs::rename(&from, folder.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&from, error));
            }
            _ => {}
        }
    }
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed(dir, error))?;
    let mut bodies = Vec::new();
    let names = std::fs::read_dir(folder.join("bodies")).into_iter().flatten().flatten();
    for part in names {
        let files = std::fs::read_dir(part.path()).into_iter().flatten().flatten();
        bodies.extend(files.map(|file| file.path()));
    }
    bodies.sort();
    Ok(Salvaged { folder, bodies })
}
