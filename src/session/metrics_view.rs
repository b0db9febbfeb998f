//! `/metrics`: the counters of the process and what the session looks like now.

use super::{Session, status_view};
use crate::mapi::{MapiResult, StatusCode};
use crate::observe::{Exposition, Kind};
use crate::spi::StatusRowKind;

/// The text of Prometheus, version 0.0.4.
pub(super) async fn render(session: &Session) -> MapiResult<String> {
    let report = status_view::report(session).await?;
    let mut out = Exposition::default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    out.family("postrider_build_info", Kind::Gauge, "Version of the program.");
    out.sample("postrider_build_info", &[("version", version)], 1_u8);
    let name = "postrider_start_time_seconds";
    out.family(name, Kind::Gauge, "When the session began.");
    out.sample(name, &[], seconds(session.opened));
    let name = "postrider_queue_messages";
    out.family(name, Kind::Gauge, "Messages of the outgoing queue, by state.");
    for (state, count) in [
        ("queued", report.queue.queued),
        ("sending", report.queue.sending),
        ("deferred", report.queue.deferred),
        ("in_doubt", report.queue.in_doubt),
        ("held", report.queue.held),
    ] {
        out.sample(name, &[("state", state.to_owned())], count);
    }
    let name = "postrider_oldest_message_timestamp_seconds";
    out.family(name, Kind::Gauge, "When the oldest message of the queue was submitted.");
    if let Some((_, record)) = session.spool.outbox_page(None, 1).await?.first() {
        out.sample(name, &[], seconds(record.submitted));
    }
    let name = "postrider_transport_up";
    out.family(name, Kind::Gauge, "Whether a transport is available: 1, or in trouble: 0.");
    let transports = || report.rows.iter().filter(|row| row.kind == StatusRowKind::Transport);
    for row in transports() {
        let up = row.status_code & StatusCode::AVAILABLE.bits() != 0;
        out.sample(name, &[("transport", row.name.clone())], u8::from(up));
    }
    let name = "postrider_transport_enabled";
    out.family(name, Kind::Gauge, "Whether a direction of a transport is open.");
    for row in transports() {
        for (direction, flag) in
            [("inbound", StatusCode::INBOUND_ENABLED), ("outbound", StatusCode::OUTBOUND_ENABLED)]
        {
            let labels = [("transport", row.name.clone()), ("direction", direction.to_owned())];
            out.sample(name, &labels, u8::from(row.status_code & flag.bits() != 0));
        }
    }
    let name = "postrider_inbound_pending_messages";
    out.family(name, Kind::Gauge, "Messages known to wait on the server.");
    for mailbox in &report.inbound {
        let labels =
            [("transport", mailbox.transport.clone()), ("mailbox", mailbox.mailbox.clone())];
        out.sample(name, &labels, mailbox.pending);
    }
    let name = "postrider_spool_failed";
    out.family(name, Kind::Gauge, "Whether the spool takes nothing any more: 1.");
    out.sample(name, &[], u8::from(session.spool.failure().is_some()));
    session.observer.counters().expose(&mut out);
    Ok(out.into_text())
}

/// Seconds since 1970, with milliseconds.
fn seconds(time: crate::mapi::SysTime) -> String {
    let millis = time.as_millis();
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
