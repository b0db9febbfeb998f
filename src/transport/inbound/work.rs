//! What a lane does with its connection: rounds over its mailboxes, and rest in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::account::{Account, Control, Place};
use super::fault::LaneFault;
use super::lane::{Lane, is_closed};
use super::mailbox::{Mailbox, Watched};
use super::moment::Moment;
use super::session::{Idling, ImapSession};

/// Longest pause between two looks that a server asks for again and again without having
/// anything new.
const LONGEST_CALM: Duration = Duration::from_secs(5);

/// Rounds without one mailbox that could be looked at, after which another connection is tried.
const MOST_LOST_ROUNDS: u32 = 3;

/// A lane at work.
pub(super) struct Work {
    pub(super) account: Arc<Account>,
    pub(super) lane: Arc<Lane>,
    pub(super) session: ImapSession,
    pub(super) control: watch::Receiver<Control>,
    /// The mailbox that is open, by its number.
    pub(super) selected: Option<usize>,
    /// Whether it may be changed.
    pub(super) writable: bool,
    /// When the set aside messages of a mailbox are taken up again, and the hurry in which they
    /// were last.
    pub(super) retried: BTreeMap<usize, (Moment, u64)>,
    /// Mailboxes whose `after` actions failed since the last round.
    pub(super) after_failed: BTreeSet<usize>,
    /// Mailboxes whose last look was refused.
    pub(super) refused: BTreeSet<usize>,
    /// Looks in a row that were asked for by IDLE and found nothing.
    empty_wakes: u32,
    idle_refused: bool,
    /// Rounds in a row in which no mailbox could be looked at.
    lost_rounds: u32,
    /// An answer of the server was given up half way.
    forsaken: bool,
    /// When the last round over all mailboxes ended.
    round_at: Moment,
}

/// How a look at a mailbox begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The mailbox is opened anew, which says in one answer whether anything is new.
    Open,
    /// The mailbox is open and the server says that it has changed.
    News,
}

/// What a visit to a mailbox brought.
enum Visit {
    Found,
    Nothing,
    /// The server refused something about this mailbox.
    Refused(LaneFault),
}

enum Rest {
    /// It is time for a round over all mailboxes.
    Round,
    /// The server says that the first mailbox has changed.
    News,
    /// The direction is closed.
    Close,
}

impl Work {
    pub(super) fn new(
        account: Arc<Account>,
        lane: Arc<Lane>,
        session: ImapSession,
        control: watch::Receiver<Control>,
    ) -> Self {
        Work {
            account,
            lane,
            session,
            control,
            selected: None,
            writable: false,
            retried: BTreeMap::new(),
            after_failed: BTreeSet::new(),
            refused: BTreeSet::new(),
            empty_wakes: 0,
            idle_refused: false,
            lost_rounds: 0,
            forsaken: false,
            round_at: Moment::PAST,
        }
    }

    pub(super) fn into_session(self) -> ImapSession {
        self.session
    }

    /// Gives up the connection amid an answer that nobody wants any more.
    pub(super) fn forsake(&mut self) -> LaneFault {
        self.forsaken = true;
        LaneFault::Lost("what it was sending is not wanted any more".into())
    }

    /// Whether the connection was given up by us: that is no trouble.
    pub(super) fn is_forsaken(&self) -> bool {
        self.forsaken
    }

    pub(super) fn closed(&self) -> bool {
        is_closed(&self.control.borrow())
    }

    pub(super) fn mailbox(&self, number: usize) -> Option<Arc<Mailbox>> {
        self.account.mailboxes.get(number).map(Arc::clone)
    }

    /// Works until the direction is closed.
    pub(super) async fn serve(&mut self) -> Result<(), LaneFault> {
        loop {
            let look = self.control.borrow_and_update().look;
            self.after_failed.clear();
            let mut refused = None;
            let mut seen = false;
            for number in self.lane.mailboxes() {
                if self.closed() {
                    return Ok(());
                }
                match self.visit(number, Look::Open).await? {
                    Visit::Refused(fault) => refused = Some(fault),
                    Visit::Found | Visit::Nothing => seen = true,
                }
            }
            self.lost_rounds = if seen { 0 } else { self.lost_rounds.saturating_add(1) };
            if let Some(fault) = refused.filter(|_| self.lost_rounds >= MOST_LOST_ROUNDS) {
                // The fault may be with this session.
                return Err(fault);
            }
            if self.closed() {
                return Ok(());
            }
            self.account.door.succeeded();
            self.account.trouble(Place::Lane(self.lane.number), None);
            self.lane.looked(&self.account, look);
            self.round_at = self.now();
            loop {
                match self.rest(look).await? {
                    Rest::Round => break,
                    Rest::Close => return Ok(()),
                    Rest::News => {
                        let Some(first) = self.lane.mailboxes().first().copied() else { break };
                        self.empty_wakes = match self.visit(first, Look::News).await? {
                            Visit::Found => 0,
                            _ => self.empty_wakes.saturating_add(1),
                        };
                    }
                }
            }
        }
    }

    /// Looks at one mailbox; a fault of that mailbox alone is shown and survived.
    async fn visit(&mut self, number: usize, look: Look) -> Result<Visit, LaneFault> {
        match self.pass(number, look).await {
            Ok(found) => {
                self.refused.remove(&number);
                self.account.trouble(Place::Mailbox(number), None);
                if self.mailbox(number).is_some_and(|mailbox| mailbox.owed_count() == 0) {
                    // Done by another connection, or void with its numbers.
                    self.account.trouble(Place::Owed(number), None);
                }
                Ok(if found { Visit::Found } else { Visit::Nothing })
            }
            Err(fault) if fault.spares_the_connection() => {
                self.account.mailbox_fault(number, &fault);
                self.selected = None;
                self.refused.insert(number);
                Ok(Visit::Refused(fault))
            }
            Err(fault) => Err(fault),
        }
    }

    fn may_idle(&self) -> bool {
        self.account.settings.imap.push
            && !self.idle_refused
            && self.session.capabilities().has("IDLE")
    }

    /// When the next round is due; sooner once IDLE turns out not to work.
    fn next_round(&self) -> Moment {
        let under_push = self.may_idle() && self.lane.mailboxes().len() == 1;
        let pause = if under_push {
            self.account.settings.tuning.safety_look
        } else {
            self.account.settings.imap.poll_interval
        };
        self.round_at.after(pause)
    }

    fn now(&self) -> Moment {
        Moment::now(&*self.account.clock)
    }

    /// Waits for something to do.
    async fn rest(&mut self, look: u64) -> Result<Rest, LaneFault> {
        let mut idling: Option<(Idling, Moment)> = None;
        loop {
            let control = *self.control.borrow_and_update();
            let now = self.now();
            let retry = self.next_retry();
            let next_round = self.next_round();
            let due = if is_closed(&control) {
                Some(Rest::Close)
            } else if control.look != look
                || next_round.is_over(now)
                || retry.is_some_and(|at| at.is_over(now))
            {
                Some(Rest::Round)
            } else {
                None
            };
            let owing = self.owing();
            if due.is_some() || owing.is_some() {
                self.end_idle(&mut idling).await?;
            }
            if let Some(rest) = due {
                return Ok(rest);
            }
            if let Some(number) = owing {
                self.settle_owed(number).await?;
                continue;
            }
            self.report_drained(look, now);
            if idling.is_none() {
                if self.has_news() {
                    self.calm().await;
                    return Ok(Rest::News);
                }
                idling = self.begin_idle(now).await?;
            }
            let next_round = self.next_round();
            let renew = match &idling {
                Some((_, renew)) => *renew,
                None => now.after(self.account.settings.tuning.idle_renew),
            };
            let until = retry.unwrap_or(Moment::NEVER).first(next_round).first(renew);
            let mut news = false;
            let mut timer = false;
            tokio::select! {
                changed = self.control.changed() => {
                    if changed.is_err() {
                        return Ok(Rest::Close);
                    }
                }
                () = self.lane.woken() => {}
                () = until.come(&*self.account.clock) => timer = true,
                heard = wait_idle(&mut self.session, &idling) => {
                    heard?;
                    news = true;
                }
            }
            if news {
                self.calm().await;
                self.end_idle(&mut idling).await?;
                return Ok(Rest::News);
            }
            if timer && renew.is_over(self.now()) {
                match idling {
                    Some(_) => self.end_idle(&mut idling).await?,
                    None => self.session.noop().await?,
                }
            }
        }
    }

    /// Whether the server has said, beside other answers, that the first mailbox has grown.
    fn has_news(&self) -> bool {
        self.session.has_news() && self.selected == self.lane.mailboxes().first().copied()
    }

    /// A server that announces the same thing over and over is followed more and more slowly.
    async fn calm(&self) {
        if self.empty_wakes > 2 {
            let pause = Duration::from_millis(50 << self.empty_wakes.min(10)).min(LONGEST_CALM);
            tokio::time::sleep(pause).await;
        }
    }

    async fn begin_idle(&mut self, now: Moment) -> Result<Option<(Idling, Moment)>, LaneFault> {
        let mailboxes = self.lane.mailboxes();
        let Some(first) = mailboxes.first().copied() else { return Ok(None) };
        let mut begun = None;
        if self.may_idle() {
            if self.selected != Some(first) {
                self.reopen(first).await?;
            }
            if self.selected == Some(first) {
                begun = self.session.idle_begin().await?;
                if begun.is_none() {
                    self.idle_refused = true;
                    self.account.note_push(false);
                }
            }
        }
        let mut changed = false;
        for number in mailboxes {
            let idle = begun.is_some() && number == first;
            let watched = if idle { Watched::Idle } else { Watched::Poll };
            changed |= self.mailbox(number).is_some_and(|mailbox| mailbox.watch(watched));
        }
        if changed {
            self.account.events.changed();
        }
        let renew = now.after(self.account.settings.tuning.idle_renew);
        Ok(begun.map(|idling| (idling, renew)))
    }

    async fn end_idle(&mut self, idling: &mut Option<(Idling, Moment)>) -> Result<(), LaneFault> {
        match idling.take() {
            Some((idling, _)) => self.session.idle_end(idling).await,
            None => Ok(()),
        }
    }

    fn all(&self) -> impl Iterator<Item = (usize, Arc<Mailbox>)> + '_ {
        self.lane
            .mailboxes()
            .into_iter()
            .filter_map(|number| self.mailbox(number).map(|mailbox| (number, mailbox)))
    }

    fn next_retry(&self) -> Option<Moment> {
        self.all().filter_map(|(_, mailbox)| mailbox.next_retry()).reduce(Moment::first)
    }

    /// A mailbox with owed actions and nothing on its way that would add more.
    fn owing(&self) -> Option<usize> {
        let worth = self.account.settings.tuning.after_batch;
        self.all()
            .find(|(number, mailbox)| {
                let owed = mailbox.owed_count();
                owed > 0
                    && !self.after_failed.contains(number)
                    && (owed >= worth || !mailbox.has_in_flight())
            })
            .map(|(number, _)| number)
    }

    fn report_drained(&self, look: u64, now: Moment) {
        if self.all().all(|(_, mailbox)| mailbox.is_drained(now)) {
            self.lane.drained(&self.account, look);
        }
    }

    /// The direction is closed: takes back what the host has not begun with, waits for what it
    /// has, and does what is owed (TN-7).
    pub(super) async fn finish(&mut self) -> Result<(), LaneFault> {
        for (_, mailbox) in self.all() {
            self.take_back(&mailbox);
        }
        let keepalive = self.account.settings.tuning.idle_renew;
        while self.all().any(|(_, mailbox)| mailbox.has_in_flight()) {
            if tokio::time::timeout(keepalive, self.lane.woken()).await.is_err() {
                self.session.noop().await?;
            }
        }
        self.after_failed.clear();
        while let Some(number) = self.owing() {
            self.settle_owed(number).await?;
        }
        let control = *self.control.borrow();
        if is_closed(&control) {
            // Who asked meanwhile, with the direction open again, is answered by the next
            // connection.
            self.lane.drained(&self.account, control.look);
        }
        Ok(())
    }

    /// Takes back what of a mailbox the host has not begun with.
    pub(super) fn take_back(&self, mailbox: &Arc<Mailbox>) {
        drop(self.account.queue.withdraw(mailbox));
    }
}

/// Waits for news; forever when there is no IDLE.
async fn wait_idle(
    session: &mut ImapSession,
    idling: &Option<(Idling, Moment)>,
) -> Result<(), LaneFault> {
    match idling {
        Some(_) => session.idle_wait().await,
        None => std::future::pending().await,
    }
}
