//! What an attempt met with, collected while it runs, for the trace of its message.

use super::connection::Connection;
use super::reply::{Failure, Phase};
use super::schedule::AttemptEnd;
use super::transaction::Sent;
use crate::mapi::SysTime;
use crate::spool::{AttemptPhase, AttemptStep, AttemptStepEnd, RefusalStep, Step, StepKind};

/// The notes of one attempt. Outcomes that stand in the record are only counted.
#[derive(Debug, Default)]
pub(super) struct AttemptNotes {
    begun: Option<SysTime>,
    host: String,
    tls: String,
    delivered: u32,
    refusals: Vec<RefusalStep>,
}

impl AttemptNotes {
    /// The message goes through this connection.
    pub(super) fn connected(&mut self, connection: &Connection, now: SysTime) {
        self.begun = Some(now);
        connection.host().clone_into(&mut self.host);
        connection.tls().clone_into(&mut self.tls);
    }

    /// A transaction came to this.
    pub(super) fn heard(&mut self, outcomes: &[(usize, Sent)]) {
        for (_, sent) in outcomes {
            match sent {
                Sent::Delivered(_) => self.delivered = self.delivered.saturating_add(1),
                Sent::Refused(failure) => self.refused(failure),
            }
        }
    }

    fn refused(&mut self, failure: &Failure) {
        let (phase, reply) = (phase_of(failure.phase), failure.reply.to_string());
        let same = |one: &&mut RefusalStep| one.phase == phase && one.reply == reply;
        if let Some(one) = self.refusals.iter_mut().find(same) {
            one.recipients = one.recipients.saturating_add(1);
        } else if self.refusals.len() < AttemptStep::MAX_REFUSALS {
            self.refusals.push(RefusalStep { phase, reply, recipients: 1 });
        }
    }

    /// The step for the trace, at the time the attempt began, or `now` when it never did; `None`
    /// when nothing happened.
    pub(super) fn step(&self, number: u32, end: &AttemptEnd, now: SysTime) -> Option<Step> {
        let end = match end {
            AttemptEnd::Untried(None) => return None,
            AttemptEnd::Untried(Some(failure)) => {
                let what = StepKind::Untried { why: failure.words(), times: 1 };
                return Some(Step { at: now, what });
            }
            AttemptEnd::Paused { .. } => AttemptStepEnd::Postponed,
            AttemptEnd::Damaged(failure) => {
                AttemptStepEnd::Broken { phase: phase_of(failure.phase), why: failure.words() }
            }
            AttemptEnd::Answered => AttemptStepEnd::Answered,
            AttemptEnd::Broken(failure) => {
                AttemptStepEnd::Broken { phase: phase_of(failure.phase), why: failure.words() }
            }
            AttemptEnd::InDoubt(failure) => AttemptStepEnd::InDoubt { why: failure.words() },
        };
        let attempt = AttemptStep {
            number,
            host: self.host.clone(),
            tls: self.tls.clone(),
            delivered: self.delivered,
            refusals: self.refusals.clone(),
            end,
        };
        Some(Step { at: self.begun.unwrap_or(now), what: StepKind::Attempt(attempt) })
    }
}

fn phase_of(phase: Phase) -> AttemptPhase {
    match phase {
        Phase::Connect
        | Phase::Tls
        | Phase::Greeting
        | Phase::Ehlo
        | Phase::Auth
        | Phase::Reset => AttemptPhase::Connecting,
        Phase::Mail => AttemptPhase::Mail,
        Phase::Rcpt => AttemptPhase::Rcpt,
        Phase::Data => AttemptPhase::Data,
        Phase::Body => AttemptPhase::Text,
        Phase::Dot => AttemptPhase::Dot,
    }
}
