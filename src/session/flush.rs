//! Flushing a session: sending, then receiving, of one transport after the other where nobody else
//! opens their directions.

use super::{Logon, Session};
use crate::mapi::{FlushFlags, MapiResult, TransportNotify};
use crate::spi::NotifyData;

impl Session {
    /// Opens one direction of a transport for the time of its flush.
    async fn flush_closed(&self, transport: &str, direction: FlushFlags) -> MapiResult<()> {
        let running = self.running()?;
        let flushed = running.spooler.open_and_flush(transport, direction).await;
        if direction == FlushFlags::UPLOAD && flushed.is_ok() {
            // What was handed over when the flush had already ended is tried all the same.
            running.provider.see_flush_through(transport).await;
            running.spooler.ends_taken_up(transport).await;
        }
        let ended =
            running.spooler.transport_notify(Some(transport), end_of(direction), NotifyData::None);
        ended.await?;
        flushed
    }

    /// Flushes what the flags name; the answer is an error only when nothing could be flushed.
    pub(super) async fn flush_flags(&self, flags: FlushFlags) -> MapiResult<()> {
        let spooler = &self.running()?.spooler;
        if self.logon != Logon::Closed {
            return spooler.flush(None, flags).await;
        }
        // Nobody else opens the directions of a session that exists for this flush only: each is
        // open while it is its turn (FL-4).
        let (mut done, mut failure) = (false, None);
        for transport in &self.profile.transports {
            for direction in [FlushFlags::UPLOAD, FlushFlags::DOWNLOAD] {
                if flags.contains(direction) {
                    match self.flush_closed(&transport.name, direction).await {
                        Ok(()) => done = true,
                        Err(error) => failure = Some(error),
                    }
                }
            }
        }
        match failure {
            Some(error) if !done => Err(error),
            _ => Ok(()),
        }
    }
}

/// What ends the direction of a flush.
fn end_of(direction: FlushFlags) -> TransportNotify {
    match direction {
        FlushFlags::UPLOAD => TransportNotify::END_OUTBOUND,
        _ => TransportNotify::END_INBOUND,
    }
}
