//! `[hooks]`: commands that are told what happens. Nothing waits for them, and nothing depends on
//! them: a crash, or a backlog of more calls than are kept, loses some.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::hook_command::{HookEnd, call};
use crate::clock::Clock;
use crate::mapi::{EntryId, MapiResult, SysTime, tags};
use crate::observe::{Event, Family, Observer};
use crate::profile::{HooksProfile, Profile};
use crate::spool::{Envelope, HistoryEnd, RecipientState, Reply, Spool};

/// Hooks that run at the same time.
const AT_ONCE: usize = 4;

/// Calls that wait for their turn; what comes beyond is lost.
const MOST_WAITING: usize = 1000;

/// How long new mail is gathered before it is told of.
const GATHERED: Duration = Duration::from_secs(2);

/// Most messages a call about new mail describes; the rest is counted.
const MOST_DESCRIBED: usize = 20;

/// How long the end of a session waits for hooks.
const PATIENCE: Duration = Duration::from_secs(10);

/// The hooks of a session that runs.
pub(super) struct Hooks {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Hooks {
    /// Starts listening, unless the profile has no hooks.
    pub(super) fn start(
        profile: &Profile,
        spool: Arc<dyn Spool>,
        clock: Arc<dyn Clock>,
        observer: Observer,
    ) -> Option<Self> {
        let none = HooksProfile { timeout: profile.hooks.timeout, ..HooksProfile::default() };
        if profile.hooks == none {
            return None;
        }
        let stop = CancellationToken::new();
        let events = observer.events();
        let caller = Arc::new(Caller {
            profile: profile.name.clone(),
            hooks: profile.hooks.clone(),
            hidden: profile.password_variables(),
            spool,
            clock,
            observer,
            room: Semaphore::new(AT_ONCE),
            new_mail: Arc::new(Semaphore::new(1)),
        });
        let task = tokio::spawn(listen(caller, events, stop.clone()));
        Some(Hooks { stop, task: Mutex::new(Some(task)) })
    }

    /// Lets the calls that are under way come to their end, for ten seconds at most.
    pub(super) async fn finish(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(PATIENCE, &mut task).await.is_err()
        {
            tracing::warn!("Some hooks did not end in time and are ended");
            task.abort();
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// What the calls share.
struct Caller {
    profile: String,
    hooks: HooksProfile,
    hidden: Vec<String>,
    spool: Arc<dyn Spool>,
    clock: Arc<dyn Clock>,
    observer: Observer,
    room: Semaphore,
    /// One call about new mail at a time: what comes meanwhile is gathered.
    new_mail: Arc<Semaphore>,
}

async fn listen(
    caller: Arc<Caller>,
    mut events: broadcast::Receiver<Event>,
    stop: CancellationToken,
) {
    let mut calls = JoinSet::new();
    let mut gathered: Option<(SysTime, NewMail)> = None;
    loop {
        while calls.try_join_next().is_some() {}
        let ripe = async {
            match &gathered {
                Some((until, _)) => caller.clock.sleep_until(*until).await,
                None => std::future::pending().await,
            }
            Arc::clone(&caller.new_mail).acquire_owned().await
        };
        let event = tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(event) => event,
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "Hooks are behind: events are lost to them");
                    continue;
                }
                Err(RecvError::Closed) => break,
            },
            turn = ripe => {
                if let (Some((_, mail)), Ok(turn)) = (gathered.take(), turn) {
                    let caller = Arc::clone(&caller);
                    calls.spawn(async move {
                        caller.tell_new_mail(mail).await;
                        drop(turn);
                    });
                }
                continue;
            }
            () = stop.cancelled() => break,
        };
        if let Event::Received { mailbox, from, subject, .. } = event {
            if caller.hooks.on_new_mail.is_some() {
                let until = caller.clock.now().saturating_add(GATHERED);
                gathered
                    .get_or_insert_with(|| (until, NewMail::default()))
                    .1
                    .add(mailbox, from, subject);
            }
        } else if calls.len() < MOST_WAITING {
            let caller = Arc::clone(&caller);
            calls.spawn(async move { caller.tell(event).await });
        } else {
            caller.observer.counters().add(Family::Hooks, &[("result", "lost")], 1);
        }
    }
    if let Some((_, mail)) = gathered {
        calls.spawn(async move { caller.tell_new_mail(mail).await });
    }
    while calls.join_next().await.is_some() {}
}

/// The document a hook reads.
#[derive(Serialize)]
struct Document<T> {
    event: &'static str,
    profile: String,
    /// RFC 3339.
    time: String,
    #[serde(flatten)]
    what: T,
}

/// A message that was sent, or not.
#[derive(Serialize)]
struct Outgoing {
    id: String,
    message_id: String,
    transport: String,
    from: String,
    subject: String,
    submitted: String,
    attempts: u32,
    recipients: Vec<Whom>,
}

#[derive(Serialize)]
struct Whom {
    address: String,
    /// The server's words; empty for none.
    reply: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_id: Option<String>,
}

#[derive(Default, Serialize)]
struct NewMail {
    count: u64,
    mailboxes: BTreeMap<String, u64>,
    /// The first few.
    messages: Vec<Letter>,
}

#[derive(Serialize)]
struct Letter {
    mailbox: String,
    from: String,
    subject: String,
}

impl NewMail {
    fn add(&mut self, mailbox: String, from: String, subject: String) {
        self.count = self.count.saturating_add(1);
        *self.mailboxes.entry(mailbox.clone()).or_default() += 1;
        if self.messages.len() < MOST_DESCRIBED {
            self.messages.push(Letter { mailbox, from, subject });
        }
    }
}

#[derive(Serialize)]
struct SignIn {
    transport: String,
    why: String,
}

/// What is known of a message on either side of its end.
struct Known {
    transport: String,
    envelope: Envelope,
    subject: String,
    message_id: String,
    submitted: SysTime,
    attempts: u32,
}

impl Caller {
    async fn tell(&self, event: Event) {
        let told = match event {
            Event::Ended(entry) => self.tell_ended(&entry).await,
            Event::Failed { entry, rows } => self.tell_failed(&entry, rows).await,
            Event::Delayed { entry, rows } => self.tell_delayed(&entry, &rows).await,
            Event::NeedsSignIn { transport, why } => {
                let what = SignIn { transport, why };
                let command = self.hooks.on_needs_sign_in.as_deref();
                self.run("on_needs_sign_in", "needs-sign-in", command, what).await;
                Ok(())
            }
            Event::Received { .. } => Ok(()),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "A hook is not called: its message cannot be read");
        }
    }

    async fn tell_new_mail(&self, mail: NewMail) {
        self.run("on_new_mail", "new-mail", self.hooks.on_new_mail.as_deref(), mail).await;
    }

    async fn tell_ended(&self, entry: &EntryId) -> MapiResult<()> {
        let Some(command) = self.hooks.on_delivered.as_deref() else { return Ok(()) };
        let Some(history) = self.spool.history(entry).await? else { return Ok(()) };
        if history.end != HistoryEnd::Finished {
            return Ok(());
        }
        let recipients: Vec<Whom> = history
            .envelope
            .recipients
            .iter()
            .filter_map(|recipient| match &recipient.state {
                RecipientState::Delivered { reply, .. } => Some(whom(&recipient.address, reply)),
                _ => None,
            })
            .collect();
        if recipients.is_empty() {
            return Ok(());
        }
        let Some(known) = self.known(entry).await? else { return Ok(()) };
        let what = known.outgoing(entry, recipients);
        self.run("on_delivered", "delivered", Some(command), what).await;
        Ok(())
    }

    async fn tell_failed(&self, entry: &EntryId, rows: Vec<(u32, String)>) -> MapiResult<()> {
        let Some(command) = self.hooks.on_failed.as_deref() else { return Ok(()) };
        let Some(known) = self.known(entry).await? else { return Ok(()) };
        let recipients = rows
            .into_iter()
            .map(|(row, reply)| Whom { address: known.address(row), reply, queue_id: None })
            .collect();
        let what = known.outgoing(entry, recipients);
        self.run("on_failed", "failed", Some(command), what).await;
        Ok(())
    }

    async fn tell_delayed(&self, entry: &EntryId, rows: &[u32]) -> MapiResult<()> {
        let Some(command) = self.hooks.on_delayed.as_deref() else { return Ok(()) };
        let Some(known) = self.known(entry).await? else { return Ok(()) };
        let recipients = known
            .envelope
            .recipients
            .iter()
            .filter(|recipient| rows.contains(&recipient.row))
            .map(|recipient| match &recipient.state {
                RecipientState::Deferred { reply } => whom(&recipient.address, reply),
                _ => whom(&recipient.address, &Reply::default()),
            })
            .collect();
        let what = known.outgoing(entry, recipients);
        self.run("on_delayed", "delayed", Some(command), what).await;
        Ok(())
    }

    /// The message from its history, from the queue, or from the Outbox alone.
    async fn known(&self, entry: &EntryId) -> MapiResult<Option<Known>> {
        if let Some(queue) = self.spool.queue(entry).await? {
            return Ok(Some(Known {
                transport: queue.transport,
                envelope: queue.envelope,
                subject: queue.subject,
                message_id: queue.message_id,
                submitted: queue.submitted,
                attempts: queue.attempts,
            }));
        }
        if let Some(outbox) = self.spool.outbox(entry).await? {
            let text = |tag| outbox.props.text(tag).unwrap_or_default().to_owned();
            let recipients = outbox.others(&[], SysTime::EPOCH);
            let from = match outbox.props.text(tags::ENVELOPE_SENDER) {
                Some(from) => from.to_owned(),
                None => text(tags::SENDER_EMAIL_ADDRESS),
            };
            return Ok(Some(Known {
                transport: String::new(),
                envelope: Envelope { from, recipients, ..Envelope::default() },
                subject: text(tags::SUBJECT),
                message_id: text(tags::INTERNET_MESSAGE_ID),
                submitted: outbox.submitted,
                attempts: 0,
            }));
        }
        Ok(self.spool.history(entry).await?.map(|history| Known {
            transport: history.transport,
            envelope: history.envelope,
            subject: history.subject,
            message_id: history.message_id,
            submitted: history.submitted,
            attempts: history.attempts,
        }))
    }

    /// Calls one hook when it is its turn, and says in the log how that ended.
    async fn run<T: Serialize>(
        &self,
        hook: &'static str,
        event: &'static str,
        command: Option<&[String]>,
        what: T,
    ) {
        let Some(command) = command else { return };
        let Ok(_place) = self.room.acquire().await else { return };
        let (profile, time) = (self.profile.clone(), self.clock.now().to_string());
        let mut input = match serde_json::to_vec(&Document { event, profile, time, what }) {
            Ok(input) => input,
            Err(error) => return tracing::error!(hook, %error, "A hook's document fails"),
        };
        input.push(b'\n');
        let end = call(command, &self.hidden, input, self.hooks.timeout).await;
        let result = match &end {
            HookEnd::Exited(status, _) if status.success() => {
                tracing::info!(hook, exit = 0, "A hook was called");
                "done"
            }
            HookEnd::Exited(status, said) => {
                tracing::warn!(hook, %status, said, "A hook failed");
                "failed"
            }
            HookEnd::TimedOut => {
                let seconds = self.hooks.timeout.as_secs_f32();
                tracing::warn!(hook, seconds, "A hook took too long and was ended");
                "timeout"
            }
            HookEnd::NotStarted(error) => {
                tracing::warn!(hook, %error, "A hook could not be started");
                "not-started"
            }
        };
        self.observer.counters().add(Family::Hooks, &[("hook", hook), ("result", result)], 1);
    }
}

impl Known {
    fn address(&self, row: u32) -> String {
        let mut recipients = self.envelope.recipients.iter();
        recipients.find(|one| one.row == row).map(|one| one.address.clone()).unwrap_or_default()
    }

    fn outgoing(self, entry: &EntryId, recipients: Vec<Whom>) -> Outgoing {
        Outgoing {
            id: entry.to_string(),
            message_id: self.message_id,
            transport: self.transport,
            from: self.envelope.from,
            subject: self.subject,
            submitted: self.submitted.to_string(),
            attempts: self.attempts,
            recipients,
        }
    }
}

fn whom(address: &str, reply: &Reply) -> Whom {
    Whom {
        address: address.to_owned(),
        reply: reply.to_string(),
        queue_id: reply.queue_id().map(str::to_owned),
    }
}
