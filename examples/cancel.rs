//! Cancelling a message at every moment of its way: what the caller is told, and what the server
//! got.
//!
//! `cargo run --example cancel` starts a mail server in this process that stops where it is told
//! to, needs no configuration and no network, and exits with 0 only if every answer was the one
//! the contract names (OB-15, TN-14 to TN-17).

#[path = "support/expectations.rs"]
mod expectations;
#[path = "support/post_office.rs"]
mod post_office;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use expectations::expect;
use postoffice::{Action, Fault, FaultHandle, PostOffice, Protocol, SmtpPhase};
use postrider::mapi::{
    EntryId, MapiCode, MapiResult, MessageData, PropList, Recipient, RecipientType,
    TransportNotify, tags,
};
use postrider::session::{
    FlushRequest, Logon, NotifyRequest, QueueRowState, Service, Session, SessionOptions, Submission,
};

/// Nothing here waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a cancel may take while the server says nothing at all. Far below every deadline of SMTP,
/// so that it cannot be the server's silence that ended it.
const AT_ONCE: Duration = Duration::from_secs(5);

/// The size of the message that is cancelled on its way, and how much of it the server has read
/// by then.
const BIG: usize = 20 << 20;
const READ: u64 = 4 << 20;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => {
            println!("\nEvery answer was the one the contract names.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cancel: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A session and the server it sends through.
struct Stage {
    office: PostOffice,
    session: Session,
}

async fn run() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let office = PostOffice::builder().user("ann", "secret").start().await?;
    let profile = post_office::profile("cancel", folder.path(), &office)?;
    let options = SessionOptions::new(folder.path().join("state")).logon(Logon::Closed);
    let session = Session::open(&profile, options).await?;
    let stage = Stage { office, session };

    println!("{:<38} {:<24} {:>7}  the server got", "cancelled while", "answer", "after");
    stage.in_the_outbox().await?;
    stage.in_the_queue().await?;
    stage.notify(TransportNotify::BEGIN_OUTBOUND, None, None).await?;
    stage.before_the_recipients().await?;
    stage.amid_the_data().await?;
    stage.after_the_final_dot().await?;
    stage.unknown_messages().await?;

    expect(stage.office.violations().is_empty(), "the server saw a violation of the protocol")?;
    stage.session.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

impl Stage {
    /// Outbound is closed, so no transport has the message (OB-15).
    async fn in_the_outbox(&self) -> Result<(), Box<dyn Error>> {
        let entry = self.submit("Waiting", "bob@example.org", 100).await?;
        self.cancel("it waits in the Outbox", &entry, MapiCode::S_OK).await?;
        self.cancel("it is gone already", &entry, MapiCode::NOT_IN_QUEUE).await?;
        self.got_nothing()
    }

    /// The server refused it for now, so that its transport keeps it for later (TN-17).
    async fn in_the_queue(&self) -> Result<(), Box<dyn Error>> {
        let entry = self.submit("Deferred", "451-4.2.1@example.org", 100).await?;
        let flush = FlushRequest { upload: true, download: false };
        tokio::time::timeout(PATIENCE, self.session.flush(flush)).await??;
        let row = self.session.queue_row(&entry).await?;
        expect(row.state == QueueRowState::Deferred, "the message is not deferred")?;
        self.cancel("it is queued for another try", &entry, MapiCode::S_OK).await?;
        self.got_nothing()
    }

    async fn before_the_recipients(&self) -> Result<(), Box<dyn Error>> {
        let fault = self.hang(Fault::smtp(SmtpPhase::Mail, Action::Hang));
        let entry = self.submit("At MAIL", "bob@example.org", 100).await?;
        fault.reached(PATIENCE).await?;
        self.cancel("the server is silent at MAIL", &entry, MapiCode::S_OK).await?;
        self.server_is_left_alone(&fault).await
    }

    /// In the middle of 20 MiB: the connection is dropped and the server gets no message (TN-14).
    async fn amid_the_data(&self) -> Result<(), Box<dyn Error>> {
        let fault = self.hang(Fault::smtp(SmtpPhase::Body, Action::Hang).at_byte(READ));
        let entry = self.submit("On its way", "bob@example.org", BIG).await?;
        fault.reached(PATIENCE).await?;
        self.cancel("a fifth of its DATA is sent", &entry, MapiCode::S_OK).await?;
        self.server_is_left_alone(&fault).await?;
        let row = self.session.queue_row(&entry).await?;
        expect(row.state == QueueRowState::Cancelled, "its history does not say cancelled")
    }

    /// Past the final dot only the server decides, and the outcome stands (TN-17).
    async fn after_the_final_dot(&self) -> Result<(), Box<dyn Error>> {
        let fault = self.hang(Fault::smtp(SmtpPhase::FinalDot, Action::Hang));
        let entry = self.submit("Too late", "bob@example.org", 100).await?;
        fault.reached(PATIENCE).await?;
        self.cancel("the final dot is out", &entry, MapiCode::UNABLE_TO_ABORT).await?;
        fault.remove();
        let row = self.session.wait(&entry, Some(PATIENCE)).await?;
        expect(row.state == QueueRowState::Finished, "the message was not sent after all")?;
        expect(self.office.accepted_count() == 1, "the server did not get it once")?;
        self.cancel("it is sent", &entry, MapiCode::NOT_IN_QUEUE).await
    }

    /// Names of messages that nobody knows (TN-16, TN-17).
    async fn unknown_messages(&self) -> Result<(), Box<dyn Error>> {
        let cancel = TransportNotify::CANCEL_MESSAGE;
        let answer = self.notify(cancel, Some(4711), None).await;
        self.line("a reference that is not open", &answer, MapiCode::S_OK, Duration::ZERO)?;
        let entry = EntryId::from_bytes(&[7; 16])?;
        let abort = cancel | TransportNotify::ABORT_DEFERRED;
        let answer = self.notify(abort, None, Some(&entry)).await;
        self.line("an entry id that is not there", &answer, MapiCode::NOT_FOUND, Duration::ZERO)
    }

    async fn submit(&self, subject: &str, to: &str, size: usize) -> MapiResult<EntryId> {
        let body = "All work and no play makes Jack a dull boy.\r\n".repeat(size / 45 + 1);
        let message = MessageData {
            props: PropList::new().with(tags::SUBJECT, subject).with(tags::BODY, body),
            recipients: vec![Recipient::smtp(0, RecipientType::To, to)],
            attachments: Vec::new(),
        };
        self.session.submit(Submission { message }).await
    }

    fn hang(&self, fault: Fault) -> FaultHandle {
        self.office.inject(fault.once())
    }

    async fn notify(
        &self,
        flags: TransportNotify,
        reference: Option<u32>,
        entry: Option<&EntryId>,
    ) -> MapiResult<()> {
        let (transport, flags) = (Some("office".to_owned()), flags.bits());
        let entry = entry.map(ToString::to_string);
        self.session.notify(NotifyRequest { transport, flags, reference, entry }).await
    }

    async fn cancel(
        &self,
        moment: &str,
        entry: &EntryId,
        expected: MapiCode,
    ) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let answer = tokio::time::timeout(AT_ONCE, self.session.cancel(entry)).await;
        let answer = answer.map_err(|_| format!("{moment}: the cancel waits for the server"))?;
        self.line(moment, &answer, expected, start.elapsed())
    }

    fn line(
        &self,
        moment: &str,
        answer: &MapiResult<()>,
        expected: MapiCode,
        after: Duration,
    ) -> Result<(), Box<dyn Error>> {
        let code = answer.as_ref().map_or_else(|error| error.code(), |()| MapiCode::S_OK);
        let got = self.office.accepted_count();
        let name = code.to_string();
        println!("{moment:<38} {name:<24} {:>4} ms  {got} messages", after.as_millis());
        expect(code == expected, &format!("{moment}: {expected} was expected"))
    }

    /// The silent server is released only now: what it finds is a connection that was dropped.
    async fn server_is_left_alone(&self, fault: &FaultHandle) -> Result<(), Box<dyn Error>> {
        fault.remove();
        let closed = |office: &PostOffice| office.counters(Protocol::Smtp).open == 0;
        self.office.wait_until("a dropped connection", PATIENCE, closed).await?;
        self.got_nothing()
    }

    fn got_nothing(&self) -> Result<(), Box<dyn Error>> {
        expect(self.office.accepted_count() == 0, "the server got a cancelled message")
    }
}
