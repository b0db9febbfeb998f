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
    StatusColumns, StatusObject, SubmitError, Support, XpLogon, XpProvider,
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
}

/// The provider and its only logon.
pub struct ScriptedTransport {
    pub types: AddressTypes,
    pub out_flags: LogonOutFlags,
    pub logon_error: Option<MapiError>,
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

    /// The calls so far, one word each.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
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
        self.0.note("init");
        Ok(SPI_VERSION)
    }

    async fn transport_logon(
        &self,
        support: Arc<dyn Support>,
        _: LogonFlags,
    ) -> MapiResult<LogonOutcome> {
        self.0.note("logon");
        if let Some(error) = &self.0.logon_error {
            return Err(error.clone());
        }
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
        self.0.note("shutdown");
        Ok(())
    }
}

struct ScriptedLogon(Arc<ScriptedTransport>);

impl Drop for ScriptedLogon {
    fn drop(&mut self) {
        self.0.note("release");
    }
}

#[async_trait]
impl XpLogon for ScriptedLogon {
    async fn address_types(&self) -> MapiResult<AddressTypes> {
        self.0.note("address_types");
        Ok(self.0.types.clone())
    }

    async fn transport_notify(
        &self,
        flags: TransportNotify,
        data: NotifyData<'_>,
    ) -> MapiResult<()> {
        let names: Vec<&str> = flags.iter_names().map(|(name, _)| name).collect();
        self.0.note(format!("notify {}", names.join("|")));
        if let NotifyData::EntryId(entry) = data {
            self.0.note(format!("abort {entry}"));
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
            Script::Send => {
                recipients.iter_mut().for_each(|recipient| recipient.responsibility = true);
                message.modify_recipients(recipients).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn end_message(&self, reference: MessageRef) -> MapiResult<EndMessageFlags> {
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
            Script::Refuse(..) | Script::Hang => {
                panic!("EndMessage after a SubmitMessage that did not succeed")
            }
        }
    }

    async fn poll(&self) -> MapiResult<Incoming> {
        self.0.note("poll");
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
        self.0.note("start");
        let Some(mail) = self.0.incoming.lock().unwrap().pop_front() else { return Ok(()) };
        let mut sink = message.set_content().await?;
        sink.write(&mail).await?;
        sink.finish().await?;
        message.save_changes(Repetition::First).await
    }

    async fn open_status_entry(&self) -> MapiResult<Arc<dyn StatusObject>> {
        Err(MapiCode::NO_SUPPORT.into())
    }

    async fn validate_state(&self, _: ValidateFlags) -> MapiResult<()> {
        Ok(())
    }

    async fn flush_queues(&self, flags: FlushFlags) -> MapiResult<()> {
        self.0.note("flush_queues");
        self.0.show(|state| {
            state.set(StatusCode::OUTBOUND_FLUSH, flags.contains(FlushFlags::UPLOAD));
            state.set(StatusCode::INBOUND_FLUSH, flags.contains(FlushFlags::DOWNLOAD));
        });
        Ok(())
    }

    async fn idle(&self) -> MapiResult<()> {
        Ok(())
    }

    async fn transport_logoff(&self, _: LogoffFlags) -> MapiResult<()> {
        self.0.note("logoff");
        Ok(())
    }
}
