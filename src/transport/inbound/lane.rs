//! A lane: one connection and the mailboxes it serves, from connecting to backing off.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::account::{Account, Control, Place};
use super::fault::LaneFault;
use super::mailbox::Watched;
use super::moment::Moment;
use super::session::ImapSession;
use super::work::Work;
use crate::net::LoginError;
use crate::transport::events::{Gate, TroubleKind};

/// What a lane has done of what was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// This look was made, or could not be.
    pub(super) looked: u64,
    /// Everything present at this look was handed over, or could not be.
    pub(super) drained: u64,
}

/// One connection and its mailboxes.
pub(super) struct Lane {
    pub(super) number: usize,
    /// Mailboxes by their number in the profile.
    home: Vec<usize>,
    /// Mailboxes of lanes that the server has no connection for.
    guests: Mutex<Vec<usize>>,
    wake: Notify,
    report: Mutex<Report>,
    connected: AtomicBool,
    /// The hurry that was known when the door was passed last.
    tried: AtomicU64,
    /// The door was closed for so long by whoever failed behind it.
    shut: Mutex<Option<Duration>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which mailboxes each lane serves: one lane for each while there are connections, the last lane
/// serves the rest.
pub(super) fn assign(mailboxes: usize, connections: usize) -> Vec<Arc<Lane>> {
    let count = mailboxes.min(connections.max(1));
    let lane = |number: usize| {
        let end = if number + 1 == count { mailboxes } else { number + 1 };
        Arc::new(Lane {
            number,
            home: (number..end).collect(),
            guests: Mutex::default(),
            wake: Notify::new(),
            report: Mutex::default(),
            connected: AtomicBool::new(false),
            tried: AtomicU64::new(0),
            shut: Mutex::default(),
        })
    };
    (0..count).map(lane).collect()
}

impl Lane {
    /// The mailboxes it serves now; on the first of them it may IDLE.
    pub(super) fn mailboxes(&self) -> Vec<usize> {
        let mut all = self.home.clone();
        all.extend_from_slice(&lock(&self.guests));
        all
    }

    /// Has it look at what it may have to do.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn report(&self) -> Report {
        *lock(&self.report)
    }

    pub(super) fn looked(&self, account: &Account, look: u64) {
        let mut report = lock(&self.report);
        if report.looked < look {
            report.looked = look;
            drop(report);
            account.tick();
        }
    }

    pub(super) fn drained(&self, account: &Account, look: u64) {
        self.looked(account, look);
        let mut report = lock(&self.report);
        if report.drained < look {
            report.drained = look;
            drop(report);
            account.check_flush();
        }
    }

    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::SeqCst)
    }
}

/// Whether the direction may not work.
pub(super) fn is_closed(control: &Control) -> bool {
    control.stopping || control.gate == Gate::Closed
}

/// Ends a task that is dropped.
struct Abort(JoinHandle<Result<(), LaneFault>>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a lane until the account stops.
pub(super) async fn run(account: Arc<Account>, lane: Arc<Lane>) {
    let mut control = account.control.subscribe();
    loop {
        match control.wait_for(|now| now.stopping || now.gate == Gate::Open).await {
            Ok(now) if !now.stopping => {}
            _ => break,
        }
        // In a task of its own: a panic in the parser of what a server sent ends one attempt.
        let life = tokio::spawn(connection(Arc::clone(&account), Arc::clone(&lane)));
        let outcome = match Abort(life).wait().await {
            Ok(outcome) => outcome,
            Err(error) => Err(LaneFault::Protocol(format!("the session failed: {error}"))),
        };
        lane.connected.store(false, Ordering::SeqCst);
        lane.watch_nothing(&account);
        if let Err(fault) = outcome {
            lane.stumble(&account, &fault, &mut control).await;
        }
    }
    lane.drained(&account, u64::MAX);
}

impl Abort {
    async fn wait(mut self) -> Result<Result<(), LaneFault>, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Lane {
    fn watch_nothing(&self, account: &Account) {
        let mut changed = false;
        for number in self.mailboxes() {
            if let Some(mailbox) = account.mailboxes.get(number) {
                changed |= mailbox.watch(Watched::Off);
            }
        }
        if changed {
            account.events.changed();
        }
    }

    /// Shows a fault and sees to it that nobody tries again too soon.
    async fn stumble(
        &self,
        account: &Account,
        fault: &LaneFault,
        control: &mut watch::Receiver<Control>,
    ) {
        if fault.wants_fewer_connections()
            && let Some(host) = account.lanes.iter().find(|lane| lane.is_connected())
        {
            self.stay_with(host, account, fault, control).await;
            return;
        }
        if fault.kind() == TroubleKind::Storage {
            // The host stops asking; what was fetched is fetched again later.
            drop(account.queue.withdraw_all());
        }
        let shut = lock(&self.shut).take();
        let pause = shut.unwrap_or_else(|| self.shut_door(account, fault));
        let tried = self.tried.load(Ordering::SeqCst);
        account.lane_fault(self.number, fault, pause);
        let now = *control.borrow();
        if now.hurry == tried {
            self.drained(account, now.look);
        }
        // Else another attempt follows at once; what it finds is what counts.
    }

    /// Closes the door for a while and returns for how long.
    fn shut_door(&self, account: &Account, fault: &LaneFault) -> Duration {
        let failures = account.door.failed();
        let pause = fault.pause(&account.settings.tuning, failures);
        let until = Moment::now(&*account.clock).after(pause);
        account.door.close(until, fault.kind(), self.tried.load(Ordering::SeqCst));
        pause
    }

    /// The server has too many connections of this account: another lane serves the mailboxes of
    /// this one for a while.
    async fn stay_with(
        &self,
        host: &Lane,
        account: &Account,
        fault: &LaneFault,
        control: &mut watch::Receiver<Control>,
    ) {
        tracing::info!(
            transport = %account.settings.transport,
            "{}; lane {} is served by lane {}",
            fault.words(account.connector.name()), self.number, host.number
        );
        account.trouble(Place::Lane(self.number), None);
        lock(&host.guests).extend_from_slice(&self.home);
        // Whoever waits for this lane waits for the host from now on, which looks anew.
        account.ask_for_look(false);
        let (_, longest) = account.settings.tuning.throttle_pause;
        let home_again = Moment::now(&*account.clock).after(longest).come(&*account.clock);
        tokio::pin!(home_again);
        loop {
            let now = *control.borrow_and_update();
            if is_closed(&now) || !host.is_connected() {
                break;
            }
            self.drained(account, now.look);
            let mut tick = account.tick.subscribe();
            tokio::select! {
                () = &mut home_again => break,
                changed = control.changed() => if changed.is_err() { break },
                // The host may have lost its connection.
                _ = tick.changed() => {}
            }
        }
        lock(&host.guests).retain(|number| !self.home.contains(number));
    }

    /// Waits for its turn at the door and for the end of a pause. False when the direction was
    /// closed meanwhile.
    async fn wait_at_door<'a>(
        &self,
        account: &'a Account,
        control: &mut watch::Receiver<Control>,
    ) -> Option<tokio::sync::MutexGuard<'a, ()>> {
        let turn = account.door.turn.lock();
        tokio::pin!(turn);
        let mut mine = None;
        let mut tick = account.tick.subscribe();
        loop {
            let now = *control.borrow_and_update();
            if is_closed(&now) {
                return None;
            }
            account.door.hurry(now.hurry);
            let until = account.door.not_before();
            let open = until.is_over(Moment::now(&*account.clock));
            if open && mine.is_some() {
                self.tried.store(now.hurry, Ordering::SeqCst);
                return mine;
            }
            if !open {
                // Nothing can be had before that; who waits for a look need not wait longer.
                self.drained(account, now.look);
            }
            let pause = if open { Moment::NEVER } else { until };
            tokio::select! {
                guard = &mut turn, if mine.is_none() => mine = Some(guard),
                changed = control.changed() => if changed.is_err() { return None },
                () = pause.come(&*account.clock), if !open => {}
                _ = tick.changed(), if mine.is_none() => {}
            }
        }
    }
}

/// The life of one connection. `Ok` when the direction was closed, or the connection was given up
/// and another one is to follow at once.
async fn connection(account: Arc<Account>, lane: Arc<Lane>) -> Result<(), LaneFault> {
    let mut control = account.control.subscribe();
    let Some(turn) = lane.wait_at_door(&account, &mut control).await else { return Ok(()) };
    let connecting = connect(&account);
    tokio::pin!(connecting);
    let session = loop {
        tokio::select! {
            session = &mut connecting => match session {
                Ok(session) => break session,
                Err(fault) => {
                    let elsewhere = account.lanes.iter().any(|lane| lane.is_connected());
                    if !(elsewhere && fault.wants_fewer_connections()) {
                        // Before the next lane takes its turn: one attempt is enough to know.
                        let pause = lane.shut_door(&account, &fault);
                        *lock(&lane.shut) = Some(pause);
                    }
                    return Err(fault);
                }
            },
            changed = control.changed() => {
                if changed.is_err() || is_closed(&control.borrow_and_update()) {
                    return Ok(());
                }
            }
        }
    };
    drop(turn);
    lane.connected.store(true, Ordering::SeqCst);
    account.note_push(session.capabilities().has("IDLE"));
    let goodbye = account.settings.tuning.idle_done.min(Duration::from_secs(5));
    let mut work = Work::new(Arc::clone(&account), lane, session, control);
    let served = work.serve().await;
    if work.is_forsaken() {
        return Ok(());
    }
    if let Err(LaneFault::LoginLost(words)) = &served
        && renewed(&account).await?
    {
        tracing::info!(transport = %account.settings.transport, "the login has run out ({words})");
        return Ok(());
    }
    served?;
    work.finish().await?;
    work.into_session().logout(goodbye).await;
    Ok(())
}

/// Connects and logs in with the password as its source has it now. A token that is refused is
/// renewed, and the login tried once more over a new connection.
pub(super) async fn connect(account: &Account) -> Result<ImapSession, LaneFault> {
    let source = &account.settings.imap.credentials.password;
    let secret = source.secret().await.map_err(LaneFault::Secret)?;
    let mut session = match open(account, &secret).await {
        Err(LaneFault::Login(refused @ LoginError::Refused { .. })) => {
            match source.renew(&secret).await.map_err(LaneFault::Secret)? {
                Some(fresh) => open(account, &fresh).await?,
                None => return Err(refused.into()),
            }
        }
        opened => opened?,
    };
    if account.has_levels() {
        account.note_delimiter(session.delimiter().await?);
    }
    Ok(session)
}

/// Has the token of a login that has run out renewed. False where there is no other.
async fn renewed(account: &Account) -> Result<bool, LaneFault> {
    let source = &account.settings.imap.credentials.password;
    let secret = source.secret().await.map_err(LaneFault::Secret)?;
    Ok(source.renew(&secret).await.map_err(LaneFault::Secret)?.is_some())
}

async fn open(account: &Account, secret: &SecretString) -> Result<ImapSession, LaneFault> {
    let login = account.settings.imap.login(secret, &account.memory);
    ImapSession::open(&account.connector, login, account.settings.tuning).await
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lane_serves_the_rest() {
        let homes = |mailboxes, connections| -> Vec<Vec<usize>> {
            assign(mailboxes, connections).iter().map(|lane| lane.mailboxes()).collect()
        };
        assert_eq!(homes(1, 4), [vec![0]]);
        assert_eq!(homes(3, 3), [vec![0], vec![1], vec![2]]);
        assert_eq!(homes(5, 2), [vec![0], vec![1, 2, 3, 4]]);
        assert_eq!(homes(2, 0), [vec![0, 1]]);
    }
}
