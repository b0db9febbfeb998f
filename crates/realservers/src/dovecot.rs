//! Dovecot 2.3: IMAP with STARTTLS, IMAP over TLS, and LMTP, on loopback ports of its own.

mod config;
mod options;

use crate::certificates::Certificates;
use crate::imap_probe::{ImapProbe, Security};
use crate::ports::PortLease;
use crate::process::{ServerProcess, locate, log_tail, output_file};
use crate::workdir::{Owner, WorkDir};
use crate::{Error, lmtp, wait};
use config::{Accounts, Setup};
pub use options::{DovecotOptions, Mailbox, User};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SERVER: &str = "dovecot";
const ATTEMPTS: usize = 5;

/// A running Dovecot. Dropping it ends its processes and removes its mail.
///
/// All calls block the thread, most of them for milliseconds; a call may be made from any thread.
#[derive(Debug)]
pub struct Dovecot {
    // Before `work`: the processes end first, then their folder goes.
    state: Mutex<State>,
    program: PathBuf,
    ports: Ports,
    accounts: Accounts,
    certificates: Certificates,
    options: DovecotOptions,
    work: WorkDir,
}

#[derive(Debug)]
struct State {
    process: Option<ServerProcess>,
    passwords: BTreeMap<String, String>,
    revision: usize,
}

#[derive(Debug)]
struct Ports {
    imap: PortLease,
    imaps: PortLease,
    lmtp: PortLease,
}

impl Dovecot {
    /// Starts Dovecot and waits until all its ports answer.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Version`] when the right Dovecot is not installed;
    /// [`Error::Server`] with the end of its log when it does not come up.
    pub fn start(options: DovecotOptions) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_once(options.clone()) {
                Err(error) if error.is_port_taken() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_once(options: DovecotOptions) -> Result<Self, Error> {
        let program = installed()?;
        let work = WorkDir::new()?;
        let accounts = Accounts::detect()?;
        let mail = accounts.mail();
        let owner = match &accounts {
            Accounts::Packaged { .. } => Owner::Account { uid: mail.uid, gid: Some(mail.gid) },
            Accounts::Single { .. } => Owner::Myself,
        };
        work.folder("mail", 0o755, owner)?;
        let dovecot = Self {
            state: Mutex::new(State {
                process: None,
                passwords: passwords(&options)?,
                revision: 0,
            }),
            program,
            ports: Ports {
                imap: PortLease::take()?,
                imaps: PortLease::take()?,
                lmtp: PortLease::take()?,
            },
            accounts,
            certificates: Certificates::generate(work.path(), &options.certificate)?,
            options,
            work,
        };
        dovecot.write_passwords(&mut dovecot.state())?;
        dovecot.work.write("dovecot.conf", &dovecot.configuration())?;
        if let Some(url) = &dovecot.options.introspection_url {
            dovecot.work.write("oauth2.conf", &config::oauth2_conf(url))?;
        }
        dovecot.start_again()?;
        Ok(dovecot)
    }

    fn configuration(&self) -> String {
        config::dovecot_conf(&Setup {
            work: self.work.path(),
            token: &self.work.token(),
            imap_port: self.ports.imap.port(),
            imaps_port: self.ports.imaps.port(),
            lmtp_port: self.ports.lmtp.port(),
            accounts: &self.accounts,
            certificates: &self.certificates,
            options: &self.options,
        })
    }

    /// Starts the stopped server again, on the same ports and with the same mail. Does nothing when it
    /// runs.
    ///
    /// # Errors
    /// [`Error::Server`] with the end of its log when it does not come up.
    pub fn start_again(&self) -> Result<(), Error> {
        let mut state = self.state();
        if state.process.as_mut().is_some_and(ServerProcess::is_running) {
            return Ok(());
        }
        state.process = None;
        // After a kill the old process number may by now be somebody else's.
        let _ = fs::remove_file(self.work.path().join("run/master.pid"));
        let output = output_file(&self.output_path())?;
        let errors = output.try_clone().map_err(Error::file(self.output_path()))?;
        let mut command = Command::new(&self.program);
        command.arg("-F").arg("-c").arg(self.config_path()).stdout(output).stderr(errors);
        let mut process = ServerProcess::spawn(&mut command, self.work.path())?;
        self.await_ready(&mut process)?;
        state.process = Some(process);
        Ok(())
    }

    fn await_ready(&self, process: &mut ServerProcess) -> Result<(), Error> {
        let ended = || self.failure("it ended at once".to_owned());
        process.await_ready(|| self.greetings(), ended, |reason| self.failure(reason))
    }

    /// Asks every port whether this very server answers there.
    fn greetings(&self) -> Result<(), Error> {
        self.connect(Security::None)?;
        self.connect(Security::Implicit)?;
        lmtp::probe(self.lmtp_address(), &self.work.token())
    }

    /// Ends the server in order (SIGTERM): clients are told BYE. Its mail and its ports stay.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it does not end.
    pub fn stop(&self) -> Result<(), Error> {
        let process = self.state().process.take();
        process.map_or(Ok(()), ServerProcess::stop)
    }

    /// Kills the server at once (SIGKILL): clients only see a closed connection. Its mail and its ports
    /// stay.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it does not end.
    pub fn kill(&self) -> Result<(), Error> {
        let process = self.state().process.take();
        process.map_or(Ok(()), ServerProcess::kill)
    }

    /// Stops all its processes (SIGSTOP): connections stay open, new ones are taken by the kernel, nobody
    /// answers.
    ///
    /// # Errors
    /// [`Error::Usage`] when it does not run; [`Error::Io`].
    pub fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// [`Error::Usage`] when it does not run; [`Error::Io`].
    pub fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        ServerProcess::of(self.state().process.as_ref(), SERVER)?.signal(signal)
    }

    /// Gives a user another password and returns when the server goes by it: the new one is accepted, the
    /// old one refused. Connections that are logged in stay. On a stopped server it holds from its next start.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown user; [`Error::Deadline`] when the server does not notice.
    pub fn set_password(&self, user: &str, password: &str) -> Result<(), Error> {
        let (old, running) = {
            let mut state = self.state();
            let slot = state.passwords.get_mut(user);
            let slot = slot.ok_or_else(|| unknown_user(user))?;
            let old = std::mem::replace(slot, password.to_owned());
            self.write_passwords(&mut state)?;
            (old, state.process.is_some())
        };
        if !running || old == password {
            return Ok(());
        }
        // Dovecot looks at the file at most once in a second of its clock.
        wait::try_until("the new password to hold", wait::PATIENCE, || {
            let settled = self.accepts(user, password)? && !self.accepts(user, &old)?;
            Ok(settled.then_some(()))
        })
    }

    fn accepts(&self, user: &str, password: &str) -> Result<bool, Error> {
        let mut probe = self.connect(Security::Implicit)?;
        match probe.login(user, password) {
            Ok(()) => Ok(true),
            Err(Error::Reply { reply, .. }) if reply.contains("AUTHENTICATIONFAILED") => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_passwords(&self, state: &mut State) -> Result<(), Error> {
        state.revision += 1;
        let users = state.passwords.iter();
        let users = users.map(|(name, password)| (name.as_str(), password.as_str()));
        let text = config::passwd_file(users, state.revision);
        // Written beside and renamed: Dovecot must never read half a file.
        let new = self.work.write("users.new", &text)?;
        let file = self.work.path().join("users");
        fs::rename(new, &file).map_err(Error::file(&file))
    }

    /// Stores a message in a user's INBOX by LMTP. `message` is sent as it is and should have CRLF line
    /// ends; Dovecot puts trace headers before it (see [`crate::trace_headers`]).
    ///
    /// # Errors
    /// [`Error::Reply`] when the server refuses it; [`Error::Io`] when it does not run.
    pub fn lmtp_deliver(&self, user: &str, message: &[u8]) -> Result<(), Error> {
        lmtp::deliver(self.lmtp_address(), &self.address_of(user), message)
    }

    /// Ends all of a user's IMAP connections from the server's side. Gives whether there were any.
    ///
    /// # Errors
    /// [`Error::Missing`] without `doveadm`; [`Error::Server`] when it fails.
    pub fn kick(&self, user: &str) -> Result<bool, Error> {
        const NOT_FOUND: i32 = 68;
        let output = Command::new(locate("doveadm", "dovecot-core")?)
            .arg("-c")
            .arg(self.config_path())
            .args(["kick", user])
            .output()
            .map_err(Error::io("running doveadm kick"))?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(NOT_FOUND) => Ok(false),
            _ => {
                let words = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(self.failure(format!("doveadm kick: {words}")))
            }
        }
    }

    /// An IMAP connection to look into the server with, not logged in.
    ///
    /// # Errors
    /// [`Error::Io`] when the server does not run; [`Error::Tls`].
    pub fn connect(&self, security: Security) -> Result<ImapProbe, Error> {
        let address = match security {
            Security::Implicit => self.imaps_address(),
            Security::None | Security::StartTls => self.imap_address(),
        };
        ImapProbe::connect(address, security, &self.certificates, &self.work.token())
    }

    /// An IMAP connection over TLS, logged in as `user` with the password of now.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown user; those of [`Dovecot::connect`].
    pub fn log_in(&self, user: &str) -> Result<ImapProbe, Error> {
        let password = self.password_of(user)?;
        let mut probe = self.connect(Security::Implicit)?;
        probe.login(user, &password)?;
        Ok(probe)
    }

    /// The user's password of now.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown user.
    pub fn password_of(&self, user: &str) -> Result<String, Error> {
        let password = self.state().passwords.get(user).cloned();
        password.ok_or_else(|| unknown_user(user))
    }

    /// The Maildir of a user's mailbox on the server's disk, with `new`, `cur` and `tmp` in it once the
    /// server has made it.
    #[must_use]
    pub fn maildir(&self, user: &str, mailbox: &str) -> PathBuf {
        let root = self.work.path().join("mail").join(user).join("Maildir");
        if mailbox.eq_ignore_ascii_case("INBOX") { root } else { root.join(format!(".{mailbox}")) }
    }

    /// The files of all messages in a mailbox, sorted by name; none when the mailbox does not exist yet.
    /// Lines end in LF in them.
    ///
    /// # Errors
    /// [`Error::File`] when a folder cannot be read.
    pub fn message_files(&self, user: &str, mailbox: &str) -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        for folder in ["new", "cur"] {
            let folder = self.maildir(user, mailbox).join(folder);
            if !folder.exists() {
                continue;
            }
            for entry in fs::read_dir(&folder).map_err(Error::file(&folder))? {
                files.push(entry.map_err(Error::file(&folder))?.path());
            }
        }
        files.sort();
        Ok(files)
    }

    /// The port for IMAP in the clear and with STARTTLS.
    #[must_use]
    pub fn imap_address(&self) -> SocketAddr {
        self.ports.imap.address()
    }

    /// The port for IMAP over TLS.
    #[must_use]
    pub fn imaps_address(&self) -> SocketAddr {
        self.ports.imaps.address()
    }

    /// The port for LMTP.
    #[must_use]
    pub fn lmtp_address(&self) -> SocketAddr {
        self.ports.lmtp.address()
    }

    /// The PEM files of the server's certificate and of its authority.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The socket on which a submission server asks about passwords (`smtpd_sasl_path` of Postfix).
    #[must_use]
    pub fn auth_socket(&self) -> PathBuf {
        self.work.path().join("run/auth-submission")
    }

    /// The domain of the users' addresses.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.options.domain
    }

    /// The mail address of a user.
    #[must_use]
    pub fn address_of(&self, user: &str) -> String {
        format!("{user}@{}", self.options.domain)
    }

    /// The names of all users.
    #[must_use]
    pub fn users(&self) -> Vec<String> {
        self.state().passwords.keys().cloned().collect()
    }

    /// The file that the server logs to.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.work.path().join("dovecot.log")
    }

    /// The end of the server's log, at most 16 KiB.
    #[must_use]
    pub fn log(&self) -> String {
        log_tail(&[&self.output_path(), &self.log_path()])
    }

    fn config_path(&self) -> PathBuf {
        self.work.path().join("dovecot.conf")
    }

    fn output_path(&self) -> PathBuf {
        self.work.path().join("dovecot.out")
    }

    fn failure(&self, reason: String) -> Error {
        Error::Server { server: SERVER, reason, log: self.log() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of Dovecot's log ---\n{}", self.log());
        }
    }
}

/// Finds the program, and checks that what it needs is there and that it speaks our configuration.
fn installed() -> Result<PathBuf, Error> {
    const WANTED: &str = "2.3.";
    let program = locate("dovecot", "dovecot-imapd")?;
    for (part, package) in [("imap", "dovecot-imapd"), ("lmtp", "dovecot-lmtpd")] {
        let folders = ["/usr/lib/dovecot", "/usr/libexec/dovecot"].map(Path::new);
        if !folders.iter().any(|folder| folder.join(part).is_file()) {
            let program = part;
            return Err(Error::Missing { program, package });
        }
    }
    let output = Command::new(&program)
        .arg("--version")
        .output()
        .map_err(Error::io("asking Dovecot for its version"))?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if found.starts_with(WANTED) {
        return Ok(program);
    }
    Err(Error::Version { program: SERVER, found, wanted: "Dovecot 2.3" })
}

fn passwords(options: &DovecotOptions) -> Result<BTreeMap<String, String>, Error> {
    let mut passwords = BTreeMap::new();
    for user in &options.users {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-+".contains(c);
        if user.name.is_empty() || !user.name.chars().all(plain) {
            let name = &user.name;
            return Err(Error::Usage(format!("{name:?} cannot be a user's name")));
        }
        passwords.insert(user.name.clone(), user.password.clone());
    }
    Ok(passwords)
}

fn unknown_user(user: &str) -> Error {
    Error::Usage(format!("{user:?} is no user of this server"))
}
