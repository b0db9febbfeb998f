//! `-bs`: SMTP on standard input and output, for mail programs that start a server of their own.

use std::sync::Arc;

use super::deliver::reach;
use super::whereabouts::Found;
use crate::cli::console::Console;
use crate::cli::exit::Failure;
use crate::cli::interrupt::Interrupts;
use crate::clock::SystemClock;
use crate::listener::{ListenSettings, serve_stream};
use crate::session::{Logon, Service};

/// `-bs`. Without a daemon the spool is this process's for as long as the client stays.
pub(super) async fn serve(found: &Found, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut interrupts = Interrupts::new()?;
    if let Some(socket) = found.submission_socket() {
        let client = reach(socket).await?;
        return dialogue(&mut interrupts, Arc::new(client)).await;
    }
    let place = found.place();
    let access = place.reach(Logon::None).await;
    let access = access.map_err(|error| Failure::contract("speak SMTP", &error))?;
    if !access.is_daemon() {
        console.note("no daemon is running; mail waits in the queue");
    }
    let answer = dialogue(&mut interrupts, access.shared()).await;
    access.end().await;
    answer
}

async fn dialogue(interrupts: &mut Interrupts, service: Arc<dyn Service>) -> Result<(), Failure> {
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let (settings, clock) = (ListenSettings::default(), Arc::new(SystemClock));
    tokio::select! {
        () = serve_stream(stream, settings, service, clock) => Ok(()),
        signal = interrupts.next() => Err(signal.failure()),
    }
}
