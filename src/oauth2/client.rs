//! What this program asks an authorization server for.

use std::sync::Arc;

use secrecy::SecretString;
use serde::Deserialize;

use super::form::Form;
use super::http::{HttpAnswer, post_form};
use super::{Answer, Endpoint, RedirectUri};
use crate::net::{Trust, for_people};
use crate::spi::{SecretError, SecretSource};

/// Who we are to an authorization server, and where it is.
#[derive(Clone)]
pub(crate) struct ClientSettings {
    /// `client_id`, as the provider registered it.
    pub(crate) client_id: String,
    /// `client_secret`, where the provider gave one.
    pub(crate) client_secret: Option<Arc<dyn SecretSource>>,
    /// Token endpoint.
    pub(crate) token_url: Endpoint,
    /// Authorization endpoint, for a browser.
    pub(crate) auth_url: Option<Endpoint>,
    /// Device authorization endpoint.
    pub(crate) device_url: Option<Endpoint>,
    /// Revocation endpoint.
    pub(crate) revoke_url: Option<Endpoint>,
    /// Scopes to ask for.
    pub(crate) scopes: Vec<String>,
    /// Where a browser is sent back to.
    pub(crate) redirect: RedirectUri,
    /// Further parameters of the authorization request.
    pub(crate) extra: &'static [(&'static str, &'static str)],
    /// Whose certificates are believed.
    pub(crate) trust: Trust,
}

/// Asks an authorization server.
#[derive(Clone)]
pub(crate) struct Client {
    pub(super) settings: Arc<ClientSettings>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.settings.token_url).finish()
    }
}

/// What a device flow begins with (RFC 8628 section 3.2).
pub(super) struct DeviceGrant {
    pub(super) device_code: SecretString,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    pub(super) expires_in: u64,
    pub(super) interval: u64,
}

impl Client {
    /// A client; nothing is done yet.
    pub(crate) fn new(settings: ClientSettings) -> Self {
        Client { settings: Arc::new(settings) }
    }

    /// Whether a person can sign in through a browser of this machine.
    pub(crate) fn has_browser(&self) -> bool {
        self.settings.auth_url.is_some()
    }

    /// Whether a person can sign in on another device.
    pub(crate) fn has_device(&self) -> bool {
        self.settings.device_url.is_some()
    }

    fn form(&self, room: usize) -> Form {
        Form::with_room(room).field("client_id", &self.settings.client_id)
    }

    async fn with_client_secret(&self, form: Form) -> Result<Form, SecretError> {
        match &self.settings.client_secret {
            Some(source) => Ok(form.secret("client_secret", &source.secret().await?)),
            None => Ok(form),
        }
    }

    async fn ask_token(&self, form: Form) -> Result<Answer, SecretError> {
        let form = self.with_client_secret(form).await?;
        let HttpAnswer { status, body } = self.post(&self.settings.token_url, form).await?;
        Ok(Answer::read(status, &body))
    }

    async fn post(&self, endpoint: &Endpoint, form: Form) -> Result<HttpAnswer, SecretError> {
        let posted = post_form(endpoint, &self.settings.trust, form.finish()).await;
        posted.map_err(SecretError::out_of_reach)
    }

    /// A new token for a refresh token (RFC 6749 section 6).
    pub(super) async fn refresh(&self, refresh: &SecretString) -> Result<Answer, SecretError> {
        let form = self.form(8 * 1024).field("grant_type", "refresh_token");
        self.ask_token(form.secret("refresh_token", refresh)).await
    }

    /// Tokens for the code a browser brought (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
    pub(super) async fn redeem(
        &self,
        code: &SecretString,
        verifier: &SecretString,
        redirect_uri: &str,
    ) -> Result<Answer, SecretError> {
        let form = self
            .form(8 * 1024)
            .field("grant_type", "authorization_code")
            .field("redirect_uri", redirect_uri)
            .secret("code", code)
            .secret("code_verifier", verifier);
        self.ask_token(form).await
    }

    /// Tokens, once a person has consented on another device (RFC 8628 section 3.4).
    pub(super) async fn poll(&self, device_code: &SecretString) -> Result<Answer, SecretError> {
        let form = self
            .form(4 * 1024)
            .field("grant_type", "urn:ietf:params:oauth:grant-type:device_code")
            .secret("device_code", device_code);
        self.ask_token(form).await
    }

    /// Begins a device flow (RFC 8628 section 3.1).
    pub(super) async fn begin_device(&self) -> Result<DeviceGrant, SecretError> {
        #[derive(Deserialize)]
        struct Told {
            device_code: String,
            user_code: String,
            #[serde(alias = "verification_url")]
            verification_uri: String,
            expires_in: Option<u64>,
            interval: Option<u64>,
        }
        let Some(endpoint) = &self.settings.device_url else {
            return Err(SecretError::new("the profile names no device_url"));
        };
        let form = self.form(1024).field("scope", &self.settings.scopes.join(" "));
        let HttpAnswer { status, body } = self.post(endpoint, form).await?;
        let told: Option<Told> =
            serde_json::from_slice(&body).ok().filter(|_| (200..300).contains(&status));
        let Some(told) = told else {
            let words = match Answer::read(status, &body) {
                Answer::Refused(refusal) => refusal.words,
                Answer::Later(words) => words,
                _ => format!("HTTP status {status}"),
            };
            return Err(SecretError::new(format!("{}: {words}", endpoint.host())));
        };
        Ok(DeviceGrant {
            device_code: SecretString::from(told.device_code),
            user_code: for_people(&told.user_code),
            verification_uri: for_people(&told.verification_uri),
            expires_in: told.expires_in.unwrap_or(900).min(24 * 60 * 60),
            interval: told.interval.unwrap_or(5).clamp(1, 600),
        })
    }

    /// Tells the server that a token is not wanted any more (RFC 7009). `false` when it has no
    /// place to say so.
    ///
    /// # Errors
    /// When the server was out of reach or did not agree.
    pub(crate) async fn revoke(&self, token: &SecretString) -> Result<bool, SecretError> {
        let Some(endpoint) = &self.settings.revoke_url else { return Ok(false) };
        let form = self.with_client_secret(self.form(8 * 1024)).await?.secret("token", token);
        let answer = self.post(endpoint, form).await?;
        if (200..300).contains(&answer.status) {
            return Ok(true);
        }
        let words = format!("{}: HTTP status {}", endpoint.host(), answer.status);
        Err(SecretError::new(words))
    }
}

/// A server's words without the tokens, where it repeats them.
pub(super) fn conceal(words: &str, tokens: &super::Tokens) -> String {
    use secrecy::ExposeSecret;
    let secrets = [Some(&tokens.access), tokens.refresh.as_ref()];
    secrets
        .into_iter()
        .flatten()
        .fold(words.to_owned(), |words, secret| words.replace(secret.expose_secret(), "***"))
}
