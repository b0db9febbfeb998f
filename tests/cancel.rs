//! A cancel at every point of a message's way, on the running provider, while the server, the disk
//! or the host's store stands still at that point for ever.
//!
//! The calls: **R** is TransportNotify(CANCEL_MESSAGE) with the message reference (TN-14 to
//! TN-16), **E** is ABORT_DEFERRED with CANCEL_MESSAGE and the entry id (TN-17), **S** is
//! `Session::cancel`, which is the spooler's AbortSubmit (OB-15). None of them waits for a server.
//!
//! # Outbound
//!
//! | point | what the caller gets | what the server has | what the store and the queue hold |
//! | --- | --- | --- | --- |
//! | a) SubmitMessage was called, the reference reads 0 | R with 0: S_OK, the call E_CANCEL | nothing | as before; it may be submitted again |
//! | b) conversion inside SubmitMessage | R: S_OK, the call E_CANCEL; E: E_NOT_FOUND, the call goes on; S: S_OK | nothing | R: as before; S: gone, history cancelled |
//! | b) the queue row on its way to the disk | R: S_OK, the call E_CANCEL with the disk; E: E_NOT_FOUND, the call goes on | nothing | R: history cancelled |
//! | c) between SubmitMessage and EndMessage | R: S_OK, EndMessage E_CANCEL; E: S_OK, EndMessage E_CANCEL | nothing | history cancelled as soon as R or E returns |
//! | d) during EndMessage | R: S_OK; EndMessage E_CANCEL when it had not begun, else it stands | as c), or the message | as c), or deferred |
//! | e) queued | E, S: S_OK; R (its reference is dead): S_OK and nothing | nothing | history cancelled |
//! | f) connecting: SYN, TCP, greeting | as e); R with an open reference as c) | no message, the connection goes | history cancelled |
//! | g) TLS handshake, EHLO, AUTH | the same | the same | the same |
//! | h) before MAIL, between MAIL, RCPT, RCPT, DATA | the same | the same | the same |
//! | h) between two transactions of one message | the same | the first transaction's message | history cancelled, with the outcomes had |
//! | i) amid the text, also where the server does not read | the same | a part, no message | the same |
//! | j) right before the final dot | the same | all but the end, no message | the same |
//! | k) the reply to the final dot is held | E, S: E_UNABLE_TO_ABORT; R: S_OK, EndMessage END_DONT_RESEND | the message, once | its outcome |
//! | l) the outcome is not on disk, or not told | as k) | the message, once | its outcome |
//! | m) SubmitMessage(BEGIN_DEFERRED), its EndMessage | R: S_OK and the call stands; E: E_UNABLE_TO_ABORT | the message, once | history finished |
//! | n) gone | R: S_OK; E: E_UNABLE_TO_ABORT after it was sent, S_OK after it was cancelled; S: E_NOT_IN_QUEUE | what it had | what it held |
//!
//! # Inbound
//!
//! The server keeps the message until its cursor is on disk, and the store gets it exactly once.
//!
//! | point | what the caller gets | what the server has | what the store holds |
//! | --- | --- | --- | --- |
//! | o) StartMessage was called, the reference reads 1 | R with 1: S_OK, the call E_CANCEL | the message | nothing; once at the next StartMessage |
//! | p) before the FETCH; a call that waits during a flush | R: S_OK, the call E_CANCEL | the message | the same |
//! | q) amid the literal of a large message | R: S_OK, the call E_CANCEL; the connection goes | the message | the same, over another connection |
//! | r) the store takes the text | R: S_OK, the call E_CANCEL | the message | the same |
//! | r) SaveChanges runs | R: S_OK, the call stands and ends with the store | the message | the message, once |
//! | s) saved, the cursor on its way to the disk | R: S_OK, the call stands and ends with the disk | the message | the message, once |
//! | t) after all | R: S_OK | the message | the message, once |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    clippy::string_slice,
    dead_code,
    unreachable_pub
)]

#[path = "support/foreign_host.rs"]
mod foreign_host;
#[path = "support/foreign_message.rs"]
mod foreign_message;
#[path = "support/foreign_rig.rs"]
mod foreign_rig;
#[path = "cancel/held_spool.rs"]
mod held_spool;
#[path = "support/house.rs"]
mod house;
#[path = "cancel/inbound.rs"]
mod inbound;
#[path = "support/letters.rs"]
mod letters;
#[path = "support/maildir.rs"]
mod maildir;
#[path = "support/office.rs"]
mod office;
#[path = "cancel/outbound_calls.rs"]
mod outbound_calls;
#[path = "cancel/outbound_wire.rs"]
mod outbound_wire;
#[path = "cancel/points.rs"]
mod points;
#[path = "cancel/session.rs"]
mod session;
#[path = "cancel/sink.rs"]
mod sink;
#[path = "cancel/sockets.rs"]
mod sockets;
#[path = "cancel/spooler.rs"]
mod spooler;
#[path = "cancel/stage.rs"]
mod stage;
#[path = "support/wrapped_spool.rs"]
mod wrapped_spool;

// The support that tests of the library itself share names them so.
use postrider::{mapi, spool};
