//! Points i and j with Postfix' `smtp-sink` as an independent witness of what a server received.

use postrider::mapi::{EndMessageFlags, LogoffFlags, MapiCode, TransportNotify};
use postrider::spi::SectionValue;
use realservers::wait::until;
use realservers::{Counts, Dump, SinkOptions, SmtpSink};

use crate::foreign_host::{Host, PATIENCE, wait};
use crate::foreign_message::{Holds, HostMessage};
use crate::foreign_rig::{defer, finish, notify, submit};
use crate::held_spool::Place;
use crate::points::{LARGE, TO, text};
use crate::sockets::{await_closed, towards};
use crate::stage::{NEW, Stage};

/// A stage whose logon sends to a sink.
fn stage_with(sink: &SmtpSink) -> Stage {
    let mut stage = Stage::new(TransportNotify::empty());
    let mut section = stage.rig.section_without("ann", "smtp");
    section.set("smtp.host", SectionValue::Text("127.0.0.1".to_owned()));
    section.set("smtp.port", SectionValue::Number(u64::from(sink.address().port())));
    section.set("smtp.tls", SectionValue::Text("none".to_owned()));
    let host = Host::new(section);
    // An account is logged on once.
    wait("TransportLogoff", stage.logon.transport_logoff(LogoffFlags::empty())).unwrap();
    stage.logon = stage.rig.log_on(&host);
    stage.host = host;
    notify(&stage.logon, TransportNotify::BEGIN_OUTBOUND).unwrap();
    stage
}

fn sink() -> SmtpSink {
    SmtpSink::start(SinkOptions { flags: Vec::new(), dump: Dump::Nothing }).unwrap()
}

/// Waits until the sink has seen so many sessions end.
fn ended(sink: &SmtpSink, sessions: u64) -> Counts {
    let seen = || sink.counts().ok().filter(|counts| counts.sessions >= sessions);
    until("the sink sees the connection go", PATIENCE, seen).unwrap()
}

/// The cancelled message is gone, the server has none; another one goes through.
fn assert_nothing_came(stage: &Stage, sink: &SmtpSink, message: &std::sync::Arc<HostMessage>) {
    let counts = ended(sink, 1);
    assert_eq!((counts.messages, counts.quits), (0, 0), "{counts:?}");
    stage.assert_cancelled(message);
    let next = HostMessage::outgoing(2, &["bob@example.org"]);
    defer(&stage.logon, &next);
    finish(&stage.host, &stage.logon, &next);
    let counted = || sink.counts().ok().filter(|counts| counts.messages >= 1);
    let counts = until("the sink counts it", PATIENCE, counted).unwrap();
    assert_eq!(counts.messages, 1, "only the other one");
}

/// Point i: the server has stopped reading, and our write blocks.
///
/// Proves: TN-14, TN-17
#[test]
fn amid_the_text_to_a_server_that_does_not_read() {
    for by_reference in [true, false] {
        let sink = sink();
        let stage = stage_with(&sink);
        let amid = stage.held.hold(Place::Body(1_000_000));
        let message = HostMessage::raw_held(1, &TO, text(LARGE), Holds::default());
        submit(&stage.logon, NEW, &message).unwrap();
        let dead = message.cell.reference();
        if !by_reference {
            assert_eq!(stage.end(&message), Ok(EndMessageFlags::DONT_RESEND));
        }
        wait("the provider to come there", amid.reached.cancelled());
        sink.pause().unwrap();
        amid.go.cancel();
        let port = sink.address().port();
        let blocked = || towards(port).iter().any(|socket| socket.unsent > 0).then_some(());
        until("our write blocks", PATIENCE, blocked).unwrap();
        if by_reference {
            assert_eq!(stage.cancel(dead), MapiCode::S_OK);
            assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
        } else {
            assert_eq!(stage.cancel(dead), MapiCode::S_OK);
            assert!(stage.queued(&message.entry()).is_some(), "its reference is dead");
            assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
        }
        await_closed(port);
        // Only now the server reads what was on its way.
        sink.resume().unwrap();
        assert_nothing_came(&stage, &sink, &message);
    }
}

/// Point i where the text stops coming, and point j: the server has read everything that was
/// written, and waits.
///
/// Proves: TN-14, TN-17
#[test]
fn amid_the_text_and_right_before_the_final_dot() {
    for place in [Place::Body(1_000_000), Place::EndOfBody] {
        for by_reference in [true, false] {
            let sink = sink();
            let stage = stage_with(&sink);
            let hold = stage.held.hold(place);
            let message = HostMessage::raw_held(1, &TO, text(2_000_000), Holds::default());
            submit(&stage.logon, NEW, &message).unwrap();
            wait("the provider to come there", hold.reached.cancelled());
            if by_reference {
                assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
                assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
            } else {
                assert_eq!(stage.end(&message), Ok(EndMessageFlags::DONT_RESEND));
                assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
            }
            assert_nothing_came(&stage, &sink, &message);
        }
    }
}
