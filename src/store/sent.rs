//! The end of a message that was sent (OB-16).

use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::LocalStore;
use super::maildir::{Draft, FileState, Look, Maildir, MaildirError, Origin, Place, Token};
use super::notes::completed;
use super::owed::{CopyTo, Owed};
use crate::mapi::{EntryId, MapiCode, MapiError, MapiResult, PropList, tags};
use crate::observe::{Ended, Event, Family};
use crate::spi::Content;
use crate::spool::{HistoryRecord, OutboxRecord, OutboxState, RecipientState};

/// The mailbox of sent copies.
const SENT: &str = "Sent";

/// Octets copied at a time.
const CHUNK: usize = 256 * 1024;

/// What came of keeping a copy.
enum Made {
    Copy,
    /// There is nothing that could be kept.
    Nothing,
}

impl LocalStore {
    /// Keeps a copy of the message where one is wanted, removes it from the Outbox, unlocks it.
    /// A message that is gone already was finished before.
    pub(super) async fn finish(&self, entry: &EntryId) -> MapiResult<()> {
        let record = match self.outbox.record(entry).await {
            Ok(record) => record,
            Err(error) if error.code() == MapiCode::NOT_IN_QUEUE => {
                self.outbox.unlock(entry);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let known = self.spool.history(entry).await?;
        let owed = match self.wants_copy(&record.props) {
            true => self.keep(entry, &record, known.as_ref()).await?,
            false => None,
        };
        let history = completed(&record, known.clone(), &self.notes.of(entry), self.clock.now());
        let ended = history.as_ref().or(known.as_ref()).cloned();
        self.tell_after_all(entry, &record, ended.as_ref()).await?;
        self.outbox.delete(entry, history).await?;
        if let Some((owed, token)) = owed {
            owed.added(token);
        }
        self.notes.forget(entry);
        self.seen_to_end(entry, &record, ended.as_ref());
        self.outbox.unlock(entry);
        Ok(())
    }

    /// Tells who looks on that a message has left the queue.
    fn seen_to_end(&self, entry: &EntryId, record: &OutboxRecord, history: Option<&HistoryRecord>) {
        let after = self.clock.now().saturating_since(record.submitted);
        let counters = self.options.observer.counters();
        counters.ended(Ended::Finished, after);
        let ended = history.map(|history| (&history.transport, &history.envelope.recipients));
        for (transport, recipient) in
            ended.into_iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)))
        {
            let outcome = match recipient.state {
                RecipientState::Delivered { .. } => "delivered",
                RecipientState::Failed { .. } => "failed",
                RecipientState::Pending | RecipientState::Deferred { .. } => continue,
            };
            let labels = [("transport", transport.as_str()), ("outcome", outcome)];
            counters.add(Family::Recipients, &labels, 1);
        }
        tracing::info!(%entry, seconds = after.as_secs(), "A message has left the queue");
        self.options.observer.tell(Event::Ended(entry.clone()));
    }

    /// `PR_DELETE_AFTER_SUBMIT` leaves nothing, also when the message was to be moved first;
    /// `PR_SENTMAIL_ENTRYID` wants a copy whatever the profile says, where there is a Maildir.
    fn wants_copy(&self, props: &PropList) -> bool {
        !props.boolean(tags::DELETE_AFTER_SUBMIT).unwrap_or(false)
            && (self.options.sent
                || self.owed.is_some()
                || props.value(tags::SENTMAIL_ENTRYID).is_some())
    }

    /// Keeps a copy where those of the transport that sent it go. The answer is to be told of once
    /// the message has left the Outbox.
    async fn keep<'a>(
        &'a self,
        entry: &EntryId,
        record: &OutboxRecord,
        history: Option<&HistoryRecord>,
    ) -> MapiResult<Option<(&'a Owed, Token)>> {
        let transport = match (&record.state, history) {
            (OutboxState::Deferred { transport }, _) => transport.clone(),
            (_, Some(history)) => history.transport.clone(),
            (_, None) => self.notes.of(entry).transport().to_owned(),
        };
        let elsewhere =
            self.owed.as_ref().and_then(|owed| Some((owed, owed.copies_of(&transport)?)));
        match (elsewhere, &self.copies) {
            (Some((owed, CopyTo::Server)), _) => {
                // Before the copy: one that is made again may be on the server already.
                let token = Token::of(Origin::Sent, entry.as_bytes());
                owed.keeps(token, self.is_older(record.submitted));
                match self.keep_copy(&owed.maildir, &transport, entry, record).await? {
                    Made::Copy => Ok(Some((owed, token))),
                    Made::Nothing => {
                        owed.forgets(token);
                        Ok(None)
                    }
                }
            }
            (Some((_, CopyTo::Nowhere)), _) | (None, None) => Ok(None),
            (None, Some(maildir)) => {
                self.keep_copy(maildir, SENT, entry, record).await?;
                Ok(None)
            }
        }
    }

    async fn keep_copy(
        &self,
        maildir: &Arc<Maildir>,
        mailbox: &str,
        entry: &EntryId,
        record: &OutboxRecord,
    ) -> MapiResult<Made> {
        let content = match self.outbox.content_of(record).await {
            Ok(content) => content,
            // What cannot be composed was never sent as mail (another address type): there is no
            // copy to keep, and that must not keep the message in the Outbox for ever.
            Err(error) if error.code() == MapiCode::INVALID_PARAMETER => {
                tracing::warn!(%entry, %error, "No copy of a sent message could be made");
                return Ok(Made::Nothing);
            }
            // Sent it was; a copy that is not what was sent is none.
            Err(error) if error.code() == MapiCode::CORRUPT_DATA => {
                tracing::warn!(%entry, %error, "A sent message is damaged here, no copy is kept");
                return Ok(Made::Nothing);
            }
            Err(error) => return Err(error),
        };
        let place = Place {
            mailbox: mailbox.to_owned(),
            token: Token::of(Origin::Sent, entry.as_bytes()),
            time: record.submitted,
            state: FileState::Seen,
            look: match self.is_older(record.submitted) {
                true => Look::Everywhere,
                false => Look::Here,
            },
        };
        let draft = match self.copy(maildir, content).await {
            Err(error) if error.code() == MapiCode::CORRUPT_DATA => {
                tracing::warn!(%entry, %error, "A sent message is damaged here, no copy is kept");
                return Ok(Made::Nothing);
            }
            draft => draft?,
        };
        let maildir = Arc::clone(maildir);
        self.blocking(move || maildir.deliver(draft, &place)).await??;
        Ok(Made::Copy)
    }

    /// Writes content into a file of the Maildir's `tmp`.
    async fn copy(&self, maildir: &Arc<Maildir>, mut content: Content) -> MapiResult<Draft> {
        let maildir = Arc::clone(maildir);
        let mut draft: Draft = self.blocking(move || Maildir::draft(&maildir)).await??;
        let mut buffer = Vec::with_capacity(CHUNK);
        loop {
            let mut some = (&mut content.reader).take(CHUNK as u64);
            let count = some.read_to_end(&mut buffer).await.map_err(|error| {
                let code = match error.kind() {
                    std::io::ErrorKind::InvalidData => MapiCode::CORRUPT_DATA,
                    _ => MapiCode::DISK_ERROR,
                };
                MapiError::new(code, format!("a stored message: {error}"))
            })?;
            if count == 0 {
                return Ok(draft);
            }
            let write = move || -> Result<(Draft, Vec<u8>), MaildirError> {
                draft.write(&buffer)?;
                buffer.clear();
                Ok((draft, buffer))
            };
            (draft, buffer) = self.blocking(write).await??;
        }
    }
}
