//! `fsck`: a check of the spool while the session runs, and an export of what can be saved.

mod export;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::mapi::{MapiCode, MapiError, MapiResult};
use crate::spool::{
    CheckMode, CheckProgress, CheckReport, Finding, FindingKind, Remedy, SledSpool, SpoolError,
    set_aside_unreadable,
};
use crate::store::LocalStore;

/// What is asked of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FsckRequest {
    /// Whether what is found is mended.
    pub mode: CheckMode,
    /// A folder into which every message is exported as far as it can be read, and every record
    /// in quarantine as it is; made when it is missing. An absolute path.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub export: Option<PathBuf>,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Exported {
    /// Where to.
    #[schema(value_type = String)]
    pub folder: PathBuf,
    /// Messages, those included of which only a part was left.
    pub messages: u64,
    /// Messages of which only a part was left.
    pub incomplete: u64,
    /// Records in quarantine, or bodies of a tree that could not be opened.
    pub records: u64,
}

/// What a check and an export came to (`fsck --json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FsckReport {
    /// What was found.
    #[serde(flatten)]
    pub check: CheckReport,
    /// What was exported; `null` for nothing asked.
    pub exported: Option<Exported>,
}

/// Words on the way to the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub enum FsckEvent {
    /// How far it is.
    Progress(CheckProgress),
    /// The end.
    Report(Box<FsckReport>),
}

/// Events of a check; dropping it ends the check.
pub type FsckEvents = Pin<Box<dyn Stream<Item = MapiResult<FsckEvent>> + Send>>;

/// Words about progress that may wait to be heard; more are left out.
const UNHEARD: usize = 16;

/// Starts a check.
pub(super) fn start(
    spool: Arc<SledSpool>,
    store: Arc<LocalStore>,
    request: FsckRequest,
) -> FsckEvents {
    let (events, heard) = mpsc::channel(UNHEARD);
    tokio::spawn(async move {
        let end = run(spool, store, request, events.clone()).await;
        // Nobody listens any more, at the worst.
        let _ = events.send(end.map(|report| FsckEvent::Report(Box::new(report)))).await;
    });
    Box::pin(stream::unfold(heard, |mut heard| async move {
        let event = heard.recv().await?;
        Some((event, heard))
    }))
}

async fn run(
    spool: Arc<SledSpool>,
    store: Arc<LocalStore>,
    request: FsckRequest,
    events: mpsc::Sender<MapiResult<FsckEvent>>,
) -> MapiResult<FsckReport> {
    let FsckRequest { mode, export } = request;
    let checked = Arc::clone(&spool);
    let check = tokio::task::spawn_blocking(move || {
        checked.check(mode, &|progress| {
            if events.is_closed() {
                return ControlFlow::Break(());
            }
            // Who is slow to hear it hears a later one.
            let _ = events.try_send(Ok(FsckEvent::Progress(progress)));
            ControlFlow::Continue(())
        })
    });
    let check =
        check.await.map_err(|error| MapiError::new(MapiCode::CALL_FAILED, error.to_string()))??;
    let exported = match export {
        Some(folder) => Some(export::all(&spool, &store, &folder).await?),
        None => None,
    };
    Ok(FsckReport { check, exported })
}

/// `fsck` of a profile whose spool cannot be opened at all: in [`CheckMode::Repair`] the spool is
/// set aside whole and the next open begins anew; its bodies are exported, envelopes are lost.
///
/// # Errors
/// `MAPI_E_BUSY` when another process has it, `MAPI_E_DISK_ERROR`.
pub async fn fsck_unreadable(
    state_folder: &Path,
    why: &str,
    request: FsckRequest,
    wait: Duration,
) -> MapiResult<FsckReport> {
    let dir = state_folder.join("spool");
    let mends = request.mode == CheckMode::Repair;
    let mut finding = Finding {
        kind: FindingKind::UnreadableTree,
        what: dir.display().to_string(),
        detail: why.to_owned(),
        remedy: Remedy::Repairable,
    };
    let mut exported = None;
    if mends {
        let salvaged = tokio::task::spawn_blocking(move || set_aside_unreadable(&dir, wait));
        let salvaged = salvaged
            .await
            .map_err(|error| MapiError::new(MapiCode::CALL_FAILED, error.to_string()))??;
        finding.remedy = Remedy::SetAside;
        finding.detail = format!("{why}; it lies in {} now", salvaged.folder.display());
        if let Some(folder) = request.export {
            exported = Some(export::bodies(&salvaged.bodies, &folder).await?);
        }
    }
    let check = CheckReport {
        mode: request.mode,
        kinds: [(finding.kind, 1)].into(),
        findings: vec![finding],
        ..CheckReport::default()
    };
    Ok(FsckReport { check, exported })
}

impl From<std::io::Error> for ExportError {
    fn from(error: std::io::Error) -> Self {
        ExportError(SpoolError::io("export", error))
    }
}

/// A file of an export that cannot be written.
struct ExportError(SpoolError);

impl From<ExportError> for MapiError {
    fn from(error: ExportError) -> Self {
        error.0.into()
    }
}
