//! The token of an account, as a login asks for it: from the store, renewed ahead of its end and
//! when a server refuses it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::Mutex;

use super::tokens::Decision;
use super::{Answer, Client, FileStore, StoreError, Tokens};
use crate::clock::Clock;
use crate::mapi::SysTime;
use crate::spi::{SecretError, SecretKind, SecretSource};

/// How long a token that is still good is not renewed ahead after that has failed.
const AHEAD_PAUSE: Duration = Duration::from_secs(60);

/// The token source of one account; both directions share one.
#[derive(Clone)]
pub(crate) struct TokenSource {
    inner: Arc<Inner>,
}

struct Inner {
    /// The transport, for people.
    account: String,
    /// What a person has to run to sign in.
    command: String,
    client: Client,
    store: FileStore,
    clock: Arc<dyn Clock>,
    /// Held while the token is looked at, so that several logins renew it once.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Tokens the disk did not take. The refresh token on disk may be spent already.
    unsaved: Option<Tokens>,
    /// When renewing ahead is tried again.
    ahead_again: SysTime,
}

impl TokenSource {
    /// The source for the transport called `account`; `command` is what signs in.
    pub(crate) fn new(
        account: &str,
        command: &str,
        client: Client,
        store: FileStore,
        clock: Arc<dyn Clock>,
    ) -> Self {
        TokenSource {
            inner: Arc::new(Inner {
                account: account.to_owned(),
                command: command.to_owned(),
                client,
                store,
                clock,
                state: Mutex::default(),
            }),
        }
    }

    /// In a task of its own: a login may be given up at any time, and then a refresh token that is
    /// good for one use must not be lost between the server and the disk.
    async fn obtain(
        &self,
        refused: Option<SecretString>,
    ) -> Result<Option<SecretString>, SecretError> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move { inner.obtain(refused.as_ref()).await });
        task.await.map_err(|_| SecretError::new("getting a token was given up"))?
    }
}

#[async_trait]
impl SecretSource for TokenSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        let token = self.obtain(None).await?;
        token.ok_or_else(|| SecretError::new("there is no token"))
    }

    fn kind(&self) -> SecretKind {
        SecretKind::Token
    }

    async fn renew(&self, refused: &SecretString) -> Result<Option<SecretString>, SecretError> {
        self.obtain(Some(refused.clone())).await
    }
}

impl Inner {
    async fn obtain(
        &self,
        refused: Option<&SecretString>,
    ) -> Result<Option<SecretString>, SecretError> {
        let mut state = self.state.lock().await;
        let tokens = self.current(&mut state).await?;
        let now = self.clock.now();
        let ahead = match tokens.decide(now, refused) {
            Decision::RenewAhead if now < state.ahead_again => return Ok(Some(tokens.access)),
            Decision::RenewAhead => true,
            Decision::Renew => false,
            decided => return self.answer(decided, tokens),
        };
        match self.renew(&mut state, refused).await {
            Err(error) if ahead && error.kind != crate::spi::SecretErrorKind::NeedsSignIn => {
                tracing::warn!(transport = %self.account, why = %error, "A token is not renewed yet");
                state.ahead_again = now.saturating_add(AHEAD_PAUSE);
                Ok(Some(tokens.access))
            }
            renewed => renewed,
        }
    }

    fn answer(
        &self,
        decided: Decision,
        tokens: Tokens,
    ) -> Result<Option<SecretString>, SecretError> {
        match decided {
            Decision::Use | Decision::RenewAhead | Decision::Renew => Ok(Some(tokens.access)),
            Decision::Hopeless => Ok(None),
            Decision::SignIn(reason) => Err(self.sign_in(&reason)),
        }
    }

    /// The tokens as of now; a person may have signed in or out meanwhile.
    async fn current(&self, state: &mut State) -> Result<Tokens, SecretError> {
        let stored = self.blocking(FileStore::load).await?;
        match (state.unsaved.take(), stored) {
            (Some(unsaved), Some(stored)) if stored.obtained <= unsaved.obtained => {
                let lock = self.blocking(FileStore::lock).await;
                if let Ok(lock) = lock {
                    self.keep(state, unsaved.clone(), lock).await;
                } else {
                    state.unsaved = Some(unsaved.clone());
                }
                Ok(unsaved)
            }
            (_, Some(stored)) => Ok(stored),
            (_, None) => Err(SecretError::needs_sign_in(format!(
                "{}: nobody has signed in yet; run `{}`",
                self.account, self.command
            ))),
        }
    }

    /// Renews, unless another process has done so by the time it is our turn.
    async fn renew(
        &self,
        state: &mut State,
        refused: Option<&SecretString>,
    ) -> Result<Option<SecretString>, SecretError> {
        let lock = self.blocking(FileStore::lock).await?;
        let tokens = match &state.unsaved {
            Some(unsaved) => unsaved.clone(),
            None => self.current(state).await?,
        };
        match tokens.decide(self.clock.now(), refused) {
            Decision::Renew | Decision::RenewAhead => {}
            decided => return self.answer(decided, tokens),
        }
        let Some(refresh) = &tokens.refresh else {
            return Err(self.sign_in("there is no refresh token"));
        };
        let host = self.client.settings.token_url.host();
        match self.client.refresh(refresh).await? {
            Answer::Granted(grant) => {
                let renewed = Tokens::granted(grant, Some(&tokens), self.clock.now());
                let access = renewed.access.clone();
                self.keep(state, renewed, lock).await;
                tracing::info!(transport = %self.account, "A token is renewed");
                Ok(Some(access))
            }
            Answer::Refused(refusal) if refusal.ends_sign_in() => {
                let words = super::client::conceal(&refusal.words, &tokens);
                tracing::warn!(transport = %self.account, why = %words, "The sign-in has ended");
                let ended = Tokens { ended: Some(words.clone()), ..tokens };
                // What is still good is used up.
                let left = ended.decide(self.clock.now(), refused);
                self.keep(state, ended.clone(), lock).await;
                self.answer(left, ended)
            }
            Answer::Refused(refusal) => {
                let words = super::client::conceal(&refusal.words, &tokens);
                Err(SecretError::new(format!(
                    "{}: {host} refuses to renew the token ({words}); check client_id and \
                     client_secret in the profile",
                    self.account
                )))
            }
            Answer::Later(words) => Err(SecretError::out_of_reach(format!(
                "{}: {host} cannot renew the token now ({words})",
                self.account
            ))),
            Answer::Pending | Answer::SlowDown => Err(SecretError::out_of_reach(format!(
                "{}: {host} answers out of turn",
                self.account
            ))),
        }
    }

    /// Puts tokens on disk; when that fails they are kept here and tried again.
    async fn keep(&self, state: &mut State, tokens: Tokens, lock: super::file_store::StoreLock) {
        let kept = tokens.clone();
        let saved = self.blocking(move |store| store.save(&kept, &lock)).await;
        if let Err(error) = saved {
            tracing::error!(transport = %self.account, why = %error, "A token is not on disk yet");
            state.unsaved = Some(tokens);
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FileStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SecretError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        let done = done.map_err(|_| SecretError::new("the store of tokens was given up"))?;
        done.map_err(|error| SecretError::new(format!("{}: {error}", self.account)))
    }

    fn sign_in(&self, reason: &str) -> SecretError {
        SecretError::needs_sign_in(format!(
            "{}: the sign-in has ended ({reason}); run `{}`",
            self.account, self.command
        ))
    }
}

/// In place of a source for an account whose tokens have no place: a profile that was not read
/// from its folder.
pub(crate) struct NoStore;

#[async_trait]
impl SecretSource for NoStore {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        Err(SecretError::needs_sign_in("this profile has no state folder for its tokens"))
    }

    fn kind(&self) -> SecretKind {
        SecretKind::Token
    }
}
