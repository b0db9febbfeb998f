//! The status report: the status table, the counts of the queue, the mailboxes.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;

use super::queue_view;
use super::{
    InboundMode, InboundState, Logon, OwedCopiesView, Session, StatusReport, StatusRowView,
};
use crate::clock::{Clock, SystemClock};
use crate::mapi::{MapiCode, MapiResult, StatusCode, SysTime};
use crate::profile::{Profile, TransportProfile, token_store};
use crate::spi::{StatusRow, StatusRowKind};
use crate::spool::{AccountKey, Spool};
use crate::spooler::{StatusSubscription, StatusTable, stopped_row};
use crate::store::LocalStore;
use crate::transport::{SmtpImapProvider, Watched};

/// The report as of now.
pub(super) async fn report(session: &Session) -> MapiResult<StatusReport> {
    let rows = match session.status_table() {
        Some(table) if session.logon != Logon::Offline => table.rows(),
        _ => stopped_rows(session),
    };
    complete(session, rows).await
}

/// The report now and after each change of the status table.
pub(super) async fn watch(
    session: &Session,
) -> MapiResult<Pin<Box<dyn Stream<Item = StatusReport> + Send>>> {
    let subscription = session.running()?.spooler.status_table().subscribe();
    let context = Watcher {
        profile: session.profile.clone(),
        state_folder: session.state_folder.clone(),
        spool: Arc::clone(&session.spool),
        store: Arc::clone(&session.store),
        traffic: session.traffic(),
        provider: Arc::clone(&session.running()?.provider),
        subscription,
        report: report(session).await?,
    };
    Ok(Box::pin(stream::unfold(context, |mut context| async move {
        let report = context.next().await;
        Some((report, context))
    })))
}

/// What a watcher needs once it has left the session.
struct Watcher {
    profile: Profile,
    state_folder: PathBuf,
    spool: Arc<dyn Spool>,
    store: Arc<LocalStore>,
    traffic: queue_view::Traffic,
    provider: Arc<SmtpImapProvider>,
    subscription: StatusSubscription,
    report: StatusReport,
}

impl Watcher {
    async fn next(&mut self) -> StatusReport {
        self.subscription.changed().await;
        let rows = self.subscription.table().rows();
        self.report.profile.clone_from(&self.profile.name);
        self.report.needs_sign_in = needs_sign_in(&self.profile, &self.state_folder);
        self.report.rows = rows.iter().map(row_view).collect();
        self.report.queue = queue_view::counts(self.spool.counts(), self.traffic);
        self.report.last_error = rows.iter().find_map(row_trouble);
        // What cannot be counted now is as it was.
        if let Ok(owed) = owed_copies(&self.profile, &self.store).await {
            self.report.owed_copies = owed;
        }
        show_waits(&mut self.report, &self.provider);
        show_failure(&mut self.report, self.spool.as_ref());
        self.report.clone()
    }
}

/// A spool that takes nothing more is everybody's trouble: the spooler's row says so.
fn show_failure(report: &mut StatusReport, spool: &dyn Spool) {
    let Some(failure) = spool.failure() else { return };
    let words = format!("{failure} ({})", MapiCode::DISK_ERROR);
    for row in report.rows.iter_mut().filter(|row| row.kind == StatusRowKind::Spooler) {
        let code = StatusCode::from_bits_retain(row.status_code) | StatusCode::FAILURE;
        row.status_code = code.bits();
        row.flags = code.names();
        row.status_string.clone_from(&words);
    }
    report.last_error = Some(words);
}

async fn complete(session: &Session, rows: Vec<StatusRow>) -> MapiResult<StatusReport> {
    let mut report = StatusReport {
        profile: session.profile.name.clone(),
        pid: std::process::id(),
        rows: rows.iter().map(row_view).collect(),
        queue: queue_view::counts(session.spool.counts(), session.traffic()),
        inbound: mailboxes(session).await?,
        last_error: rows.iter().find_map(row_trouble),
        next_attempt: next_attempt(session).await?.map(|time| time.to_string()),
        needs_sign_in: needs_sign_in(&session.profile, &session.state_folder),
        owed_copies: owed_copies(&session.profile, &session.store).await?,
    };
    if let Some(running) = &session.running {
        show_waits(&mut report, &running.provider);
    }
    show_failure(&mut report, session.spool.as_ref());
    Ok(report)
}

/// The transports that nobody is signed in to, as far as their stores tell: small files, which are
/// read here and now.
fn needs_sign_in(profile: &Profile, state_folder: &Path) -> Vec<String> {
    let now = SystemClock.now();
    let needs = |transport: &&TransportProfile| {
        transport.oauth2.is_some()
            && token_store(state_folder, transport).standing(now).needs_sign_in()
    };
    profile.transports.iter().filter(needs).map(|transport| transport.name.clone()).collect()
}

/// The sent copies that servers are to get. That is a look into one folder for each account.
async fn owed_copies(profile: &Profile, store: &LocalStore) -> MapiResult<Vec<OwedCopiesView>> {
    let mut owed = Vec::new();
    for transport in &profile.transports {
        let count = store.owed_copies(&transport.name).await?.len();
        if count > 0 {
            owed.push(OwedCopiesView {
                transport: transport.name.clone(),
                count: u64::try_from(count).unwrap_or(u64::MAX),
                why: store.trouble_of(&transport.name),
            });
        }
    }
    Ok(owed)
}

/// One sentence for each row in trouble.
pub(super) fn troubles(table: &StatusTable) -> Vec<String> {
    table
        .rows()
        .iter()
        .filter_map(|row| row_trouble(row).map(|words| format!("{}: {words}", row.display_name)))
        .collect()
}

fn row_trouble(row: &StatusRow) -> Option<String> {
    row.status_code
        .intersects(StatusCode::FAILURE | StatusCode::OFFLINE)
        .then(|| row.status_string.clone())
}

fn row_view(row: &StatusRow) -> StatusRowView {
    StatusRowView {
        name: row.display_name.clone(),
        kind: row.kind,
        status_code: row.status_code.bits(),
        flags: row.status_code.names(),
        status_string: row.status_string.clone(),
        sending_waits: None,
    }
}

/// Notes which transports do not send, and why.
fn show_waits(report: &mut StatusReport, provider: &SmtpImapProvider) {
    for row in report.rows.iter_mut().filter(|row| row.kind == StatusRowKind::Transport) {
        row.sending_waits = provider.sending_trouble(&row.name);
    }
}

/// What the table would hold if the transports were logged on.
fn stopped_rows(session: &Session) -> Vec<StatusRow> {
    let names = session.profile.transports.iter().map(|transport| transport.name.as_str());
    (1..).zip(names).map(|(row_id, name)| stopped_row(row_id, name)).collect()
}

async fn mailboxes(session: &Session) -> MapiResult<Vec<InboundState>> {
    if let (Some(running), false) = (&session.running, session.logon == Logon::Offline) {
        return Ok(running
            .provider
            .mailboxes()
            .into_iter()
            .map(|(transport, state)| InboundState {
                transport,
                mailbox: state.mailbox,
                mode: match state.mode {
                    Watched::Idle => InboundMode::Idle,
                    Watched::Poll => InboundMode::Poll,
                    Watched::Off => InboundMode::Off,
                },
                last_uid: state.last_uid,
                pending: state.pending,
                set_aside: state.set_aside,
                set_aside_why: Some(state.set_aside_why).filter(|why| !why.is_empty()),
            })
            .collect());
    }
    let mut states = Vec::new();
    for transport in &session.profile.transports {
        let account = AccountKey::of(&transport.name);
        for mailbox in transport.imap.iter().flat_map(|imap| &imap.mailboxes) {
            let cursor = session.spool.cursor(account, mailbox).await?.unwrap_or_default();
            states.push(InboundState {
                transport: transport.name.clone(),
                mailbox: mailbox.clone(),
                mode: InboundMode::Off,
                last_uid: cursor.last_uid,
                pending: 0,
                set_aside: cursor.set_aside,
                set_aside_why: None,
            });
        }
    }
    Ok(states)
}

/// When the first message of any transport is due next.
async fn next_attempt(session: &Session) -> MapiResult<Option<SysTime>> {
    let mut next = None;
    for transport in session.profile.transports.iter().filter(|one| one.smtp.is_some()) {
        let account = AccountKey::of(&transport.name);
        let due = session.spool.due(account, SysTime::EPOCH, 0, &|_| false).await?;
        next = [next, due.next].into_iter().flatten().min();
    }
    Ok(next)
}
