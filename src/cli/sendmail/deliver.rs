//! `-bm`: a message from standard input into the queue.

use std::path::Path;
use std::time::Duration;

use super::flags::{Addressees, Call, Return, WithHeader};
use super::input::Input;
use super::whereabouts::Found;
use crate::cli::console::Console;
use crate::cli::exit::{Exit, Failure};
use crate::control::Client;
use crate::mapi::{DsnRequest, DsnReturned, DsnWish, EntryId, MapiCode, MapiError};
use crate::mime::address::parse_list;
use crate::session::{Logon, RawEnvelope, Service, login_name};

/// Most recipients that arguments can name.
const MOST_RECIPIENTS: usize = 50_000;

/// The envelope that the command line asks for.
///
/// # Errors
/// 64 when it names nobody, 65 for what is no address, 69 for what cannot be promised.
pub(super) fn envelope(call: &Call) -> Result<RawEnvelope, Failure> {
    if call.require_tls {
        // RFC 8689: it holds for every hop, and nobody behind the first would be told.
        return Err(Failure::new(
            Exit::Unavailable,
            "cannot send: requiretls is not offered; the profile says whether the way to its \
             server is encrypted",
        ));
    }
    let named = recipients(&call.operands)?;
    let from_header = call.addressees == Addressees::Header;
    if named.is_empty() && !from_header {
        return Err(Failure::usage(
            "cannot send: no recipients; name them, or let -t take them from the header",
        ));
    }
    let (recipients, excluded) = match call.with_header {
        WithHeader::ArgumentsRemoved if from_header => (Vec::new(), named),
        _ => (named, Vec::new()),
    };
    Ok(RawEnvelope {
        from: call.from.as_deref().map(sender).transpose()?,
        recipients_from_header: from_header,
        recipients,
        excluded,
        sender_name: call.full_name.clone(),
        dsn: reports(call),
        submitter: Some(login_name()),
        ..RawEnvelope::default()
    })
}

/// What `-N`, `-R` and `-V` ask of reports (RFC 3461), for every recipient.
fn reports(call: &Call) -> DsnRequest {
    DsnRequest {
        envelope_id: call.envelope_id.clone(),
        returned: call.returned.map(|returned| match returned {
            Return::Full => DsnReturned::Full,
            Return::Headers => DsnReturned::Headers,
        }),
        recipients: Vec::new(),
        others: call.notify.map(|notify| DsnWish {
            success: notify.success,
            failure: notify.failure,
            delay: notify.delay,
        }),
    }
}

/// Each operand is an address or a list of them, with names or without.
pub(super) fn recipients(operands: &[String]) -> Result<Vec<String>, Failure> {
    let mut recipients = Vec::new();
    for operand in operands {
        let list = parse_list(operand);
        if let Some(broken) = list.malformed.first() {
            return Err(Failure::new(Exit::Data, format!("recipient: {broken:?} is no address")));
        }
        recipients.extend(list.mailboxes.into_iter().map(|mailbox| mailbox.address));
    }
    match recipients.len() > MOST_RECIPIENTS {
        true => Err(Failure::new(Exit::Unavailable, "cannot send: too many recipients")),
        false => Ok(recipients),
    }
}

/// `-f`: one address, or nothing for the null sender.
fn sender(text: &str) -> Result<String, Failure> {
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    let list = parse_list(text);
    match (list.mailboxes.as_slice(), list.malformed.as_slice()) {
        ([one], []) => Ok(one.address.clone()),
        _ => Err(Failure::new(Exit::Data, format!("sender: {text:?} is not one address"))),
    }
}

/// Hands the message over.
pub(super) async fn deliver(
    call: &Call,
    found: &Found,
    console: &mut Console<'_>,
    envelope: RawEnvelope,
    input: &Input,
) -> Result<(), Failure> {
    if let Some(socket) = found.submission_socket() {
        let entry = hand_over(socket, envelope, input).await?;
        print(call, console, &entry);
        return Ok(());
    }
    let place = found.place();
    let handed_over = place.with("send", Logon::None, async |access| {
        let bytes =
            input.reader().map_err(|error| Failure::io("read the message again", &error))?;
        let accepted = access.service().submit_raw(envelope.clone(), bytes).await;
        let entry = accepted.map_err(|error| Failure::contract("send", &error))?;
        Ok((entry, access.is_daemon()))
    });
    let (entry, is_daemon) = handed_over.await?;
    // From here on the message is accepted, and nothing may make the caller send it again.
    if !is_daemon {
        console.note(format_args!(
            "no daemon is running; {entry} waits in the queue for `postrider run` or `postrider \
             flush`"
        ));
    }
    print(call, console, &entry);
    Ok(())
}

/// `-v`: the entry id, alone on a line. Where nobody can read it, the message is queued all the
/// same.
fn print(call: &Call, console: &mut Console<'_>, entry: &EntryId) {
    if call.verbose {
        let printed = console.line(entry).and_then(|()| console.flush());
        if let Err(failure) = printed {
            console.complain(&failure);
        }
    }
}

/// How long to wait between the tries to hand a message over, where the daemon has so much to do
/// for this user that it cannot take it at once.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Hands the message to the daemon of another user, who owns the profile of this machine.
async fn hand_over(
    socket: &Path,
    envelope: RawEnvelope,
    input: &Input,
) -> Result<EntryId, Failure> {
    let client = reach(socket).await?;
    let mut pauses = PAUSES.iter();
    loop {
        let bytes =
            input.reader().map_err(|error| Failure::io("read the message again", &error))?;
        let error = match client.submit_raw(envelope.clone(), bytes).await {
            Ok(entry) => return Ok(entry),
            Err(error) => error,
        };
        match pauses.next() {
            Some(pause) if is_passing(&error) => tokio::time::sleep(*pause).await,
            _ => return Err(Failure::contract("send", &error)),
        }
    }
}

/// Whether a moment later the answer may be another one, and nothing was accepted.
fn is_passing(error: &MapiError) -> bool {
    matches!(error.code(), MapiCode::BUSY | MapiCode::NETWORK_ERROR)
}

/// The daemon of another user, as far as it can be asked.
pub(super) async fn reach(socket: &Path) -> Result<Client, Failure> {
    Client::connect_to_submit(socket).await.map_err(|error| {
        let failure = Failure::contract("send", &error);
        match failure.code {
            // Nobody else may put it into that spool.
            Some(MapiCode::NETWORK_ERROR) => Failure::new(
                Exit::TryAgain,
                format!(
                    "cannot send: the daemon of this machine does not take mail at {}; you have \
                     no profile of your own, and nothing was queued",
                    socket.display()
                ),
            ),
            _ => failure,
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::control::fake::FakeService;
    use crate::control::{SubmissionSocket, serve_submissions};

    async fn hand_over_to(service: Arc<FakeService>) -> Result<EntryId, Failure> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("submit.sock");
        let socket = SubmissionSocket::bind(&path).await.unwrap();
        let input = Input::of_text("Subject: x\n\n");
        tokio::select! {
            () = serve_submissions(&socket, service, std::future::pending()) => unreachable!(),
            answer = hand_over(&path, RawEnvelope::default(), &input) => answer,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_to_try_again_does() {
        let busy = Arc::new(FakeService::failing(MapiCode::BUSY, "too many"));
        let failed = hand_over_to(Arc::clone(&busy)).await.unwrap_err();
        assert_eq!((failed.exit, busy.calls().len()), (Exit::TryAgain, 6));
        let refusing = Arc::new(FakeService::failing(MapiCode::TOO_BIG, "too big"));
        let failed = hand_over_to(Arc::clone(&refusing)).await.unwrap_err();
        assert_eq!((failed.exit, refusing.calls().len()), (Exit::Unavailable, 1));
    }

    fn call(operands: &[&str]) -> Call {
        Call { operands: operands.iter().map(|one| (*one).to_owned()).collect(), ..Call::default() }
    }

    #[test]
    fn operands_are_addresses_or_lists_of_them() {
        let envelope = envelope(&call(&["root,ann", "Bob <bob@x.org>, carl@y.org"])).unwrap();
        assert_eq!(envelope.recipients, ["root", "ann", "bob@x.org", "carl@y.org"]);
        assert!(!envelope.recipients_from_header && envelope.from.is_none());
        assert!(envelope.submitter.is_some_and(|login| !login.is_empty()));
    }

    #[test]
    fn senders_are_one_address_or_none() {
        let from = |text: &str| {
            let call = Call { from: Some(text.to_owned()), ..call(&["bob"]) };
            envelope(&call).map(|envelope| envelope.from.unwrap()).map_err(|why| why.exit.number())
        };
        assert_eq!(from(""), Ok(String::new()));
        assert_eq!(from("Ann <ann@x.org>"), Ok("ann@x.org".to_owned()));
        assert_eq!(from("www-data"), Ok("www-data".to_owned()));
        assert_eq!(from("a@b, c@d"), Err(65));
    }

    #[test]
    fn arguments_beside_the_header_are_added_or_taken_out() {
        let header = Call { addressees: Addressees::Header, ..call(&["bob@x.org"]) };
        let added = envelope(&header).unwrap();
        assert!(added.recipients_from_header && added.recipients == ["bob@x.org"]);
        let removed = Call { with_header: WithHeader::ArgumentsRemoved, ..header };
        let removed = envelope(&removed).unwrap();
        assert!(removed.recipients.is_empty() && removed.excluded == ["bob@x.org"]);
    }

    #[test]
    fn what_cannot_be_sent_has_its_exit_codes() {
        let exit = |call: Call| envelope(&call).unwrap_err().exit.number();
        assert_eq!(exit(call(&[])), 64);
        assert_eq!(exit(call(&[""])), 64);
        assert_eq!(exit(call(&["a b c"])), 65);
        assert_eq!(exit(Call { require_tls: true, ..call(&["bob"]) }), 69);
    }
}
