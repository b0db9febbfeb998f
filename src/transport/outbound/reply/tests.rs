#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn verdict(phase: Phase, line: &str) -> Verdict {
    let (code, rest) = line.split_once(' ').unwrap();
    let (enhanced, text) = match rest.split_once(' ') {
        Some((first, text)) if first.split('.').count() == 3 => (first, text),
        _ if rest.split('.').count() == 3 && !rest.contains(' ') => (rest, ""),
        _ => ("", rest),
    };
    classify(
        phase,
        &Reply {
            code: code.parse().unwrap(),
            enhanced: enhanced.to_owned(),
            text: text.to_owned(),
            host: "mx".to_owned(),
        },
    )
}

/// Every row of the table with a reply that only it decides, in the order of the table.
const EXAMPLES: &[(Phase, &str, (Scope, Permanence, Cause))] = &[
    (
        Phase::Mail,
        "432 4.3.2 Concurrent connections limit exceeded",
        (Account, Temporary, Throttled),
    ),
    (Phase::Dot, "550 5.4.5 Daily user quota", (Account, Temporary, Throttled)),
    (Phase::Dot, "554 5.2.2 mailbox full", (Account, Temporary, Throttled)),
    (Phase::Auth, "421 try later", (Account, Temporary, Throttled)),
    (Phase::Mail, "421 4.7.0 try again later", (Account, Temporary, Throttled)),
    (Phase::Rcpt, "421 4.3.2 shutting down", (Network, Temporary, Plain)),
    (Phase::Auth, "454 4.7.0 temporary failure", (Account, Temporary, Throttled)),
    (
        Phase::Auth,
        "535 5.7.139 basic authentication is disabled",
        (Account, Permanent, LoginRefused),
    ),
    (Phase::Mail, "454 4.7.0 too often", (Account, Temporary, Throttled)),
    (Phase::Mail, "530 5.7.0 Must issue a STARTTLS command first", (Account, Permanent, Tls)),
    (Phase::Mail, "530 5.7.0 log in first", (Account, Permanent, LoginRefused)),
    (Phase::Rcpt, "535 5.7.8 log in again", (Account, Permanent, LoginRefused)),
    (Phase::Data, "538 encryption required", (Account, Permanent, LoginRefused)),
    (Phase::Greeting, "450 busy", (Network, Temporary, Plain)),
    (Phase::Greeting, "554 no service here", (Account, Permanent, Server)),
    (Phase::Data, "503 bad sequence", (Network, Temporary, Plain)),
    (Phase::Rcpt, "451 4.5.3 too many", (Recipient, Temporary, TooManyRecipients)),
    (Phase::Rcpt, "452 too many recipients", (Recipient, Temporary, TooManyRecipients)),
    (Phase::Rcpt, "552 mailbox full", (Recipient, Permanent, Plain)),
    (Phase::Rcpt, "552 too many recipients", (Recipient, Temporary, TooManyRecipients)),
    (Phase::Rcpt, "550 5.5.0 Service unavailable", (Recipient, Permanent, Doubtful)),
    (Phase::Rcpt, "450 4.1.2 Domain not found", (Recipient, Temporary, Plain)),
    (Phase::Rcpt, "550 5.1.1 no such user", (Recipient, Permanent, Plain)),
    (Phase::Dot, "554 5.0.0 rejected", (Message, Permanent, Doubtful)),
    (Phase::Dot, "451 4.3.0 local error", (Message, Temporary, Plain)),
    (Phase::Mail, "552 5.3.4 too big", (Message, Permanent, Plain)),
];

#[test]
fn every_row_decides_its_example() {
    assert_eq!(EXAMPLES.len(), TABLE.len());
    for (index, (phase, line, (scope, permanence, cause))) in EXAMPLES.iter().enumerate() {
        assert_eq!(verdict(*phase, line), Verdict::new(*scope, *permanence, *cause), "{line}");
        let row = &TABLE[index];
        let wanted = Verdict::new(*scope, *permanence, *cause);
        assert_eq!(row.verdict, wanted, "row {index} is not the one for {line}");
    }
}

#[test]
fn what_providers_say_about_the_account_fails_no_recipient() {
    for line in [
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException",
        "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
        "550 5.7.1 You have exceeded your daily sending limit",
        "550 5.4.5 Daily user sending quota exceeded",
        "535 5.7.139 Authentication unsuccessful, basic authentication is disabled",
        "530 5.7.1 Authentication required",
        "421 4.7.0 Temporary System Problem",
    ] {
        for phase in TRANSACTION {
            let verdict = verdict(*phase, line);
            assert_eq!(verdict.scope, Account, "{phase:?} {line}");
            assert!(!verdict.fails_recipients(), "{phase:?} {line}");
        }
    }
}

#[test]
fn a_full_mailbox_of_a_recipient_is_the_recipients() {
    assert!(verdict(Phase::Rcpt, "552 5.2.2 mailbox full").fails_recipients());
    assert!(verdict(Phase::Rcpt, "554 5.2.2 mailbox full").fails_recipients());
    let full = verdict(Phase::Rcpt, "452 4.2.2 mailbox full");
    assert_eq!((full.scope, full.cause), (Recipient, Plain));
}

#[test]
fn before_the_transaction_nothing_fails_a_recipient() {
    for phase in SETUP.iter().chain(AUTH) {
        for code in 200..=599 {
            let verdict = verdict(*phase, &format!("{code} whatever"));
            assert!(verdict.is_lane_trouble(), "{phase:?} {code}");
        }
    }
}

#[test]
fn codes_that_cannot_be_are_the_connections_fault() {
    for phase in ALL {
        for code in [0, 100, 199, 220, 250, 354, 399, 600, 999] {
            let verdict = verdict(*phase, &format!("{code} whatever"));
            assert_eq!(verdict, Verdict::new(Network, Temporary, Server), "{phase:?} {code}");
        }
    }
}

#[test]
fn faults_never_fail_recipients() {
    for fault in [
        Fault::Unreachable,
        Fault::TimedOut,
        Fault::Closed,
        Fault::Tls,
        Fault::Certificate,
        Fault::NotServed,
        Fault::Garbage,
        Fault::Secret,
        Fault::Internal,
    ] {
        assert!(!classify_fault(fault).fails_recipients(), "{fault:?}");
        let words = Failure::fault(Phase::Tls, fault, "mx.example.org", "why").words();
        assert!(words.contains("TLS"), "{words}");
    }
}

#[test]
fn a_pause_the_server_asks_for_is_heard() {
    let reply = Reply {
        code: 432,
        text: "Request is throttled. Suggested Backoff Time: 299961 milliseconds".to_owned(),
        ..Reply::default()
    };
    let failure = Failure::refused(Phase::Mail, reply);
    assert_eq!(failure.verdict.cause, Throttled);
    assert_eq!(failure.suggested_pause(), Some(Duration::from_millis(299_961)));
    let endless = Reply {
        code: 432,
        text: format!("Suggested Backoff Time: {}", u64::MAX),
        ..Reply::default()
    };
    let failure = Failure::refused(Phase::Mail, endless);
    assert_eq!(failure.suggested_pause(), Some(Duration::from_secs(86_400)));
}
