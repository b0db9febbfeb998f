//! A transport as the spooler calls it: a panic in it is an error of that call, and a call that
//! should be short has a deadline. One transport that breaks or hangs is not the end of the others.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;

use crate::mapi::{
    EndMessageFlags, FlushFlags, LogoffFlags, MapiCode, MapiError, MapiResult, MessageRef,
    SubmitMessageFlags, TransportNotify, ValidateFlags,
};
use crate::spi::{
    AddressTypes, Incoming, Message, MessageRefCell, NotifyData, StatusObject, SubmitError, XpLogon,
};

/// How long a call may take that is not about moving a message. TransportNotify waits for nothing
/// but the disk (TN-2).
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The same for Poll and ValidateState, which ask a server.
const SERVER_LIMIT: Duration = Duration::from_secs(300);

/// The logon of a transport, guarded.
pub(crate) struct GuardedLogon {
    inner: Arc<dyn XpLogon>,
    name: String,
    last_panic: Arc<LastPanic>,
}

/// What the last panic was that has not been shown yet.
#[derive(Debug, Default)]
pub(crate) struct LastPanic(Mutex<Option<String>>);

impl LastPanic {
    /// Takes it, to be shown.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, words: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.to_owned());
    }
}

impl GuardedLogon {
    pub(crate) fn guard(
        inner: Arc<dyn XpLogon>,
        name: &str,
        last_panic: &Arc<LastPanic>,
    ) -> Arc<dyn XpLogon> {
        Arc::new(GuardedLogon { inner, name: name.to_owned(), last_panic: Arc::clone(last_panic) })
    }

    /// A call about a message: how long it may take is seen to where it is made.
    async fn about_message<T, E: From<MapiError>>(
        &self,
        call: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
            let error = panicked(&self.name, call, panic.as_ref());
            self.last_panic.keep(error.detail());
            Err(error.into())
        })
    }
}

/// Answers a panic of `work` as an error that says in which call of which transport it was.
async fn caught<T>(
    transport: &str,
    call: &str,
    work: impl Future<Output = MapiResult<T>>,
) -> MapiResult<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.unwrap_or_else(|panic| Err(panicked(transport, call, panic.as_ref())))
}

/// The same, and `MAPI_E_TIMEOUT` when it does not end within `limit`; it is dropped then.
pub(crate) async fn bounded<T>(
    transport: &str,
    call: &str,
    limit: Duration,
    work: impl Future<Output = MapiResult<T>>,
) -> MapiResult<T> {
    let bounded = tokio::time::timeout(limit, caught(transport, call, work));
    bounded.await.unwrap_or_else(|_| {
        let words = format!(
            "the transport {transport} has not answered {call} within {}",
            humantime::format_duration(limit)
        );
        tracing::error!("{words}");
        Err(MapiError::new(MapiCode::TIMEOUT, words))
    })
}

/// The error a panic amounts to.
pub(crate) fn panicked(transport: &str, call: &str, panic: &(dyn Any + Send)) -> MapiError {
    let words = panic
        .downcast_ref::<&str>()
        .map(|words| (*words).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let words = format!("the transport {transport} panicked in {call}: {words}");
    tracing::error!("{words}");
    MapiError::new(MapiCode::CALL_FAILED, words)
}

#[async_trait]
impl XpLogon for GuardedLogon {
    async fn address_types(&self) -> MapiResult<AddressTypes> {
        bounded(&self.name, "AddressTypes", CALL_LIMIT, async { self.inner.address_types().await })
            .await
    }

    async fn transport_notify(
        &self,
        flags: TransportNotify,
        data: NotifyData<'_>,
    ) -> MapiResult<()> {
        bounded(&self.name, "TransportNotify", CALL_LIMIT, async {
            self.inner.transport_notify(flags, data).await
        })
        .await
    }

    async fn submit_message(
        &self,
        flags: SubmitMessageFlags,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> Result<(), SubmitError> {
        self.about_message("SubmitMessage", async {
            self.inner.submit_message(flags, message, reference).await
        })
        .await
    }

    async fn end_message(&self, reference: MessageRef) -> MapiResult<EndMessageFlags> {
        self.about_message("EndMessage", async { self.inner.end_message(reference).await }).await
    }

    async fn poll(&self) -> MapiResult<Incoming> {
        bounded(&self.name, "Poll", SERVER_LIMIT, async { self.inner.poll().await }).await
    }

    /// May take long: in a flush it waits for what is on its way.
    async fn start_message(
        &self,
        message: Arc<dyn Message>,
        reference: &MessageRefCell,
    ) -> MapiResult<()> {
        self.about_message("StartMessage", async {
            self.inner.start_message(message, reference).await
        })
        .await
    }

    async fn open_status_entry(&self) -> MapiResult<Arc<dyn StatusObject>> {
        bounded(&self.name, "OpenStatusEntry", CALL_LIMIT, async {
            self.inner.open_status_entry().await
        })
        .await
    }

    async fn validate_state(&self, flags: ValidateFlags) -> MapiResult<()> {
        bounded(&self.name, "ValidateState", SERVER_LIMIT, async {
            self.inner.validate_state(flags).await
        })
        .await
    }

    async fn flush_queues(&self, flags: FlushFlags) -> MapiResult<()> {
        bounded(&self.name, "FlushQueues", CALL_LIMIT, async {
            self.inner.flush_queues(flags).await
        })
        .await
    }

    async fn idle(&self) -> MapiResult<()> {
        bounded(&self.name, "Idle", SERVER_LIMIT, async { self.inner.idle().await }).await
    }

    async fn transport_logoff(&self, flags: LogoffFlags) -> MapiResult<()> {
        bounded(&self.name, "TransportLogoff", CALL_LIMIT, async {
            self.inner.transport_logoff(flags).await
        })
        .await
    }
}
