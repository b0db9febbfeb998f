//! Every fault at every phase of a session. The fault lasts until it is taken away. Meanwhile the
//! transport lives and its status names the trouble (or mail flows in spite of it); afterwards
//! the trouble is gone, mail flows, and every message is there once, byte for byte.

use std::time::Duration;

use futures_util::StreamExt;
use postoffice::{Action, Fault, ImapAction, ImapCapability, ImapPhase, PostOffice};

use super::rig::{LONG, Rig, message, messages};
use crate::net::{TlsMode, Trust};
use crate::transport::events::TroubleKind;
use crate::transport::settings::AfterFetch;

use ImapPhase::{
    Capability, Connect, Copy, Done, Expunge, Fetch, Greeting, Idle, List, Login, Message,
    MidLiteral, Move, Noop, Search, Select, StartTls, Status, Store, TlsHandshake,
};
use TroubleKind::{Configuration, LoginRefused, Network, Server, Tls};

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// When the phase begins.
    Begin(ImapPhase),
    /// When it has had its effect.
    Reply(ImapPhase),
    /// FETCH of numbers, sizes and dates.
    Listing,
    /// FETCH of bodies.
    Bodies,
}

/// All phases in the order of a session.
const PHASES: [At; 21] = [
    At::Begin(Connect),
    At::Begin(Greeting),
    At::Begin(StartTls),
    At::Begin(TlsHandshake),
    At::Begin(Login),
    At::Begin(Capability),
    At::Begin(List),
    At::Begin(Select),
    At::Listing,
    At::Begin(Search),
    At::Bodies,
    At::Begin(Message),
    At::Begin(MidLiteral),
    At::Begin(Store),
    At::Begin(Status),
    At::Begin(Copy),
    At::Begin(Move),
    At::Begin(Expunge),
    At::Begin(Idle),
    At::Reply(Idle),
    At::Begin(Done),
];

/// What a case has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The status names a trouble of one of these kinds.
    Shows(&'static [TroubleKind]),
    /// Everything is done in spite of the fault.
    Works,
}

impl At {
    fn phase(self) -> ImapPhase {
        match self {
            At::Begin(phase) | At::Reply(phase) => phase,
            At::Listing | At::Bodies => Fetch,
        }
    }

    fn fault(self, action: &ImapAction) -> Fault {
        let fault = Fault::imap(self.phase(), action.clone());
        match self {
            At::Begin(_) => fault,
            At::Reply(_) => fault.after_effect(),
            At::Listing => fault.matching("RFC822.SIZE"),
            At::Bodies => fault.matching("BODY.PEEK"),
        }
    }

    /// Before the login there is no session that could be told anything by NO or BYE.
    fn is_before_imap(self) -> bool {
        matches!(self.phase(), Connect | TlsHandshake)
    }
}

/// An account whose session comes to this phase.
async fn rig_for(at: At) -> Rig {
    let mut rig = Rig::with(PostOffice::builder()).await;
    let ms = Duration::from_millis;
    let tuning = &mut rig.settings.tuning;
    tuning.silence = ms(400);
    tuning.idle_done = ms(400);
    tuning.set_aside_pause = ms(50);
    tuning.safety_look = ms(200);
    tuning.sweep_least = 1;
    rig.settings.imap.poll_interval = ms(200);
    let deadlines = &mut rig.settings.deadlines;
    (deadlines.greeting, deadlines.handshake) = (ms(400), ms(400));
    (deadlines.login, deadlines.tls) = (ms(400), ms(400));
    match at.phase() {
        // Under TLS the capabilities are asked for.
        Capability | StartTls | TlsHandshake => {
            let file = rig.folder().join("ca.pem");
            std::fs::write(&file, rig.office.ca_pem()).unwrap();
            rig.settings.imap.server.tls = TlsMode::StartTls;
            rig.settings.imap.server.trust = Trust::CaFile(file);
            rig.settings.imap.server.host = "localhost".into();
        }
        List => {
            rig.office.create_mailbox("ann", "Lists").unwrap();
            rig.settings.imap.mailboxes.push("Lists".into());
        }
        Store | Expunge => rig.settings.imap.after = AfterFetch::Delete,
        Move => rig.settings.imap.after = AfterFetch::Move("Old".into()),
        Status | Copy => {
            rig.office.withhold(ImapCapability::Move);
            rig.settings.imap.after = AfterFetch::Move("Old".into());
        }
        Done => rig.settings.tuning.idle_renew = ms(80),
        Idle if at == At::Reply(Idle) => rig.settings.tuning.idle_renew = ms(300),
        Noop => {
            rig.settings.imap.push = false;
            rig.settings.imap.poll_interval = Duration::from_secs(3600);
            rig.settings.tuning.idle_renew = ms(60);
        }
        _ => {}
    }
    rig
}

/// Runs one case; the error tells what went wrong.
async fn suffer(at: At, action: ImapAction, expect: Expect) -> Result<(), String> {
    let mut rig = rig_for(at).await;
    let mut all = messages(6);
    if at.phase() == Search {
        // Messages that have gone are looked for.
        let old = [message(70, 100), message(71, 100), message(72, 200)];
        rig.deliver(old.clone());
        rig.one_flush().await;
        for uid in 1..=3 {
            rig.office.remove("ann", "INBOX", uid).unwrap();
        }
        all.extend(old);
        rig.deliver(all[..6].to_vec());
    } else {
        rig.deliver(all.clone());
    }
    rig.settings.tuning.batch = (4, 1 << 20);
    let server = rig.settings.imap.server.port.to_string();
    let fault = rig.office.inject(at.fault(&action));
    let life = rig.start();
    let seen = |what: &str| {
        let troubles = life.events.troubles.lock().unwrap();
        format!("{what}; struck {} times; {troubles:?}", fault.hits())
    };
    let due = async {
        loop {
            let done = match expect {
                Expect::Shows(kinds) => {
                    let troubles = life.events.troubles.lock().unwrap();
                    troubles.iter().any(|it| {
                        kinds.contains(&it.kind)
                            && (it.words.contains(&server) || it.words.contains("UID"))
                    })
                }
                Expect::Works => fault.hits() > 0 && rig.store.len() == all.len(),
            };
            if done {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(LONG, due).await.is_err() {
        return Err(seen("not as expected"));
    }
    fault.remove();
    fault.release();
    let back = async {
        let mut counts = rig.store.counts();
        let _ = counts.wait_for(|now| *now >= all.len()).await;
        let new = message(99, 400);
        rig.deliver([new.clone()]);
        all.push(new);
        let _ = counts.wait_for(|now| *now >= all.len()).await;
        let mut trouble = life.events.trouble.subscribe();
        let _ = trouble.wait_for(Option::is_none).await;
    };
    if tokio::time::timeout(LONG, back).await.is_err() {
        return Err(seen(&format!("does not come back, {} saved", rig.store.len())));
    }
    life.inbound.stop(LONG).await;
    rig.assert_same(all);
    Ok(())
}

/// Runs cases, several at a time, and returns how many they were.
async fn table(cases: Vec<(At, ImapAction, Expect)>) -> usize {
    let count = cases.len();
    let runs = cases.into_iter().map(|(at, action, expect)| async move {
        let name = format!("{at:?}, {action:?}, {expect:?}");
        let name: String = name.chars().take(200).collect();
        suffer(at, action, expect).await.map_err(|error| format!("{name}: {error}"))
    });
    let runs = futures_util::stream::iter(runs).buffer_unordered(4);
    let failed: Vec<String> = runs.filter_map(async |run| run.err()).collect().await;
    assert!(failed.is_empty(), "{} of {count} cases:\n{}", failed.len(), failed.join("\n"));
    count
}

/// Every phase with an action, where it can be had.
fn everywhere(
    action: impl Into<ImapAction>,
    expect: impl Fn(At) -> Option<Expect>,
) -> Vec<(At, ImapAction, Expect)> {
    let action = action.into();
    let cases = PHASES.iter().chain(&[At::Begin(Noop)]);
    cases.filter_map(|at| Some((*at, action.clone(), expect(*at)?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_at_any_phase_is_made_again() {
    let mut cases = Vec::new();
    for action in [Action::Drop, Action::Reset, Action::HalfClose, Action::Hang] {
        let hang = action == Action::Hang;
        cases.extend(everywhere(action.clone(), |at| {
            Some(match at {
                At::Begin(TlsHandshake) if !hang => Expect::Shows(&[Tls, Network]),
                _ => Expect::Shows(&[Network]),
            })
        }));
        // Done, and nobody hears of it.
        for phase in [Login, Select, Store, Copy, Move, Expunge, Status] {
            let at = At::Reply(phase);
            cases.push((at, action.clone().into(), Expect::Shows(&[Network])));
        }
    }
    assert_eq!(table(cases).await, 4 * (22 + 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_any_phase_is_shown_and_survived() {
    let words = || "not this time".to_owned();
    let refused = |at: At| {
        Some(match at {
            _ if at.is_before_imap() => return None,
            At::Begin(MidLiteral | Done) | At::Reply(_) => return None,
            At::Begin(StartTls) => Expect::Shows(&[Tls, Configuration]),
            At::Begin(Login) => Expect::Shows(&[LoginRefused]),
            At::Begin(Select) => Expect::Shows(&[Configuration]),
            At::Bodies => Expect::Shows(&[TroubleKind::Message]),
            // The copy does not depend on it; there is polling where IDLE is refused.
            At::Begin(Status | Idle) => Expect::Works,
            _ => Expect::Shows(&[Server]),
        })
    };
    let mut cases = everywhere(ImapAction::No(words()), refused);
    cases.extend(everywhere(ImapAction::Bad(words()), |at| match at {
        At::Begin(Greeting) => None,
        at => refused(at),
    }));
    cases.extend(everywhere(ImapAction::Bye(words()), |at| {
        Some(match at {
            _ if at.is_before_imap() => return None,
            At::Begin(Greeting | StartTls | Capability | Login) => Expect::Shows(&[Server]),
            _ => Expect::Shows(&[Network]),
        })
    }));
    assert_eq!(table(cases).await, 17 + 16 + 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_at_any_phase_is_shown_and_survived() {
    let garbage = b"\xff\x00 \x80what is this\r\n* 1 FETCH (((\r\n".to_vec();
    let nonsense = |at: At| {
        Some(match at {
            At::Begin(TlsHandshake) => Expect::Shows(&[Tls, Server, Network]),
            // What stands in the middle of a literal is part of it, or its end is missing.
            At::Begin(MidLiteral) => Expect::Shows(&[Server, Network]),
            _ => Expect::Shows(&[Server]),
        })
    };
    let mut cases = everywhere(Action::Replace(garbage.clone()), |at| match at {
        // A message that is left out is not there.
        At::Begin(Message) => Some(Expect::Shows(&[TroubleKind::Message, Server])),
        at => nonsense(at),
    });
    cases.extend(everywhere(Action::Inject(garbage), nonsense));
    cases.extend(everywhere(Action::EndlessLine { bytes: 1 << 20 }, nonsense));
    cases.extend(everywhere(ImapAction::WrongTag, |at| match at {
        _ if at.is_before_imap() => None,
        At::Begin(Greeting | Message | MidLiteral) | At::Reply(_) => None,
        _ => Some(Expect::Shows(&[Server])),
    }));
    assert_eq!(table(cases).await, 3 * 22 + 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_drips_at_any_phase_are_survived() {
    let mut cases = everywhere(Action::Dribble { pause: Duration::ZERO }, |_| Some(Expect::Works));
    let flood = Action::Flood { line: b"* 6 EXISTS".to_vec(), times: 20_000 };
    cases.extend(everywhere(flood, |at| {
        Some(match at {
            At::Begin(TlsHandshake) => Expect::Shows(&[Tls, Server]),
            At::Begin(Connect | Greeting | StartTls | Capability) => Expect::Shows(&[Server]),
            At::Begin(MidLiteral) => Expect::Shows(&[Server, Network]),
            _ => Expect::Works,
        })
    }));
    assert_eq!(table(cases).await, 2 * 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_are_not_believed() {
    let unread: &[TroubleKind] = &[TroubleKind::Message];
    let mut cases: Vec<(At, ImapAction, Expect)> = vec![
        // OK is no answer.
        (At::Begin(Capability), ImapAction::OkOnly, Expect::Shows(&[Server])),
        (At::Begin(StartTls), ImapAction::OkOnly, Expect::Shows(&[Tls, Server, Network])),
        (At::Begin(Login), ImapAction::OkOnly, Expect::Shows(&[Configuration, Server])),
        (At::Begin(List), ImapAction::OkOnly, Expect::Works),
        (At::Begin(Select), ImapAction::OkOnly, Expect::Shows(&[Configuration])),
        (At::Listing, ImapAction::OkOnly, Expect::Shows(&[Server])),
        (At::Bodies, ImapAction::OkOnly, Expect::Shows(unread)),
        (At::Begin(Message), ImapAction::FetchNothing, Expect::Shows(&[Server])),
        (At::Bodies, ImapAction::FetchNothing, Expect::Shows(unread)),
        (At::Bodies, ImapAction::FetchNil, Expect::Shows(unread)),
        (At::Begin(Search), ImapAction::OkOnly, Expect::Works),
        (At::Begin(Store), ImapAction::OkOnly, Expect::Works),
        (At::Begin(Expunge), ImapAction::OkOnly, Expect::Works),
        (At::Begin(Idle), ImapAction::OkOnly, Expect::Works),
        (At::Begin(Noop), ImapAction::OkOnly, Expect::Works),
        // IDLE that the server ends by itself.
        (At::Reply(Idle), ImapAction::OkOnly, Expect::Shows(&[Network])),
        // The body of a message that was not asked for, and of one that was but under the number
        // of another.
        (At::Bodies, ImapAction::FetchUid(4711), Expect::Shows(unread)),
        (At::Bodies, ImapAction::FetchUid(3), Expect::Shows(&[Server])),
        (At::Listing, ImapAction::FetchUid(4711), Expect::Shows(&[Server])),
        // Literals whose length is not theirs.
        (At::Bodies, ImapAction::LiteralLength(40), Expect::Shows(&[Server, Network])),
        (At::Bodies, ImapAction::LiteralLength(-40), Expect::Shows(&[Server, Network])),
        (At::Bodies, ImapAction::LiteralLength(1 << 40), Expect::Shows(&[Server])),
        // Sizes that are a little off; far too large ones are waited for in pieces.
        (At::Listing, ImapAction::SizeOff(3), Expect::Works),
        (At::Listing, ImapAction::SizeOff(-3), Expect::Works),
        (At::Listing, ImapAction::SizeOff(100_000), Expect::Shows(unread)),
        (At::Listing, ImapAction::SizeOff(1 << 30), Expect::Shows(unread)),
        (At::Listing, ImapAction::SizeOff(-100_000), Expect::Works),
    ];
    for uid in [3, 4_000_000_000_u32] {
        let line = format!("* 2 FETCH (UID {uid} BODY[] {{5}}\r\nhello)\r\n").into_bytes();
        cases.push((At::Listing, Action::Inject(line.clone()).into(), Expect::Works));
        cases.push((At::Begin(Select), Action::Inject(line).into(), Expect::Works));
    }
    assert_eq!(table(cases).await, 31);
}

/// A fault when saying goodbye holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_takes_no_longer_than_it_may() {
    let actions: [ImapAction; 8] = [
        Action::Drop.into(),
        Action::Reset.into(),
        Action::HalfClose.into(),
        Action::Hang.into(),
        Action::Replace(b"\xff\x00\r\n".to_vec()).into(),
        Action::Flood { line: b"* 6 EXISTS".to_vec(), times: 20_000 }.into(),
        Action::EndlessLine { bytes: 1 << 20 }.into(),
        ImapAction::No("stay".into()),
    ];
    for action in actions {
        let mut rig = Rig::new().await;
        rig.settings.tuning.idle_done = Duration::from_millis(200);
        rig.deliver(messages(3));
        let fault = rig.office.inject(Fault::imap(ImapPhase::Logout, action.clone()));
        let life = rig.start();
        rig.saved(3).await;
        let begin = std::time::Instant::now();
        life.inbound.stop(LONG).await;
        assert!(begin.elapsed() < LONG / 2, "{action:?}: {:?}", begin.elapsed());
        assert!(fault.hits() > 0, "{action:?} did not strike");
        fault.release();
        rig.one_flush().await;
        rig.assert_same(messages(3));
    }
}
