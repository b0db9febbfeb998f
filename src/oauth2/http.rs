//! One POST to an endpoint: HTTP/1.1 over the same TLS as mail, with bounds on time and size. No
//! redirect is followed: what is sent holds secrets.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use zeroize::Zeroizing;

use super::Endpoint;
use crate::net::{Cleartext, Connector, Deadlines, Server, TlsMode, Trust};

/// What a request may take from the first step to the last byte.
const DEADLINE: Duration = Duration::from_secs(60);

/// The largest answer, in bytes.
const LARGEST_ANSWER: usize = 128 * 1024;

/// An answer. The body may hold secrets.
pub(super) struct HttpAnswer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Posts a form. Dropping the future closes the connection.
///
/// # Errors
/// A sentence that names the server and nothing that was sent: it was out of reach, or said
/// nothing that can be read.
pub(super) async fn post_form(
    endpoint: &Endpoint,
    trust: &Trust,
    form: Zeroizing<String>,
) -> Result<HttpAnswer, String> {
    let name = format!("{}:{}", endpoint.host(), endpoint.port());
    match tokio::time::timeout(DEADLINE, exchange(endpoint, trust, form, &name)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{name}: no answer within {} seconds", DEADLINE.as_secs())),
    }
}

async fn exchange(
    endpoint: &Endpoint,
    trust: &Trust,
    form: Zeroizing<String>,
    name: &str,
) -> Result<HttpAnswer, String> {
    let server = Server {
        host: endpoint.host().to_owned(),
        port: endpoint.port(),
        tls: if endpoint.is_https() { TlsMode::Implicit } else { TlsMode::Plain },
        trust: trust.clone(),
        client: None,
    };
    let connector = Connector::new(server, Deadlines::default(), Cleartext::LoopbackOnly);
    let stream = connector.open().await.map_err(|error| error.to_string())?;
    let failed = |error: &dyn std::fmt::Display| format!("{name}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    // Ends with the exchange, also when that is dropped.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let request = Request::post(endpoint.path())
        .header(HOST, endpoint.authority())
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
        .header(USER_AGENT, concat!("postrider/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from_owner(Secret(form))))
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let status = answer.status().as_u16();
    let mut body = Limited::new(answer.into_body(), LARGEST_ANSWER);
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(&error))?;
        if let Some(data) = frame.data_ref() {
            append(&mut bytes, data);
        }
    }
    Ok(HttpAnswer { status, body: bytes })
}

/// A vector that grows by itself leaves its old bytes behind.
fn append(bytes: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    let needed = bytes.len() + data.len();
    if needed > bytes.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed * 2));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(data);
}

/// A form that is wiped when the request is done with.
struct Secret(Zeroizing<String>);

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
