//! What happened to a message, step by step: a short list that travels with the rows of the
//! message and ends in its history, so that it costs neither keys nor commits of its own.

use serde::{Deserialize, Serialize};

use crate::mapi::{ReportOutcome, SysTime};

/// How many of the first steps are kept whatever follows.
const FIRST: usize = 6;

/// How many of the last steps are kept.
const LAST: usize = 18;

/// Most steps about status reports that came in: strangers can send those. Half of them are the
/// first ones.
const STATUS_REPORTS: usize = 8;

/// Longest text of a step, in characters.
const MAX_TEXT: usize = 200;

/// The steps of a message in their order: the first few and the last ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    steps: Vec<Step>,
    left_out: u32,
}

/// One thing that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When; of a step that stands for several, when the last of them was.
    pub at: SysTime,
    /// What.
    pub what: StepKind,
}

/// What happened. What the rows themselves tell (submission, outcome of each recipient, end) is no
/// step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepKind {
    /// A transport took the message into its queue (END_DONT_RESEND).
    Accepted {
        /// Its name.
        transport: String,
    },
    /// An attempt of which a server heard.
    Attempt(AttemptStep),
    /// The account could not be used, so that no server heard of the message.
    Untried {
        /// Why.
        why: String,
        /// How often in a row for the same reason.
        times: u32,
    },
    /// The process ended in the middle of an attempt.
    Interrupted {
        /// Which one, counted from 1.
        number: u32,
    },
    /// The user put it on hold.
    Held,
    /// The user let it go.
    Released,
    /// The user made it due.
    Hurried,
    /// Given back at logoff (TN-18).
    GivenBack,
    /// Met by its message again after it was given back.
    TakenUp,
    /// A report for the sender (SP-4).
    Reported(ReportStep),
    /// A delivery status notification about it came in (IB-8).
    StatusReport(StatusReportStep),
    /// The process ended in an attempt whose final dot may have been out: in doubt.
    LeftInDoubt {
        /// Which one, counted from 1.
        number: u32,
    },
}

/// An attempt of which a server heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStep {
    /// Which one, counted from 1.
    pub number: u32,
    /// The server; empty when there was no connection.
    pub host: String,
    /// Version of TLS; empty in clear.
    pub tls: String,
    /// Recipients the server took responsibility for.
    pub delivered: u32,
    /// What it said to the others, each reply once.
    pub refusals: Vec<RefusalStep>,
    /// How it ended.
    pub end: AttemptStepEnd,
}

/// A reply by which recipients were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalStep {
    /// How far the dialogue had come.
    pub phase: AttemptPhase,
    /// The reply.
    pub reply: String,
    /// How many recipients it was for.
    pub recipients: u32,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptStepEnd {
    /// The server answered for everybody it was asked about.
    #[default]
    Answered,
    /// The connection broke.
    Broken {
        /// Where.
        phase: AttemptPhase,
        /// Why.
        why: String,
    },
    /// The reply to the final dot never came.
    InDoubt {
        /// Why.
        why: String,
    },
    /// The account could not be used in the middle of it; it does not count.
    Postponed,
}

/// Where in the dialogue with a server an attempt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AttemptPhase {
    /// Name lookup, TCP, TLS, greeting, EHLO or login.
    Connecting,
    /// MAIL (RFC 5321 section 4.1.1.2).
    Mail,
    /// RCPT (RFC 5321 section 4.1.1.3).
    Rcpt,
    /// DATA until its 354.
    Data,
    /// The text.
    Text,
    /// The reply to the final dot.
    Dot,
}

/// A report for the sender. It is noted before it is put into INBOX, so that it is known after a
/// crash what it was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportStep {
    /// What it says.
    pub outcome: ReportOutcome,
    /// The attempt it is about; 0 for the host's own failures.
    pub attempt: u32,
    /// The recipients it is about, by row.
    pub rows: Vec<u32>,
    /// `PR_MESSAGE_CLASS` of the report.
    pub class: String,
}

/// A delivery status notification that came in (RFC 3464).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReportStep {
    /// What makes it the same notification.
    pub id: [u8; 8],
    /// What it says.
    pub outcome: ReportOutcome,
    /// `PR_MESSAGE_CLASS` of the notification.
    pub class: String,
    /// By what it was tied to the message.
    pub tied_by: TiedBy,
    /// `Reporting-MTA`.
    pub reporting_mta: String,
    /// What it says of whom; the first few.
    pub recipients: Vec<StatusReportLine>,
    /// Recipients left out.
    pub more: u32,
}

/// One recipient of a delivery status notification (RFC 3464 section 2.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReportLine {
    /// `Original-Recipient`, else `Final-Recipient`.
    pub address: String,
    /// `Action`.
    pub action: String,
    /// `Status`.
    pub status: String,
    /// `Diagnostic-Code` with its type.
    pub diagnostic: String,
    /// `Remote-MTA`.
    pub remote_mta: String,
}

/// By what a notification was tied to its message, from the surest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TiedBy {
    /// `Original-Envelope-Id` is our ENVID (RFC 3461 section 4.4).
    EnvelopeId,
    /// The `Message-ID` of the returned message.
    MessageId,
    /// `In-Reply-To` or `References`, and a recipient of the message.
    Reference,
}

impl Trace {
    /// A list that begins with this step.
    pub fn of(at: SysTime, what: StepKind) -> Self {
        let mut trace = Trace::default();
        trace.push(Step { at, what });
        trace
    }

    /// The steps that are kept.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many steps were dropped behind the first few.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// Whether the message was in doubt once. However long the list grows, such a step stays.
    pub fn was_in_doubt(&self) -> bool {
        self.steps.iter().any(Step::is_doubt)
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds a step; texts are shortened. A notification that is there already changes nothing.
    pub fn push(&mut self, mut step: Step) {
        step.what.shorten();
        match &step.what {
            StepKind::StatusReport(new) => {
                let known = |one: &Step| matches!(&one.what, StepKind::StatusReport(old) if old.id == new.id);
                if self.steps.iter().any(known) {
                    return;
                }
                self.make_room_for_status_report();
            }
            StepKind::Untried { why, .. } => {
                if let Some(Step { at, what: StepKind::Untried { why: last, times } }) =
                    self.steps.last_mut()
                    && last == why
                {
                    *at = step.at;
                    *times = times.saturating_add(1);
                    return;
                }
            }
            _ => {}
        }
        self.steps.push(step);
        if self.steps.len() > FIRST + LAST {
            // A cancel, however late, has to say that the server may have the message.
            let behind = self.steps.iter().skip(FIRST);
            let doubt = behind.take_while(|step| step.is_doubt()).count();
            let only_doubt = FIRST + doubt >= self.steps.len();
            self.drop_at(FIRST + if only_doubt { 0 } else { doubt });
        }
    }

    /// Takes over the steps of another list that are not here yet, in the order of their times.
    pub fn merge(&mut self, other: Trace) {
        if other.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.steps);
        for step in other.steps {
            if !all.contains(&step) {
                all.push(step);
            }
        }
        all.sort_by_key(|step| step.at);
        self.left_out = self.left_out.saturating_add(other.left_out);
        all.into_iter().for_each(|step| self.push(step));
    }

    fn make_room_for_status_report(&mut self) {
        let mut theirs = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| matches!(step.what, StepKind::StatusReport(_)))
            .map(|(at, _)| at);
        let oldest_of_last = theirs.by_ref().nth(STATUS_REPORTS / 2);
        let full =
            oldest_of_last.is_some() && theirs.count() + STATUS_REPORTS / 2 + 1 >= STATUS_REPORTS;
        if let Some(at) = oldest_of_last.filter(|_| full) {
            self.drop_at(at);
        }
    }

    fn drop_at(&mut self, at: usize) {
        if at < self.steps.len() {
            self.steps.remove(at);
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

impl Step {
    /// Whether it says that a server may have the message although nobody knows.
    fn is_doubt(&self) -> bool {
        match &self.what {
            StepKind::LeftInDoubt { .. } => true,
            StepKind::Attempt(attempt) => matches!(attempt.end, AttemptStepEnd::InDoubt { .. }),
            _ => false,
        }
    }
}

impl StepKind {
    fn shorten(&mut self) {
        match self {
            StepKind::Attempt(attempt) => {
                attempt.refusals.truncate(AttemptStep::MAX_REFUSALS);
                attempt.refusals.iter_mut().for_each(|refusal| shorten(&mut refusal.reply));
                match &mut attempt.end {
                    AttemptStepEnd::Broken { why, .. } | AttemptStepEnd::InDoubt { why } => {
                        shorten(why);
                    }
                    AttemptStepEnd::Answered | AttemptStepEnd::Postponed => {}
                }
            }
            StepKind::Untried { why, .. } => shorten(why),
            StepKind::StatusReport(report) => report.shorten(),
            StepKind::Accepted { .. }
            | StepKind::Interrupted { .. }
            | StepKind::LeftInDoubt { .. }
            | StepKind::Held
            | StepKind::Released
            | StepKind::Hurried
            | StepKind::GivenBack
            | StepKind::TakenUp
            | StepKind::Reported(_) => {}
        }
    }
}

impl AttemptStep {
    /// Most different replies that are kept of one attempt.
    pub const MAX_REFUSALS: usize = 3;
}

impl StatusReportStep {
    /// Most recipients that are kept of one notification.
    pub const MAX_RECIPIENTS: usize = 4;

    fn shorten(&mut self) {
        let over = self.recipients.len().saturating_sub(Self::MAX_RECIPIENTS);
        self.more = self.more.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
        self.recipients.truncate(Self::MAX_RECIPIENTS);
        shorten(&mut self.reporting_mta);
        shorten(&mut self.class);
        for line in &mut self.recipients {
            let StatusReportLine { address, action, status, diagnostic, remote_mta } = line;
            [address, action, status, diagnostic, remote_mta].into_iter().for_each(shorten);
        }
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
