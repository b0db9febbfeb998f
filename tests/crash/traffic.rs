//! Who uses the daemon meanwhile: programs that send, people who change their mind, and one who
//! looks at the queue. None of them stops while it is down.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::clock::{Clock, SystemClock};
use postrider::control::Client;
use postrider::mapi::{EntryId, MapiCode, MapiError};
use postrider::session::{QueueRowState, RawEnvelope, Service};
use tokio::io::AsyncWriteExt;
use tokio::process::Child;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Answer, Cancel, Kind, Ledger, Letter};
use crate::mailbag::filler;
use crate::program::Program;

/// How many messages are sent for each life of the daemon.
pub(crate) const LETTERS_PER_ROUND: usize = 8;

const SENDERS: usize = 3;
const OPERATORS: usize = 2;

/// The longest a command may take: it waits ten seconds for another one, and the machine is busy.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);

/// All who are at work.
pub(crate) struct Traffic {
    allowance: Arc<Semaphore>,
    ending: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(crate) fn start(
        program: &Arc<Program>,
        ledger: &Arc<Ledger>,
        dice: &mut fastrand::Rng,
    ) -> Self {
        let (allowance, ending) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let person = |dice: &mut fastrand::Rng| Person {
            program: Arc::clone(program),
            ledger: Arc::clone(ledger),
            socket: program.socket(),
            ending: ending.clone(),
            dice: dice.fork(),
        };
        let mut tasks = Vec::new();
        for number in 0..SENDERS {
            let (person, allowance) = (person(dice), Arc::clone(&allowance));
            tasks.push(tokio::spawn(person.send_all(number, allowance)));
        }
        for _ in 0..OPERATORS {
            tasks.push(tokio::spawn(person(dice).operate()));
        }
        tasks.push(tokio::spawn(person(dice).watch()));
        Traffic { allowance, ending, tasks }
    }

    /// Lets so many more messages be sent.
    pub(crate) fn allow(&self, letters: usize) {
        self.allowance.add_permits(letters);
    }

    /// Ends it; what was begun is finished.
    pub(crate) async fn end(self) {
        self.ending.cancel();
        self.allowance.close();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

struct Person {
    program: Arc<Program>,
    ledger: Arc<Ledger>,
    socket: PathBuf,
    ending: CancellationToken,
    dice: fastrand::Rng,
}

/// How a command ended; no code when it was killed.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Person {
    async fn pause(&mut self, most: u64) {
        let pause = Duration::from_millis(self.dice.u64(1..most));
        let _ = tokio::time::timeout(pause, self.ending.cancelled()).await;
    }

    // ----- sending -----

    async fn send_all(mut self, number: usize, allowance: Arc<Semaphore>) {
        let mut count = 0;
        while let Ok(permit) = allowance.acquire().await {
            permit.forget();
            let letter = self.compose(format!("s{number}-{count}"));
            count += 1;
            self.ledger.write(letter.clone());
            let answer = self.hand_over(&letter).await;
            self.ledger.answer(&letter.id, answer);
            self.pause(120).await;
        }
    }

    fn compose(&mut self, id: String) -> Letter {
        let dice = &mut self.dice;
        let kind = match dice.u32(0..12) {
            0 => Kind::RefusedInPart,
            1 => Kind::Refused,
            2..4 => Kind::Doubtful,
            _ => Kind::Welcome,
        };
        let mut recipients = match kind {
            Kind::Welcome | Kind::RefusedInPart => {
                let count = dice.usize(1..4);
                (0..count).map(|number| format!("r{number}-{id}@example.org")).collect()
            }
            Kind::Refused => vec![format!("unwanted-{id}@example.org")],
            Kind::Doubtful => vec![format!("doubtful-{id}@example.org")],
        };
        if kind == Kind::RefusedInPart {
            recipients.push(format!("refused-{id}@example.org"));
        }
        let (body, later) = (filler(dice), dice.u32(0..4) == 0);
        Letter { id, kind, recipients, body, later, answer: Answer::Open, cancel: Cancel::Never }
    }

    async fn hand_over(&mut self, letter: &Letter) -> Answer {
        match self.dice.u32(0..3) {
            0 => self.send(letter).await,
            1 => self.send_raw(letter).await,
            _ => match Client::connect(&self.socket).await {
                Ok(client) => submit(&client, letter).await,
                Err(_) => self.send_raw(letter).await,
            },
        }
    }

    async fn send(&mut self, letter: &Letter) -> Answer {
        let subject = letter.subject();
        let mut arguments = vec!["send", "-s", &subject];
        arguments.extend(when(letter));
        letter.recipients.iter().for_each(|to| arguments.extend(["-t", to]));
        let body = letter.body.replace("\r\n", "\n");
        self.answer_of(&arguments, body.into_bytes()).await
    }

    async fn send_raw(&mut self, letter: &Letter) -> Answer {
        let mut arguments = vec!["send", "--raw"];
        arguments.extend(when(letter));
        letter.recipients.iter().for_each(|to| arguments.extend(["-t", to]));
        self.answer_of(&arguments, raw(letter)).await
    }

    async fn answer_of(&mut self, arguments: &[&str], input: Vec<u8>) -> Answer {
        let ended = self.command(arguments, input).await;
        // The entry id counts, also when the command was killed behind it.
        let line = ended.out.split_once('\n').map(|(line, _)| line.to_owned());
        match (line, ended.code) {
            (Some(entry), None | Some(0)) => Answer::Accepted(entry),
            (None, None) => Answer::Open,
            (None, Some(75)) => Answer::Declined,
            // It broke in the middle, and the command says that it does not know.
            (None, Some(70)) if ended.err.contains("is not known") => Answer::Open,
            (line, code) => panic!("{arguments:?} ended with {code:?}: {line:?} {}", ended.err),
        }
    }

    // ----- changing one's mind -----

    async fn operate(mut self) {
        while !self.ending.is_cancelled() {
            self.pause(250).await;
            let Some((id, entry)) = self.ledger.pick(&mut self.dice) else { continue };
            match self.dice.u32(0..6) {
                0..2 => self.cancel(&id, &entry).await,
                2 => {
                    self.ask("hold", &entry).await;
                    self.ledger.tally().holds += 1;
                    self.pause(500).await;
                    // Some are forgotten, and released at the very end.
                    if self.dice.u32(0..4) > 0 {
                        self.ask("release", &entry).await;
                        self.ledger.tally().releases += 1;
                    }
                }
                _ => {
                    self.ask("retry", &entry).await;
                    self.ledger.tally().retries += 1;
                }
            }
        }
    }

    async fn cancel(&mut self, id: &str, entry: &str) {
        self.ledger.cancel(id, Cancel::Open);
        let outcome = match Client::connect(&self.socket).await {
            Ok(client) if self.dice.bool() => {
                let parsed: EntryId = entry.parse().unwrap();
                match client.cancel(&parsed).await {
                    Ok(()) => Cancel::Granted,
                    Err(error) => denied(&error),
                }
            }
            _ => {
                let ended = self.command(&["cancel", entry], Vec::new()).await;
                match ended.code {
                    Some(0) => Cancel::Granted,
                    Some(1) => Cancel::Denied(ended.err),
                    _ => Cancel::Open,
                }
            }
        };
        self.ledger.cancel(id, outcome);
    }

    /// Asks for something whose answer does not matter, because the message may be anywhere.
    async fn ask(&mut self, verb: &str, entry: &str) {
        self.command(&[verb, entry], Vec::new()).await;
    }

    // ----- looking on -----

    /// Notes which messages are shown as in doubt.
    async fn watch(mut self) {
        while !self.ending.is_cancelled() {
            self.pause(100).await;
            let Ok(client) = Client::connect(&self.socket).await else { continue };
            let Ok(rows) = client.queue(None, 1000).await else { continue };
            let doubt = rows.into_iter().filter(|row| row.state == QueueRowState::InDoubt);
            self.ledger.tally().in_doubt.extend(doubt.map(|row| row.id));
        }
    }

    // ----- commands -----

    /// Runs a command; some are killed on the way.
    async fn command(&mut self, arguments: &[&str], input: Vec<u8>) -> Ended {
        let begun = Instant::now();
        let mut command = self.program.command(arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = tokio::spawn(async move {
            // It may end before it has read everything.
            let _ = stdin.write_all(&input).await;
        });
        if self.dice.u32(0..10) == 0 {
            let span = Duration::from_millis(self.dice.u64(1..120));
            if tokio::time::timeout(span, child.wait()).await.is_err() {
                child.start_kill().unwrap();
                self.ledger.tally().killed_commands += 1;
            }
        }
        let ended = ended(child, arguments).await;
        writing.await.unwrap();
        let mut tally = self.ledger.tally();
        if let Some(code) = ended.code {
            *tally.exits.entry(code).or_default() += 1;
        }
        tally.slowest = tally.slowest.max(begun.elapsed());
        ended
    }
}

async fn ended(child: Child, arguments: &[&str]) -> Ended {
    let output = tokio::time::timeout(LONGEST_COMMAND, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn submit(client: &Client, letter: &Letter) -> Answer {
    let second = SystemClock.now().saturating_add(Duration::from_secs(1));
    let envelope = RawEnvelope {
        recipients: letter.recipients.clone(),
        deferred_send_time: letter.later.then_some(second),
        ..RawEnvelope::default()
    };
    let bytes = std::io::Cursor::new(raw(letter));
    match client.submit_raw(envelope, Box::pin(bytes)).await {
        Ok(entry) => Answer::Accepted(entry.to_string()),
        Err(error) if error.code() == MapiCode::CALL_FAILED => Answer::Open,
        Err(error) => match error.code() {
            MapiCode::NETWORK_ERROR | MapiCode::BUSY | MapiCode::END_OF_SESSION => Answer::Declined,
            _ => panic!("{}: {error}", letter.id),
        },
    }
}

/// The options for a message that is to wait.
fn when(letter: &Letter) -> &'static [&'static str] {
    if letter.later { &["--in", "1s"] } else { &[] }
}

fn denied(error: &MapiError) -> Cancel {
    match error.code() {
        MapiCode::NETWORK_ERROR | MapiCode::CALL_FAILED | MapiCode::END_OF_SESSION => Cancel::Open,
        _ => Cancel::Denied(error.to_string()),
    }
}

fn raw(letter: &Letter) -> Vec<u8> {
    let (to, subject) = (letter.recipients.join(",\r\n "), letter.subject());
    let head = format!(
        "From: Ann Example <ann@example.org>\r\nTo: {to}\r\nSubject: {subject}\r\n\
         Date: Fri, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <{}@example.org>\r\n\r\n",
        letter.id
    );
    format!("{head}{}", letter.body).into_bytes()
}
