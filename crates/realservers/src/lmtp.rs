//! Delivery of one message by LMTP (RFC 2033).

use crate::Error;
use crate::dialogue::{Dialogue, connect, dot_stuffed};
use std::net::SocketAddr;

/// Hands `message` to the LMTP server at `address` for one recipient and waits until it is stored. The
/// envelope sender is the null one.
///
/// # Errors
/// [`Error::Reply`] when the server refuses it; [`Error::Io`].
pub(crate) fn deliver(address: SocketAddr, recipient: &str, message: &[u8]) -> Result<(), Error> {
    let mut server = Dialogue::new(connect(address)?);
    server.expect("the LMTP greeting", 220)?;
    server.command("LHLO", "LHLO localhost", 250)?;
    server.command("MAIL", "MAIL FROM:<>", 250)?;
    server.command("RCPT", &format!("RCPT TO:<{recipient}>"), 250)?;
    server.command("DATA", "DATA", 354)?;
    server.send(&dot_stuffed(message))?;
    server.expect("the end of the message", 250)?;
    // It is delivered by now; a server that hangs up early is no failure.
    let _ = server.command("QUIT", "QUIT", 221);
    Ok(())
}

/// Reads the greeting, which must hold `token`.
///
/// # Errors
/// [`Error::Reply`] for another server's greeting; [`Error::Io`].
pub(crate) fn probe(address: SocketAddr, token: &str) -> Result<(), Error> {
    let step = "the LMTP greeting";
    let mut server = Dialogue::new(connect(address)?);
    let greeting = server.expect(step, 220)?;
    if !greeting.text.contains(token) {
        let reply = greeting.text;
        return Err(Error::Reply { step, reply });
    }
    let _ = server.command("QUIT", "QUIT", 221);
    Ok(())
}
