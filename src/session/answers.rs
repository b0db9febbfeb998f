//! What a session answers when it is asked: the trait [`Service`] on the session itself.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use tokio::io::AsyncRead;

use super::{
    CheckReport, FlushRequest, FlushSummary, FsckEvents, FsckRequest, NotifyRequest, QueueRow,
    RawEnvelope, Service, Session, StatusReport, Submission, TraceReport, check_profile, fsck,
    metrics_view, queue_view, status_view, submit, trace_lookup, upkeep,
};
use crate::mapi::{
    EntryId, FlushFlags, MapiCode, MapiError, MapiResult, MessageRef, TransportNotify,
};
use crate::spi::{MessageStore, NotifyData, OutgoingState};

/// Rows read from the spool at a time.
const PAGE: usize = 256;

#[async_trait]
impl Service for Session {
    async fn submit(&self, submission: Submission) -> MapiResult<EntryId> {
        let message = submit::with_sender(&self.profile, submission.message)?;
        self.store.submit(message).await.map(|(entry, _durable)| entry)
    }

    async fn submit_raw(
        &self,
        envelope: RawEnvelope,
        bytes: Pin<Box<dyn AsyncRead + Send>>,
    ) -> MapiResult<EntryId> {
        let envelope = submit::raw(&self.profile, envelope)?;
        self.store.submit_raw(envelope, bytes).await.map(|(entry, _durable)| entry)
    }

    async fn status(&self) -> MapiResult<StatusReport> {
        status_view::report(self).await
    }

    async fn watch_status(&self) -> MapiResult<Pin<Box<dyn Stream<Item = StatusReport> + Send>>> {
        status_view::watch(self).await
    }

    async fn metrics(&self) -> MapiResult<String> {
        metrics_view::render(self).await
    }

    async fn queue(&self, after: Option<EntryId>, limit: usize) -> MapiResult<Vec<QueueRow>> {
        let mut rows = Vec::new();
        let mut after = after;
        while rows.len() < limit {
            let page = self.spool.outbox_page(after.as_ref(), PAGE.min(limit - rows.len())).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (entry, outbox) in page {
                let queue = self.spool.queue(&entry).await?;
                let traffic = self.traffic();
                rows.push(queue_view::outgoing_row(&entry, &outbox, queue.as_ref(), traffic));
            }
        }
        Ok(rows)
    }

    async fn queue_row(&self, entry: &EntryId) -> MapiResult<QueueRow> {
        if let Some(row) = self.outgoing_row(entry).await? {
            return Ok(row);
        }
        let history = self.spool.history(entry).await?;
        history.map(|history| queue_view::ended_row(entry, &history)).ok_or_else(|| {
            MapiError::new(MapiCode::NOT_FOUND, format!("there is no message {entry}"))
        })
    }

    async fn trace(&self, id: &str) -> MapiResult<TraceReport> {
        let spool = self.spool.as_ref();
        let entry = trace_lookup::resolve(spool, id).await?;
        trace_lookup::report(spool, &entry, self.traffic()).await
    }

    async fn wait(&self, entry: &EntryId, limit: Option<Duration>) -> MapiResult<QueueRow> {
        let Some(limit) = limit else { return self.ended(entry).await };
        tokio::time::timeout(limit, self.ended(entry)).await.unwrap_or_else(|_| {
            let words =
                format!("{entry} has not ended within {}", humantime::format_duration(limit));
            Err(MapiError::new(MapiCode::TIMEOUT, words))
        })
    }

    async fn cancel(&self, entry: &EntryId) -> MapiResult<()> {
        if let (Some(running), true) = (&self.running, self.can_be_asked(entry).await?) {
            return running.spooler.cancel(entry).await;
        }
        let store = self.store.as_ref();
        upkeep::cancel_unowned(self.spool.as_ref(), store, self.clock.now(), entry).await
    }

    async fn hold(&self, entry: &EntryId) -> MapiResult<()> {
        match self.transport_of(entry).await? {
            Some(transport) => self.running()?.provider.hold(&transport, entry).await,
            None => self.store.hold(entry).await,
        }
    }

    async fn release(&self, entry: &EntryId) -> MapiResult<()> {
        match self.transport_of(entry).await? {
            Some(transport) => self.running()?.provider.release(&transport, entry).await,
            None => {
                self.store.release(entry).await?;
                if let Some(running) = &self.running {
                    running.spooler.reconsider(entry);
                }
                Ok(())
            }
        }
    }

    async fn retry(&self, entry: Option<&EntryId>) -> MapiResult<u64> {
        let running = self.running()?;
        let Some(entry) = entry else {
            let mut due = 0;
            for transport in self.profile.transports.iter().filter(|one| one.smtp.is_some()) {
                due += running.provider.retry(&transport.name, None).await?;
            }
            return Ok(due);
        };
        match self.transport_of(entry).await? {
            Some(transport) => running.provider.retry(&transport, Some(entry)).await,
            None => {
                // No transport has it yet: it is handed over now, unless it is on hold or waits
                // for a time of its own (OB-19), which nobody but its owner changes.
                let row = self.store.outgoing_row(entry).await?;
                let due = match row.state {
                    OutgoingState::Waiting { not_before } => not_before <= self.clock.now(),
                    OutgoingState::Deferred { .. } => true,
                };
                if due {
                    running.spooler.retry(entry);
                }
                Ok(u64::from(due))
            }
        }
    }

    async fn export(&self, entry: &EntryId) -> MapiResult<Pin<Box<dyn AsyncRead + Send>>> {
        self.store.export(entry).await
    }

    async fn notify(&self, request: NotifyRequest) -> MapiResult<()> {
        let entry =
            request.entry.as_deref().map(str::parse::<EntryId>).transpose().map_err(|_| {
                let words =
                    format!("{:?} is no entry id", request.entry.as_deref().unwrap_or_default());
                MapiError::new(MapiCode::INVALID_ENTRYID, words)
            })?;
        let data = match (&entry, request.reference) {
            (Some(entry), None) => NotifyData::EntryId(entry),
            (None, Some(reference)) => NotifyData::Reference(MessageRef(reference)),
            (None, None) => NotifyData::None,
            (Some(_), Some(_)) => {
                let words = "an entry id and a message reference exclude each other";
                return Err(MapiError::new(MapiCode::INVALID_PARAMETER, words));
            }
        };
        let flags = TransportNotify::from_bits_retain(request.flags);
        let spooler = &self.running()?.spooler;
        spooler.transport_notify(request.transport.as_deref(), flags, data).await
    }

    async fn flush(&self, request: FlushRequest) -> MapiResult<FlushSummary> {
        let running = self.running()?;
        let mut flags = FlushFlags::NO_UI;
        flags.set(FlushFlags::UPLOAD, request.upload);
        flags.set(FlushFlags::DOWNLOAD, request.download);
        let before = running.spooler.traffic();
        self.flush_flags(flags).await?;
        let after = running.spooler.traffic();
        let counts = queue_view::counts(self.spool.counts(), self.traffic());
        Ok(FlushSummary {
            sent: after.0 - before.0,
            received: after.1 - before.1,
            left: counts.queued + counts.sending + counts.deferred + counts.in_doubt + counts.held,
            troubles: status_view::troubles(running.spooler.status_table()),
        })
    }

    async fn check(&self) -> MapiResult<Vec<CheckReport>> {
        check_profile(&self.profile).await
    }

    async fn fsck(&self, request: FsckRequest) -> MapiResult<FsckEvents> {
        Ok(fsck::start(Arc::clone(&self.sled), Arc::clone(&self.store), request))
    }
}
