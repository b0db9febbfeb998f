//! The reckoning: what was promised against what the servers and the Maildir have.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use postoffice::{PostOffice, ViolationKind};
use postrider::profile::{Environment, Profile};
use postrider::session::{
    Logon, QueueRow, QueueRowState, RecipientRowState, Service, Session, SessionOptions,
    TraceStepKind,
};

use crate::ledger::{Answer, Cancel, Kind, Ledger, Letter, Tally};
use crate::life::{Kill, Lives, life_of};
use crate::mailbag::{Fetched, Mailbag};
use crate::maildir::messages;
use crate::program::Program;

/// How long a commit may take on a busy machine: while one is under way the connection goes on
/// with the next message, and a kill takes back what it was to record.
const COMMIT: Duration = Duration::from_secs(5);

/// A message at the server.
#[derive(Clone, Debug)]
struct Copy {
    at: SystemTime,
    /// In which life it was sent.
    life: usize,
    /// Whether nothing was accepted on its connection behind it.
    last: bool,
}

/// Every figure, and everything that is wrong.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    accepted: usize,
    open: usize,
    declined: usize,
    open_delivered: usize,
    delivered: usize,
    reported: usize,
    cancelled: usize,
    denied: usize,
    /// Recipients that got a second copy because the daemon was killed behind the final dot.
    twice_by_kill: usize,
    /// ... because the server took the message and hid its reply.
    twice_by_lost_reply: usize,
    /// Messages with a second copy that were seen in doubt by who looked on; the others were
    /// resent between two looks. The trace of every one of them says it.
    twice_shown_in_doubt: usize,
    twice_messages: usize,
    /// Recipients that had a message when it was cancelled, and the answer said so, or nobody
    /// lived to hear it.
    cancelled_behind_the_dot: usize,
    /// Of those by a kill: the reply was there, but not yet its commit.
    twice_by_commit: usize,
    widest_commit: Duration,
    /// The longest time from a first copy to the kill that made it come again.
    widest_window: Duration,
    sent_copies: usize,
    fetched: Fetched,
    leftovers: usize,
    kills: usize,
    killed_at_start: u64,
    spool_checks: u64,
    warnings: usize,
    tally: Tally,
    wrong: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Whether there was enough of everything for the figures to mean something.
    pub(crate) fn has_seen_enough(&self, rounds: u32) -> bool {
        let rounds = usize::try_from(rounds).unwrap();
        self.kills == rounds
            && self.accepted >= rounds
            && self.delivered >= rounds
            && self.reported > 0
            && self.fetched.injected >= rounds
    }

    fn blame(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "crash_rounds: kills {} ({} before ready), fsck runs {}, messages accepted {}, \
             unanswered {} (of these delivered {}), declined {}; recipients delivered {}, \
             reported {}, messages cancelled {}, cancels denied {}",
            self.kills,
            self.killed_at_start,
            self.spool_checks,
            self.accepted,
            self.open,
            self.open_delivered,
            self.declined,
            self.delivered,
            self.reported,
            self.cancelled,
            self.denied,
        )?;
        writeln!(
            f,
            "crash_rounds: second copies by a kill behind the dot {} (in {} of them the next \
             message was on its way, at most {} ms), by a reply that was lost {}; {} messages, {} \
             of them seen in doubt, all in doubt by their trace; cancelled behind the dot and \
             told so {}, widest window {} ms",
            self.twice_by_kill,
            self.twice_by_commit,
            self.widest_commit.as_millis(),
            self.twice_by_lost_reply,
            self.twice_messages,
            self.twice_shown_in_doubt,
            self.cancelled_behind_the_dot,
            self.widest_window.as_millis(),
        )?;
        let fetched = &self.fetched;
        writeln!(
            f,
            "crash_rounds: inbound {} messages, missing {}, repeated {}, strange {}, not deleted \
             {}, not flagged {}; sent copies {}, leftover files {}, warnings {}",
            fetched.injected,
            fetched.missing,
            fetched.repeated,
            fetched.strange,
            fetched.undeleted,
            fetched.unseen,
            self.sent_copies,
            self.leftovers,
            self.warnings,
        )?;
        let tally = &self.tally;
        writeln!(
            f,
            "crash_rounds: holds {}, releases {}, retries {}, shown in doubt {}, commands killed \
             {}, slowest command {} ms, exit codes {:?}",
            tally.holds,
            tally.releases,
            tally.retries,
            tally.in_doubt.len(),
            tally.killed_commands,
            tally.slowest.as_millis(),
            tally.exits,
        )?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "crash_rounds: WRONG: {wrong}"))
    }
}

/// Compares everything with everything.
pub(crate) async fn judge(
    ledger: &Ledger,
    office: &PostOffice,
    bag: &Mailbag,
    lives: &Lives,
    program: &Program,
) -> Verdict {
    let tally = ledger.tally().clone();
    let mut verdict = Verdict {
        kills: lives.kills().len(),
        killed_at_start: lives.killed_at_start(),
        spool_checks: lives.checks(),
        tally,
        fetched: bag.count(&program.maildir()).await,
        ..Verdict::default()
    };
    inbound(&mut verdict);
    logs(&mut verdict, lives);
    leftovers(&mut verdict, program);
    let letters = ledger.letters().clone();
    let copies = copies(&mut verdict, office, lives, &letters);
    let reports = reports(&mut verdict, &program.maildir(), &letters);
    let sent = sent(&mut verdict, &program.maildir(), &letters);
    let (rows, doubted) = rows(program, &letters).await;
    let evidence = Evidence { copies, reports, sent, rows, doubted, kills: lives.kills() };
    letters.values().for_each(|letter| judge_letter(&mut verdict, letter, &evidence));
    violations(&mut verdict, office);
    verdict
}

struct Evidence<'a> {
    /// By message and recipient.
    copies: BTreeMap<(String, String), Vec<Copy>>,
    /// How often a recipient was reported as failed, by message and recipient.
    reports: BTreeMap<(String, String), usize>,
    /// Copies in the Sent folder.
    sent: BTreeMap<String, usize>,
    /// What the queue or its history says of each entry.
    rows: HashMap<String, QueueRow>,
    /// Entries whose trace says that they were in doubt once.
    doubted: HashSet<String>,
    kills: &'a [Kill],
}

fn inbound(verdict: &mut Verdict) {
    let fetched = verdict.fetched.clone();
    if fetched.missing + fetched.repeated + fetched.strange + fetched.undeleted + fetched.unseen > 0
    {
        verdict.blame(format!("inbound: {fetched:?}"));
    }
}

fn logs(verdict: &mut Verdict, lives: &Lives) {
    let log = lives.log();
    verdict.warnings = log.lines().filter(|line| line.contains(" WARN ")).count();
    let bad = |line: &&str| line.contains("panicked") || line.contains(" ERROR ");
    log.lines().filter(bad).for_each(|line| verdict.blame(line));
}

/// Files that are nobody's any more.
fn leftovers(verdict: &mut Verdict, program: &Program) {
    let state = program.path("state/test");
    let mut found = Vec::new();
    let tmp = program.maildir().join("tmp");
    for folder in [state.join("spool/staging"), state.join("spool/bodies"), tmp] {
        files(&folder, &mut found);
    }
    verdict.leftovers = found.len();
    found.into_iter().for_each(|file| verdict.blame(format!("left behind: {file}")));
    if state.join("control.sock").exists() {
        verdict.blame("the control socket is still there");
    }
}

fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path.display().to_string()) }
    }
}

/// The id in the first Subject field that is ours.
fn id_of(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: crash "))?;
    Some(line.trim().to_owned())
}

fn copies(
    verdict: &mut Verdict,
    office: &PostOffice,
    lives: &Lives,
    letters: &BTreeMap<String, Letter>,
) -> BTreeMap<(String, String), Vec<Copy>> {
    let accepted = office.accepted();
    let mut last: HashMap<u64, u64> = HashMap::new();
    for message in &accepted {
        last.insert(message.envelope.connection, message.id);
    }
    let mut copies: BTreeMap<(String, String), Vec<Copy>> = BTreeMap::new();
    for message in &accepted {
        let bytes = message.bytes().unwrap();
        let id = id_of(bytes).unwrap();
        let Some(letter) = letters.get(&id) else {
            verdict.blame(format!("{id} was never sent"));
            continue;
        };
        let connection = message.envelope.connection;
        let whole = String::from_utf8_lossy(bytes);
        if !whole.trim_end().ends_with(letter.body.trim_end()) {
            verdict.blame(format!("{id} arrived with another body"));
        }
        for to in message.recipients() {
            let copy = Copy {
                at: message.at,
                life: life_of(lives.kills(), connection),
                last: last[&connection] == message.id,
            };
            copies.entry((id.clone(), to.to_owned())).or_default().push(copy);
        }
    }
    copies
}

fn reports(
    verdict: &mut Verdict,
    maildir: &Path,
    letters: &BTreeMap<String, Letter>,
) -> BTreeMap<(String, String), usize> {
    let mut reports = BTreeMap::new();
    for bytes in messages(maildir, "INBOX") {
        let text = String::from_utf8_lossy(&bytes);
        if !text.contains("report-type=") {
            continue;
        }
        let Some(id) = id_of(&bytes) else {
            verdict.blame(format!("a report about nothing of ours: {text}"));
            continue;
        };
        if !letters.contains_key(&id) {
            verdict.blame(format!("a report about {id}, which was never sent"));
        }
        for line in text.lines() {
            if let Some((_, to)) =
                line.strip_prefix("Final-Recipient:").and_then(|field| field.split_once(';'))
            {
                *reports.entry((id.clone(), to.trim().to_owned())).or_default() += 1;
            }
        }
    }
    reports
}

fn sent(
    verdict: &mut Verdict,
    maildir: &Path,
    letters: &BTreeMap<String, Letter>,
) -> BTreeMap<String, usize> {
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for bytes in messages(maildir, "Sent") {
        verdict.sent_copies += 1;
        match id_of(&bytes).filter(|id| letters.contains_key(id)) {
            Some(id) => *sent.entry(id).or_default() += 1,
            None => verdict.blame("a copy in Sent that is none of ours"),
        }
    }
    sent
}

async fn rows(
    program: &Program,
    letters: &BTreeMap<String, Letter>,
) -> (HashMap<String, QueueRow>, HashSet<String>) {
    let file = program.path("config/test.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let profile = Profile::parse("test", &text, &file, &Environment::empty()).unwrap();
    let options = SessionOptions::new(program.path("state/test")).logon(Logon::None);
    let session = Session::open(&profile, options).await.unwrap();
    let (mut rows, mut doubted) = (HashMap::new(), HashSet::new());
    for entry in letters.values().filter_map(Letter::entry) {
        if let Ok(row) = session.queue_row(&entry.parse().unwrap()).await {
            rows.insert(entry.to_owned(), row);
            let trace = session.trace(entry).await.unwrap();
            if trace.steps.iter().any(|step| step.step == TraceStepKind::InDoubt) {
                doubted.insert(entry.to_owned());
            }
        }
    }
    session.shutdown(Duration::ZERO).await.unwrap();
    (rows, doubted)
}

fn violations(verdict: &mut Verdict, office: &PostOffice) {
    let mut violations = office.violations();
    // Pipelined commands are under way when one before them is refused (RFC 2920 section 3.1).
    let pipelined = |detail: &str| detail.starts_with("RCPT TO:") || detail == "DATA";
    violations.retain(|one| one.kind != ViolationKind::BadSequence || !pipelined(&one.detail));
    if let Some(first) = violations.first() {
        verdict.blame(format!("{} violations of SMTP, the first: {first:?}", violations.len()));
    }
}

fn judge_letter(verdict: &mut Verdict, letter: &Letter, evidence: &Evidence<'_>) {
    let id = &letter.id;
    let key = |to: &String| (id.clone(), to.clone());
    let arrived = |to: &String| evidence.copies.get(&key(to)).map_or(&[][..], Vec::as_slice);
    let any_arrived = letter.recipients.iter().any(|to| !arrived(to).is_empty());
    let Some(entry) = letter.entry() else {
        match letter.answer {
            Answer::Declined => {
                verdict.declined += 1;
                if any_arrived {
                    verdict.blame(format!("{id} was sent though it was declined"));
                }
            }
            _ => {
                verdict.open += 1;
                verdict.open_delivered += usize::from(any_arrived);
            }
        }
        for to in &letter.recipients {
            repeated(verdict, letter, to, arrived(to), evidence);
        }
        return;
    };
    verdict.accepted += 1;
    let Some(row) = evidence.rows.get(entry) else {
        return verdict.blame(format!("{id} ({entry}) was accepted and nobody knows of it"));
    };
    judge_cancel(verdict, letter, row);
    let mut twice = false;
    for to in &letter.recipients {
        let reports = evidence.reports.get(&key(to)).copied().unwrap_or(0);
        judge_recipient(verdict, letter, to, row, arrived(to), reports, evidence);
        twice |= repeated(verdict, letter, to, arrived(to), evidence);
    }
    if twice {
        verdict.twice_messages += 1;
        if !evidence.doubted.contains(entry) {
            verdict.blame(format!("{id} ({entry}) came twice and was never in doubt: {row:?}"));
        }
        verdict.twice_shown_in_doubt += usize::from(verdict.tally.in_doubt.contains(entry));
    }
    let copies = evidence.sent.get(id).copied().unwrap_or(0);
    let all_delivered = row.recipients.iter().all(|one| one.state == RecipientRowState::Delivered);
    if copies > 1 || (all_delivered && copies == 0) {
        verdict.blame(format!("{id} ({entry}) has {copies} copies in Sent: {row:?}"));
    }
}

fn judge_cancel(verdict: &mut Verdict, letter: &Letter, row: &QueueRow) {
    let id = &letter.id;
    match (&letter.cancel, row.state) {
        (Cancel::Granted | Cancel::Open, QueueRowState::Cancelled) => verdict.cancelled += 1,
        (Cancel::Denied(_), QueueRowState::Finished) => verdict.denied += 1,
        // In doubt: it is not sent again, and the answer says that the server may have it.
        (Cancel::Denied(why), QueueRowState::Cancelled)
            if why.contains("may have been delivered") =>
        {
            verdict.cancelled += 1;
        }
        (Cancel::Never | Cancel::Open, QueueRowState::Finished) => {}
        (cancel, state) => {
            verdict.blame(format!("{id} ({}): cancel {cancel:?}, but it is {state:?}", row.id));
        }
    }
}

/// What the history says of a recipient has to be what the server and the reports say.
fn judge_recipient(
    verdict: &mut Verdict,
    letter: &Letter,
    to: &str,
    row: &QueueRow,
    copies: &[Copy],
    reports: usize,
    evidence: &Evidence<'_>,
) {
    let Some(told) = row.recipients.iter().find(|one| one.address == to) else {
        return verdict.blame(format!("{}: no outcome for {to}: {row:?}", letter.id));
    };
    let refused = letter.kind == Kind::Refused || to.starts_with("refused-");
    match told.state {
        RecipientRowState::Delivered => {
            verdict.delivered += 1;
            if copies.is_empty() || refused || reports > 0 {
                let what = format!("{} copies, {reports} reports", copies.len());
                verdict.blame(format!("{to} counts as delivered, but there are {what}"));
            }
        }
        RecipientRowState::Failed => {
            verdict.reported += 1;
            if !copies.is_empty() || !refused || reports != 1 {
                let what = format!("{} copies, {reports} reports: {told:?}", copies.len());
                verdict.blame(format!("{to} counts as failed, but there are {what}"));
            }
        }
        RecipientRowState::Pending | RecipientRowState::Deferred => {
            if row.state != QueueRowState::Cancelled || reports > 0 {
                verdict.blame(format!("{to} has no end: {row:?}, {reports} reports"));
            }
            // Cancelled behind the dot: the server had it, and nobody lived to note it.
            for copy in copies {
                let excused = excuse(letter, copy, None, evidence.kills).is_some();
                if !excused || letter.cancel == Cancel::Granted {
                    let cancel = &letter.cancel;
                    let what = format!("{cancel:?}: {copies:?} {row:?}");
                    verdict.blame(format!("{to} was cancelled and got it, {what}"));
                } else if !evidence.doubted.contains(&row.id) {
                    verdict.blame(format!("{to} got it, cancelled without a doubt: {row:?}"));
                } else {
                    verdict.cancelled_behind_the_dot += 1;
                }
            }
        }
    }
}

/// Why a message may come again behind this copy.
enum Excuse {
    /// The daemon was killed, so long after the server had the message; whether nothing else was
    /// sent on the connection meanwhile.
    Kill(Duration, bool),
    /// The server hid its reply.
    LostReply,
}

/// A copy is excused when the life that sent it was killed before it can have recorded the reply
/// and what comes next is of a later life, or the message is one of those whose reply is hidden.
/// Nobody sends on a connection that died with its process.
fn excuse(letter: &Letter, copy: &Copy, next: Option<&Copy>, kills: &[Kill]) -> Option<Excuse> {
    match kills.get(copy.life) {
        Some(kill) if next.is_none_or(|next| next.life > copy.life) => {
            // The server may be slower than the kill.
            let window = kill.at.duration_since(copy.at).unwrap_or_default();
            // Behind the last one of a connection the reply may have been held back for long.
            (copy.last || window < COMMIT).then_some(Excuse::Kill(window, copy.last))
        }
        _ if letter.kind == Kind::Doubtful && copy.last => Some(Excuse::LostReply),
        _ => None,
    }
}

/// Looks at copies behind the first; whether there are any.
fn repeated(
    verdict: &mut Verdict,
    letter: &Letter,
    to: &str,
    copies: &[Copy],
    evidence: &Evidence<'_>,
) -> bool {
    for pair in copies.windows(2) {
        match excuse(letter, &pair[0], Some(&pair[1]), evidence.kills) {
            Some(Excuse::Kill(window, last)) => {
                verdict.twice_by_kill += 1;
                if !last {
                    verdict.twice_by_commit += 1;
                    verdict.widest_commit = verdict.widest_commit.max(window);
                }
                verdict.widest_window = verdict.widest_window.max(window);
            }
            Some(Excuse::LostReply) => verdict.twice_by_lost_reply += 1,
            None => verdict.blame(format!("{to} has it twice without a reason: {copies:?}")),
        }
    }
    copies.len() > 1
}
