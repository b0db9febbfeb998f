//! The tokens of an account, and what is to be done with them at a moment. Pure.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::answer::Grant;
use crate::mapi::SysTime;

/// A token is renewed this long before it runs out, or after nine tenths of its life when that is
/// later.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// What a token must still be good for to be shown: the way to the server and its clock.
const LEAST_LEFT: Duration = Duration::from_secs(20);

/// A token this young that is refused is not renewed: the next one would be refused as well.
const YOUNG: Duration = Duration::from_secs(60);

/// What an account signed in with.
#[derive(Clone)]
pub(crate) struct Tokens {
    /// Shown to the servers.
    pub(crate) access: SecretString,
    /// When it runs out; `None` when the server did not say.
    pub(crate) expires: Option<SysTime>,
    /// When it was given.
    pub(crate) obtained: SysTime,
    /// Gets the next one; `None` when the server gave none.
    pub(crate) refresh: Option<SecretString>,
    /// The scopes the server granted, where it said so.
    pub(crate) scope: Option<String>,
    /// Why it cannot be renewed any more; a person has to sign in.
    pub(crate) ended: Option<String>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("expires", &self.expires)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What to do when a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Show the one there is.
    Use,
    /// Renew it; when that cannot be done now, show the one there is.
    RenewAhead,
    /// Renew it first.
    Renew,
    /// It was refused although it is new: there is no better one.
    Hopeless,
    /// Nothing helps but a person; the reason.
    SignIn(String),
}

impl Tokens {
    /// What to do at `now`, after the server refused `refused`.
    pub(crate) fn decide(&self, now: SysTime, refused: Option<&SecretString>) -> Decision {
        let is_refused =
            refused.is_some_and(|one| one.expose_secret() == self.access.expose_secret());
        let left = self.expires.map(|expires| expires.saturating_since(now));
        let is_over = is_refused || left.is_some_and(|left| left < LEAST_LEFT);
        if let Some(reason) = &self.ended {
            return if is_over { Decision::SignIn(reason.clone()) } else { Decision::Use };
        }
        if is_refused && self.obtained <= now && now.saturating_since(self.obtained) < YOUNG {
            return Decision::Hopeless;
        }
        match (&self.refresh, left) {
            (None, _) if is_over => {
                Decision::SignIn("the token has run out and cannot be renewed".to_owned())
            }
            (None, _) => Decision::Use,
            (Some(_), _) if is_over => Decision::Renew,
            (Some(_), Some(left)) if left < self.margin() => Decision::RenewAhead,
            (Some(_), _) => Decision::Use,
        }
    }

    fn margin(&self) -> Duration {
        let life = self.expires.map(|expires| expires.saturating_since(self.obtained));
        life.map_or(AHEAD, |life| (life / 10).min(AHEAD))
    }

    /// The tokens after a grant at `now`; what the server does not say anew stays (RFC 6749
    /// section 6).
    pub(crate) fn granted(grant: Grant, before: Option<&Tokens>, now: SysTime) -> Self {
        let lifetime = grant.expires_in.map(Duration::from_secs);
        Tokens {
            access: grant.access,
            expires: lifetime.map(|lifetime| now.saturating_add(lifetime)),
            obtained: now,
            refresh: grant.refresh.or_else(|| before?.refresh.clone()),
            scope: grant.scope.or_else(|| before?.scope.clone()),
            ended: None,
        }
    }

    /// As it is kept: JSON.
    pub(crate) fn write(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let refresh = self.refresh.as_ref().map(|token| token.expose_secret());
        let access = self.access.expose_secret();
        let room = 1000 + 2 * (access.len() + refresh.map_or(0, str::len));
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let written = Written {
            version: VERSION,
            access_token: access,
            expires_at: self.expires.map(SysTime::as_millis),
            obtained_at: self.obtained.as_millis(),
            refresh_token: refresh,
            scope: self.scope.as_deref(),
            ended: self.ended.as_deref(),
        };
        serde_json::to_writer(&mut *bytes, &written)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// A sentence without a token.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        // The error of serde may quote what it found.
        let read: Read = serde_json::from_slice(bytes).map_err(|_| "it cannot be read")?;
        if read.version != VERSION {
            return Err("it is of another version of this program");
        }
        Ok(Tokens {
            access: SecretString::from(read.access_token),
            expires: read.expires_at.map(SysTime::from_millis),
            obtained: SysTime::from_millis(read.obtained_at),
            refresh: read.refresh_token.map(SecretString::from),
            scope: read.scope,
            ended: read.ended,
        })
    }
}

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    access_token: &'a str,
    expires_at: Option<u64>,
    obtained_at: u64,
    refresh_token: Option<&'a str>,
    scope: Option<&'a str>,
    ended: Option<&'a str>,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    access_token: String,
    expires_at: Option<u64>,
    obtained_at: u64,
    refresh_token: Option<String>,
    scope: Option<String>,
    ended: Option<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: SysTime = SysTime::from_millis(1_000_000_000_000);

    fn after(seconds: u64) -> SysTime {
        NOW.saturating_add(Duration::from_secs(seconds))
    }

    fn tokens() -> Tokens {
        let grant = Grant {
            access: SecretString::from("access"),
            expires_in: Some(3600),
            refresh: Some(SecretString::from("refresh")),
            scope: Some("mail".to_owned()),
        };
        Tokens::granted(grant, None, NOW)
    }

    #[test]
    fn a_token_is_renewed_before_it_runs_out() {
        let tokens = tokens();
        assert_eq!(tokens.decide(NOW, None), Decision::Use);
        assert_eq!(tokens.decide(after(3299), None), Decision::Use);
        assert_eq!(tokens.decide(after(3301), None), Decision::RenewAhead);
        assert_eq!(tokens.decide(after(3579), None), Decision::RenewAhead);
        assert_eq!(tokens.decide(after(3581), None), Decision::Renew);
        assert_eq!(tokens.decide(after(90_000), None), Decision::Renew);
        // A short life has a short margin.
        let short = Tokens { expires: Some(after(300)), ..tokens.clone() };
        assert_eq!(short.decide(after(269), None), Decision::Use);
        assert_eq!(short.decide(after(271), None), Decision::RenewAhead);
        let endless = Tokens { expires: None, ..tokens };
        assert_eq!(endless.decide(after(1_000_000), None), Decision::Use);
    }

    #[test]
    fn a_refused_token_is_renewed_once() {
        let (tokens, access) = (tokens(), SecretString::from("access"));
        assert_eq!(tokens.decide(after(10), Some(&access)), Decision::Hopeless);
        assert_eq!(tokens.decide(after(61), Some(&access)), Decision::Renew);
        // Somebody else has renewed it meanwhile.
        let old = SecretString::from("old");
        assert_eq!(tokens.decide(after(10), Some(&old)), Decision::Use);
        // The clock was set back: how old it is, is not known.
        let before = SysTime::from_millis(NOW.as_millis() - 1);
        assert_eq!(tokens.decide(before, Some(&access)), Decision::Renew);
    }

    #[test]
    fn what_has_ended_is_shown_as_long_as_it_is_good() {
        let ended = Tokens { ended: Some("revoked".to_owned()), ..tokens() };
        let sign_in = Decision::SignIn("revoked".to_owned());
        assert_eq!(ended.decide(after(3400), None), Decision::Use);
        assert_eq!(ended.decide(after(3590), None), sign_in);
        assert_eq!(ended.decide(after(61), Some(&SecretString::from("access"))), sign_in);
        let single = Tokens { refresh: None, ..tokens() };
        assert_eq!(single.decide(after(3400), None), Decision::Use);
        assert!(matches!(single.decide(after(3600), None), Decision::SignIn(_)));
    }

    #[test]
    fn a_grant_keeps_what_it_does_not_say() {
        let before = Tokens { ended: Some("over".to_owned()), ..tokens() };
        let bare = || Grant {
            access: SecretString::from("next"),
            expires_in: None,
            refresh: None,
            scope: None,
        };
        let next = Tokens::granted(bare(), Some(&before), after(5));
        assert_eq!(next.refresh.as_ref().unwrap().expose_secret(), "refresh");
        assert_eq!(next.scope.as_deref(), Some("mail"));
        assert_eq!((next.expires, next.obtained, &next.ended), (None, after(5), &None));
        let rotated = Grant { refresh: Some(SecretString::from("rotated")), ..bare() };
        let next = Tokens::granted(rotated, Some(&before), after(5));
        assert_eq!(next.refresh.unwrap().expose_secret(), "rotated");
    }

    #[test]
    fn what_is_written_is_read_and_nothing_shows() {
        let tokens = tokens();
        let read = Tokens::read(&tokens.write().unwrap()).unwrap();
        assert_eq!(read.access.expose_secret(), "access");
        assert_eq!(read.refresh.as_ref().unwrap().expose_secret(), "refresh");
        assert_eq!((read.expires, read.obtained), (tokens.expires, tokens.obtained));
        let shown = format!("{read:?}");
        assert!(!shown.contains("access") && !shown.contains("refresh"), "{shown}");
        for broken in [&b""[..], b"{}", b"[\"access\"]", b"{\"version\":2}"] {
            assert!(!Tokens::read(broken).unwrap_err().contains("access"));
        }
        let newer = br#"{"version":9,"access_token":"a","obtained_at":1}"#;
        assert!(Tokens::read(newer).unwrap_err().contains("version"));
    }
}
