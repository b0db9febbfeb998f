//! Decides when what is claimed, and how many connections serve it. Waits for events and for the
//! next due time; never looks twice without a reason.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::claims::{self, Claimed};
use super::herald::News;
use super::recovery;
use super::shared::Shared;
use super::worker;
use crate::mapi::SysTime;
use crate::spool::SpoolError;

/// How long a spool that cannot be read is left alone.
const SPOOL_PAUSE: Duration = Duration::from_secs(5);

/// Runs until the account ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut spool_trouble = false;
    let mut recovered = false;
    loop {
        let wake = shared.wake.notified();
        tokio::pin!(wake);
        // Before the look, so that what comes between the look and the wait is not missed.
        wake.as_mut().enable();
        let looked = async {
            if !recovered {
                recovery::recover(&shared).await?;
                recovered = true;
            }
            step(&shared).await
        };
        let wait = match looked.await {
            Ok(wait) => {
                if std::mem::take(&mut spool_trouble) {
                    shared.storage_mended();
                }
                wait
            }
            Err(SpoolError::Closed) => return,
            Err(error) => {
                spool_trouble = true;
                Wait::Until(report(&shared, &error))
            }
        };
        match wait {
            Wait::Not => tokio::task::yield_now().await,
            Wait::ForNews => {
                tokio::select! {
                    () = wake => {}
                    () = shared.entering.patience_ends() => {}
                }
            }
            Wait::Until(time) => {
                tokio::select! {
                    () = wake => {}
                    () = shared.entering.patience_ends() => {}
                    () = shared.clock.sleep_until(time) => {}
                }
            }
        }
    }
}

/// What to wait for until the next look.
enum Wait {
    Not,
    ForNews,
    Until(SysTime),
}

async fn step(shared: &Arc<Shared>) -> Result<Wait, SpoolError> {
    let now = shared.clock.now();
    let (back, to_claim, paused_until, throttled_until, open, asked) = {
        let mut lane = shared.lane();
        let back = lane.take_back(now);
        shared.go_back(&mut lane, &back);
        (
            back,
            lane.to_claim(now),
            lane.paused_until(now),
            lane.throttled_until(now),
            lane.is_open(),
            lane.asked(),
        )
    };
    shared.give_back(back, None);
    if !open {
        shared.note(|notes| notes.throttled = None);
        shared.quiet_since.send_replace(asked);
        return Ok(Wait::ForNews);
    }
    // Looked at before the queue: what is under way now may be back in it by the end of the look.
    let under_way = || !shared.flights.is_empty() || !shared.entering.is_empty();
    let in_flight = under_way();
    let mut claimed = Claimed::default();
    if to_claim > 0 {
        let begun = shared.lane().begin_look();
        claimed = claims::claim_due(shared, to_claim).await?;
        let mut lane = shared.lane();
        lane.end_look(begun, claimed.left || claimed.held);
        if claimed.held {
            lane.held_up();
        }
        drop(lane);
    }
    staff(shared);
    let looked = to_claim > 0;
    let mut nothing_due = looked && !claimed.any && !claimed.held;
    // What the limit keeps waiting is looked for without being claimed.
    let throttled_until = throttled_until.filter(|_| paused_until.is_none());
    if throttled_until.is_some() {
        nothing_due = !claims::is_anything_due(shared).await?;
    }
    let waits = !nothing_due || shared.waiting.load(Ordering::SeqCst) > 0;
    let kept_waiting = throttled_until.filter(|_| waits);
    shared.note(|notes| notes.throttled = kept_waiting.map(|until| throttled(shared, until)));
    {
        let mut lane = shared.lane();
        let in_flight = in_flight || under_way();
        let now = shared.clock.now();
        if !in_flight && (nothing_due || lane.paused_until(now).is_some()) {
            shared.quiet_since.send_replace(asked);
        }
        // A look from before a flush began says nothing about it.
        if lane.asked() == asked && lane.drained(now, in_flight, nothing_due) {
            shared.herald.tell(News::FlushDrained);
        }
    }
    let another_look = claimed.more && shared.lane().to_claim(shared.clock.now()) > 0;
    // A time that has passed belongs to something that cannot be claimed now; what makes it
    // claimable is news.
    let next = claimed.next.filter(|time| *time > shared.clock.now());
    let next = throttled_until.into_iter().chain(next).min().filter(|_| paused_until.is_none());
    Ok(match (another_look, paused_until.or(next)) {
        (true, _) => Wait::Not,
        (false, Some(time)) => Wait::Until(time),
        (false, None) => Wait::ForNews,
    })
}

fn throttled(shared: &Shared, until: SysTime) -> String {
    match shared.settings.smtp.messages_per_minute {
        Some(limit) => format!("throttled until {until} ({limit} messages a minute)"),
        None => format!("throttled until {until}"),
    }
}

/// Starts connections for what is ready.
fn staff(shared: &Arc<Shared>) {
    let hired = shared.lane().hire(shared.clock.now());
    for _ in 0..hired {
        shared.spawn("a connection", worker::run(Arc::clone(shared)));
    }
}

/// Tells of a spool that cannot be read or written, and until when it is left alone.
fn report(shared: &Shared, error: &SpoolError) -> SysTime {
    let until = shared.clock.now().saturating_add(SPOOL_PAUSE);
    tracing::error!(transport = %shared.settings.transport, %error, "The queue cannot be worked on");
    shared.storage_trouble(error, until);
    until
}
