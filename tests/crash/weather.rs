//! What the server does to its client, from round to round.

use std::sync::Arc;
use std::time::Duration;

use postoffice::{
    Action, Fault, FaultHandle, ImapAction, ImapPhase, PostOffice, SmtpAction, SmtpPhase,
};

const SMTP: [SmtpPhase; 8] = [
    SmtpPhase::Connect,
    SmtpPhase::Greeting,
    SmtpPhase::Ehlo,
    SmtpPhase::Mail,
    SmtpPhase::Rcpt,
    SmtpPhase::Data,
    SmtpPhase::Body,
    SmtpPhase::FinalDot,
];

const IMAP: [ImapPhase; 8] = [
    ImapPhase::Connect,
    ImapPhase::Greeting,
    ImapPhase::Select,
    ImapPhase::Search,
    ImapPhase::Fetch,
    ImapPhase::MidLiteral,
    ImapPhase::Store,
    ImapPhase::Expunge,
];

/// The faults in force.
pub(crate) struct Weather {
    office: Arc<PostOffice>,
    dice: fastrand::Rng,
    /// Until the next change.
    passing: Vec<FaultHandle>,
}

impl Weather {
    /// With the refusals that stay: those of the recipients and messages made to be refused.
    pub(crate) fn new(office: Arc<PostOffice>, dice: fastrand::Rng) -> Self {
        let nobody = SmtpAction::reply(550, "5.1.1", "nobody of that name");
        office.inject(Fault::smtp(SmtpPhase::Rcpt, nobody).matching("refused-"));
        let spam = SmtpAction::reply(554, "5.7.1", "not wanted here");
        office.inject(Fault::smtp(SmtpPhase::FinalDot, spam).matching("unwanted-"));
        Weather { office, dice, passing: Vec::new() }
    }

    /// Other faults than before, some of them none.
    pub(crate) fn change(&mut self) {
        self.clear();
        for _ in 0..self.dice.u32(0..4) {
            let fault = self.outbound();
            self.passing.push(self.office.inject(fault));
        }
        for _ in 0..self.dice.u32(0..3) {
            let fault = self.inbound();
            self.passing.push(self.office.inject(fault));
        }
        // The reply to an accepted message is lost: who is concerned is known by the address.
        if self.dice.bool() {
            let lost = Fault::smtp(SmtpPhase::FinalDot, Action::Drop);
            let lost = lost.after_effect().matching("doubtful-").times(self.dice.u32(1..3));
            self.passing.push(self.office.inject(lost));
        }
    }

    /// Breaks the connections now and then.
    pub(crate) fn shake(&mut self) {
        if self.dice.u32(0..4) == 0 {
            self.office.disconnect_all();
        }
    }

    /// Takes away what passes.
    pub(crate) fn clear(&mut self) {
        self.passing.drain(..).for_each(|fault| fault.remove());
    }

    fn outbound(&mut self) -> Fault {
        let dice = &mut self.dice;
        let phase = SMTP[dice.usize(..SMTP.len())];
        let nth = dice.u32(1..5);
        let fault = match dice.u32(0..8) {
            0 => Fault::smtp(SmtpPhase::Rcpt, SmtpAction::reply(450, "4.2.1", "busy")),
            1 => Fault::smtp(SmtpPhase::Mail, SmtpAction::reply(451, "4.3.0", "later")),
            2 => Fault::smtp(SmtpPhase::FinalDot, SmtpAction::reply(452, "4.3.1", "no room")),
            3 => Fault::smtp(phase, Action::Hang),
            // Accepted, and the reply never leaves: what is killed now sends again.
            4 => Fault::smtp(SmtpPhase::FinalDot, Action::Hang).after_effect(),
            5 => Fault::smtp(phase, Action::Drop),
            6 => Fault::smtp(phase, Action::Reset),
            _ => Fault::smtp(phase, Action::Delay(Duration::from_millis(dice.u64(1..400)))),
        };
        fault.nth(nth).times(dice.u32(1..3))
    }

    fn inbound(&mut self) -> Fault {
        let dice = &mut self.dice;
        let phase = IMAP[dice.usize(..IMAP.len())];
        let fault = match dice.u32(0..6) {
            0 => Fault::imap(phase, Action::Hang),
            1 => Fault::imap(phase, Action::Drop),
            2 => Fault::imap(phase, Action::Reset),
            3 => Fault::imap(ImapPhase::Store, ImapAction::No("later".into())),
            4 => Fault::imap(ImapPhase::Fetch, ImapAction::Bye("going down".into())),
            // Done, and the reply never leaves.
            _ => Fault::imap(phase, Action::Hang).after_effect(),
        };
        fault.nth(dice.u32(1..4)).times(dice.u32(1..3))
    }
}
