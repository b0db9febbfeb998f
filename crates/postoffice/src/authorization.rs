//! A small authorization server (RFC 6749, 7636, 8628, 7009, 7662) with scripted faults, for tests of clients.
//!
//! Everybody who asks is approved at once: it is not for anything but tests.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What happens to a request to the token endpoint instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// A refusal with this `error`.
    Refuse(&'static str),
    /// An HTTP status with a page for people.
    Status(u16),
    /// The connection is closed without an answer.
    Drop,
    /// Served, and the connection closed before the answer is out.
    DropAfter,
}

/// A request that came, but for the authorization endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The path, such as `/token`.
    pub path: String,
    /// The form.
    pub form: BTreeMap<String, String>,
}

type OnToken = Box<dyn Fn(&str, &str) + Send + Sync>;

#[derive(Default)]
struct State {
    lifetime: u64,
    rotates: bool,
    client_secret: Option<String>,
    faults: VecDeque<TokenFault>,
    requests: Vec<TokenRequest>,
    /// Codes with challenge, redirect address and user.
    codes: BTreeMap<String, (String, String, String)>,
    /// Access tokens with their users.
    access: BTreeMap<String, String>,
    /// Refresh tokens with their users.
    refresh: BTreeMap<String, String>,
    device_answers: VecDeque<&'static str>,
    made: u64,
    on_token: Option<OnToken>,
}

/// A running authorization server; dropping it ends it.
pub struct AuthorizationServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

impl std::fmt::Debug for AuthorizationServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AuthorizationServer").field(&self.address).finish()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AuthorizationServer {
    /// Starts one on a free port of 127.0.0.1. Tokens live an hour and refresh tokens for ever.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { lifetime: 3600, ..State::default() }));
        let stop = CancellationToken::new();
        let (serving, stopping) = (Arc::clone(&state), stop.clone());
        tokio::spawn(stopping.run_until_cancelled_owned(async move {
            while let Ok((visitor, _)) = listener.accept().await {
                tokio::spawn(serve(visitor, Arc::clone(&serving)));
            }
        }));
        Ok(Self { address, state, _stop: stop.drop_guard() })
    }

    /// The address of an endpoint: `authorize`, `token`, `device`, `revoke` or `introspect`.
    pub fn url(&self, endpoint: &str) -> String {
        format!("http://{}/{endpoint}", self.address)
    }

    /// How long access tokens live, in seconds, as the server says. They are valid until they are taken away all
    /// the same.
    pub fn set_lifetime(&self, seconds: u64) {
        lock(&self.state).lifetime = seconds;
    }

    /// Whether a refresh token is good for one use and each answer brings another.
    pub fn set_rotating(&self, rotates: bool) {
        lock(&self.state).rotates = rotates;
    }

    /// Clients must show this secret.
    pub fn set_client_secret(&self, secret: &str) {
        lock(&self.state).client_secret = Some(secret.to_owned());
    }

    /// What happens to the next request to the token endpoint; behind those that were scripted before.
    pub fn script(&self, fault: TokenFault) {
        lock(&self.state).faults.push_back(fault);
    }

    /// What the next polls of a device flow are answered (`authorization_pending`, `slow_down`, `access_denied`);
    /// then the person has consented.
    pub fn script_device(&self, errors: &[&'static str]) {
        lock(&self.state).device_answers.extend(errors);
    }

    /// Is called with user and token for each access token that is given out.
    pub fn on_token(&self, call: impl Fn(&str, &str) + Send + Sync + 'static) {
        lock(&self.state).on_token = Some(Box::new(call));
    }

    /// An access token and a refresh token for a user, as if it had signed in.
    pub fn grant(&self, user: &str) -> (String, String) {
        lock(&self.state).grant(user)
    }

    /// Takes away all access tokens, as when they run out.
    pub fn expire_tokens(&self) {
        lock(&self.state).access.clear();
    }

    /// Takes away everything, as when the person ends the sign-in on the provider's pages.
    pub fn revoke_all(&self) {
        let mut state = lock(&self.state);
        state.access.clear();
        state.refresh.clear();
    }

    /// The user of an access token that is valid.
    pub fn user_of(&self, token: &str) -> Option<String> {
        lock(&self.state).access.get(token).cloned()
    }

    /// Every request so far but those to `authorize`.
    pub fn requests(&self) -> Vec<TokenRequest> {
        lock(&self.state).requests.clone()
    }

    /// Every access and refresh token that is valid.
    pub fn tokens(&self) -> Vec<String> {
        let state = lock(&self.state);
        state.access.keys().chain(state.refresh.keys()).cloned().collect()
    }
}

impl State {
    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}-{:04}-0123456789abcdefghij~._", self.made)
    }

    fn grant(&mut self, user: &str) -> (String, String) {
        let (access, refresh) = (self.name("acc3ss"), self.name("r3fresh"));
        self.access.insert(access.clone(), user.to_owned());
        self.refresh.insert(refresh.clone(), user.to_owned());
        if let Some(call) = &self.on_token {
            call(user, &access);
        }
        (access, refresh)
    }

    fn granted(&mut self, user: &str) -> (u16, String) {
        let (access, refresh) = self.grant(user);
        let lifetime = self.lifetime;
        let body = format!(
            r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{lifetime},"refresh_token":"{refresh}"}}"#
        );
        (200, body)
    }

    fn token(&mut self, form: &BTreeMap<String, String>) -> (u16, String) {
        let value = |name: &str| form.get(name).map_or("", String::as_str);
        if value("client_id").is_empty() {
            return refusal("invalid_request");
        }
        if self.client_secret.as_ref().is_some_and(|secret| secret != value("client_secret")) {
            return refusal("invalid_client");
        }
        match value("grant_type") {
            "authorization_code" => {
                let Some((challenge, redirect, user)) = self.codes.remove(value("code")) else {
                    return refusal("invalid_grant");
                };
                let verifier = value("code_verifier").as_bytes();
                let digest = ring::digest::digest(&ring::digest::SHA256, verifier);
                if URL_SAFE_NO_PAD.encode(digest) != challenge || redirect != value("redirect_uri")
                {
                    return refusal("invalid_grant");
                }
                self.granted(&user)
            }
            "refresh_token" => {
                let refresh = value("refresh_token").to_owned();
                let Some(user) = self.refresh.get(&refresh).cloned() else {
                    return refusal("invalid_grant");
                };
                if self.rotates {
                    self.refresh.remove(&refresh);
                    return self.granted(&user);
                }
                let access = self.name("acc3ss");
                self.access.insert(access.clone(), user.clone());
                if let Some(call) = &self.on_token {
                    call(&user, &access);
                }
                let lifetime = self.lifetime;
                let body = format!(
                    r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{lifetime}}}"#
                );
                (200, body)
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {
                match self.device_answers.pop_front() {
                    _ if value("device_code") != DEVICE_CODE => refusal("invalid_grant"),
                    Some(error) => refusal(error),
                    None => self.granted("ann"),
                }
            }
            _ => refusal("unsupported_grant_type"),
        }
    }

    fn authorize(&mut self, query: &BTreeMap<String, String>) -> Option<String> {
        let value = |name: &str| query.get(name).map_or("", String::as_str);
        let sound = value("response_type") == "code"
            && value("code_challenge_method") == "S256"
            && !value("client_id").is_empty()
            && !value("state").is_empty();
        if !sound {
            return None;
        }
        let user = match value("login_hint") {
            "" => "ann",
            hint => hint,
        };
        let (redirect, state) = (value("redirect_uri").to_owned(), value("state").to_owned());
        let code = self.name("c0de");
        let kept = (value("code_challenge").to_owned(), redirect.clone(), user.to_owned());
        self.codes.insert(code.clone(), kept);
        Some(format!("{redirect}?code={code}&state={state}"))
    }
}

const DEVICE_CODE: &str = "d3vice-0123456789abcdefghij";

fn refusal(error: &str) -> (u16, String) {
    (400, format!(r#"{{"error":"{error}","error_description":"scripted"}}"#))
}

async fn serve(mut visitor: TcpStream, state: Arc<Mutex<State>>) {
    let deadline = Duration::from_secs(30);
    let Ok(Some((target, body))) = tokio::time::timeout(deadline, read(&mut visitor)).await else {
        return;
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut form = fields(query);
    form.extend(fields(&body));
    let mut fault = None;
    let answer = {
        let mut state = lock(&state);
        if path != "/authorize" {
            let request = TokenRequest { path: path.to_owned(), form: form.clone() };
            state.requests.push(request);
        }
        match path {
            "/authorize" => match state.authorize(&form) {
                Some(location) => head(302, &format!("Location: {location}\r\n"), ""),
                None => head(400, "", "no"),
            },
            "/token" => {
                fault = state.faults.pop_front();
                let (status, text) = match &fault {
                    Some(TokenFault::Refuse(error)) => refusal(error),
                    Some(TokenFault::Status(status)) => (*status, "<p>sorry</p>".to_owned()),
                    Some(TokenFault::Drop) => (500, String::new()),
                    Some(TokenFault::DropAfter) | None => state.token(&form),
                };
                head(status, JSON, &text)
            }
            "/device" => head(
                200,
                JSON,
                &format!(
                    r#"{{"device_code":"{DEVICE_CODE}","user_code":"WDJB-MJHT","verification_uri":"http://localhost/device","expires_in":900,"interval":1}}"#
                ),
            ),
            "/revoke" => {
                let token = form.get("token").cloned().unwrap_or_default();
                if let Some(user) = state.refresh.remove(&token) {
                    state.access.retain(|_, owner| *owner != user);
                }
                state.access.remove(&token);
                head(200, "", "")
            }
            "/introspect" => {
                let token = form.get("token").map_or("", String::as_str);
                let text = match state.access.get(token) {
                    Some(user) => {
                        format!(r#"{{"active":true,"username":"{user}","scope":"mail"}}"#)
                    }
                    None => r#"{"active":false}"#.to_owned(),
                };
                head(200, JSON, &text)
            }
            _ => head(404, "", "nothing here"),
        }
    };
    if !matches!(fault, Some(TokenFault::Drop | TokenFault::DropAfter)) {
        let _ = visitor.write_all(answer.as_bytes()).await;
    }
    let _ = visitor.shutdown().await;
}

const JSON: &str = "Content-Type: application/json\r\nCache-Control: no-store\r\n";

fn head(status: u16, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Scripted\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Target and body of a request.
async fn read(visitor: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let target = head.split(' ').nth(1)?.to_owned();
                return Some((target, body.to_owned()));
            }
        }
        let read = visitor.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(chunk.get(..read)?);
        if bytes.len() > 64 * 1024 {
            return None;
        }
    }
}

/// The fields of a form or query.
fn fields(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let hex = std::str::from_utf8(&digits).ok();
                bytes.push(hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
