//! Point f at its earliest: the server's machine does not answer the SYN. And what the kernel's
//! table of sockets says, for tests that wait for the state of a connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use postoffice::Listener;
use postrider::mapi::{EndMessageFlags, LogoffFlags, MapiCode, TransportNotify};
use postrider::spi::SectionValue;
use postrider::spool::HistoryEnd;
use tokio::io::copy_bidirectional;

use crate::foreign_host::{Host, PATIENCE, wait};
use crate::foreign_rig::{notify, submit};
use crate::points::Point;
use crate::stage::{NEW, Stage};

/// A connection of this machine as the kernel has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    state: u8,
    /// Bytes that were written and not acknowledged.
    pub(crate) unsent: u64,
}

/// The connections over IPv4 to a port of this machine, seen from those who connect.
pub(crate) fn towards(port: u16) -> Vec<Socket> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, remote) = fields[2].rsplit_once(':').unwrap();
        let state = u8::from_str_radix(fields[3], 16).unwrap();
        let (unsent, _) = fields[4].split_once(':').unwrap();
        let unsent = u64::from_str_radix(unsent, 16).unwrap();
        (u16::from_str_radix(remote, 16) == Ok(port)).then_some(Socket { state, unsent })
    });
    sockets.collect()
}

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;

/// Waits until those who connect have closed; a server that does not read does not see that.
pub(crate) fn await_closed(port: u16) {
    let closed = || {
        let open = towards(port).iter().any(|socket| socket.state == ESTABLISHED);
        (!open).then_some(())
    };
    realservers::wait::until("our side is closed", PATIENCE, closed).unwrap();
}

fn unanswered(port: u16) -> usize {
    towards(port).iter().filter(|socket| socket.state == SYN_SENT).count()
}

/// A listener whose backlog is full: the kernel drops every further SYN.
struct Deaf {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Deaf {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            waiting.push(one);
        }
        Deaf { listener, _waiting: waiting }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Answers from now on, and passes everything on to `server`.
    async fn answer(self, server: SocketAddr) {
        self.listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(self.listener).unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
    }
}

/// Proves: TN-14, TN-17
#[cfg(target_os = "linux")]
#[test]
fn while_the_syn_is_unanswered_it_can_be_cancelled() {
    for by_reference in [true, false] {
        let deaf = Deaf::new();
        let port = deaf.port();
        let mut stage = Stage::new(TransportNotify::empty());
        let mut section = stage.rig.section("ann");
        section.set("smtp.port", SectionValue::Number(u64::from(port)));
        let host = Host::new(section);
        // An account is logged on once.
        wait("TransportLogoff", stage.logon.transport_logoff(LogoffFlags::empty())).unwrap();
        stage.logon = stage.rig.log_on(&host);
        stage.host = host;
        notify(&stage.logon, TransportNotify::BEGIN_OUTBOUND).unwrap();
        let message = Point::FinalDot.message(1);
        submit(&stage.logon, NEW, &message).unwrap();
        let dialling = || (unanswered(port) == 1).then_some(());
        realservers::wait::until("a SYN is out", PATIENCE, dialling).unwrap();
        if by_reference {
            assert_eq!(stage.cancel(message.cell.reference()), MapiCode::S_OK);
            stage.assert_ended(&message.entry(), HistoryEnd::Cancelled);
            assert_eq!(stage.end(&message), Err(MapiCode::CANCEL));
        } else {
            assert_eq!(stage.end(&message), Ok(EndMessageFlags::DONT_RESEND));
            assert_eq!(stage.abort(&message.entry()), MapiCode::S_OK);
        }
        let given_up = || (unanswered(port) == 0).then_some(());
        realservers::wait::until("nobody dials", PATIENCE, given_up).unwrap();
        stage.assert_cancelled(&message);
        let server = stage.rig.office.address(Listener::Smtps).unwrap();
        stage.rig.serve(deaf.answer(server));
        stage.assert_next_goes(2);
        assert_eq!(stage.rig.office.accepted_count(), 1, "only the other one");
    }
}
