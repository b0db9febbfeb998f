//! Fetching a file by HTTPS.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;

use super::autoconfig::LARGEST_FILE;
use crate::net::{Cleartext, Connector, Deadlines, Server, TlsMode, Trust, for_people};
use crate::profile::{host_name, is_loopback};

/// How long one file may take, redirections included.
const DEADLINE: Duration = Duration::from_secs(8);

/// Most redirections that are followed.
const MOST_REDIRECTIONS: usize = 3;

/// Fetches files of the web.
#[async_trait]
pub trait Web: Send + Sync {
    /// The file at an address; `None` when the server says that there is none.
    ///
    /// # Errors
    /// What went wrong on the way. Dropping the future closes the connection.
    async fn get(&self, url: &str) -> Result<Option<Vec<u8>>, WebError>;
}

/// Why a file could not be fetched, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebError(pub String);

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WebError {}

/// HTTPS with a deadline and a limit of size, and no way back to HTTP; in clear only to this
/// machine.
#[derive(Clone, Debug)]
pub struct HttpsWeb {
    trust: Trust,
    deadline: Duration,
}

impl Default for HttpsWeb {
    fn default() -> Self {
        HttpsWeb { trust: Trust::Platform, deadline: DEADLINE }
    }
}

/// What one request brought.
enum Answer {
    File(Vec<u8>),
    Nothing,
    Elsewhere(String),
}

impl HttpsWeb {
    /// Trusting others than the system's authorities.
    #[must_use]
    pub fn trusting(trust: Trust) -> Self {
        HttpsWeb { trust, deadline: DEADLINE }
    }

    /// With another deadline.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        HttpsWeb { deadline, ..self }
    }

    async fn follow(&self, url: &str) -> Result<Option<Vec<u8>>, WebError> {
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTIONS {
            match self.ask(&url).await? {
                Answer::File(bytes) => return Ok(Some(bytes)),
                Answer::Nothing => return Ok(None),
                Answer::Elsewhere(next) => url = next,
            }
        }
        Err(WebError("it is redirected too often".to_owned()))
    }

    async fn ask(&self, url: &str) -> Result<Answer, WebError> {
        let uri: Uri = url.parse().map_err(|_| WebError("the address cannot be".to_owned()))?;
        let server = self.server(&uri)?;
        let deadlines = Deadlines { connect: self.deadline, ..Deadlines::default() };
        let connector = Connector::new(server, deadlines, Cleartext::LoopbackOnly);
        let stream = connector.open().await.map_err(|error| WebError(error.to_string()))?;
        let failed = |error: hyper::Error| WebError(format!("{}: {error}", connector.name()));
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path)
            .header(HOST, authority)
            .header(ACCEPT, "text/xml, application/xml")
            .header(USER_AGENT, concat!("postrider/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| WebError(error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            read(response, &uri).await
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // The end of the connection is the end of the file, or what breaks the reading of it.
            _ended = connection => answer.await,
        }
    }

    fn server(&self, uri: &Uri) -> Result<Server, WebError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let host = host_name(host).map_err(|why| WebError(why.to_owned()))?.to_owned();
        let (tls, usual) = match uri.scheme_str() {
            Some("https") => (TlsMode::Implicit, 443),
            Some("http") if is_loopback(&host) => (TlsMode::Plain, 80),
            _ => return Err(WebError(format!("{host} is only named without HTTPS"))),
        };
        let port = uri.port_u16().unwrap_or(usual);
        let trust = if tls == TlsMode::Plain { Trust::Platform } else { self.trust.clone() };
        Ok(Server { host, port, tls, trust, client: None })
    }
}

#[async_trait]
impl Web for HttpsWeb {
    async fn get(&self, url: &str) -> Result<Option<Vec<u8>>, WebError> {
        match tokio::time::timeout(self.deadline, self.follow(url)).await {
            Ok(answer) => answer,
            Err(_) => Err(WebError("no answer in time".to_owned())),
        }
    }
}

async fn read(response: Response<hyper::body::Incoming>, asked: &Uri) -> Result<Answer, WebError> {
    let status = response.status();
    if status.is_redirection() {
        let place = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let place = place.ok_or_else(|| WebError("it is redirected nowhere".to_owned()))?;
        let same_server = place.starts_with('/') && !place.starts_with("//");
        let next = match (same_server, asked.scheme_str(), asked.authority()) {
            (true, Some(scheme), Some(authority)) => format!("{scheme}://{authority}{place}"),
            _ => place.to_owned(),
        };
        let downgraded = asked.scheme_str() == Some("https") && !next.starts_with("https://");
        if downgraded {
            return Err(WebError(format!("it is redirected without HTTPS: {}", for_people(&next))));
        }
        return Ok(Answer::Elsewhere(next));
    }
    match status.as_u16() {
        200 => {}
        400..=499 => return Ok(Answer::Nothing),
        other => return Err(WebError(format!("the web server answered {other}"))),
    }
    let body = Limited::new(response.into_body(), LARGEST_FILE).collect().await;
    let body = body.map_err(|error| WebError(format!("the file cannot be read: {error}")))?;
    Ok(Answer::File(body.to_bytes().to_vec()))
}
