//! `notify`: TransportNotify on the running session.

use super::access::Place;
use super::args::NotifyArguments;
use super::console::Console;
use super::exit::{Exit, Failure};
use super::queue_pages::resolve;
use crate::mapi::{MapiCode, MapiError, TransportNotify};
use crate::session::{NotifyRequest, Service};

/// `notify`.
pub(crate) async fn notify(
    place: &Place,
    console: &mut Console<'_>,
    arguments: &NotifyArguments,
) -> Result<(), Failure> {
    let daemon = place.daemon().await;
    let daemon = daemon.map_err(|error| Failure::contract("notify", &error))?;
    let Some(client) = daemon else {
        return Err(Failure::new(
            Exit::TryAgain,
            "cannot notify: no session is running; `postrider run` starts one",
        ));
    };
    let entry = match &arguments.entry {
        Some(text) => Some(resolve(&client, text).await?.to_string()),
        None => None,
    };
    let flags = arguments.flags.iter().map(|flag| flag.flag());
    let request = NotifyRequest {
        transport: arguments.transport.clone(),
        flags: flags.fold(TransportNotify::empty(), |union, flag| union | flag).bits(),
        reference: arguments.message,
        entry,
    };
    answer(client.notify(request).await, console)
}

/// Prints the answer of the contract. The answer is the data here, also when it is negative.
fn answer(result: Result<(), MapiError>, console: &mut Console<'_>) -> Result<(), Failure> {
    let error = match result {
        Ok(()) if console.json => {
            return console.document(&serde_json::json!({ "code": 0, "name": "S_OK" }));
        }
        Ok(()) => return console.line("S_OK"),
        Err(error) => error,
    };
    let code = error.code();
    if console.json {
        let (name, detail) = (code.to_string(), error.detail());
        let answer = serde_json::json!({ "code": code.0, "name": name, "detail": detail });
        console.document(&answer)?;
    } else {
        console.line(format_args!("{} 0x{:08X}", code.name().unwrap_or("unknown"), code.0))?;
    }
    console.complain(&Failure::contract("notify", &error));
    // That nobody is there any more is no answer of the session.
    let exit = if code == MapiCode::NETWORK_ERROR { Exit::TryAgain } else { Exit::Negative };
    Err(Failure::silent(exit))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn said(result: Result<(), MapiError>, json: bool) -> (String, Result<(), Failure>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let answered = answer(result, &mut Console::new(&mut out, &mut err, json));
        (String::from_utf8(out).unwrap(), answered)
    }

    #[test]
    fn the_answer_is_named_and_numbered() {
        assert_eq!(said(Ok(()), false), ("S_OK\n".into(), Ok(())));
        assert_eq!(said(Ok(()), true).0, "{\"code\":0,\"name\":\"S_OK\"}\n");
        let error = || Err(MapiError::new(MapiCode::UNABLE_TO_ABORT, "sent"));
        let (out, answered) = said(error(), false);
        assert_eq!(out, "MAPI_E_UNABLE_TO_ABORT 0x80040114\n");
        assert_eq!(answered.unwrap_err().exit, Exit::Negative);
        let json: serde_json::Value = serde_json::from_str(&said(error(), true).0).unwrap();
        assert_eq!(json["code"], 0x8004_0114_u32);
    }
}
