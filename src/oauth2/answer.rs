//! What a token endpoint answers (RFC 6749 section 5, RFC 8628 section 3.5). Pure.

use secrecy::SecretString;
use serde::Deserialize;

use crate::net::for_people;

/// An answer, judged.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Tokens.
    Granted(Grant),
    /// The person has not decided yet (device code).
    Pending,
    /// The same, and we ask too often.
    SlowDown,
    /// No.
    Refused(Refusal),
    /// The server cannot just now; what it said.
    Later(String),
}

/// Tokens from the server.
pub(crate) struct Grant {
    /// The access token.
    pub(crate) access: SecretString,
    /// How long it lives, in seconds.
    pub(crate) expires_in: Option<u64>,
    /// A refresh token, where there is a new one.
    pub(crate) refresh: Option<SecretString>,
    /// Granted scopes, where they differ from those asked for.
    pub(crate) scope: Option<String>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `error`, such as `invalid_grant`.
    pub(crate) code: String,
    /// `error` and what the server says about it, for people.
    pub(crate) words: String,
}

impl Refusal {
    /// Whether the person has to sign in again: the refresh token is spent, revoked or too old,
    /// or the provider wants to see the person.
    pub(crate) fn ends_sign_in(&self) -> bool {
        matches!(
            self.code.as_str(),
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required"
        )
    }
}

#[derive(Deserialize)]
struct Told {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<String>,
    scope: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Some servers put the number into quotes, some write a fraction.
fn seconds(value: &serde_json::Value) -> Option<u64> {
    match value {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        number => number.as_u64().or_else(|| {
            let whole = number.as_f64()?.max(0.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Some(whole as u64)
        }),
    }
}

impl Answer {
    /// Reads an answer by its HTTP status and body.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        // Some say 200 and mean an error; some say 500 and mean the client.
        let told: Option<Told> = serde_json::from_slice(body).ok();
        let Some(told) = told else {
            return Answer::Later(format!("HTTP status {status} without a sensible answer"));
        };
        if let Some(code) = told.error {
            return refused(status, &code, told.error_description.as_deref());
        }
        let bearer = told.token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
        match told.access_token.filter(|token| fits(token)) {
            Some(access) if (200..300).contains(&status) && bearer => Answer::Granted(Grant {
                access: SecretString::from(access),
                expires_in: told.expires_in.as_ref().and_then(seconds),
                refresh: told.refresh_token.filter(|token| fits(token)).map(SecretString::from),
                scope: told.scope.map(|scope| for_people(&scope)),
            }),
            _ => Answer::Later(format!("HTTP status {status} without a usable token")),
        }
    }
}

/// What may stand in a SASL response and in a form: no control characters, no spaces (RFC 6750
/// section 2.1 allows less).
fn fits(token: &str) -> bool {
    (1..=32 * 1024).contains(&token.len())
        && token.bytes().all(|byte| (b'!'..=b'~').contains(&byte))
}

fn refused(status: u16, code: &str, description: Option<&str>) -> Answer {
    let words = match description {
        Some(description) => for_people(&format!("{code}: {description}")),
        None => for_people(code),
    };
    match code {
        "authorization_pending" => Answer::Pending,
        "slow_down" => Answer::SlowDown,
        "temporarily_unavailable" | "server_error" => Answer::Later(words),
        _ if status == 429 => Answer::Later(words),
        _ => Answer::Refused(Refusal { code: for_people(code), words }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(status: u16, body: &str) -> Answer {
        Answer::read(status, body.as_bytes())
    }

    #[test]
    fn a_grant_is_read() {
        let body = r#"{"access_token":"a.b","token_type":"bearer","expires_in":"3599",
                       "refresh_token":"r","scope":"s t","id_token":"x"}"#;
        let Answer::Granted(grant) = read(200, body) else { panic!() };
        assert_eq!(grant.access.expose_secret(), "a.b");
        assert_eq!((grant.expires_in, grant.scope.as_deref()), (Some(3599), Some("s t")));
        assert_eq!(grant.refresh.as_ref().unwrap().expose_secret(), "r");
        assert!(!format!("{grant:?}").contains("a.b"));
        for (written, expires_in) in [("3599", Some(3599)), ("3599.5", Some(3599)), ("null", None)]
        {
            let body = format!(r#"{{"access_token":"a","expires_in":{written}}}"#);
            let Answer::Granted(grant) = read(200, &body) else { panic!("{body}") };
            assert_eq!(grant.expires_in, expires_in, "{body}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        for (code, ends) in [
            ("invalid_grant", true),
            ("interaction_required", true),
            ("invalid_client", false),
            ("unauthorized_client", false),
            ("invalid_scope", false),
        ] {
            for status in [200, 400, 401] {
                let body = format!(r#"{{"error":"{code}","error_description":"why\n"}}"#);
                let Answer::Refused(refusal) = read(status, &body) else { panic!("{code}") };
                assert_eq!(refusal.ends_sign_in(), ends, "{code}");
                assert_eq!(refusal.words, format!("{code}: why\u{fffd}"));
            }
        }
        assert!(matches!(read(400, r#"{"error":"authorization_pending"}"#), Answer::Pending));
        assert!(matches!(read(400, r#"{"error":"slow_down"}"#), Answer::SlowDown));
    }

    #[test]
    fn what_may_pass_never_ends_a_sign_in() {
        for (status, body) in [
            (503, "<html>maintenance</html>"),
            (500, ""),
            (502, r#"{"error":"server_error"}"#),
            (429, r#"{"error":"rate_limited"}"#),
            (400, r#"{"error":"temporarily_unavailable"}"#),
            (200, "{}"),
            (200, r#"{"access_token":"a","token_type":"mac"}"#),
            (200, r#"{"access_token":"a b\u0001"}"#),
            (404, "null"),
            (302, r#"{"access_token":"a"}"#),
        ] {
            assert!(matches!(read(status, body), Answer::Later(_)), "{status} {body}");
        }
    }
}
