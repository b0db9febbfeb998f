//! A transport for the address type `LOG`: the address names a log, and the message is appended
//! to it as one line. Written against `postrider::spi` and its words in
//! `postrider::mapi` only.
//!
//! It sends while SubmitMessage runs and keeps no queue, which is the simplest a transport can
//! be. The price: a crash between the line and the host's saving of the outcome writes the line
//! twice. A transport that must not do that answers END_DONT_RESEND from a durable queue.
//! Nor is its work ever long: one that converts or sends for more than moments calls
//! `Support::spooler_yield` on the way (OB-18).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use postrider::clock::{Clock, SystemClock};
use postrider::mapi::{
    DeinitFlags, EndMessageFlags, EntryId, FlushFlags, LogoffFlags, LogonFlags, LogonOutFlags,
    MapiCode, MapiError, MapiResult, MessageRef, ModifyStatusFlags, Recipient, ResourceMethods,
    SPI_VERSION, StatusCode, SubmitMessageFlags, SysTime, TransportNotify, ValidateFlags, tags,
};
use postrider::spi::{
    AddressTypes, Incoming, LogonOutcome, Message, MessageRefCell, NotifyData, RecipientReport,
    Repetition, ReportKind, StatusColumns, StatusObject, SubmitError, Support, XpLogon, XpProvider,
};

/// The address type this transport takes.
pub(crate) const LOG: &str = "LOG";

/// The profile key with the folder of the logs.
pub(crate) const FOLDER: &str = "log.folder";

/// The factory of logons.
#[derive(Default)]
pub(crate) struct LogProvider(Mutex<Phase>);

/// Where the provider stands in the order of calls (LG-1).
#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    #[default]
    New,
    Initialized,
    ShutDown,
}

#[async_trait]
impl XpProvider for LogProvider {
    fn init(&self, host_version: u32) -> MapiResult<u32> {
        if host_version < SPI_VERSION {
            return Err(MapiCode::VERSION.into());
        }
        *lock(&self.0) = Phase::Initialized;
        Ok(SPI_VERSION)
    }

    async fn transport_logon(
        &self,
        support: Arc<dyn Support>,
        flags: LogonFlags,
    ) -> MapiResult<LogonOutcome> {
        match *lock(&self.0) {
            Phase::New => return Err(MapiCode::NOT_INITIALIZED.into()),
            Phase::Initialized => {}
            Phase::ShutDown => return Err(MapiCode::END_OF_SESSION.into()),
        }
        known(LogonFlags::unknown_bits(flags.bits()))?;
        let section = support.profile_section();
        let folder = PathBuf::from(section.required_text(FOLDER)?);
        let columns = StatusColumns {
            display_name: Some(section.required_text("name")?.to_owned()),
            identity_display: Some(format!("logs in {}", folder.display())),
            resource_methods: Some(ResourceMethods::empty()),
            ..columns(StatusCode::AVAILABLE)
        };
        support.modify_status_row(columns, ModifyStatusFlags::empty())?;
        let state =
            State { code: StatusCode::AVAILABLE, last: 1, open: BTreeMap::new(), ended: false };
        let logon = Arc::new(LogLogon { support, folder, state: Mutex::new(state) });
        Ok(LogonOutcome { logon, flags: LogonOutFlags::empty() })
    }

    async fn shutdown(&self, flags: DeinitFlags) -> MapiResult<()> {
        known(DeinitFlags::unknown_bits(flags.bits()))?;
        let mut phase = lock(&self.0);
        if *phase == Phase::ShutDown {
            return Err(MapiCode::END_OF_SESSION.into());
        }
        *phase = Phase::ShutDown;
        Ok(())
    }
}

/// One logon: one folder of logs.
struct LogLogon {
    support: Arc<dyn Support>,
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    code: StatusCode,
    last: u32,
    /// Calls by reference; `true` once they were cancelled (TN-14).
    open: BTreeMap<u32, bool>,
    ended: bool,
}

impl LogLogon {
    fn alive(&self) -> MapiResult<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.ended { Err(MapiCode::END_OF_SESSION.into()) } else { Ok(state) }
    }

    /// Shows the row when it looks different now, under the lock: rows arrive in order (ST-5).
    fn show(&self, state: &mut State, code: StatusCode) {
        if state.code != code {
            state.code = code;
            // It fails only when the logon was released, and then there is no row.
            let _ = self.support.modify_status_row(columns(code), ModifyStatusFlags::UPDATE);
        }
    }

    /// Sets the reference before the message is touched (OB-1); never 0 or 1 (OB-2).
    fn begin(&self, cell: &MessageRefCell) -> MapiResult<MessageRef> {
        let mut state = self.alive()?;
        loop {
            state.last = state.last.wrapping_add(1).max(MessageRef::FIRST.0);
            if !state.open.contains_key(&state.last) {
                break;
            }
        }
        let reference = MessageRef(state.last);
        state.open.insert(reference.0, false);
        cell.set(reference);
        let code = state.code | StatusCode::OUTBOUND_ACTIVE;
        self.show(&mut state, code);
        Ok(reference)
    }

    /// Forgets a reference (OB-10); the answer is whether it was cancelled, `None` for unknown.
    fn end(&self, reference: MessageRef) -> Option<bool> {
        let mut state = lock(&self.state);
        let cancelled = state.open.remove(&reference.0);
        if state.open.is_empty() {
            let code = state.code - StatusCode::OUTBOUND_ACTIVE;
            self.show(&mut state, code);
        }
        cancelled
    }

    /// Why the rest of a message is not to be written any more. At the end of the logon that is
    /// not MAPI_E_CANCEL, which says that nobody wants the message any more (OB-7).
    fn stop(&self, reference: MessageRef) -> Option<MapiCode> {
        let state = lock(&self.state);
        match state.open.get(&reference.0) {
            _ if state.ended => Some(MapiCode::END_OF_SESSION),
            Some(true) => Some(MapiCode::CANCEL),
            Some(false) | None => None,
        }
    }

    async fn send(&self, message: &dyn Message, reference: MessageRef) -> MapiResult<()> {
        let entry = message.entry_id().ok_or(MapiCode::INVALID_PARAMETER)?;
        let mut mine = message.recipients().await?;
        mine.retain(|row| row.is_type(LOG) && !row.responsibility);
        if mine.is_empty() {
            return Err(MapiCode::NOT_ME.into());
        }
        let line = line_of(message, &entry).await?;
        let mut ended = Vec::new();
        let mut failed = Vec::new();
        let mut outcome = Ok(());
        for mut row in mine {
            if let Some(why) = self.stop(reference) {
                outcome = Err(why.into());
                break;
            }
            match log_file(&self.folder, &row.address) {
                None => failed.push(refused(&row)),
                Some(file) => {
                    outcome = append(&file, &line);
                    if outcome.is_err() {
                        break;
                    }
                    println!("log       the line for {} is written", row.address);
                }
            }
            // Conclusively sent or conclusively failed (OB-4).
            row.responsibility = true;
            ended.push(row);
        }
        if !failed.is_empty() {
            self.support.status_recips(message, 1, failed).await?;
        }
        message.modify_recipients(ended).await?;
        if outcome.is_err() {
            // On an error the host saves nothing, and the lines that are written must not be
            // written again (OB-8).
            message.save_changes(Repetition::First).await?;
        }
        outcome
    }
}

#[async_trait]
impl XpLogon for LogLogon {
    async fn address_types(&self) -> MapiResult<AddressTypes> {
        drop(self.alive()?);
        Ok(AddressTypes::These { types: vec![LOG.to_owned()], uids: Vec::new() })
    }

    async fn transport_notify(
        &self,
        flags: TransportNotify,
        data: NotifyData<'_>,
    ) -> MapiResult<()> {
        known(TransportNotify::unknown_bits(flags.bits()))?;
        let mut state = self.alive()?;
        for (begin, end) in [
            (TransportNotify::BEGIN_INBOUND, TransportNotify::END_INBOUND),
            (TransportNotify::BEGIN_OUTBOUND, TransportNotify::END_OUTBOUND),
            (TransportNotify::BEGIN_INBOUND_FLUSH, TransportNotify::END_INBOUND_FLUSH),
            (TransportNotify::BEGIN_OUTBOUND_FLUSH, TransportNotify::END_OUTBOUND_FLUSH),
        ] {
            if flags.contains(begin | end) {
                return Err(MapiCode::INVALID_PARAMETER.into());
            }
        }
        if flags.contains(TransportNotify::ABORT_DEFERRED) {
            // Nothing is ever deferred here (TN-17).
            return Err(MapiCode::NOT_FOUND.into());
        }
        if flags.contains(TransportNotify::CANCEL_MESSAGE) {
            let NotifyData::Reference(reference) = data else {
                return Err(MapiCode::INVALID_PARAMETER.into());
            };
            if let Some(cancelled) = state.open.get_mut(&reference.0) {
                *cancelled = true;
            }
        }
        let mut code = state.code;
        // There is no inbound, and nothing waits here that a flush could hurry along: what the
        // host has, it submits by itself, and a flush is over as soon as it began (FL-5).
        if flags.contains(TransportNotify::BEGIN_OUTBOUND) {
            code |= StatusCode::OUTBOUND_ENABLED;
        }
        if flags.contains(TransportNotify::END_OUTBOUND) {
            code -= StatusCode::OUTBOUND_ENABLED;
        }
        self.show(&mut state, code);
        Ok(())
    }

    async fn submit_message(
        &self,
        flags: SubmitMessageFlags,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> Result<(), SubmitError> {
        known(SubmitMessageFlags::unknown_bits(flags.bits()))?;
        let open = self.begin(reference)?;
        let sent = self.send(message.as_ref(), open).await;
        if sent.is_err() {
            // No EndMessage follows.
            self.end(open);
        }
        Ok(sent?)
    }

    async fn end_message(&self, reference: MessageRef) -> MapiResult<EndMessageFlags> {
        drop(self.alive()?);
        // A cancel that comes now is too late: the lines are written.
        self.end(reference).ok_or(MapiCode::INVALID_PARAMETER)?;
        Ok(EndMessageFlags::empty())
    }

    async fn poll(&self) -> MapiResult<Incoming> {
        drop(self.alive()?);
        Ok(Incoming::None)
    }

    async fn start_message(
        &self,
        _message: Arc<dyn Message>,
        _reference: &MessageRefCell,
    ) -> MapiResult<()> {
        // Returning without SaveChanges says that nothing is there (IB-3).
        self.alive().map(drop)
    }

    async fn open_status_entry(&self) -> MapiResult<Arc<dyn StatusObject>> {
        drop(self.alive()?);
        Err(MapiCode::NO_SUPPORT.into())
    }

    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()> {
        drop(self.alive()?);
        known(ValidateFlags::unknown_bits(flags.bits()))
    }

    async fn flush_queues(&self, flags: FlushFlags) -> MapiResult<()> {
        drop(self.alive()?);
        known(FlushFlags::unknown_bits(flags.bits()))
    }

    async fn idle(&self) -> MapiResult<()> {
        self.alive().map(drop)
    }

    async fn transport_logoff(&self, flags: LogoffFlags) -> MapiResult<()> {
        known(LogoffFlags::unknown_bits(flags.bits()))?;
        let mut state = self.alive()?;
        // A message in process stops behind the line it is at.
        state.ended = true;
        Ok(())
    }
}

/// One line about the message; blanks and control characters in it become single spaces.
async fn line_of(message: &dyn Message, entry: &EntryId) -> MapiResult<String> {
    let props = message.props().await?;
    let text = |tag| -> String {
        let text: &str = props.text(tag).unwrap_or_default();
        text.split(|letter: char| letter.is_whitespace() || letter.is_control())
            .filter(|word| !word.is_empty())
            .collect::<Vec<&str>>()
            .join(" ")
    };
    let time = props.time(tags::CLIENT_SUBMIT_TIME).unwrap_or(SysTime::EPOCH);
    let (from, subject) = (text(tags::SENDER_EMAIL_ADDRESS), text(tags::SUBJECT));
    Ok(format!("{time} {entry} {from}: {subject} | {}\n", text(tags::BODY)))
}

/// The file of a log; an address is a plain word and never a way out of the folder.
fn log_file(folder: &Path, address: &str) -> Option<PathBuf> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let good = (1..=64).contains(&address.len()) && address.chars().all(plain);
    good.then(|| folder.join(format!("{address}.log")))
}

/// Appends a line and waits until it is on the disk. Short, so it is done on the caller's thread;
/// something slow belongs into a task of the transport's own runtime.
fn append(file: &Path, line: &str) -> MapiResult<()> {
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut log| log.write_all(line.as_bytes()).and_then(|()| log.sync_data()));
    written.map_err(|error| {
        MapiError::new(MapiCode::DISK_ERROR, format!("{}: {error}", file.display()))
    })
}

fn refused(row: &Recipient) -> RecipientReport {
    RecipientReport {
        row: row.row,
        kind: ReportKind::Failure,
        status: "5.1.3".to_owned(),
        diagnostic: format!("{:?} is no name of a log", row.address),
        remote_mta: String::new(),
        time: SystemClock.now(),
    }
}

fn columns(code: StatusCode) -> StatusColumns {
    let words = match () {
        () if code.contains(StatusCode::OUTBOUND_ACTIVE) => "writing",
        () if code.contains(StatusCode::OUTBOUND_ENABLED) => "ready",
        () => "switched off",
    };
    StatusColumns {
        status_code: Some(code),
        status_string: Some(words.to_owned()),
        ..StatusColumns::default()
    }
}

/// Unknown bits of a flag word are refused (TN-5, LG-9, LG-10, FL-6, ST-7).
fn known(unknown_bits: u32) -> MapiResult<()> {
    if unknown_bits == 0 { Ok(()) } else { Err(MapiCode::UNKNOWN_FLAGS.into()) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
