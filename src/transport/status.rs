//! The status row of a logon: from what is going on to the columns of the row.

use std::sync::Arc;

use super::events::{Activity, SendingNotes, Trouble, TroubleKind};
use super::notify::NotifyState;
use super::settings::Identity;
use crate::mapi::{EntryId, ModifyStatusFlags, ResourceMethods, SpoolerNotify, StatusCode};
use crate::spi::{StatusColumns, Support};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Everything the row depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Situation {
    pub(crate) notify: NotifyState,
    pub(crate) inbound_activity: Activity,
    pub(crate) outbound_activity: Activity,
    pub(crate) inbound_trouble: Option<Trouble>,
    pub(crate) outbound_trouble: Option<Trouble>,
    pub(crate) sending_notes: SendingNotes,
    pub(crate) connection: Connection,
    /// What is beyond recovery: the logon is only to be released (OB-9).
    pub(crate) broken: Option<Trouble>,
}

/// Whether connections may be made at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Connection {
    /// They may.
    #[default]
    Allowed,
    /// LOGON_NO_CONNECT or FORCE_XP_DISCONNECT (LG-4, RA-3).
    Offline,
}

/// Keeps the row true: every change of the situation is shown at once and in order (ST-5).
pub(crate) struct StatusRowKeeper {
    support: Arc<dyn Support>,
    /// Held while the host is told, so that it hears of everything in order and of nothing once
    /// the logon has ended. The host promises not to block on the logon in that call.
    kept: Mutex<Kept>,
}

struct Kept {
    situation: Situation,
    voice: Voice,
}

/// Whether the host is still to be told of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Speaking,
    Silent,
}

impl StatusRowKeeper {
    /// Makes the row (ST-1).
    pub(crate) fn create(
        support: Arc<dyn Support>,
        display_name: &str,
        identity: &Identity,
        situation: Situation,
    ) -> Self {
        let columns = StatusColumns {
            display_name: Some(display_name.to_owned()),
            resource_methods: Some(METHODS),
            ..identity_columns(identity, situation.columns())
        };
        // It fails only when the logon was released already; then there is no row to keep.
        let _ = support.modify_status_row(columns, ModifyStatusFlags::empty());
        let kept = Kept { situation, voice: Voice::Speaking };
        StatusRowKeeper { support, kept: Mutex::new(kept) }
    }

    /// Changes the situation by `change` and shows the row if it looks different now: one update
    /// for one change (TN-3).
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Situation) -> T) -> T {
        let mut kept = self.lock();
        let before = kept.situation.columns();
        let answer = change(&mut kept.situation);
        let after = kept.situation.columns();
        if after != before && kept.voice == Voice::Speaking {
            let _ = self.support.modify_status_row(after, ModifyStatusFlags::UPDATE);
        }
        answer
    }

    /// Shows another identity, with whatever `change` makes of the situation, as one update.
    pub(crate) fn update_identity(&self, identity: &Identity, change: impl FnOnce(&mut Situation)) {
        let mut kept = self.lock();
        change(&mut kept.situation);
        let columns = identity_columns(identity, kept.situation.columns());
        if kept.voice == Voice::Speaking {
            let _ = self.support.modify_status_row(columns, ModifyStatusFlags::UPDATE);
        }
    }

    /// SpoolerNotify, as long as the logon lasts.
    pub(crate) fn notify(&self, flags: SpoolerNotify, entry: Option<&EntryId>) {
        let kept = self.lock();
        if kept.voice == Voice::Speaking {
            self.support.spooler_notify(flags, entry);
        }
    }

    /// The logon has ended: its row goes, and the host hears nothing more (LG-9).
    pub(crate) fn silence(&self) {
        self.lock().voice = Voice::Silent;
    }

    /// The situation as of now.
    pub(crate) fn situation(&self) -> Situation {
        self.lock().situation.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Situation {
    /// `PR_STATUS_CODE` (ST-3, ST-4).
    pub(crate) fn status_code(&self) -> StatusCode {
        if self.broken.is_some() {
            return StatusCode::FAILURE;
        }
        let mut code = self.notify.status_bits();
        code.set(StatusCode::INBOUND_ACTIVE, self.inbound_activity == Activity::Moving);
        code.set(StatusCode::OUTBOUND_ACTIVE, self.outbound_activity == Activity::Moving);
        let failure = self.troubles().any(|trouble| !trouble.kind.is_network());
        let offline = self.connection == Connection::Offline
            || self.troubles().any(|trouble| trouble.kind.is_network());
        code.set(StatusCode::FAILURE, failure);
        code.set(StatusCode::OFFLINE, offline);
        code.set(StatusCode::AVAILABLE, !failure && !offline);
        code
    }

    /// `PR_STATUS_STRING`: what an owner of the account wants to know first.
    pub(crate) fn status_string(&self) -> String {
        if let Some(broken) = &self.broken {
            return trouble_sentence(broken);
        }
        let notes = &self.sending_notes;
        let notes = notes.throttled.iter().chain(&notes.detour);
        notes.fold(self.work_string(), |text, note| format!("{text}; {note}"))
    }

    /// What is in the way, or what is done.
    fn work_string(&self) -> String {
        let mut sentences: Vec<String> = Vec::new();
        for trouble in self.troubles() {
            let sentence = trouble_sentence(trouble);
            // One refused password is one trouble, also when both directions met it.
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        if !sentences.is_empty() {
            return sentences.join("; ");
        }
        if self.connection == Connection::Offline {
            return "offline".to_owned();
        }
        let code = self.status_code();
        let sending = code.contains(StatusCode::OUTBOUND_ACTIVE);
        let receiving = code.contains(StatusCode::INBOUND_ACTIVE);
        let text = match (sending, receiving) {
            (true, true) => "sending and receiving",
            (true, false) => "sending",
            (false, true) => "receiving",
            (false, false) if code.contains(StatusCode::INBOUND_FLUSH) => "looking for new mail",
            (false, false) if code.contains(StatusCode::OUTBOUND_FLUSH) => "flushing the queue",
            (false, false)
                if !code.intersects(StatusCode::INBOUND_ENABLED | StatusCode::OUTBOUND_ENABLED) =>
            {
                "switched off"
            }
            (false, false) => "ready",
        };
        text.to_owned()
    }

    pub(super) fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.outbound_trouble.iter().chain(&self.inbound_trouble)
    }

    fn columns(&self) -> StatusColumns {
        StatusColumns {
            status_code: Some(self.status_code()),
            status_string: Some(self.status_string()),
            ..StatusColumns::default()
        }
    }
}

/// What the object behind the row can do (ST-6).
pub(super) const METHODS: ResourceMethods =
    ResourceMethods::VALIDATE_STATE.union(ResourceMethods::FLUSH_QUEUES);

/// The `PR_IDENTITY_*` columns, beside `columns`.
fn identity_columns(identity: &Identity, columns: StatusColumns) -> StatusColumns {
    let mut key = format!("SMTP:{}", identity.address).to_uppercase().into_bytes();
    key.push(0);
    StatusColumns {
        identity_display: Some(identity.to_string()),
        identity_entry_id: EntryId::one_off(&identity.name, "SMTP", &identity.address).ok(),
        identity_search_key: Some(key),
        ..columns
    }
}

impl TroubleKind {
    /// Whether the network is to blame (STATUS_OFFLINE) and not the account (STATUS_FAILURE).
    fn is_network(self) -> bool {
        self == TroubleKind::Network
    }
}

pub(super) fn trouble_sentence(trouble: &Trouble) -> String {
    let next = match trouble.next_attempt {
        Some(time) => format!(" (next attempt {time})"),
        None => String::new(),
    };
    format!("{}: {}{next}", trouble.kind.code(), trouble.words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mapi::{SysTime, TransportNotify};
    use crate::spi::NotifyData;

    fn trouble(kind: TroubleKind) -> Trouble {
        Trouble {
            kind,
            words: "words".to_owned(),
            next_attempt: Some(SysTime::from_millis(1_700_000_000_000)),
        }
    }

    /// Proves: ST-3
    #[test]
    fn a_quiet_logon_is_available() {
        let situation = Situation::default();
        assert_eq!(situation.status_code(), StatusCode::AVAILABLE);
        assert_eq!(situation.status_string(), "switched off");
    }

    /// Proves: ST-3
    #[test]
    fn a_refused_login_is_a_failure_and_a_dead_network_is_offline() {
        let mut situation = Situation {
            inbound_trouble: Some(trouble(TroubleKind::LoginRefused)),
            outbound_trouble: Some(trouble(TroubleKind::LoginRefused)),
            ..Situation::default()
        };
        assert_eq!(situation.status_code(), StatusCode::FAILURE);
        assert_eq!(
            situation.status_string(),
            "MAPI_E_LOGON_FAILED: words (next attempt 2023-11-14T22:13:20Z)"
        );
        situation.inbound_trouble = None;
        situation.outbound_trouble = Some(trouble(TroubleKind::Network));
        assert_eq!(situation.status_code(), StatusCode::OFFLINE);
    }

    /// Proves: OB-9, ST-3
    #[test]
    fn beyond_recovery_nothing_else_shows() {
        let both = TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_OUTBOUND;
        let notify = NotifyState::default().step(both, NotifyData::None).unwrap().next;
        let situation = Situation {
            notify,
            outbound_activity: Activity::Moving,
            inbound_trouble: Some(trouble(TroubleKind::Network)),
            broken: Some(Trouble { next_attempt: None, ..trouble(TroubleKind::SpoolLost) }),
            ..Situation::default()
        };
        assert_eq!(situation.status_code(), StatusCode::FAILURE);
        assert_eq!(situation.status_string(), "MAPI_E_DISK_ERROR: words");
    }

    #[test]
    fn notes_stand_behind_what_is_done_and_what_is_wrong() {
        let mut situation = Situation {
            sending_notes: SendingNotes {
                detour: Some("through b, because a is out of reach".to_owned()),
                throttled: Some("throttled until noon".to_owned()),
            },
            ..Situation::default()
        };
        assert_eq!(
            situation.status_string(),
            "switched off; throttled until noon; through b, because a is out of reach"
        );
        assert_eq!(situation.status_code(), StatusCode::AVAILABLE);
        situation.outbound_trouble =
            Some(Trouble { next_attempt: None, ..trouble(TroubleKind::Network) });
        situation.sending_notes.detour = None;
        assert_eq!(situation.status_string(), "MAPI_E_NETWORK_ERROR: words; throttled until noon");
    }

    #[test]
    fn activity_shows_beside_what_is_enabled() {
        let both = TransportNotify::BEGIN_INBOUND | TransportNotify::BEGIN_OUTBOUND;
        let notify = NotifyState::default().step(both, NotifyData::None).unwrap().next;
        let mut situation = Situation { notify, ..Situation::default() };
        assert_eq!(situation.status_string(), "ready");
        situation.outbound_activity = Activity::Moving;
        assert_eq!(situation.status_string(), "sending");
        assert!(situation.status_code().contains(
            StatusCode::OUTBOUND_ENABLED | StatusCode::OUTBOUND_ACTIVE | StatusCode::AVAILABLE
        ));
    }
}
