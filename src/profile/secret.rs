//! Where passwords come from: the profile, the environment, a file, a command, a credential of the
//! service manager, the keyring.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::SecretString;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use zeroize::Zeroizing;

use super::keyring::KeyringSource;
use super::load::no_wait;
use crate::oauth2::NoStore;
use crate::spi::{SecretError, SecretKind, SecretSource};

/// The longest secret that is taken, in bytes; OAuth2 tokens reach a few thousand.
const LONGEST_SECRET: usize = 64 * 1024;

/// How long a password command may take: it may ask a person for a passphrase.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Where a password comes from, as the profile says.
#[derive(Clone)]
pub enum Password {
    /// It stands in the profile.
    Text(SecretString),
    /// From an environment variable.
    Env(String),
    /// The first line of a file that only its owner can read.
    File(PathBuf),
    /// The first line a shell command prints.
    Shell(String),
    /// The first line a program prints: its name and arguments.
    Program(Vec<String>),
    /// The first line of a credential of the service manager (systemd.exec(5)):
    /// `$CREDENTIALS_DIRECTORY/NAME`.
    Credential(String),
    /// The entry of this name in the keyring: the Secret Service of the desktop, on macOS the
    /// keychain. Its service is `postrider`, its user name this one.
    Keyring(String),
    /// A token: the account signs in by what `[transport.oauth2]` says. Its source is made for the
    /// whole transport, by [`sections`](super::sections()).
    SignIn,
    /// None: the certificate of the TLS handshake says who logs in (`auth = "external"`).
    Certificate,
}

impl Password {
    /// A source that can be asked for each login.
    pub fn source(&self) -> Arc<dyn SecretSource> {
        self.source_hiding(&[])
    }

    /// The same, where a command does not see these environment variables: the passwords of
    /// other logins.
    pub(super) fn source_hiding(&self, hidden: &[String]) -> Arc<dyn SecretSource> {
        let hidden = hidden.to_vec();
        match self {
            Password::Text(text) => Arc::new(TextSource(text.clone())),
            Password::Env(name) => Arc::new(EnvSource(name.clone())),
            Password::File(path) => Arc::new(FileSource(path.clone())),
            Password::Shell(line) => Arc::new(CommandSource::new(
                vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
                line.clone(),
                hidden,
            )),
            Password::Program(words) => {
                Arc::new(CommandSource::new(words.clone(), words.join(" "), hidden))
            }
            Password::Credential(name) => Arc::new(CredentialSource(name.clone())),
            Password::Keyring(name) => Arc::new(KeyringSource::new(name)),
            Password::SignIn => Arc::new(NoStore),
            Password::Certificate => Arc::new(CertificateSource),
        }
    }
}

impl fmt::Display for Password {
    /// Where it comes from; never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::Text(_) => f.write_str("in the profile (not shown)"),
            Password::Env(name) => write!(f, "environment variable {name}"),
            Password::File(path) => write!(f, "file {}", path.display()),
            Password::Shell(line) => write!(f, "command {line}"),
            Password::Program(words) => write!(f, "command {}", words.join(" ")),
            Password::Credential(name) => write!(f, "credential {name}"),
            Password::Keyring(name) => write!(f, "keyring entry {name}"),
            Password::SignIn => f.write_str("the sign-in of [transport.oauth2]"),
            Password::Certificate => f.write_str("the client certificate"),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Nothing is secret but the key of the certificate, which the TLS handshake reads.
struct CertificateSource;

#[async_trait]
impl SecretSource for CertificateSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        Ok(SecretString::from(""))
    }

    fn kind(&self) -> SecretKind {
        SecretKind::Certificate
    }
}

struct TextSource(SecretString);

#[async_trait]
impl SecretSource for TextSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        Ok(self.0.clone())
    }
}

struct EnvSource(String);

#[async_trait]
impl SecretSource for EnvSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        let name = &self.0;
        let unusable = |why| SecretError::new(format!("the environment variable {name} {why}"));
        let value = std::env::var_os(name).ok_or_else(|| unusable("is not set"))?;
        let value = value.into_string().map_err(|_| unusable("is not UTF-8"))?;
        if value.is_empty() {
            return Err(unusable("is empty"));
        }
        Ok(SecretString::from(value))
    }
}

struct FileSource(PathBuf);

#[async_trait]
impl SecretSource for FileSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        let path = self.0.clone();
        read(path, Access::OwnerOnly).await
    }
}

struct CredentialSource(String);

#[async_trait]
impl SecretSource for CredentialSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        let name = &self.0;
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
            SecretError::new(format!(
                "the credential {name}: CREDENTIALS_DIRECTORY is not set; only a service has \
                 credentials, by LoadCredential={name}:.. in its unit"
            ))
        })?;
        read(PathBuf::from(folder).join(name), Access::ServiceManager).await
    }
}

/// Who sees to it that nobody else reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Its owner, by its mode.
    OwnerOnly,
    /// The service manager, which owns it and lets the user of the unit read it by an access
    /// control list, whose mask shows as rights of the group.
    ServiceManager,
}

impl Access {
    /// The bits that must not be set.
    fn forbidden(self) -> u32 {
        match self {
            Access::OwnerOnly => 0o044,
            Access::ServiceManager => 0o004,
        }
    }
}

async fn read(path: PathBuf, access: Access) -> Result<SecretString, SecretError> {
    let read = tokio::task::spawn_blocking(move || read_password_file(&path, access));
    read.await.map_err(|_| SecretError::new("reading the password file was given up"))?
}

fn read_password_file(path: &Path, access: Access) -> Result<SecretString, SecretError> {
    let fault =
        |why: String| SecretError::new(format!("the password file {}: {why}", path.display()));
    let failed = |error: std::io::Error| fault(error.to_string());
    // A pipe in its place must not keep us waiting.
    let flags = no_wait();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(fault("it is not a file".into()));
    }
    if metadata.mode() & access.forbidden() != 0 {
        return Err(fault("others can read it; chmod 600 mends that".into()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_SECRET + 1));
    let limit = u64::try_from(LONGEST_SECRET).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    first_line(&bytes).map_err(|why| fault(why.to_owned()))
}

/// The first line without its end.
pub(super) fn first_line(bytes: &[u8]) -> Result<SecretString, &'static str> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > LONGEST_SECRET {
        return Err("the first line is too long to be a password");
    }
    if line.is_empty() {
        return Err("the first line is empty");
    }
    let text = std::str::from_utf8(line).map_err(|_| "the first line is not UTF-8")?;
    Ok(SecretString::from(text))
}

struct CommandSource {
    words: Vec<String>,
    shown: String,
    /// Environment variables it does not see.
    hidden: Vec<String>,
    deadline: Duration,
}

impl CommandSource {
    fn new(words: Vec<String>, shown: String, hidden: Vec<String>) -> Self {
        CommandSource { words, shown, hidden, deadline: COMMAND_DEADLINE }
    }

    fn fault(&self, why: impl fmt::Display) -> SecretError {
        SecretError::new(format!("the password command `{}` {why}", self.shown))
    }

    fn start(&self) -> Result<Child, SecretError> {
        let (program, arguments) =
            self.words.split_first().ok_or_else(|| self.fault("is empty"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.hidden.iter().for_each(|name| {
            command.env_remove(name);
        });
        command
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.fault(format_args!("could not be started: {error}")))
    }

    async fn output(&self, child: &mut Child) -> Result<SecretString, SecretError> {
        let complaint = Complaint::listen(child.stderr.take());
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST_SECRET + 1));
        if let Some(stdout) = child.stdout.take() {
            let limit = u64::try_from(LONGEST_SECRET).unwrap_or(u64::MAX).saturating_add(1);
            let read = stdout.take(limit).read_to_end(&mut bytes).await;
            read.map_err(|error| self.fault(format_args!("could not be read: {error}")))?;
        }
        let status = child.wait().await;
        let status = status.map_err(|error| self.fault(format_args!("was lost: {error}")))?;
        if !status.success() {
            let said = complaint.words(&bytes).await;
            return Err(self.fault(format_args!("failed ({status}){said}")));
        }
        first_line(&bytes).map_err(|why| self.fault(format_args!("was of no use: {why}")))
    }
}

#[async_trait]
impl SecretSource for CommandSource {
    async fn secret(&self) -> Result<SecretString, SecretError> {
        let mut child = self.start()?;
        let mut group = GroupGuard::of(&child);
        let answer = tokio::time::timeout(self.deadline, self.output(&mut child)).await;
        match answer {
            Ok(answer) => {
                if child.id().is_none() {
                    group.disarm();
                }
                answer
            }
            Err(_) => Err(self.fault(format_args!(
                "gave no answer within {} seconds and was stopped",
                self.deadline.as_secs_f32()
            ))),
        }
    }
}

/// How much of a command's standard error is kept, in bytes.
const LONGEST_COMPLAINT: usize = 1000;

/// How long the rest of it is waited for once the command has ended: what it left running in the
/// background may keep the pipe open for ever.
const COMPLAINT_DEADLINE: Duration = Duration::from_millis(200);

/// What a command says on standard error.
struct Complaint {
    kept: Arc<Mutex<Zeroizing<Vec<u8>>>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Complaint {
    fn listen(stderr: Option<ChildStderr>) -> Self {
        let kept = Arc::new(Mutex::new(Zeroizing::new(Vec::with_capacity(LONGEST_COMPLAINT))));
        let keeping = Arc::clone(&kept);
        let reading = tokio::spawn(async move {
            let Some(mut stderr) = stderr else { return };
            let mut chunk = Zeroizing::new([0; 512]);
            while let Ok(read @ 1..) = stderr.read(&mut *chunk).await {
                let mut kept = keeping.lock().unwrap_or_else(PoisonError::into_inner);
                let room = LONGEST_COMPLAINT.saturating_sub(kept.len());
                let part = chunk.get(..read.min(room)).unwrap_or_default();
                kept.extend_from_slice(part);
            }
        });
        Complaint { kept, reading }
    }

    /// What was said, fit for the end of an error; without what the command printed on standard
    /// output, which may be a password.
    async fn words(mut self, printed: &[u8]) -> String {
        let _still_open = tokio::time::timeout(COMPLAINT_DEADLINE, &mut self.reading).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = Zeroizing::new(String::from_utf8_lossy(&kept).into_owned());
        for line in String::from_utf8_lossy(printed).lines().map(str::trim) {
            if !line.is_empty() {
                text = Zeroizing::new(text.replace(line, "***"));
            }
        }
        let clean: String = text.trim().chars().map(visible).collect();
        match clean.as_str() {
            "" => "; run it by hand to see why".to_owned(),
            words => format!(": {words}"),
        }
    }
}

impl Drop for Complaint {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn visible(sign: char) -> char {
    match sign {
        '\n' | '\t' => ' ',
        sign if sign.is_control() => '\u{fffd}',
        sign => sign,
    }
}

/// Kills the process group of a command when the wait for it ends early, also by a dropped
/// future: the shell's children would live on otherwise.
struct GroupGuard(Option<Pid>);

impl GroupGuard {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        GroupGuard(id.and_then(Pid::from_raw))
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself meanwhile; then there is nothing to do.
            let _ended = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
