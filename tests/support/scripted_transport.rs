//! A transport that answers whatever a test tells it, and writes down every call in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use postrider::mapi::{
    DeinitFlags, EndMessageFlags, EntryId, FlushFlags, LogoffFlags, LogonFlags, LogonOutFlags,
    MapiCode, MapiError, MapiResult, MessageRef, ModifyStatusFlags, SPI_VERSION, SpoolerNotify,
    StatusCode, SubmitMessageFlags, TransportNotify, ValidateFlags,
};
use postrider::spi::{
    AddressTypes, Incoming, LogonOutcome, Message, MessageRefCell, NotifyData, Repetition,
    StatusColumns, StatusObject, SubmitError, Support, XpLogon, XpProvider, Yield,
};
use tokio::sync::watch;

/// What one SubmitMessage and the EndMessage behind it answer.
#[derive(Clone, Debug)]
pub enum Script {
    /// Takes responsibility for its recipients and answers 0.
    Send,
    /// END_DONT_RESEND.
    Defer,
    /// END_DONT_RESEND, and NOTIFY_SENTDEFERRED before EndMessage has returned.
    DeferBriefly,
    /// END_RESEND_LATER.
    ResendLater,
    /// END_RESEND_NOW.
    ResendNow,
    /// An error of SubmitMessage.
    Refuse(MapiCode, Option<Duration>),
    /// An error of EndMessage.
    RefuseAtEnd(MapiCode),
    /// SubmitMessage never returns.
    Hang,
    /// EndMessage never returns.
    HangAtEnd,
    /// SubmitMessage returns with E_CANCEL when it is cancelled by its reference, not before.
    HangUntilCancelled,
    /// SubmitMessage calls SpoolerYield until the answer is W_CANCEL_MESSAGE, and returns with
    /// E_USER_CANCEL.
    Yield,
    /// SubmitMessage panics.
    Panic,
    /// EndMessage panics.
    PanicAtEnd,
}

/// Where the order of LG-1 stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Initialized,
    LoggedOn,
    AddressTypesAsked,
    Begun,
    LoggedOff,
    Released,
    ShutDown,
}

/// The provider and its only logon.
pub struct ScriptedTransport {
    pub types: AddressTypes,
    pub out_flags: LogonOutFlags,
    /// What TransportLogon answers, each time.
    pub logon_error: Option<MapiError>,
    /// What TransportLogon answers first, each once.
    pub logon_errors: Mutex<VecDeque<MapiError>>,
    /// Calls that never return, by their names here.
    pub hangs: Vec<&'static str>,
    /// Calls that panic, each once, by their names here.
    pub panics: Mutex<Vec<&'static str>>,
    phase: Mutex<Phase>,
    /// Calls that came out of order.
    violations: Mutex<Vec<String>>,
    cancelled: watch::Sender<Vec<MessageRef>>,
    script: Mutex<VecDeque<Script>>,
    incoming: Mutex<VecDeque<Vec<u8>>>,
    calls: Mutex<Vec<String>>,
    seen: watch::Sender<usize>,
    support: OnceLock<Arc<dyn Support>>,
    state: Mutex<StatusCode>,
    open: Mutex<Vec<(MessageRef, Script, Option<EntryId>)>>,
}

impl ScriptedTransport {
    pub fn new(types: &[&str]) -> Self {
        ScriptedTransport {
            types: AddressTypes::These {
                types: types.iter().map(|kind| (*kind).to_owned()).collect(),
                uids: Vec::new(),
            },
            out_flags: LogonOutFlags::empty(),
            logon_error: None,
            logon_errors: Mutex::default(),
            hangs: Vec::new(),
            panics: Mutex::default(),
            phase: Mutex::default(),
            violations: Mutex::default(),
            cancelled: watch::Sender::new(Vec::new()),
            script: Mutex::default(),
            incoming: Mutex::default(),
            calls: Mutex::default(),
            seen: watch::Sender::new(0),
            support: OnceLock::new(),
            state: Mutex::new(StatusCode::AVAILABLE),
            open: Mutex::default(),
        }
    }

    /// What the next calls answer; after the last, [`Script::Send`].
    pub fn will(&self, script: impl IntoIterator<Item = Script>) {
        self.script.lock().unwrap().extend(script);
    }

    /// Mail that StartMessage hands over, announced by NOTIFY_NEWMAIL.
    pub fn arrive(&self, mail: impl IntoIterator<Item = Vec<u8>>) {
        self.incoming.lock().unwrap().extend(mail);
        self.signal(SpoolerNotify::NEWMAIL);
    }

    pub fn signal(&self, flags: SpoolerNotify) {
        self.support.get().unwrap().spooler_notify(flags, None);
    }

    pub fn support(&self) -> &Arc<dyn Support> {
        self.support.get().unwrap()
    }

    /// The calls so far, one word each. Each came in the order of LG-1.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap().clone();
        let violations = self.violations.lock().unwrap().clone();
        assert!(violations.is_empty(), "{violations:?} among {calls:?}");
        calls
    }

    /// Checks a call against the order of LG-1 and moves on.
    fn at(&self, call: &str, allowed: &[Phase], next: Option<Phase>) {
        let mut phase = self.phase.lock().unwrap();
        if !allowed.contains(&phase) {
            self.violations.lock().unwrap().push(format!("{call} while {phase:?}"));
        }
        if let Some(next) = next {
            *phase = next;
        }
    }

    /// Does what a test wants a call to do beside what it does.
    async fn misbehave(&self, call: &'static str) {
        if self.hangs.contains(&call) {
            std::future::pending::<()>().await;
        }
        let mut panics = self.panics.lock().unwrap();
        if let Some(at) = panics.iter().position(|other| *other == call) {
            panics.remove(at);
            drop(panics);
            panic!("as told, in {call}");
        }
    }

    /// Every call that waits for its cancel has it.
    pub fn cancel_everything(&self) {
        let all = (2..1000).map(MessageRef);
        self.cancelled.send_modify(|cancelled| cancelled.extend(all));
    }

    /// How often a call was made.
    pub fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|made| made.starts_with(call)).count()
    }

    /// Waits until a call was made `times` times.
    pub async fn wait_for(&self, call: &str, times: usize) {
        let mut seen = self.seen.subscribe();
        let wait = seen.wait_for(|_| self.count(call) >= times);
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "{call} was not called {times} times: {:?}", self.calls());
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
        self.seen.send_modify(|count| *count += 1);
    }

    fn show(&self, change: impl FnOnce(&mut StatusCode)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        let columns = StatusColumns { status_code: Some(*state), ..StatusColumns::default() };
        self.support().modify_status_row(columns, ModifyStatusFlags::UPDATE).unwrap();
    }
}

/// The provider's face; the logon is the same object.
pub struct ScriptedProvider(pub Arc<ScriptedTransport>);

#[async_trait]
impl XpProvider for ScriptedProvider {
    fn init(&self, host_version: u32) -> MapiResult<u32> {
        assert_eq!(host_version, SPI_VERSION);
        self.0.at("init", &[Phase::New], Some(Phase::Initialized));
        self.0.note("init");
        Ok(SPI_VERSION)
    }

    async fn transport_logon(
        &self,
        support: Arc<dyn Support>,
        _: LogonFlags,
    ) -> MapiResult<LogonOutcome> {
        self.0.at("logon", &[Phase::Initialized], None);
        self.0.note("logon");
        self.0.misbehave("logon").await;
        let error = self.0.logon_errors.lock().unwrap().pop_front();
        if let Some(error) = error.or_else(|| self.0.logon_error.clone()) {
            return Err(error);
        }
        self.0.at("logon", &[Phase::Initialized], Some(Phase::LoggedOn));
        let columns =
            StatusColumns { status_code: Some(StatusCode::AVAILABLE), ..StatusColumns::default() };
        support.modify_status_row(columns, ModifyStatusFlags::empty())?;
        assert!(self.0.support.set(support).is_ok(), "one logon only");
        Ok(LogonOutcome {
            logon: Arc::new(ScriptedLogon(Arc::clone(&self.0))),
            flags: self.0.out_flags,
        })
    }

    async fn shutdown(&self, _: DeinitFlags) -> MapiResult<()> {
        let ended = [Phase::Initialized, Phase::LoggedOff, Phase::Released];
        self.0.at("shutdown", &ended, Some(Phase::ShutDown));
        self.0.note("shutdown");
        self.0.misbehave("shutdown").await;
        Ok(())
    }
}

struct ScriptedLogon(Arc<ScriptedTransport>);

impl Drop for ScriptedLogon {
    fn drop(&mut self) {
        self.0.note("release");
        let mut phase = self.0.phase.lock().unwrap();
        if *phase != Phase::ShutDown {
            *phase = Phase::Released;
        }
    }
}

#[async_trait]
impl XpLogon for ScriptedLogon {
    async fn address_types(&self) -> MapiResult<AddressTypes> {
        let asked = [Phase::LoggedOn, Phase::AddressTypesAsked, Phase::Begun];
        self.0.at("address_types", &asked, None);
        self.0.note("address_types");
        self.0.misbehave("address_types").await;
        let mut phase = self.0.phase.lock().unwrap();
        if *phase == Phase::LoggedOn {
            *phase = Phase::AddressTypesAsked;
        }
        drop(phase);
        Ok(self.0.types.clone())
    }

    async fn transport_notify(
        &self,
        flags: TransportNotify,
        data: NotifyData<'_>,
    ) -> MapiResult<()> {
        let names: Vec<&str> = flags.iter_names().map(|(name, _)| name).collect();
        self.0.note(format!("notify {}", names.join("|")));
        let asked = [Phase::AddressTypesAsked, Phase::Begun];
        self.0.at("notify", &asked, Some(Phase::Begun));
        self.0.misbehave("notify").await;
        match data {
            NotifyData::EntryId(entry) => self.0.note(format!("abort {entry}")),
            NotifyData::Reference(reference) => {
                self.0.note(format!("cancel {reference}"));
                self.0.cancelled.send_modify(|cancelled| cancelled.push(reference));
            }
            NotifyData::None => {}
        }
        for (begin, end, bit) in [
            (
                TransportNotify::BEGIN_INBOUND,
                TransportNotify::END_INBOUND,
                StatusCode::INBOUND_ENABLED,
            ),
            (
                TransportNotify::BEGIN_OUTBOUND,
                TransportNotify::END_OUTBOUND,
                StatusCode::OUTBOUND_ENABLED,
            ),
            (
                TransportNotify::BEGIN_INBOUND_FLUSH,
                TransportNotify::END_INBOUND_FLUSH,
                StatusCode::INBOUND_FLUSH,
            ),
            (
                TransportNotify::BEGIN_OUTBOUND_FLUSH,
                TransportNotify::END_OUTBOUND_FLUSH,
                StatusCode::OUTBOUND_FLUSH,
            ),
        ] {
            if flags.contains(begin) {
                self.0.show(|state| *state |= bit);
            }
            if flags.contains(end) {
                self.0.show(|state| *state -= bit);
            }
        }
        Ok(())
    }

    async fn submit_message(
        &self,
        flags: SubmitMessageFlags,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> Result<(), SubmitError> {
        self.0.at("submit", &[Phase::Begun], None);
        let number = {
            let mut open = self.0.open.lock().unwrap();
            let number = MessageRef(2 + u32::try_from(open.len()).unwrap());
            reference.set(number);
            let script = self.0.script.lock().unwrap().pop_front().unwrap_or(Script::Send);
            open.push((number, script, message.entry_id()));
            number
        };
        let kind = if flags.contains(SubmitMessageFlags::BEGIN_DEFERRED) {
            "submit_deferred"
        } else {
            "submit"
        };
        let mut recipients = message.recipients().await?;
        recipients.retain(|recipient| !recipient.responsibility);
        let to: Vec<&str> = recipients.iter().map(|one| one.address.as_str()).collect();
        self.0.note(format!("{kind} {}", to.join(",")));
        let script =
            self.0.open.lock().unwrap().iter().find(|open| open.0 == number).unwrap().1.clone();
        match script {
            Script::Refuse(code, retry_after) => {
                return Err(SubmitError { error: code.into(), retry_after });
            }
            Script::Hang => std::future::pending().await,
            Script::HangUntilCancelled => {
                let mut cancelled = self.0.cancelled.subscribe();
                cancelled.wait_for(|all| all.contains(&number)).await.unwrap();
                return Err(MapiCode::CANCEL.into());
            }
            Script::Yield => {
                let entry = message.entry_id();
                let yielded = || self.0.support().spooler_yield(entry.as_ref());
                while yielded().await == Yield::Continue {
                    self.0.note("yield");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return Err(MapiCode::USER_CANCEL.into());
            }
            Script::Panic => panic!("as told, in SubmitMessage"),
            Script::Send => {
                recipients.iter_mut().for_each(|recipient| recipient.responsibility = true);
                message.modify_recipients(recipients).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn end_message(&self, reference: MessageRef) -> MapiResult<EndMessageFlags> {
        self.0.at("end", &[Phase::Begun], None);
        self.0.note("end");
        let open = self.0.open.lock().unwrap().clone();
        let (_, script, entry) = open.iter().find(|open| open.0 == reference).unwrap();
        match script {
            Script::Send => Ok(EndMessageFlags::empty()),
            Script::Defer => Ok(EndMessageFlags::DONT_RESEND),
            Script::DeferBriefly => {
                self.0.support().spooler_notify(SpoolerNotify::SENTDEFERRED, entry.as_ref());
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Ok(EndMessageFlags::DONT_RESEND)
            }
            Script::ResendLater => Ok(EndMessageFlags::RESEND_LATER),
            Script::ResendNow => Ok(EndMessageFlags::RESEND_NOW),
            Script::RefuseAtEnd(code) => Err((*code).into()),
            Script::HangAtEnd => std::future::pending().await,
            Script::PanicAtEnd => panic!("as told, in EndMessage"),
            Script::Refuse(..)
            | Script::Hang
            | Script::HangUntilCancelled
            | Script::Yield
            | Script::Panic => {
                let why = "EndMessage after a SubmitMessage that did not succeed".to_owned();
                self.0.violations.lock().unwrap().push(why);
                Err(MapiCode::INVALID_PARAMETER.into())
            }
        }
    }

    async fn poll(&self) -> MapiResult<Incoming> {
        self.0.at("poll", &[Phase::Begun], None);
        self.0.note("poll");
        self.0.misbehave("poll").await;
        match self.0.incoming.lock().unwrap().is_empty() {
            true => Ok(Incoming::None),
            false => Ok(Incoming::Waiting),
        }
    }

    async fn start_message(
        &self,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> MapiResult<()> {
        reference.set(MessageRef(1000));
        self.0.at("start", &[Phase::Begun], None);
        self.0.note("start");
        self.0.misbehave("start").await;
        let Some(mail) = self.0.incoming.lock().unwrap().pop_front() else { return Ok(()) };
        let mut sink = message.set_content().await?;
        sink.write(&mail).await?;
        sink.finish().await?;
        message.save_changes(Repetition::First).await
    }

    async fn open_status_entry(&self) -> MapiResult<Arc<dyn StatusObject>> {
        Err(MapiCode::NO_SUPPORT.into())
    }

    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()> {
        self.0.note(format!("validate {:X}", flags.bits()));
        Ok(())
    }

    async fn flush_queues(&self, flags: FlushFlags) -> MapiResult<()> {
        self.0.at("flush_queues", &[Phase::Begun], None);
        self.0.note("flush_queues");
        self.0.misbehave("flush_queues").await;
        self.0.show(|state| {
            state.set(StatusCode::OUTBOUND_FLUSH, flags.contains(FlushFlags::UPLOAD));
            state.set(StatusCode::INBOUND_FLUSH, flags.contains(FlushFlags::DOWNLOAD));
        });
        Ok(())
    }

    async fn idle(&self) -> MapiResult<()> {
        self.0.at("idle", &[Phase::Begun], None);
        self.0.note("idle");
        Ok(())
    }

    async fn transport_logoff(&self, _: LogoffFlags) -> MapiResult<()> {
        let on = [Phase::LoggedOn, Phase::AddressTypesAsked, Phase::Begun];
        self.0.at("logoff", &on, Some(Phase::LoggedOff));
        self.0.note("logoff");
        self.0.misbehave("logoff").await;
        Ok(())
    }
}
