//! Faults asked for by the local part of an address, so that a plain mail client can cause them.
//!
//! The name is `[PHASE-]WHAT`, optionally followed by `+anything` to make addresses differ.
//! PHASE is `rcpt` (default), `data`, `body` (amid the data), `dot` (after the final dot, nothing accepted) or
//! `accepted` (after the final dot, the message accepted); in a sender's name also `mail`, which is the default there.
//!
//! | WHAT | effect |
//! | --- | --- |
//! | `550`, `450-4.2.1`, `554-5.7.1` ... | a reply with this code and enhanced code; 421 also closes |
//! | `drop` | the connection is closed |
//! | `reset` | the connection is reset |
//! | `half` | the server's direction is closed |
//! | `hang` | nothing is said until the client goes away |
//! | `delay-MS` | the reply comes so many milliseconds later |
//! | `garbage` | octets that are no reply |
//! | `dribble` | the reply comes octet by octet |
//!
//! Examples: `550-5.1.1@`, `data-451-4.3.0@`, `dot-554-5.6.0@`, `accepted-drop@`, `rcpt-hang@`, `dot-delay-500@`.

use std::time::Duration;

use super::{Action, Moment, SmtpAction, SmtpPhase};
use crate::smtp::Reply;

/// Longest delay a name can ask for.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// A fault read from an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedFault {
    pub(crate) phase: SmtpPhase,
    pub(crate) moment: Moment,
    pub(crate) action: SmtpAction,
}

/// Reads the local part of `address`; `default` is the phase when the name has none.
pub(crate) fn named_fault(address: &str, default: SmtpPhase) -> Option<NamedFault> {
    let local = address.rsplit_once('@').map_or(address, |(local, _)| local);
    let name = local.split_once('+').map_or(local, |(name, _)| name).to_ascii_lowercase();
    let (phase, moment, what) = match name.split_once('-') {
        Some(("mail", what)) => (SmtpPhase::Mail, Moment::Before, what),
        Some(("rcpt", what)) => (SmtpPhase::Rcpt, Moment::Before, what),
        Some(("data", what)) => (SmtpPhase::Data, Moment::Before, what),
        Some(("body", what)) => (SmtpPhase::Body, Moment::Before, what),
        Some(("dot", what)) => (SmtpPhase::FinalDot, Moment::Before, what),
        Some(("accepted", what)) => (SmtpPhase::FinalDot, Moment::After, what),
        _ => (default, Moment::Before, name.as_str()),
    };
    action(what).map(|action| NamedFault { phase, moment, action })
}

fn action(what: &str) -> Option<SmtpAction> {
    let common = match what {
        "drop" => Action::Drop,
        "reset" => Action::Reset,
        "half" => Action::HalfClose,
        "hang" => Action::Hang,
        "garbage" => Action::Replace(b"\x00\xff\xfe nonsense \x80\r\n".to_vec()),
        "dribble" => Action::Dribble { pause: Duration::ZERO },
        _ => match what.split_once('-') {
            Some(("delay", millis)) => {
                let delay = Duration::from_millis(millis.parse().ok()?);
                Action::Delay(delay.min(LONGEST_DELAY))
            }
            _ => return reply(what).map(SmtpAction::Reply),
        },
    };
    Some(common.into())
}

fn reply(what: &str) -> Option<Reply> {
    let (code, enhanced) = what.split_once('-').unwrap_or((what, ""));
    let code: u16 = code.parse().ok().filter(|code| (400..600).contains(code))?;
    let sound = enhanced.is_empty()
        || (enhanced.split('.').count() == 3
            && enhanced.split('.').all(|part| part.parse::<u16>().is_ok()));
    sound.then(|| Reply::new(code, enhanced, "as the address asks"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(address: &str) -> Option<(SmtpPhase, Moment, SmtpAction)> {
        named_fault(address, SmtpPhase::Rcpt).map(|fault| (fault.phase, fault.moment, fault.action))
    }

    #[test]
    fn names_say_phase_and_action() {
        let reply = |code, enhanced| SmtpAction::reply(code, enhanced, "as the address asks");
        for (address, phase, moment, action) in [
            ("550-5.1.1@x", SmtpPhase::Rcpt, Moment::Before, reply(550, "5.1.1")),
            ("550-5.1.1+two@x", SmtpPhase::Rcpt, Moment::Before, reply(550, "5.1.1")),
            ("421@x", SmtpPhase::Rcpt, Moment::Before, reply(421, "")),
            ("data-451-4.3.0@x", SmtpPhase::Data, Moment::Before, reply(451, "4.3.0")),
            ("dot-drop@x", SmtpPhase::FinalDot, Moment::Before, Action::Drop.into()),
            ("accepted-drop@x", SmtpPhase::FinalDot, Moment::After, Action::Drop.into()),
            ("body-reset@x", SmtpPhase::Body, Moment::Before, Action::Reset.into()),
            ("Hang@x", SmtpPhase::Rcpt, Moment::Before, Action::Hang.into()),
            (
                "dot-delay-50@x",
                SmtpPhase::FinalDot,
                Moment::Before,
                Action::Delay(Duration::from_millis(50)).into(),
            ),
        ] {
            assert_eq!(read(address), Some((phase, moment, action)), "{address}");
        }
    }

    #[test]
    fn ordinary_names_are_ordinary() {
        for address in [
            "ann@x",
            "ann-marie@x",
            "250@x",
            "550-ann@x",
            "data-ann@x",
            "delay@x",
            "650@x",
            "@x",
            "",
        ] {
            assert_eq!(read(address), None, "{address}");
        }
    }
}
