//! Postfix' `smtp-sink`: an SMTP server that takes everything, or fails as its flags say.

use crate::ports::PortLease;
use crate::process::{ServerProcess, locate, log_tail, output_file};
use crate::workdir::{Owner, WorkDir, is_root};
use crate::{Error, wait};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SERVER: &str = "smtp-sink";
const ATTEMPTS: usize = 5;
const BACKLOG: &str = "1000";
/// The latest counters are in the last line, which is far shorter.
const COUNTERS_TAIL: u64 = 256;

/// How a sink behaves.
#[derive(Clone, Debug, Default)]
pub struct SinkOptions {
    /// Further flags of smtp-sink(1), one argument each: `["-r", "RCPT"]` refuses every recipient for now,
    /// `["-q", "DATA"]` hangs up after DATA, `["-w", "5"]` waits before it answers. `-c`, `-d`, `-h` and
    /// `-u` are given already.
    pub flags: Vec<String>,
    /// What is kept of the messages.
    pub dump: Dump,
}

/// What a sink keeps of the messages it receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dump {
    /// Only their number: fast enough for measuring.
    #[default]
    Nothing,
    /// Each message in a file.
    Messages,
}

/// The running counters of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that have ended.
    pub sessions: u64,
    /// QUIT commands.
    pub quits: u64,
    /// Messages received whole.
    pub messages: u64,
}

/// A message that a sink has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SunkMessage {
    /// What stood after `MAIL FROM:`, parameters included.
    pub mail: String,
    /// What stood after each accepted `RCPT TO:`, parameters included, in their order.
    pub recipients: Vec<String>,
    /// The message's bytes after the removal of doubled dots. The sink writes LF for each CRLF.
    pub content: Vec<u8>,
}

/// A running sink. Dropping it ends it and removes its files.
#[derive(Debug)]
pub struct SmtpSink {
    // Before `work`: the process ends first, then its folder goes.
    process: Mutex<Option<ServerProcess>>,
    program: PathBuf,
    port: PortLease,
    options: SinkOptions,
    work: WorkDir,
}

impl SmtpSink {
    /// Starts a sink and waits until it listens.
    ///
    /// # Errors
    /// [`Error::Missing`] when Postfix is not installed; [`Error::Server`] with its words when a flag is
    /// wrong.
    pub fn start(options: SinkOptions) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::start_once(options.clone()) {
                Err(error) if error.is_port_taken() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_once(options: SinkOptions) -> Result<Self, Error> {
        let program = locate("smtp-sink", "postfix")?;
        let work = WorkDir::new()?;
        // As root it writes under another user, see `command`.
        work.folder("dump", 0o777, Owner::Myself)?;
        let sink =
            Self { process: Mutex::new(None), program, port: PortLease::take()?, options, work };
        sink.start_again()?;
        Ok(sink)
    }

    /// Starts the stopped sink again on the same port; the counters begin at zero, dumped messages stay.
    /// Does nothing when it runs.
    ///
    /// # Errors
    /// [`Error::Server`] with its words when it does not come up.
    pub fn start_again(&self) -> Result<(), Error> {
        let mut slot = self.process();
        if slot.as_mut().is_some_and(ServerProcess::is_running) {
            return Ok(());
        }
        *slot = None;
        let counters = self.counters_path();
        fs::write(&counters, "").map_err(Error::file(&counters))?;
        let mut command = self.command();
        command.stdout(output_file(&counters)?).stderr(output_file(&self.errors_path())?);
        let mut process = ServerProcess::spawn(&mut command, self.work.path())?;
        wait::try_until("smtp-sink to listen", wait::PATIENCE, || {
            let listens = self.listens();
            if process.is_running() {
                Ok(listens.then_some(()))
            } else {
                Err(self.failure("it ended at once"))
            }
        })?;
        *slot = Some(process);
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Relative paths end here.
        command.current_dir(self.work.path());
        command.args(["-c", "-h", &self.work.token()]);
        if self.options.dump == Dump::Messages {
            command.args(["-d", "dump/m."]);
        }
        if is_root() {
            command.args(["-u", "nobody"]);
        }
        command.args(&self.options.flags);
        command.args([&self.address().to_string(), BACKLOG]);
        command
    }

    /// Whether the sink listens: seen in the kernel's table where there is one, because a trial connection
    /// would count as a session.
    fn listens(&self) -> bool {
        let address = self.address();
        match fs::read_to_string("/proc/net/tcp") {
            Ok(table) => is_listening(&table, address.port()),
            Err(_) => std::net::TcpStream::connect(address).is_ok(),
        }
    }

    /// Ends the sink; open connections break. Its port and what it kept stay.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it does not end.
    pub fn stop(&self) -> Result<(), Error> {
        let process = self.process().take();
        process.map_or(Ok(()), ServerProcess::stop)
    }

    /// Stops the process (SIGSTOP): connections stay open and nobody answers.
    ///
    /// # Errors
    /// [`Error::Usage`] when it does not run; [`Error::Io`].
    pub fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused sink go on.
    ///
    /// # Errors
    /// [`Error::Usage`] when it does not run; [`Error::Io`].
    pub fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        ServerProcess::of(self.process().as_ref(), SERVER)?.signal(signal)
    }

    /// The counters since the last start.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn counts(&self) -> Result<Counts, Error> {
        let path = self.counters_path();
        let mut file = fs::File::open(&path).map_err(Error::file(&path))?;
        let length = file.metadata().map_err(Error::file(&path))?.len();
        let from = SeekFrom::Start(length.saturating_sub(COUNTERS_TAIL));
        file.seek(from).map_err(Error::file(&path))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).map_err(Error::file(&path))?;
        Ok(Counts::last_in(&String::from_utf8_lossy(&tail)))
    }

    /// Waits until so many messages have come.
    ///
    /// # Errors
    /// [`Error::Deadline`] after 30 seconds.
    pub fn await_messages(&self, messages: u64) -> Result<Counts, Error> {
        let what = format!("{messages} messages in smtp-sink");
        wait::try_until(&what, wait::PATIENCE, || {
            let counts = self.counts()?;
            Ok((counts.messages >= messages).then_some(counts))
        })
    }

    /// The messages kept so far, in no particular order. With [`Dump::Nothing`] there are none. A message
    /// is whole once it is counted; one that is still arriving is cut off.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Reply`] for a file that is no dump.
    pub fn messages(&self) -> Result<Vec<SunkMessage>, Error> {
        let folder = self.work.path().join("dump");
        let entries = fs::read_dir(&folder).map_err(Error::file(&folder))?;
        entries
            .map(|entry| {
                let path = entry.map_err(Error::file(&folder))?.path();
                let bytes = fs::read(&path).map_err(Error::file(&path))?;
                SunkMessage::parse(&bytes).ok_or_else(|| Error::Reply {
                    step: "reading a dumped message",
                    reply: String::from_utf8_lossy(&bytes).into_owned(),
                })
            })
            .collect()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// What the sink wrote to standard error, at most the last 16 KiB.
    #[must_use]
    pub fn log(&self) -> String {
        log_tail(&[&self.errors_path()])
    }

    fn counters_path(&self) -> PathBuf {
        self.work.path().join("counters")
    }

    fn errors_path(&self) -> PathBuf {
        self.work.path().join("errors")
    }

    fn failure(&self, reason: &str) -> Error {
        Error::Server { server: SERVER, reason: reason.to_owned(), log: self.log() }
    }

    fn process(&self) -> MutexGuard<'_, Option<ServerProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for a listening IPv4 socket of this port in the text of `/proc/net/tcp`.
fn is_listening(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1).and_then(|local| local.rsplit_once(':'));
        let found = local.and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
        found == Some(port) && fields.nth(1) == Some(LISTEN)
    })
}

impl Counts {
    /// The last complete set of counters: `sess=1 quit=1 mesg=1`, each set ended by a carriage return.
    fn last_in(text: &str) -> Self {
        let whole = text.rsplit_once('\r').map_or("", |(whole, _)| whole);
        let last = whole.rsplit('\r').next().unwrap_or_default();
        let mut counts = Self::default();
        for (name, value) in last.split_whitespace().filter_map(|pair| pair.split_once('=')) {
            let value = value.parse().unwrap_or_default();
            match name {
                "sess" => counts.sessions = value,
                "quit" => counts.quits = value,
                "mesg" => counts.messages = value,
                _ => {}
            }
        }
        counts
    }
}

impl SunkMessage {
    /// Reads a file in the format that smtp-sink(1) describes: header lines of the sink's own, the last one
    /// a `Received:` of three lines, the message, an empty line.
    fn parse(dump: &[u8]) -> Option<Self> {
        let mut mail = None;
        let mut recipients = Vec::new();
        let mut rest = dump;
        loop {
            let line = take_line(&mut rest)?;
            if line.starts_with("Received:") {
                take_line(&mut rest)?;
                take_line(&mut rest)?;
                break;
            }
            match line.split_once(": ")? {
                ("X-Mail-Args", arguments) => mail = Some(arguments.to_owned()),
                ("X-Rcpt-Args", arguments) => recipients.push(arguments.to_owned()),
                _ => {}
            }
        }
        Some(Self {
            mail: mail?,
            recipients,
            content: rest.strip_suffix(b"\n").unwrap_or(rest).to_vec(),
        })
    }
}

fn take_line(rest: &mut &[u8]) -> Option<String> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (line, after) = rest.split_at_checked(end)?;
    *rest = after.get(1..)?;
    Some(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_counters_are_read() {
        let two = "sess=0 quit=0 mesg=1\rsess=1 quit=2 mesg=34\r";
        let counts = Counts::last_in(two);
        assert_eq!((counts.sessions, counts.quits, counts.messages), (1, 2, 34));
        assert_eq!(Counts::last_in(&format!("{two}sess=9 qu")), counts);
        assert_eq!(Counts::last_in(""), Counts::default());
    }

    #[test]
    fn a_dump_is_taken_apart() {
        let dump = b"X-Client-Addr: 127.0.0.1\nX-Mail-Args: <a@b> SIZE=9\nX-Rcpt-Args: <c@d>\n\
            X-Rcpt-Args: <e@f>\nReceived: from x\n\tby y\n\tdate\nSubject: a\n\nb\n\n";
        let message = SunkMessage::parse(dump).unwrap();
        assert_eq!(message.mail, "<a@b> SIZE=9");
        assert_eq!(message.recipients, ["<c@d>", "<e@f>"]);
        assert_eq!(message.content, b"Subject: a\n\nb\n");
        assert_eq!(SunkMessage::parse(b"nothing of the kind"), None);
    }

    #[test]
    fn listening_sockets_are_told_from_connected_ones() {
        let table = "  sl  local_address rem_address   st\n\
            \x20  0: 0100007F:4E20 00000000:0000 0A 0:0 0\n\
            \x20  1: 0100007F:4E21 0100007F:9999 01 0:0 0\n";
        assert!(is_listening(table, 20_000));
        assert!(!is_listening(table, 20_001));
        assert!(!is_listening(table, 20_002));
    }
}
