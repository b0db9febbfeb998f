//! A [`Service`] for tests: remembers what it was asked and answers from a table.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult};
use crate::session::{
    CheckReport, Direction, FlushRequest, FlushSummary, FsckEvent, FsckEvents, FsckReport,
    FsckRequest, InboundMode, InboundState, NotifyRequest, QueueCountsView, QueueRow,
    QueueRowState, RawEnvelope, RecipientRow, RecipientRowState, Service, StatusReport,
    StatusRowView, Submission, TraceReport, TraceStep, TraceStepKind,
};
use crate::spi::StatusRowKind;
use crate::spool::{CheckPhase, CheckProgress, Finding, FindingKind, Remedy};

/// The n-th entry id of the tests.
pub(crate) fn entry(n: u64) -> EntryId {
    EntryId::from_ulid(ulid::Ulid::from_parts(1_700_000_000_000, n.into()))
}

pub(crate) fn row(n: u64, state: QueueRowState) -> QueueRow {
    QueueRow {
        id: entry(n).to_string(),
        state,
        transport: "work".into(),
        from: "ann@example.org".into(),
        subject: format!("message {n}"),
        size: 1000 * n,
        submitted: "2026-01-02T03:04:05Z".into(),
        attempts: 1,
        next_attempt: Some("2026-01-02T03:05:05Z".into()),
        last_error: Some("451 later".into()),
        recipients: vec![RecipientRow {
            address: "bob@example.net".into(),
            state: RecipientRowState::Deferred,
            reply: "451 later".into(),
            queue_id: None,
        }],
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct FakeService {
    pub(crate) calls: Mutex<Vec<String>>,
    pub(crate) submissions: Mutex<Vec<Submission>>,
    pub(crate) raw: Mutex<Vec<(RawEnvelope, Vec<u8>)>>,
    pub(crate) rows: Vec<QueueRow>,
    pub(crate) contents: BTreeMap<String, Vec<u8>>,
    /// Answered to every call that changes something.
    pub(crate) fault: Option<MapiError>,
    /// Waits for ever in `wait`.
    pub(crate) waits_for_ever: bool,
    /// Never answers a look.
    pub(crate) is_silent: bool,
    /// Whether a check finds something.
    pub(crate) damaged: bool,
}

impl FakeService {
    pub(crate) fn with_rows(rows: Vec<QueueRow>) -> Self {
        FakeService { rows, ..FakeService::default() }
    }

    pub(crate) fn failing(code: MapiCode, detail: &str) -> Self {
        FakeService { fault: Some(MapiError::new(code, detail)), ..FakeService::default() }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn called(&self, call: String) -> MapiResult<()> {
        self.calls.lock().unwrap().push(call);
        self.fault.clone().map_or(Ok(()), Err)
    }

    async fn keep_silent(&self) {
        if self.is_silent {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn report(&self) -> StatusReport {
        StatusReport {
            profile: "work".into(),
            pid: 42,
            rows: vec![StatusRowView {
                name: "work".into(),
                kind: StatusRowKind::Transport,
                status_code: 0x11_0001,
                flags: vec!["STATUS_AVAILABLE".into()],
                status_string: "ready".into(),
                sending_waits: None,
            }],
            queue: QueueCountsView { queued: 1, deferred: 2, ..QueueCountsView::default() },
            inbound: vec![InboundState {
                transport: "work".into(),
                mailbox: "INBOX".into(),
                mode: InboundMode::Idle,
                last_uid: 7,
                pending: 0,
                set_aside: Vec::new(),
                set_aside_why: None,
            }],
            last_error: Some("451 later".into()),
            needs_sign_in: Vec::new(),
            owed_copies: Vec::new(),
            next_attempt: Some("2026-01-02T03:05:05Z".into()),
        }
    }
}

#[async_trait]
impl Service for FakeService {
    async fn submit(&self, submission: Submission) -> MapiResult<EntryId> {
        self.called("submit".into())?;
        self.submissions.lock().unwrap().push(submission);
        Ok(entry(1))
    }

    async fn submit_raw(
        &self,
        envelope: RawEnvelope,
        mut bytes: Pin<Box<dyn AsyncRead + Send>>,
    ) -> MapiResult<EntryId> {
        self.called("submit_raw".into())?;
        let mut message = Vec::new();
        bytes
            .read_to_end(&mut message)
            .await
            .map_err(|error| MapiError::new(MapiCode::DISK_ERROR, error.to_string()))?;
        self.raw.lock().unwrap().push((envelope, message));
        Ok(entry(2))
    }

    async fn status(&self) -> MapiResult<StatusReport> {
        self.called("status".into())?;
        self.keep_silent().await;
        Ok(self.report())
    }

    async fn watch_status(&self) -> MapiResult<Pin<Box<dyn Stream<Item = StatusReport> + Send>>> {
        self.called("watch".into())?;
        let changed = StatusReport { pid: 43, ..self.report() };
        Ok(Box::pin(stream::iter([self.report(), changed]).boxed()))
    }

    async fn metrics(&self) -> MapiResult<String> {
        self.called("metrics".into())?;
        Ok("# TYPE postrider_queue_messages gauge\npostrider_queue_messages 3\n".into())
    }

    async fn queue(&self, after: Option<EntryId>, limit: usize) -> MapiResult<Vec<QueueRow>> {
        self.called(format!("queue {limit}"))?;
        let after = after.map(|entry| entry.to_string()).unwrap_or_default();
        Ok(self.rows.iter().filter(|row| row.id > after).take(limit).cloned().collect())
    }

    async fn queue_row(&self, entry: &EntryId) -> MapiResult<QueueRow> {
        self.called(format!("queue_row {entry}"))?;
        self.keep_silent().await;
        let found = self.rows.iter().find(|row| row.id == entry.to_string());
        found.cloned().ok_or_else(|| MapiError::new(MapiCode::NOT_FOUND, format!("no {entry}")))
    }

    async fn trace(&self, id: &str) -> MapiResult<TraceReport> {
        self.called(format!("trace {id}"))?;
        let found = self.rows.iter().find(|row| row.id == id).cloned();
        let row = found.ok_or_else(|| MapiError::new(MapiCode::NOT_FOUND, format!("no {id}")))?;
        Ok(TraceReport {
            id: row.id,
            message_id: "<1@example.org>".into(),
            state: row.state,
            transport: row.transport,
            from: row.from,
            subject: row.subject,
            size: row.size,
            submitted: row.submitted.clone(),
            next_attempt: row.next_attempt,
            recipients: row.recipients,
            steps: vec![TraceStep {
                time: row.submitted,
                step: TraceStepKind::Submitted,
                text: "submitted\u{1b}".into(),
                attempt: None,
                host: None,
                tls: None,
                class: None,
                replies: Vec::new(),
                recipients: vec!["bob@example.net".into()],
            }],
            left_out: 3,
        })
    }

    async fn wait(&self, entry: &EntryId, limit: Option<Duration>) -> MapiResult<QueueRow> {
        self.called(format!("wait {entry} {limit:?}"))?;
        if self.waits_for_ever {
            std::future::pending::<()>().await;
        }
        self.queue_row(entry).await
    }

    async fn cancel(&self, entry: &EntryId) -> MapiResult<()> {
        self.called(format!("cancel {entry}"))
    }

    async fn hold(&self, entry: &EntryId) -> MapiResult<()> {
        self.called(format!("hold {entry}"))
    }

    async fn release(&self, entry: &EntryId) -> MapiResult<()> {
        self.called(format!("release {entry}"))
    }

    async fn retry(&self, entry: Option<&EntryId>) -> MapiResult<u64> {
        self.called(match entry {
            Some(entry) => format!("retry {entry}"),
            None => "retry all".into(),
        })?;
        Ok(entry.map_or(5, |_| 1))
    }

    async fn export(&self, entry: &EntryId) -> MapiResult<Pin<Box<dyn AsyncRead + Send>>> {
        self.called(format!("export {entry}"))?;
        let content = self.contents.get(&entry.to_string()).cloned();
        let content = content.ok_or_else(|| MapiError::from(MapiCode::NOT_FOUND))?;
        Ok(Box::pin(std::io::Cursor::new(content)))
    }

    async fn notify(&self, request: NotifyRequest) -> MapiResult<()> {
        self.called(format!(
            "notify {:?} {:#x} {:?} {:?}",
            request.transport, request.flags, request.reference, request.entry
        ))
    }

    async fn flush(&self, request: FlushRequest) -> MapiResult<FlushSummary> {
        self.called(format!("flush up={} down={}", request.upload, request.download))?;
        Ok(FlushSummary { sent: 3, received: 4, left: 0, troubles: Vec::new() })
    }

    async fn fsck(&self, request: FsckRequest) -> MapiResult<FsckEvents> {
        let export = request.export.unwrap_or_default();
        self.called(format!("fsck {:?} {}", request.mode, export.display()))?;
        let progress = CheckProgress { phase: CheckPhase::Bodies, done: 7 };
        let mut report = FsckReport::default();
        report.check.messages = 5;
        if self.damaged {
            let kind = FindingKind::MissingIndex;
            let (what, detail) = ("waiting/X".to_owned(), "missing".to_owned());
            report.check.kinds.insert(kind, 1);
            report.check.findings.push(Finding { kind, what, detail, remedy: Remedy::Repairable });
        }
        let report = FsckEvent::Report(Box::new(report));
        Ok(Box::pin(stream::iter([Ok(FsckEvent::Progress(progress)), Ok(report)])))
    }

    async fn check(&self) -> MapiResult<Vec<CheckReport>> {
        self.called("check".into())?;
        Ok(vec![CheckReport {
            transport: "work".into(),
            direction: Direction::Outbound,
            server: "smtp.example.org:465".into(),
            ok: false,
            offers: vec!["PIPELINING".into()],
            error: Some("535 no".into()),
        }])
    }
}
