//! Signing in through a browser of this machine (RFC 8252): an address to open there, and a
//! listener on a loopback port that the browser is sent back to with a code.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

use super::pkce::{Proof, with_query};
use super::{Answer, Client, Grant};
use crate::net::for_people;
use crate::spi::SecretError;

/// How long the person may take.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// How long one visitor of the listener may take.
const VISIT: Duration = Duration::from_secs(10);

/// Most visitors at a time.
const MOST_VISITS: usize = 32;

/// The longest request of a visitor, in bytes.
const LONGEST_REQUEST: usize = 16 * 1024;

/// A sign-in under way: the listener waits.
pub(crate) struct Browser<'a> {
    client: &'a Client,
    proof: Proof,
    listeners: Vec<TcpListener>,
    redirect_uri: String,
    url: String,
}

impl<'a> Browser<'a> {
    /// Listens, and makes the address to open. `user` is a hint for the provider's page.
    ///
    /// # Errors
    /// When the profile names no such address, or the port is taken.
    pub(crate) async fn begin(client: &'a Client, user: &str) -> Result<Self, SecretError> {
        let settings = &client.settings;
        let Some(auth_url) = &settings.auth_url else {
            return Err(SecretError::new("the profile names no auth_url"));
        };
        let redirect = &settings.redirect;
        let busy = |error: std::io::Error| {
            SecretError::new(format!("{}:{}: {error}", redirect.host, redirect.port))
        };
        // `localhost` is both; a browser may try either first.
        let host = redirect.host.trim_start_matches('[').trim_end_matches(']');
        let both = ["127.0.0.1", "::1"];
        let one = [host];
        let hosts: &[&str] = if host.eq_ignore_ascii_case("localhost") { &both } else { &one };
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut port = redirect.port;
        for host in hosts {
            match TcpListener::bind((*host, port)).await {
                Ok(listener) => {
                    port = listener.local_addr().map_err(busy)?.port();
                    listeners.push(listener);
                }
                // A machine without IPv6, or the same port taken there.
                Err(_) if !listeners.is_empty() => {}
                Err(error) => return Err(busy(error)),
            }
        }
        let redirect_uri = format!("http://{}:{port}{}", redirect.host, redirect.path);
        let proof = Proof::new().map_err(SecretError::new)?;
        let (challenge, scope) = (proof.challenge(), settings.scopes.join(" "));
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", settings.client_id.as_str()),
            ("redirect_uri", redirect_uri.as_str()),
            ("scope", scope.as_str()),
            ("state", proof.state.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("login_hint", user),
        ];
        parameters.extend(settings.extra);
        parameters.retain(|(_, value)| !value.is_empty());
        let url = with_query(&auth_url.to_string(), &parameters);
        Ok(Browser { client, proof, listeners, redirect_uri, url })
    }

    /// The address to open.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits until the browser comes back, at most ten minutes, and takes the tokens. Dropping the
    /// future closes the listener.
    ///
    /// # Errors
    /// When the person or the server says no, or nobody comes.
    pub(crate) async fn finish(self) -> Result<Grant, SecretError> {
        let code = match tokio::time::timeout(PATIENCE, self.code()).await {
            Ok(code) => code?,
            Err(_) => return Err(SecretError::new("no browser has come back in time")),
        };
        let redeemed = self.client.redeem(&code, &self.proof.verifier, &self.redirect_uri).await?;
        let host = self.client.settings.token_url.host();
        match redeemed {
            Answer::Granted(grant) => Ok(grant),
            Answer::Refused(refusal) => {
                Err(SecretError::new(format!("{host} refuses the code ({})", refusal.words)))
            }
            Answer::Later(words) => {
                Err(SecretError::out_of_reach(format!("{host} gives no token ({words})")))
            }
            Answer::Pending | Answer::SlowDown => {
                Err(SecretError::new(format!("{host} answers out of turn")))
            }
        }
    }

    async fn code(&self) -> Result<SecretString, SecretError> {
        // Browsers open connections and say nothing on them: nobody holds up the others.
        let mut visits = FuturesUnordered::new();
        loop {
            let accepts = self.listeners.iter().map(|listener| Box::pin(listener.accept()));
            tokio::select! {
                (accepted, _, _) = futures_util::future::select_all(accepts) => {
                    if let Ok((visitor, _)) = accepted
                        && visits.len() < MOST_VISITS
                    {
                        visits.push(tokio::time::timeout(VISIT, self.visit(visitor)));
                    }
                }
                // Whoever comes without our state is no reason to stop waiting.
                Some(visit) = visits.next(), if !visits.is_empty() => {
                    if let Ok(Some(outcome)) = visit {
                        return outcome;
                    }
                }
            }
        }
    }

    /// Serves one request; `None` when it was not the one that is waited for.
    async fn visit(&self, mut visitor: TcpStream) -> Option<Result<SecretString, SecretError>> {
        let head = read_head(&mut visitor).await?;
        let said = read_redirect(&head, &self.client.settings.redirect.path, &self.proof.state);
        let (status, words) = match &said {
            Redirect::Other => ("404 Not Found", "There is nothing here."),
            Redirect::Code(_) => ("200 OK", "You are signed in. This window can be closed."),
            Redirect::Refused(_) => {
                ("200 OK", "The sign-in was refused. This window can be closed.")
            }
        };
        let page = format!("<!doctype html><title>postrider</title><p>{words}</p>\n");
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{page}",
            page.len()
        );
        // What the browser shows is a courtesy.
        let _ = visitor.write_all(answer.as_bytes()).await;
        let _ = visitor.shutdown().await;
        match said {
            Redirect::Other => None,
            Redirect::Code(code) => Some(Ok(code)),
            Redirect::Refused(words) => {
                Some(Err(SecretError::new(format!("the sign-in was refused ({words})"))))
            }
        }
    }
}

async fn read_head(visitor: &mut TcpStream) -> Option<Zeroizing<Vec<u8>>> {
    let mut head = Zeroizing::new(Vec::with_capacity(LONGEST_REQUEST));
    let mut chunk = Zeroizing::new([0; 1024]);
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = visitor.read(&mut *chunk).await.ok().filter(|read| *read > 0)?;
        if head.len() + read > LONGEST_REQUEST {
            return None;
        }
        head.extend_from_slice(chunk.get(..read)?);
    }
    Some(head)
}

/// What a visitor wants.
enum Redirect {
    /// The browser with the code.
    Code(SecretString),
    /// The browser with a refusal.
    Refused(String),
    /// Something else.
    Other,
}

/// Reads the head of a request (RFC 6749 section 4.1.2).
fn read_redirect(head: &[u8], path: &str, state: &str) -> Redirect {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return Redirect::Other };
    let mut words = line.split(' ');
    let (Some("GET"), Some(target)) = (words.next(), words.next()) else { return Redirect::Other };
    let Some((asked, query)) = target.split_once('?') else { return Redirect::Other };
    if asked != path {
        return Redirect::Other;
    }
    let value = |name: &str| {
        let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.into_owned())
    };
    if value("state").is_none_or(|brought| {
        ring::digest::digest(&ring::digest::SHA256, brought.as_bytes()).as_ref()
            != ring::digest::digest(&ring::digest::SHA256, state.as_bytes()).as_ref()
    }) {
        return Redirect::Other;
    }
    match (value("code").filter(|code| !code.is_empty()), value("error")) {
        (Some(code), None) => Redirect::Code(SecretString::from(code)),
        (_, Some(error)) => Redirect::Refused(match value("error_description") {
            Some(description) => for_people(&format!("{error}: {description}")),
            None => for_people(&error),
        }),
        (None, None) => Redirect::Other,
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(line: &str) -> Redirect {
        read_redirect(format!("{line}\r\nHost: x\r\n\r\n").as_bytes(), "/done", "st4te")
    }

    #[test]
    fn only_who_brings_our_state_is_heard() {
        let Redirect::Code(code) = read("GET /done?state=st4te&code=a%2Fb HTTP/1.1") else {
            panic!()
        };
        assert_eq!(code.expose_secret(), "a/b");
        let denied = "GET /done?error=access_denied&error_description=no%0A&state=st4te HTTP/1.1";
        let Redirect::Refused(words) = read(denied) else { panic!() };
        assert_eq!(words, "access_denied: no\u{fffd}");
        for other in [
            "GET /done?state=wrong&code=a HTTP/1.1",
            "GET /done?code=a HTTP/1.1",
            "GET /done?state=st4te HTTP/1.1",
            "GET /done?state=st4te&code= HTTP/1.1",
            "GET /favicon.ico HTTP/1.1",
            "GET /other?state=st4te&code=a HTTP/1.1",
            "POST /done?state=st4te&code=a HTTP/1.1",
            "",
        ] {
            assert!(matches!(read(other), Redirect::Other), "{other}");
        }
    }
}
