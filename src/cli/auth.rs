//! `auth login`, `auth status`, `auth logout`: signing in to the accounts of a profile by OAuth 2.0.

use std::time::Duration;

use serde::Serialize;

use super::access::Place;
use super::args::{AuthCommand, AuthLogin};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::interrupt::Interrupts;
use super::table::{Mood, Table};
use super::text::one_line;
use crate::clock::{Clock, SystemClock};
use crate::oauth2::{
    Browser, DevicePrompt, FileStore, Grant, Standing, StoreError, StoreLock, Tokens,
    sign_in_by_device,
};
use crate::profile::{OAuth2Profile, Profile, TransportProfile, sign_in_command, token_store};
use crate::session::{FlushRequest, Service};
use crate::spi::{SecretError, SecretErrorKind};

/// How long the daemon is given to begin anew with fresh tokens.
const WAKE: Duration = Duration::from_secs(5);

/// What the commands work on.
pub(crate) struct Accounts<'a> {
    /// The profile.
    pub(crate) profile: &'a Profile,
    /// Its state folder, which is there.
    pub(crate) state_folder: &'a std::path::Path,
    /// Where its daemon may run.
    pub(crate) place: &'a Place,
}

/// One account that signs in.
struct Account<'a> {
    transport: &'a TransportProfile,
    oauth2: &'a OAuth2Profile,
    store: FileStore,
}

/// `auth`.
pub(crate) async fn auth(
    accounts: &Accounts<'_>,
    console: &mut Console<'_>,
    command: &AuthCommand,
) -> Result<(), Failure> {
    match command {
        AuthCommand::Login(arguments) => login(accounts, console, arguments).await,
        AuthCommand::Status(named) => status(accounts, console, named.transport.as_deref()),
        AuthCommand::Logout(named) => logout(accounts, console, named.transport.as_deref()).await,
    }
}

impl<'a> Accounts<'a> {
    /// Those of the profile that sign in, or the one of this name.
    fn all(&self, named: Option<&str>) -> Result<Vec<Account<'a>>, Failure> {
        let account = |transport: &'a TransportProfile| {
            let store = token_store(self.state_folder, transport);
            transport.oauth2.as_ref().map(|oauth2| Account { transport, oauth2, store })
        };
        let transports = &self.profile.transports;
        if let Some(name) = named {
            let transport = transports.iter().find(|transport| transport.name == name);
            let Some(transport) = transport else {
                let words = format!("the profile {} has no transport {name}", self.profile.name);
                return Err(Failure::new(Exit::Negative, words));
            };
            return account(transport).map(|account| vec![account]).ok_or_else(|| {
                let words = format!(
                    "{name} does not sign in: it has no [transport.oauth2]; docs/oauth2.md says how"
                );
                Failure::new(Exit::Config, words)
            });
        }
        Ok(transports.iter().filter_map(account).collect())
    }

    /// The one that is meant.
    fn one(&self, named: Option<&str>) -> Result<Account<'a>, Failure> {
        let mut all = self.all(named)?;
        match (all.pop(), all.is_empty()) {
            (Some(account), true) => Ok(account),
            (None, _) => {
                let words = format!(
                    "no transport of the profile {} has [transport.oauth2]; docs/oauth2.md says how",
                    self.profile.name
                );
                Err(Failure::new(Exit::Config, words))
            }
            (Some(last), false) => {
                let names =
                    all.iter().chain([&last]).map(|account| account.transport.name.as_str());
                let names: Vec<&str> = names.collect();
                Err(Failure::usage(format!("which one? name one of {}", names.join(", "))))
            }
        }
    }
}

async fn login(
    accounts: &Accounts<'_>,
    console: &mut Console<'_>,
    arguments: &AuthLogin,
) -> Result<(), Failure> {
    let account = accounts.one(arguments.transport.as_deref())?;
    // Before anybody is bothered: tokens must have a place.
    drop(locked(&account.store).await?);
    let mut interrupts = Interrupts::new()?;
    let grant = tokio::select! {
        grant = sign_in(&account, accounts.profile, console, arguments.device) => grant,
        signal = interrupts.next() => return Err(signal.failure()),
    };
    let grant = grant.map_err(|error| failure(&account.transport.name, &error))?;
    let tokens = Tokens::granted(grant, None, SystemClock.now());
    let (store, kept) = (account.store.clone(), tokens.clone());
    let lock = locked(&account.store).await?;
    blocking(move || store.save(&kept, &lock)).await?;
    if tokens.refresh.is_none() {
        console.note(
            "the provider gave no refresh token: you will have to sign in again when this one \
             runs out (some want a scope for that, such as offline_access)",
        );
    }
    wake(accounts.place).await;
    print(&[view(&account)], console)
}

async fn sign_in(
    account: &Account<'_>,
    profile: &Profile,
    console: &mut Console<'_>,
    device: bool,
) -> Result<Grant, SecretError> {
    let client = account.oauth2.client(&profile.password_variables());
    let name = &account.transport.name;
    if device || !client.has_browser() {
        if !client.has_device() {
            return Err(SecretError::new(
                "this provider has no sign-in on another device; leave out --device",
            ));
        }
        let show = |prompt: DevicePrompt| {
            console.note(format_args!("to sign in to {name}, open this address on any device:"));
            console.note(format_args!("  {}", prompt.url));
            console.note(format_args!(
                "and type this code, which is good for {} minutes:",
                prompt.lifetime.as_secs().div_ceil(60)
            ));
            console.note(format_args!("  {}", prompt.code));
        };
        return sign_in_by_device(&client, &SystemClock, show).await;
    }
    let browser = Browser::begin(&client, user(account.transport)).await?;
    console.note(format_args!(
        "to sign in to {name}, open this address in a browser of this machine:"
    ));
    console.note(format_args!("  {}", browser.url()));
    browser.finish().await
}

/// The name the account logs in with; a hint for the provider's page.
fn user(transport: &TransportProfile) -> &str {
    let smtp = transport.smtp.as_ref().and_then(|smtp| smtp.login.as_ref());
    let imap = transport.imap.as_ref().map(|imap| &imap.login);
    smtp.or(imap).map_or("", |login| login.user.as_str())
}

fn failure(name: &str, error: &SecretError) -> Failure {
    let exit = match error.kind {
        SecretErrorKind::OutOfReach => Exit::TryAgain,
        SecretErrorKind::Unavailable | SecretErrorKind::NeedsSignIn => Exit::Negative,
    };
    Failure::new(exit, format!("cannot sign in to {name}: {error}"))
}

/// A daemon that waits for somebody to sign in begins at once.
async fn wake(place: &Place) {
    if let Ok(Some(daemon)) = place.daemon().await {
        let flush = daemon.flush(FlushRequest { upload: true, download: true });
        // It tries again by itself, too, only later.
        let _begun = tokio::time::timeout(WAKE, flush).await;
    }
}

fn status(
    accounts: &Accounts<'_>,
    console: &mut Console<'_>,
    named: Option<&str>,
) -> Result<(), Failure> {
    let views: Vec<AccountView> = accounts.all(named)?.iter().map(view).collect();
    print(&views, console)?;
    let missing = views.iter().find(|view| view.state != StateView::SignedIn);
    match missing {
        None => Ok(()),
        Some(missing) => {
            let command = sign_in_command(&accounts.profile.name, &missing.transport);
            console.note(format_args!("sign in with `{command}`"));
            Err(Failure::silent(Exit::Negative))
        }
    }
}

async fn logout(
    accounts: &Accounts<'_>,
    console: &mut Console<'_>,
    named: Option<&str>,
) -> Result<(), Failure> {
    let account = accounts.one(named)?;
    let lock = locked(&account.store).await?;
    let store = account.store.clone();
    let tokens = blocking(move || store.load()).await;
    if let Ok(Some(tokens)) = &tokens {
        let client = account.oauth2.client(&accounts.profile.password_variables());
        let token = tokens.refresh.as_ref().unwrap_or(&tokens.access);
        match client.revoke(token).await {
            Ok(true) => {}
            Ok(false) => console
                .note("the tokens are forgotten here; this provider is told on its own pages only"),
            Err(error) => console.note(format_args!(
                "the tokens are forgotten here, but the provider could not be told: {error}"
            )),
        }
    }
    let store = account.store.clone();
    blocking(move || store.remove(&lock)).await?;
    print(&[view(&account)], console)
}

async fn locked(store: &FileStore) -> Result<StoreLock, Failure> {
    let store = store.clone();
    blocking(move || store.lock()).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    done.map_err(|error| Failure::new(Exit::Io, error.to_string()))
}

/// A row of `auth status`.
#[derive(Debug, Serialize)]
struct AccountView {
    transport: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    state: StateView,
    /// Why the sign-in has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When the present token runs out; it is renewed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// Whether it can be renewed without anybody.
    renewable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum StateView {
    SignedIn,
    NeedsSignIn,
    SignedOut,
}

fn view(account: &Account<'_>) -> AccountView {
    let standing = account.store.standing(SystemClock.now());
    let mut view = AccountView {
        transport: account.transport.name.clone(),
        user: user(account.transport).to_owned(),
        provider: account.oauth2.provider.map(|provider| provider.to_string()),
        state: StateView::SignedOut,
        reason: None,
        expires: None,
        renewable: false,
        scope: None,
    };
    match standing {
        Standing::SignedOut => {}
        Standing::Ended(reason) => {
            view.state = StateView::NeedsSignIn;
            view.reason = Some(reason);
        }
        Standing::SignedIn(tokens) => {
            view.state = StateView::SignedIn;
            view.expires = tokens.expires.map(|time| time.to_string());
            view.renewable = tokens.refresh.is_some();
            view.scope = tokens.scope;
        }
    }
    view
}

fn print(views: &[AccountView], console: &mut Console<'_>) -> Result<(), Failure> {
    if console.json {
        return console.document(views);
    }
    let mut table = Table::new(&["TRANSPORT", "USER", "STATE", "TOKEN"]);
    for view in views {
        let (state, mood) = match view.state {
            StateView::SignedIn => ("signed in".to_owned(), Mood::Good),
            StateView::SignedOut => ("signed out".to_owned(), Mood::Waiting),
            StateView::NeedsSignIn => {
                let reason = view.reason.as_deref().map(one_line).unwrap_or_default();
                (format!("needs sign-in: {reason}"), Mood::Bad)
            }
        };
        let token = match (&view.expires, view.renewable) {
            (Some(time), true) => format!("until {time}, then renewed"),
            (Some(time), false) => format!("until {time}"),
            (None, _) => String::new(),
        };
        table.moody_row([
            (view.transport.clone(), Mood::Plain),
            (view.user.clone(), Mood::Plain),
            (state, mood),
            (token, Mood::Plain),
        ]);
    }
    table.print(console)
}
