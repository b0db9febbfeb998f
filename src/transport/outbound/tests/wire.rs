//! Connections that break: every way of breaking at every phase, over every way of connecting.
//! After each of them the message is delivered exactly once, the status has named what was wrong,
//! and traffic goes on.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use postoffice::{Action, Fault, PostOffice, SmtpExtension, SmtpPhase};

use super::rig::{Note, PATIENCE, Rig, Shape, Told, entry};
use crate::net::TlsMode;
use crate::spool::QueueState;
use crate::transport::events::{Trouble, TroubleKind};
use crate::transport::outbound::deadlines::Deadlines;

/// A way in which a connection can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Reset,
    Drop,
    HalfClose,
    Hang,
    /// Octets that are no reply, among them NUL and such as are not UTF-8.
    Garbage,
    /// A reply whose lines have no end.
    Flood,
    /// A line that has no end.
    EndlessLine,
    /// The reply octet by octet: odd, and to be borne.
    Dribble,
    /// A reply with NUL and octets that are not UTF-8 in its text: odd, and to be borne.
    OddOctets,
}

const BREAKS: [Break; 9] = [
    Break::Reset,
    Break::Drop,
    Break::HalfClose,
    Break::Hang,
    Break::Garbage,
    Break::Flood,
    Break::EndlessLine,
    Break::Dribble,
    Break::OddOctets,
];

/// How the server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    StepByStep,
    Pipelined,
    StartTls,
    ImplicitTls,
}

/// One fault, once.
#[derive(Clone, Copy, Debug)]
struct Case {
    way: Way,
    phase: SmtpPhase,
    /// Which time the phase is reached: the second EHLO comes under TLS, the second RCPT is for
    /// the second recipient.
    nth: u32,
    breaks: Break,
}

impl Case {
    fn is_borne(self) -> bool {
        matches!(self.breaks, Break::Dribble | Break::OddOctets) || self.phase == SmtpPhase::Quit
    }

    /// Whether there is a reply that can be spoilt in this manner.
    fn makes_sense(self) -> bool {
        match self.phase {
            SmtpPhase::Connect | SmtpPhase::TlsHandshake => !matches!(
                self.breaks,
                Break::Dribble | Break::OddOctets | Break::Flood | Break::EndlessLine
            ),
            SmtpPhase::Body => matches!(
                self.breaks,
                Break::Reset | Break::Drop | Break::HalfClose | Break::Hang | Break::Garbage
            ),
            // Nothing reads the reply to QUIT.
            SmtpPhase::Quit => self.breaks != Break::OddOctets,
            _ => true,
        }
    }

    fn fault(self) -> Fault {
        // What comes behind the final dot is more than the sockets hold: a server that gets to the
        // end of it takes the message.
        let octets = if self.phase == SmtpPhase::FinalDot { 40_000_000 } else { 2_000_000 };
        let action = match self.breaks {
            Break::Reset => Action::Reset,
            Break::Drop => Action::Drop,
            Break::HalfClose => Action::HalfClose,
            Break::Hang => Action::Hang,
            Break::Garbage => Action::Replace(b"\x00\xff\xfe nonsense \x80\r\n".to_vec()),
            Break::Flood => Action::Flood { line: b"250-more".to_vec(), times: octets / 10 },
            Break::EndlessLine => Action::EndlessLine { bytes: octets },
            Break::Dribble => Action::Dribble { pause: Duration::ZERO },
            Break::OddOctets => {
                let code: &[u8] = match self.phase {
                    SmtpPhase::Greeting | SmtpPhase::StartTls => b"220",
                    SmtpPhase::Auth => b"235",
                    SmtpPhase::Data => b"354",
                    _ => b"250",
                };
                Action::Inject([code, b"-\x00\xff\xfe odd \x80\r\n"].concat())
            }
        };
        Fault::smtp(self.phase, action).nth(self.nth).at_byte(100_000).once()
    }

    /// The deadline of the phase that hangs is short; all others are those of production, so that
    /// a slow machine is not taken for a slow server. It holds for the attempt that follows, too,
    /// and must be longer than a server in this process is kept waiting for its turn.
    fn deadlines(self) -> Deadlines {
        let mut deadlines = Shape::default().deadlines;
        if self.breaks != Break::Hang {
            return deadlines;
        }
        let short = Duration::from_secs(3);
        match self.phase {
            SmtpPhase::Connect if self.way == Way::ImplicitTls => deadlines.net.tls = short,
            SmtpPhase::Connect | SmtpPhase::Greeting => deadlines.net.greeting = short,
            SmtpPhase::TlsHandshake => deadlines.net.tls = short,
            SmtpPhase::StartTls => deadlines.net.handshake = short,
            SmtpPhase::Ehlo if self.way == Way::StartTls && self.nth == 1 => {
                deadlines.net.handshake = short;
            }
            SmtpPhase::Mail => deadlines.mail = short,
            SmtpPhase::Rcpt => deadlines.rcpt = short,
            SmtpPhase::Data => deadlines.data = short,
            SmtpPhase::Body => deadlines.block = short,
            SmtpPhase::FinalDot => deadlines.dot = short,
            _ => deadlines.command = short,
        }
        deadlines
    }

    /// Whose trouble the status is to show.
    fn kind(self) -> TroubleKind {
        match (self.phase, self.breaks) {
            (SmtpPhase::TlsHandshake, Break::Garbage) => TroubleKind::Tls,
            (SmtpPhase::Connect, Break::Garbage) if self.way == Way::ImplicitTls => {
                TroubleKind::Tls
            }
            (_, Break::Garbage | Break::Flood | Break::EndlessLine) => TroubleKind::Server,
            _ => TroubleKind::Network,
        }
    }

    /// Words of which the status has to show one. A reset may overtake the replies before it.
    fn words(self) -> &'static [&'static str] {
        match self.phase {
            SmtpPhase::Connect | SmtpPhase::Greeting => {
                &["greet", "closed", "TLS", "port", "not what this kind of server says"]
            }
            SmtpPhase::StartTls => &["did not answer", "closed", "not what this kind"],
            SmtpPhase::TlsHandshake => &["TLS", "closed"],
            SmtpPhase::Ehlo => &["EHLO", "did not answer", "closed", "not what this kind"],
            SmtpPhase::Auth => &["the login"],
            SmtpPhase::Mail => &["MAIL"],
            SmtpPhase::Rcpt => &["RCPT", "MAIL"],
            SmtpPhase::Data => &["DATA", "RCPT", "MAIL"],
            SmtpPhase::Body => &["the message text", "the end of the message"],
            _ => &["the end of the message"],
        }
    }

    async fn office(self) -> PostOffice {
        let builder = PostOffice::builder().user("ann", "secret").catch_all("ann");
        let builder = match self.way {
            Way::StepByStep => builder.withhold(SmtpExtension::Pipelining),
            Way::Pipelined | Way::StartTls | Way::ImplicitTls => builder,
        };
        builder.start().await.unwrap()
    }

    async fn run(self) {
        let tls = match self.way {
            Way::StepByStep | Way::Pipelined => TlsMode::Plain,
            Way::StartTls => TlsMode::StartTls,
            Way::ImplicitTls => TlsMode::Implicit,
        };
        let shape = Shape { tls, deadlines: self.deadlines(), ..Shape::default() };
        let rig = Rig::shaped(shape, self.office().await).await;
        let fault = rig.office.inject(self.fault());
        rig.open();
        let note = Note::to(&entry(1), &["bob@x.org", "cat@x.org"]);
        // More than any socket holds back, so that a server that stops reading is noticed.
        let lines = if self.phase == SmtpPhase::Body { 150_000 } else { 10 };
        let text = format!("Subject: {self:?}\r\n\r\n{}", "x".repeat(70) + "\r\n");
        rig.submit(
            note.content(text.clone() + &"line of a text that may be long\r\n".repeat(lines)),
        )
        .await
        .unwrap();
        if self.phase == SmtpPhase::Quit {
            // Said by a connection that has waited for more; nothing of it is to be seen.
            rig.hears_end_of(&entry(1)).await;
            fault.reached(PATIENCE).await.unwrap();
        } else {
            fault.reached(PATIENCE).await.unwrap();
        }
        if !self.is_borne() {
            self.check_trouble(&rig).await;
            rig.clock.advance(Duration::from_secs(24 * 3600));
        }
        let row = rig.hears_end_of(&entry(1)).await;
        assert_eq!(row.state, QueueState::Done, "{self:?}");
        for index in [0, 1] {
            assert_eq!(rig.recipient(&entry(1), index).await, "delivered", "{self:?}");
        }
        assert_eq!(rig.office.accepted_count(), 1, "{self:?}");
        let recipients: Vec<String> =
            rig.office.accepted()[0].recipients().into_iter().map(str::to_owned).collect();
        assert_eq!(recipients, ["bob@x.org", "cat@x.org"], "{self:?}");
        let last = rig.told().into_iter().rev().find_map(|told| match told {
            Told::Trouble(trouble) => Some(trouble),
            _ => None,
        });
        let wanted = if self.is_borne() { None } else { Some(None) };
        assert_eq!(last, wanted, "{self:?}: the trouble is over");
    }

    async fn check_trouble(self, rig: &Rig) {
        let row = rig.row_when(&entry(1), |row| !matches!(row.state, QueueState::Claimed(_))).await;
        let in_doubt = matches!(row.state, QueueState::InDoubt { .. });
        let attempts = match self.phase {
            SmtpPhase::Mail | SmtpPhase::Rcpt | SmtpPhase::Data => Some((false, 1)),
            SmtpPhase::FinalDot => Some((true, 1)),
            // Whether the end of the text had left when it broke is a matter of luck.
            SmtpPhase::Body => None,
            _ => Some((false, 0)),
        };
        if let Some(wanted) = attempts {
            assert_eq!((in_doubt, row.attempts), wanted, "{self:?}");
        }
        let Trouble { kind, words, next_attempt } = rig.hears_trouble().await;
        assert!(next_attempt.is_some(), "{self:?}");
        assert!(words.contains("127.0.0.1"), "{self:?}: {words}");
        assert!(self.words().iter().any(|word| words.contains(word)), "{self:?}: {words}");
        if self.phase != SmtpPhase::Body {
            assert_eq!(kind, self.kind(), "{self:?}: {words}");
        }
    }
}

fn cases() -> Vec<Case> {
    use SmtpPhase::{
        Auth, Body, Connect, Data, Ehlo, FinalDot, Greeting, Mail, Quit, Rcpt, StartTls,
        TlsHandshake,
    };
    let in_clear = [
        (Connect, 1),
        (Greeting, 1),
        (Ehlo, 1),
        (Auth, 1),
        (Mail, 1),
        (Rcpt, 1),
        (Rcpt, 2),
        (Data, 1),
        (Body, 1),
        (FinalDot, 1),
        (Quit, 1),
    ];
    let before_tls = [(Greeting, 1), (Ehlo, 1), (StartTls, 1), (TlsHandshake, 1), (Ehlo, 2)];
    let within_tls = [
        (Connect, 1),
        (TlsHandshake, 1),
        (Greeting, 1),
        (Auth, 1),
        (Mail, 1),
        (Body, 1),
        (FinalDot, 1),
    ];
    let ways: [(Way, &[(SmtpPhase, u32)]); 4] = [
        (Way::StepByStep, &in_clear),
        (Way::Pipelined, &in_clear[4..10]),
        (Way::StartTls, &before_tls),
        (Way::ImplicitTls, &within_tls),
    ];
    let mut cases = Vec::new();
    for (way, phases) in ways {
        for (phase, nth) in phases {
            for breaks in BREAKS {
                cases.push(Case { way, phase: *phase, nth: *nth, breaks });
            }
        }
    }
    cases.retain(|case| case.makes_sense());
    cases
}

/// The number of cases stands in `docs/reliability.md`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_break_at_every_phase_is_survived_by_one_delivery() {
    let cases = cases();
    assert_eq!(cases.len(), 232);
    stream::iter(cases)
        .for_each_concurrent(12, |case| async move {
            let work = tokio::spawn(case.run());
            if let Err(error) = work.await {
                panic!("{case:?}: {error}");
            }
        })
        .await;
}

#[tokio::test]
async fn a_port_that_refuses_is_named_and_tried_again() {
    let rig = Rig::new().await;
    rig.office.stop().await;
    rig.open();
    let entry = rig.send(1, &["bob@x.org"]).await;
    let trouble = rig.hears_trouble().await;
    assert_eq!(trouble.kind, TroubleKind::Network);
    assert!(trouble.words.contains("nothing answers on that port"), "{}", trouble.words);
    rig.row_when(&entry, |row| row.state == QueueState::Due && row.attempts == 0).await;
    rig.office.restart().await.unwrap();
    rig.clock.advance(Duration::from_secs(60));
    rig.hears_end_of(&entry).await;
    assert_eq!(rig.office.accepted_count(), 1);
}

/// The one window: the server has the message and nobody heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_behind_the_servers_acceptance_is_in_doubt() {
    for breaks in BREAKS.into_iter().filter(|one| !matches!(one, Break::Dribble | Break::OddOctets))
    {
        for way in [Way::Pipelined, Way::ImplicitTls] {
            let case = Case { way, phase: SmtpPhase::FinalDot, nth: 1, breaks };
            let tls = if way == Way::Pipelined { TlsMode::Plain } else { TlsMode::Implicit };
            let shape = Shape { tls, deadlines: case.deadlines(), ..Shape::default() };
            let rig = Rig::shaped(shape, case.office().await).await;
            rig.office.inject(case.fault().after_effect());
            rig.open();
            let entry = rig.send(1, &["bob@x.org"]).await;
            let in_doubt = |row: &crate::spool::QueueRecord| {
                matches!(row.state, QueueState::InDoubt { resend: true, .. })
            };
            let row = rig.row_when(&entry, in_doubt).await;
            assert!(row.last_error.contains("the end of the message"), "{case:?}: {row:?}");
            assert_eq!(rig.office.accepted_count(), 1, "{case:?}");
            rig.clock.advance(Duration::from_secs(24 * 3600));
            rig.hears_end_of(&entry).await;
            assert_eq!(rig.office.accepted_count(), 2, "{case:?}");
        }
    }
}
