//! Why a lane stopped, whose fault that is, and how long to stay away.

use std::time::Duration;

use super::tuning::{Tuning, backoff};
use crate::mapi::MapiError;
use crate::net::{Fault, ImapReply, LoginError, NetError, ReplyStatus, Throttle};
use crate::spi::SecretError;
use crate::transport::events::TroubleKind;

/// Why a lane stopped, or could not do something.
#[derive(Clone, Debug)]
pub(super) enum LaneFault {
    /// There is no connection.
    Net(NetError),
    /// There is no login.
    Login(LoginError),
    /// There is no password.
    Secret(SecretError),
    /// The connection broke or went silent while it was in use.
    Lost(String),
    /// The server does not know any more who we are.
    LoginLost(String),
    /// The server said BYE.
    Bye(String),
    /// The server asked for patience.
    Throttled { words: String, throttle: Throttle },
    /// What came is not IMAP, or not what was asked for.
    Protocol(String),
    /// The server refused a command.
    Refused { command: &'static str, reply: ImapReply },
    /// A mailbox of the profile cannot be opened.
    Mailbox { mailbox: String, words: String },
    /// So much is owed to a mailbox that nothing more is fetched from it.
    Owing { mailbox: String, count: u64, why: Box<LaneFault> },
    /// The spool does not take the cursor.
    Storage(MapiError),
    /// The spool takes nothing any more, until the next start (OB-9).
    SpoolLost(MapiError),
}

impl LaneFault {
    /// The fault behind a NO or BAD.
    pub(super) fn refused(command: &'static str, reply: ImapReply) -> Self {
        debug_assert_ne!(reply.status, ReplyStatus::Ok);
        match reply.throttle() {
            Some(throttle) => LaneFault::Throttled { words: reply.words(), throttle },
            None => LaneFault::Refused { command, reply },
        }
    }

    /// Whether the connection may go on being used.
    pub(super) fn spares_the_connection(&self) -> bool {
        match self {
            LaneFault::Refused { .. } | LaneFault::Mailbox { .. } | LaneFault::Owing { .. } => true,
            LaneFault::Net(_)
            | LaneFault::Login(_)
            | LaneFault::Secret(_)
            | LaneFault::Lost(_)
            | LaneFault::LoginLost(_)
            | LaneFault::Bye(_)
            | LaneFault::Throttled { .. }
            | LaneFault::Protocol(_)
            | LaneFault::Storage(_)
            | LaneFault::SpoolLost(_) => false,
        }
    }

    /// Whether the server has too many connections of this account.
    pub(super) fn wants_fewer_connections(&self) -> bool {
        match self {
            LaneFault::Throttled { throttle, .. }
            | LaneFault::Login(LoginError::Throttled { throttle, .. }) => throttle.connections,
            _ => false,
        }
    }

    /// What kind of trouble it is.
    pub(super) fn kind(&self) -> TroubleKind {
        match self {
            LaneFault::Net(error) | LaneFault::Login(LoginError::Net(error)) => {
                match error.fault() {
                    _ if error.is_tls() => TroubleKind::Tls,
                    Fault::Network => TroubleKind::Network,
                    Fault::Server => TroubleKind::Server,
                    Fault::Identity => TroubleKind::Tls,
                    Fault::Settings => TroubleKind::Configuration,
                }
            }
            LaneFault::Login(LoginError::Settings { .. }) | LaneFault::Mailbox { .. } => {
                TroubleKind::Configuration
            }
            LaneFault::Login(LoginError::Refused { .. }) => TroubleKind::LoginRefused,
            LaneFault::Login(LoginError::Throttled { .. }) | LaneFault::Throttled { .. } => {
                TroubleKind::Throttled
            }
            LaneFault::Secret(error) => TroubleKind::of_secret(error.kind),
            LaneFault::Owing { why, .. } => why.kind(),
            // Whether the login is still good is for the next one to find out.
            LaneFault::Lost(_) | LaneFault::LoginLost(_) | LaneFault::Bye(_) => {
                TroubleKind::Network
            }
            LaneFault::Protocol(_) | LaneFault::Refused { .. } => TroubleKind::Server,
            LaneFault::Storage(_) => TroubleKind::Storage,
            LaneFault::SpoolLost(_) => TroubleKind::SpoolLost,
        }
    }

    /// One sentence for people.
    pub(super) fn words(&self, server: &str) -> String {
        match self {
            LaneFault::Net(error) => error.to_string(),
            LaneFault::Login(error) => error.to_string(),
            LaneFault::Secret(error) => error.to_string(),
            LaneFault::Lost(words) => format!("{server}: the connection is lost ({words})"),
            LaneFault::LoginLost(words) => {
                format!("{server}: the login has run out ({words}); logging in again")
            }
            LaneFault::Bye(words) => {
                format!("{server}: the server closed the connection ({words})")
            }
            LaneFault::Throttled { words, .. } => {
                format!("{server}: the server asks for patience ({words})")
            }
            LaneFault::Protocol(words) => {
                format!("{server}: the server does not keep to the protocol ({words})")
            }
            LaneFault::Refused { command, reply } => {
                format!("{server}: {command} is refused ({})", reply.words())
            }
            LaneFault::Mailbox { mailbox, words } => format!(
                "{server}: the mailbox {mailbox} cannot be opened ({words}); check \
                 imap.mailboxes"
            ),
            LaneFault::Owing { mailbox, count, why } => format!(
                "{}; imap.after is owed to {count} messages of {mailbox}, and no more are \
                 fetched from it until the server does it, or imap.after is \"keep\"",
                why.words(server)
            ),
            LaneFault::Storage(error) | LaneFault::SpoolLost(error) => {
                format!("the spool takes no cursor: {error}")
            }
        }
    }

    /// How long to stay away after this has happened `failures` times in a row.
    pub(super) fn pause(&self, tuning: &Tuning, failures: u32) -> Duration {
        let asked = match self {
            LaneFault::Throttled { throttle, .. }
            | LaneFault::Login(LoginError::Throttled { throttle, .. }) => throttle.pause,
            _ => None,
        };
        let bounds = match self.kind() {
            TroubleKind::Throttled => tuning.throttle_pause,
            TroubleKind::LoginRefused
            | TroubleKind::Credentials
            | TroubleKind::NeedsSignIn
            | TroubleKind::Configuration
            | TroubleKind::Tls => tuning.login_pause,
            TroubleKind::Network
            | TroubleKind::Server
            | TroubleKind::Storage
            | TroubleKind::SpoolLost
            | TroubleKind::Breakdown
            | TroubleKind::Message => tuning.network_pause,
        };
        asked.unwrap_or_else(|| backoff(bounds, failures))
    }
}

/// Whether a refused FETCH is about the account. A lone `[UNAVAILABLE]` is not: Yahoo answers so
/// for single messages it cannot read.
pub(super) fn asks_for_patience(reply: &ImapReply) -> bool {
    let about_one = reply.has_code("UNAVAILABLE") || reply.has_code("SERVERBUG");
    match reply.throttle() {
        Some(throttle) => throttle.pause.is_some() || throttle.connections || !about_one,
        None => false,
    }
}

impl From<NetError> for LaneFault {
    fn from(error: NetError) -> Self {
        // "Too many connections" may come as the greeting.
        match crate::net::throttle("", &error.detail) {
            Some(throttle) if error.kind == crate::net::NetErrorKind::Unavailable => {
                LaneFault::Throttled { words: error.detail, throttle }
            }
            _ => LaneFault::Net(error),
        }
    }
}

impl From<LoginError> for LaneFault {
    fn from(error: LoginError) -> Self {
        LaneFault::Login(error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::net::NetErrorKind;

    fn reply(line: &str) -> ImapReply {
        ImapReply::parse(line).unwrap()
    }

    #[test]
    fn a_request_for_patience_is_no_refusal() {
        let busy = "BAD Request is throttled. Suggested Backoff Time: 2000 milliseconds";
        let fault = LaneFault::refused("UID FETCH", reply(busy));
        assert_eq!(fault.kind(), TroubleKind::Throttled);
        assert_eq!(fault.pause(&Tuning::default(), 9), Duration::from_secs(2));
        assert!(!fault.spares_the_connection());

        let fault =
            LaneFault::refused("UID FETCH", reply("BAD User is authenticated but not connected."));
        assert_eq!(fault.kind(), TroubleKind::Throttled);
        assert!(fault.pause(&Tuning::default(), 1) >= Duration::from_secs(40));

        let fault = LaneFault::refused("UID STORE", reply("NO not permitted"));
        assert_eq!(fault.kind(), TroubleKind::Server);
        assert!(fault.spares_the_connection());
    }

    #[test]
    fn too_many_connections_is_known_in_a_greeting_too() {
        let words = "Too many connections from your address";
        let error = NetError::new(NetErrorKind::Unavailable, "imap.example.org:993", words);
        let fault = LaneFault::from(error);
        assert!(fault.wants_fewer_connections());
        assert_eq!(fault.kind(), TroubleKind::Throttled);
    }

    #[test]
    fn a_wrong_password_is_not_hammered() {
        let refused = LoginError::Refused { server: "s".into(), words: "no".into() };
        let fault = LaneFault::Login(refused);
        assert_eq!(fault.kind(), TroubleKind::LoginRefused);
        assert!(fault.pause(&Tuning::default(), 1) >= Duration::from_secs(20));
        assert!(fault.pause(&Tuning::default(), 20) >= Duration::from_secs(600));
    }
}
