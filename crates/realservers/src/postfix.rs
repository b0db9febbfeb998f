//! Postfix: a submission server with STARTTLS, one with TLS from the first byte, and a plain SMTP port, which
//! deliver into a [`Dovecot`].

mod config;

use crate::certificates::Certificates;
use crate::dialogue::{Dialogue, connect};
use crate::ports::PortLease;
use crate::process::{ServerProcess, locate, log_tail, output_file};
use crate::workdir::{Account, Owner, WorkDir, group, is_root};
use crate::{Dovecot, Error};
use config::Setup;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

const SERVER: &str = "postfix";
const PACKAGE: &str = "postfix";
const ATTEMPTS: usize = 5;

/// How a test's Postfix differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct PostfixOptions {
    /// Parameters set last in `main.cf`, such as `("message_size_limit", "100000")`.
    pub main: Vec<(String, String)>,
}

/// A running Postfix. Dropping it ends its processes and removes its queue.
///
/// Mail for a user of the [`Dovecot`] is delivered there, and another address of that domain is refused at RCPT.
/// Mail for any other domain is accepted from who is logged in, and then a report comes back (RFC 3464): nothing
/// leaves the machine. All calls block.
#[derive(Debug)]
pub struct Postfix {
    // Before `work`: the processes end first, then their folder goes.
    process: Mutex<Option<ServerProcess>>,
    program: PathBuf,
    ports: Ports,
    certificates: Certificates,
    work: WorkDir,
}

#[derive(Debug)]
struct Ports {
    smtp: PortLease,
    submission: PortLease,
    submissions: PortLease,
}

impl Postfix {
    /// Starts Postfix and waits until all its ports answer. It uses the certificate, the users and the
    /// passwords of `dovecot`, which may stop and start again meanwhile, and should live longer.
    ///
    /// # Errors
    /// [`Error::Missing`] when it is not installed; [`Error::NeedsRoot`] for an ordinary user;
    /// [`Error::Server`] with the end of its log when it does not come up.
    pub fn start(dovecot: &Dovecot, options: PostfixOptions) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_once(dovecot, &options) {
                Err(error) if error.is_port_taken() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_once(dovecot: &Dovecot, options: &PostfixOptions) -> Result<Self, Error> {
        let program = installed()?;
        if !is_root() {
            return Err(Error::NeedsRoot {
                server: SERVER,
                reason: "its master process changes to the user `postfix`",
            });
        }
        let work = WorkDir::new()?;
        make_queue(&work)?;
        let postfix = Self {
            process: Mutex::new(None),
            program,
            ports: Ports {
                smtp: PortLease::take()?,
                submission: PortLease::take()?,
                submissions: PortLease::take()?,
            },
            certificates: dovecot.certificates().clone(),
            work,
        };
        postfix.write_configuration(dovecot, options)?;
        postfix.start_again()?;
        Ok(postfix)
    }

    fn write_configuration(
        &self,
        dovecot: &Dovecot,
        options: &PostfixOptions,
    ) -> Result<(), Error> {
        let setup = Setup {
            work: self.work.path(),
            token: &self.work.token(),
            domain: dovecot.domain(),
            smtp: self.smtp_address(),
            submission: self.submission_address(),
            submissions: self.submissions_address(),
            lmtp: dovecot.lmtp_address(),
            auth_socket: &dovecot.auth_socket(),
            certificates: dovecot.certificates(),
            options,
        };
        let users = dovecot.users();
        let addresses: Vec<_> = users.iter().map(|user| dovecot.address_of(user)).collect();
        self.work.folder("conf", 0o755, Owner::Myself)?;
        let files = [
            ("mailboxes", config::mailboxes(&addresses)),
            ("conf/main.cf", config::main_cf(&setup)),
            ("conf/master.cf", config::master_cf(&setup)),
        ];
        for (name, text) in files {
            age(&self.work.write(name, &text)?)?;
        }
        Ok(())
    }

    /// Starts the stopped server again, on the same ports and with the same queue. Does nothing when it runs.
    /// Dovecot has to run: the submission services greet nobody before they know how users can log in.
    ///
    /// # Errors
    /// [`Error::Server`] with the end of its log when it does not come up.
    pub fn start_again(&self) -> Result<(), Error> {
        let mut slot = self.process();
        if slot.as_mut().is_some_and(ServerProcess::is_running) {
            return Ok(());
        }
        *slot = None;
        let output = output_file(&self.output_path())?;
        let errors = output.try_clone().map_err(Error::file(self.output_path()))?;
        let mut command = Command::new(&self.program);
        command
            // -d: stays in the foreground, in the process group it is given.
            .arg("-d")
            .arg("-c")
            .arg(self.work.path().join("conf"))
            .env_remove("MAIL_CONFIG")
            .stdout(output)
            .stderr(errors);
        let mut process = ServerProcess::spawn(&mut command, self.work.path())?;
        self.await_ready(&mut process)?;
        *slot = Some(process);
        Ok(())
    }

    fn await_ready(&self, process: &mut ServerProcess) -> Result<(), Error> {
        let ended = || self.failure(format!("it ended at once; {}", self.complaints()));
        process.await_ready(|| self.greetings(), ended, |reason| self.failure(reason))
    }

    /// What Postfix finds wrong with its parameters. Its master process tells that to syslog alone, because
    /// it knows of its own log file only afterwards; `postmap` reads the same parameters and complains on
    /// standard error.
    fn complaints(&self) -> String {
        let asked = locate("postmap", PACKAGE).and_then(|program| {
            Command::new(program)
                .arg("-c")
                .arg(self.work.path().join("conf"))
                .args(["-q", "anything"])
                .arg(format!("texthash:{}", self.work.path().join("mailboxes").display()))
                .output()
                .map_err(Error::io("running postmap"))
        });
        match asked {
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Asks every port whether this very server answers there.
    fn greetings(&self) -> Result<(), Error> {
        let token = self.work.token();
        greeting(connect(self.smtp_address())?, &token)?;
        greeting(connect(self.submission_address())?, &token)?;
        let socket = connect(self.submissions_address())?;
        greeting(self.certificates.handshake(socket)?, &token)
    }

    /// Ends the server (SIGTERM): open connections break. Its queue and its ports stay.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it does not end.
    pub fn stop(&self) -> Result<(), Error> {
        let process = self.process().take();
        process.map_or(Ok(()), ServerProcess::stop)
    }

    /// Kills the server at once (SIGKILL). Its queue and its ports stay.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it does not end.
    pub fn kill(&self) -> Result<(), Error> {
        let process = self.process().take();
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
        ServerProcess::of(self.process().as_ref(), SERVER)?.signal(signal)
    }

    /// Has everything that waits in its queue tried now, as `postqueue -f` does.
    ///
    /// # Errors
    /// [`Error::Missing`] without the command; [`Error::Server`] with its words when it fails.
    pub fn flush_queue(&self) -> Result<(), Error> {
        let asked = Command::new(locate("postqueue", PACKAGE)?)
            .arg("-c")
            .arg(self.work.path().join("conf"))
            .arg("-f")
            .output()
            .map_err(Error::io("running postqueue"))?;
        match asked.status.success() {
            true => Ok(()),
            false => Err(self.failure(String::from_utf8_lossy(&asked.stderr).into_owned())),
        }
    }

    /// How many messages are in its queue: accepted and not yet delivered or given up.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn queued(&self) -> Result<usize, Error> {
        const QUEUES: [&str; 5] = ["maildrop", "incoming", "active", "deferred", "hold"];
        let queue = self.work.path().join("queue");
        QUEUES.iter().map(|name| count_files(&queue.join(name))).sum()
    }

    /// How many messages it works on or is about to: not those that wait for a later try.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn active(&self) -> Result<usize, Error> {
        let queue = self.work.path().join("queue");
        ["incoming", "active"].iter().map(|name| count_files(&queue.join(name))).sum()
    }

    /// The port for SMTP without login, STARTTLS offered: takes mail for the domain only, as an MX does.
    #[must_use]
    pub fn smtp_address(&self) -> SocketAddr {
        self.ports.smtp.address()
    }

    /// The submission port: STARTTLS, then AUTH, both required.
    #[must_use]
    pub fn submission_address(&self) -> SocketAddr {
        self.ports.submission.address()
    }

    /// The submission port with TLS from the first byte, AUTH required.
    #[must_use]
    pub fn submissions_address(&self) -> SocketAddr {
        self.ports.submissions.address()
    }

    /// The PEM files of the server's certificate and of its authority.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The file that the server logs to.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.work.path().join("postfix.log")
    }

    /// The end of the server's log, at most 16 KiB.
    #[must_use]
    pub fn log(&self) -> String {
        log_tail(&[&self.output_path(), &self.log_path()])
    }

    fn output_path(&self) -> PathBuf {
        self.work.path().join("postfix.out")
    }

    fn failure(&self, reason: String) -> Error {
        Error::Server { server: SERVER, reason, log: self.log() }
    }

    fn process(&self) -> MutexGuard<'_, Option<ServerProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of Postfix' log ---\n{}", self.log());
        }
    }
}

fn greeting(stream: impl Read + Write, token: &str) -> Result<(), Error> {
    let step = "the SMTP greeting";
    let mut server = Dialogue::new(stream);
    let greeting = server.expect(step, 220)?;
    if !greeting.text.contains(token) {
        let reply = greeting.text;
        return Err(Error::Reply { step, reply });
    }
    let _ = server.command("QUIT", "QUIT", 221);
    Ok(())
}

/// Finds Postfix' master process, which is in no `PATH`.
fn installed() -> Result<PathBuf, Error> {
    locate("postfix", PACKAGE)?;
    ["/usr/lib/postfix/sbin/master", "/usr/libexec/postfix/master"]
        .map(PathBuf::from)
        .into_iter()
        .find(|program| program.is_file())
        .ok_or(Error::Missing { program: "postfix/sbin/master", package: PACKAGE })
}

/// Makes the folders of a queue with the owners and modes that Postfix insists on.
fn make_queue(work: &WorkDir) -> Result<(), Error> {
    const PRIVATE: [&str; 11] = [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
        "saved", "trace",
    ];
    let lacking = |what: &str| Error::Usage(format!("{what} does not exist on this machine"));
    let postfix = Account::by_name("postfix").ok_or_else(|| lacking("the user `postfix`"))?;
    let (_, postdrop) =
        group(|name, _| name == "postdrop").ok_or_else(|| lacking("the group `postdrop`"))?;
    let uid = postfix.uid;
    let private = Owner::Account { uid, gid: None };
    let shared = Owner::Account { uid, gid: Some(postdrop) };
    work.folder("queue", 0o755, Owner::Myself)?;
    work.folder("queue/pid", 0o755, Owner::Myself)?;
    for name in PRIVATE {
        work.folder(&format!("queue/{name}"), 0o700, private)?;
    }
    work.folder("queue/public", 0o2710, shared)?;
    work.folder("queue/maildrop", 0o1730, shared)?;
    work.folder("data", 0o700, private)?;
    Ok(())
}

/// Makes a file look as if it were some time old: Postfix reads a younger one again and again for two seconds,
/// in case somebody is still writing it.
fn age(path: &Path) -> Result<(), Error> {
    let before = SystemTime::now() - Duration::from_secs(60);
    let file = fs::File::options().write(true).open(path);
    file.and_then(|file| file.set_modified(before)).map_err(Error::file(path))
}

/// Counts the files in a queue folder and the folders below it. Files come and go while it is read.
fn count_files(folder: &Path) -> Result<usize, Error> {
    let mut count = 0;
    for entry in fs::read_dir(folder).map_err(Error::file(folder))?.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => count += count_files(&entry.path())?,
            Ok(_) => count += 1,
            Err(_) => {}
        }
    }
    Ok(count)
}
