#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::table::{ALL, AUTH, SETUP, TABLE, row_of};
use super::*;
use Phase::{Auth, Data, Dot, Ehlo, Greeting, Mail, Rcpt};
use Scope::Recipient;

type Meaning = (Scope, Permanence, Cause);

fn reply(line: &str) -> Reply {
    let (code, rest) = line.split_once(' ').unwrap();
    let (enhanced, text) = match rest.split_once(' ') {
        Some((first, text)) if first.split('.').count() == 3 => (first, text),
        _ if rest.split('.').count() == 3 && !rest.contains(' ') => (rest, ""),
        _ => ("", rest),
    };
    Reply {
        code: code.parse().unwrap(),
        enhanced: enhanced.to_owned(),
        text: text.to_owned(),
        host: "mx".to_owned(),
    }
}

fn verdict(phase: Phase, line: &str) -> Verdict {
    classify(phase, &reply(line))
}

/// Every row of the table with a reply that only it decides, in the order of the table.
const EXAMPLES: &[(Phase, &str, Meaning)] = &[
    (Mail, "432 4.3.2 Concurrent connections limit exceeded", (Account, Temporary, Throttled)),
    (Dot, "550 5.1.8 Access denied, bad outbound sender", (Account, Permanent, Server)),
    (Dot, "550 5.4.5 Daily quota", (Account, Temporary, Throttled)),
    (Rcpt, "550 5.1.90 the limit is reached", (Account, Temporary, Throttled)),
    (Mail, "550 5.7.501 Access denied, spam abuse", (Account, Permanent, Server)),
    (Rcpt, "451 4.7.500 Server busy", (Account, Temporary, Throttled)),
    (Dot, "554 5.2.0 SendAsDeniedException.MapiExceptionSendAsDenied", (Message, Permanent, Plain)),
    (Dot, "554 5.2.2 mailbox full", (Account, Temporary, Throttled)),
    (Auth, "421 try later", (Account, Temporary, Throttled)),
    (Mail, "421 4.7.0 try again later", (Account, Temporary, Throttled)),
    (Rcpt, "421 4.3.2 shutting down", (Network, Temporary, Plain)),
    (Auth, "432 4.7.12 a password transition is needed", (Account, Permanent, LoginRefused)),
    (Auth, "454 4.7.0 temporary failure", (Account, Temporary, Throttled)),
    (Auth, "503 5.5.1 already logged in", (Network, Temporary, Server)),
    (Auth, "504 5.5.4 mechanism unknown", (Account, Permanent, Server)),
    (Auth, "530 5.7.0 must issue STARTTLS first", (Account, Permanent, Tls)),
    (Auth, "538 5.7.11 encryption required", (Account, Permanent, Tls)),
    (Auth, "535 5.7.8 bad credentials", (Account, Permanent, LoginRefused)),
    (Mail, "454 4.7.0 too often", (Account, Temporary, Throttled)),
    (Mail, "530 5.7.0 Must issue a STARTTLS command first", (Account, Permanent, Tls)),
    (Mail, "530 5.7.0 log in first", (Account, Permanent, LoginRefused)),
    (Rcpt, "535 5.7.8 log in again", (Account, Permanent, LoginRefused)),
    (Data, "538 encryption required", (Account, Permanent, Tls)),
    (Rcpt, "550 5.7.1 Authentication required", (Account, Permanent, LoginRefused)),
    (Greeting, "450 busy", (Network, Temporary, Plain)),
    (Greeting, "554 no service here", (Account, Permanent, Server)),
    (Mail, "500 5.5.2 what", (Network, Temporary, Server)),
    (Data, "503 bad sequence", (Network, Temporary, Server)),
    (Rcpt, "451 4.5.3 too many", (Recipient, Temporary, TooManyRecipients)),
    (
        Rcpt,
        "451 4.3.0 Multiple destination domains per transaction is unsupported",
        (Recipient, Temporary, TooManyRecipients),
    ),
    (Rcpt, "452 too many recipients", (Recipient, Temporary, TooManyRecipients)),
    (Rcpt, "552 mailbox full", (Recipient, Permanent, Plain)),
    (Rcpt, "552 too many recipients", (Recipient, Temporary, TooManyRecipients)),
    (Dot, "550 5.5.3 too many recipients", (Message, Temporary, TooManyRecipients)),
    (Rcpt, "550 5.5.0 Service unavailable", (Recipient, Permanent, Doubtful)),
    (Rcpt, "555 5.5.4 NOTIFY is not known", (Recipient, Permanent, Doubtful)),
    (Dot, "554 5.0.0 rejected", (Message, Permanent, Doubtful)),
    (Mail, "555 5.5.4 SIZE is not known", (Message, Permanent, Doubtful)),
    (Rcpt, "450 4.1.2 Domain not found", (Recipient, Temporary, Plain)),
    (Rcpt, "550 5.1.1 no such user", (Recipient, Permanent, Plain)),
    (Dot, "451 4.3.0 local error", (Message, Temporary, Plain)),
    (Mail, "552 5.3.4 too big", (Message, Permanent, Plain)),
];

#[test]
fn every_row_decides_its_example() {
    assert_eq!(EXAMPLES.len(), TABLE.len());
    for (index, (phase, line, (scope, permanence, cause))) in EXAMPLES.iter().enumerate() {
        assert_eq!(verdict(*phase, line), Verdict::new(*scope, *permanence, *cause), "{line}");
        let decides = row_of(*phase, &reply(line)).unwrap();
        assert!(std::ptr::eq(decides, &TABLE[index]), "row {index} is not the one for {line}");
    }
}

const ANYWHERE: &[Phase] = TRANSACTION;
const LOGIN: Meaning = (Account, Permanent, LoginRefused);
const THROTTLED: Meaning = (Account, Temporary, Throttled);
const BANNED: Meaning = (Account, Permanent, Server);
const THIS_MESSAGE: Meaning = (Message, Permanent, Plain);
const THIS_RECIPIENT: Meaning = (Recipient, Permanent, Plain);
const RECIPIENT_LATER: Meaning = (Recipient, Temporary, Plain);
const SPLIT: Meaning = (Recipient, Temporary, TooManyRecipients);

/// What providers are known to say.
const PROVIDERS: &[(&str, &[Phase], &str, Meaning)] = &[
    // Gmail and Google Workspace
    ("Gmail", &[Auth], "535 5.7.8 Username and Password not accepted", LOGIN),
    ("Gmail", &[Auth], "534 5.7.9 Application-specific password required", LOGIN),
    ("Gmail", &[Auth], "534 5.7.14 Please log in via your web browser", LOGIN),
    ("Gmail", &[Auth], "454 4.7.0 Too many login attempts, please try again later", THROTTLED),
    ("Gmail", &[Auth], "454 4.7.0 Cannot authenticate due to temporary system problem", THROTTLED),
    ("Gmail", &[Auth, Mail], "421 4.7.0 Temporary System Problem. Try again later", THROTTLED),
    ("Gmail", ANYWHERE, "421 4.7.0 Try again later, closing connection", THROTTLED),
    ("Gmail", ANYWHERE, "421 4.3.0 Temporary System Problem", (Network, Temporary, Plain)),
    ("Gmail", ANYWHERE, "421 4.4.5 Server busy, try again later", (Network, Temporary, Plain)),
    ("Gmail", ANYWHERE, "530 5.7.0 Authentication Required", LOGIN),
    ("Gmail", &[Mail], "530 5.7.0 Must issue a STARTTLS command first", (Account, Permanent, Tls)),
    ("Gmail", ANYWHERE, "550 5.4.5 Daily user sending limit exceeded", THROTTLED),
    ("Gmail", ANYWHERE, "550 5.4.5 Daily SMTP relay limit exceeded for customer", THROTTLED),
    ("Gmail", &[Rcpt], "450 4.2.1 Peak SMTP relay limit exceeded for customer", THROTTLED),
    ("Gmail", &[Mail], "550 5.7.0 Mail relay denied. Invalid credentials for relay", LOGIN),
    ("Gmail", &[Rcpt], "452 4.5.3 Your message has too many recipients", SPLIT),
    (
        "Gmail",
        &[Rcpt],
        "452 4.5.3 Domain policy size per transaction exceeded, please try this recipient in a \
         separate transaction",
        SPLIT,
    ),
    ("Gmail", &[Rcpt], "452 4.2.2 The email account is over quota", RECIPIENT_LATER),
    ("Gmail", &[Rcpt], "450 4.2.1 The user is receiving mail too quickly", RECIPIENT_LATER),
    ("Gmail", &[Rcpt], "550 5.1.1 The email account does not exist", THIS_RECIPIENT),
    ("Gmail", &[Rcpt], "550 5.2.1 The email account is disabled", THIS_RECIPIENT),
    ("Gmail", &[Dot], "552 5.2.3 Your message exceeded Google's size limits", THIS_MESSAGE),
    ("Gmail", &[Dot], "552 5.7.0 This message was blocked because of its content", THIS_MESSAGE),
    ("Gmail", &[Dot], "550 5.7.26 Unauthenticated email from a.org: DMARC policy", THIS_MESSAGE),
    // Exchange Online and Outlook.com
    ("Microsoft", &[Auth], "535 5.7.3 Authentication unsuccessful", LOGIN),
    ("Microsoft", &[Auth], "535 5.7.139 basic authentication is disabled", LOGIN),
    ("Microsoft", &[Mail], "530 5.7.57 Client not authenticated to send mail", LOGIN),
    ("Microsoft", ANYWHERE, "432 4.3.2 Concurrent connections limit exceeded", THROTTLED),
    (
        "Microsoft",
        ANYWHERE,
        "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
        THROTTLED,
    ),
    (
        "Microsoft",
        &[Rcpt],
        "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded",
        RECIPIENT_LATER,
    ),
    (
        "Microsoft",
        &[Dot],
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException",
        THROTTLED,
    ),
    ("Microsoft", &[Dot], "554 5.2.2 mailbox full", THROTTLED),
    ("Microsoft", &[Dot], "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException", BANNED),
    (
        "Microsoft",
        &[Dot],
        "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException",
        THIS_MESSAGE,
    ),
    (
        "Microsoft",
        &[Dot],
        "554 5.2.252 SendAsDenied; ann@a not allowed to send as bob@a",
        THIS_MESSAGE,
    ),
    (
        "Microsoft",
        &[Dot],
        "550 5.7.60 Client does not have permissions to send as this sender",
        THIS_MESSAGE,
    ),
    ("Microsoft", ANYWHERE, "550 5.1.8 Access denied, bad outbound sender AS(42004)", BANNED),
    ("Microsoft", ANYWHERE, "550 5.7.501 Access denied, spam abuse detected", BANNED),
    ("Microsoft", ANYWHERE, "550 5.7.708 Access denied, traffic not accepted from this IP", BANNED),
    ("Microsoft", ANYWHERE, "550 5.7.705 Access denied, tenant has exceeded threshold", THROTTLED),
    ("Microsoft", ANYWHERE, "550 5.7.233 your tenant exceeded its daily limit", THROTTLED),
    (
        "Microsoft",
        ANYWHERE,
        "550 5.1.90 you've reached your daily limit for message recipients",
        THROTTLED,
    ),
    ("Microsoft", ANYWHERE, "451 4.7.500 Server busy. Please try again later", THROTTLED),
    ("Microsoft", ANYWHERE, "421 4.3.2 Service not active", (Network, Temporary, Plain)),
    ("Microsoft", &[Rcpt], "550 5.1.10 RESOLVER.ADR.RecipientNotFound", THIS_RECIPIENT),
    ("Microsoft", &[Rcpt], "452 4.5.3 Too many recipients", SPLIT),
    (
        "Microsoft",
        &[Dot],
        "552 5.3.4 Message size exceeds fixed maximum message size",
        THIS_MESSAGE,
    ),
    // iCloud
    ("iCloud", &[Auth], "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6", LOGIN),
    ("iCloud", ANYWHERE, "550 5.7.1 You have exceeded your daily sending limit", THROTTLED),
    ("iCloud", &[Mail], "550 5.7.0 From address is not one of your addresses", THIS_MESSAGE),
    ("iCloud", &[Rcpt], "452 4.5.3 Too many recipients", SPLIT),
    // Yahoo and AOL
    ("Yahoo", &[Auth], "535 5.7.0 (#AUTH005) Too many bad auth attempts.", THROTTLED),
    ("Yahoo", &[Auth], "535 5.7.0 (#MBR1212) Incorrect username or password", LOGIN),
    ("Yahoo", ANYWHERE, "421 4.7.0 [TSS04] Messages temporarily deferred", THROTTLED),
    ("Yahoo", &[Greeting], "553 5.7.1 [BL21] Connections will not be accepted", BANNED),
    ("Yahoo", &[Dot], "554 5.7.9 Message not accepted for policy reasons", THIS_MESSAGE),
    ("Yahoo", &[Mail], "553 From address not verified", THIS_MESSAGE),
    // Fastmail
    ("Fastmail", &[Auth], "535 5.7.0 Incorrect username or password", LOGIN),
    (
        "Fastmail",
        &[Mail, Dot],
        "551 5.7.1 Not authorised to send from this header address",
        THIS_MESSAGE,
    ),
    ("Fastmail", &[Rcpt], "451 4.7.1 You have exceeded your sending limit", THROTTLED),
    // Amazon SES
    ("SES", &[Auth], "535 Authentication Credentials Invalid", LOGIN),
    ("SES", ANYWHERE, "530 Authentication required", LOGIN),
    ("SES", ANYWHERE, "454 Throttling failure: Maximum sending rate exceeded.", THROTTLED),
    ("SES", ANYWHERE, "454 Throttling failure: Daily message quota exceeded.", THROTTLED),
    ("SES", ANYWHERE, "421 Too many concurrent SMTP connections", THROTTLED),
    ("SES", &[Dot], "554 Message rejected: Email address is not verified.", THIS_MESSAGE),
    ("SES", &[Dot], "554 Message rejected: Sending paused for this account.", BANNED),
    ("SES", &[Dot], "554 Access denied: User is not authorized to perform ses:SendRawEmail", LOGIN),
    ("SES", &[Dot], "451 Temporary service failure", (Message, Temporary, Plain)),
    // SendGrid
    ("SendGrid", &[Auth], "535 Authentication failed: Bad username / password", LOGIN),
    ("SendGrid", &[Auth, Mail], "451 Authentication failed: Maximum credits exceeded", THROTTLED),
    ("SendGrid", &[Mail], "550 Unauthenticated senders not allowed", LOGIN),
    ("SendGrid", &[Rcpt], "452 Too many recipients received this hour", THROTTLED),
    ("SendGrid", &[Mail, Rcpt], "450 too frequent connects from 192.0.2.1", THROTTLED),
    (
        "SendGrid",
        &[Dot],
        "550 The from address does not match a verified Sender Identity.",
        THIS_MESSAGE,
    ),
    // Unknown means temporary.
    (
        "SendGrid",
        &[Mail, Dot],
        "403 You are not authorized to send from that email address",
        (Message, Temporary, Plain),
    ),
    // Zoho
    ("Zoho", &[Auth], "535 Authentication Failed", LOGIN),
    ("Zoho", ANYWHERE, "550 5.4.6 Unusual sending activity detected", THROTTLED),
    ("Zoho", &[Mail], "553 Relaying disallowed as ann@example.org", THIS_MESSAGE),
    // Postfix and Exim as a smarthost
    ("Postfix", &[Rcpt], "452 4.5.3 Error: too many recipients", SPLIT),
    ("Postfix", &[Rcpt], "452 4.3.1 Insufficient system storage", RECIPIENT_LATER),
    ("Postfix", &[Rcpt], "450 4.2.0 Recipient address rejected: Greylisted", RECIPIENT_LATER),
    (
        "Postfix",
        &[Rcpt],
        "553 5.7.1 Sender address rejected: not owned by user ann",
        THIS_RECIPIENT,
    ),
    ("Postfix", &[Mail], "553 5.7.1 Sender address rejected: not owned by user ann", THIS_MESSAGE),
    ("Postfix", &[Mail], "452 4.3.1 Insufficient system storage", (Message, Temporary, Plain)),
    ("Postfix", &[Mail], "552 5.3.4 Message size exceeds fixed limit", THIS_MESSAGE),
    ("Postfix", ANYWHERE, "421 4.4.2 Error: timeout exceeded", (Network, Temporary, Plain)),
    ("Postfix", ANYWHERE, "421 4.7.0 Error: too many errors", THROTTLED),
    ("Exim", &[Ehlo], "550 bad HELO", BANNED),
    ("Exim", &[Greeting], "421 Too many concurrent SMTP connections", THROTTLED),
    ("qmail", &[Rcpt], "552 too many recipients", SPLIT),
    ("chatmail", &[Rcpt], "550 5.5.0 Service unavailable", (Recipient, Permanent, Doubtful)),
    ("any", &[Rcpt], "556 5.1.10 the domain takes no mail", THIS_RECIPIENT),
    ("any", &[Rcpt], "552 5.2.2 mailbox full", THIS_RECIPIENT),
    ("any", &[Rcpt], "552 mailbox storage exceeded", THIS_RECIPIENT),
    // The basic code lies, or the enhanced one: then it passes.
    ("any", &[Rcpt], "550 4.2.1 try again tomorrow", RECIPIENT_LATER),
    ("any", &[Rcpt], "450 5.1.1 no such user", RECIPIENT_LATER),
    ("any", &[Dot], "554 4.7.1 greylisted", (Message, Temporary, Plain)),
    ("any", &[Greeting], "554 4.3.2 not now", (Account, Temporary, Server)),
];

#[test]
fn what_providers_say_is_understood() {
    // These numbers stand in `docs/reliability.md`.
    let in_phases: usize = PROVIDERS.iter().map(|(_, phases, _, _)| phases.len()).sum();
    assert_eq!((PROVIDERS.len(), in_phases), (99, 204));
    let mut wrong = Vec::new();
    for (who, phases, line, (scope, permanence, cause)) in PROVIDERS {
        for phase in *phases {
            let verdict = verdict(*phase, line);
            if verdict != Verdict::new(*scope, *permanence, *cause) {
                wrong.push(format!("{who} {phase:?}: {line}: {verdict:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_said_about_the_account_fails_no_recipient() {
    let about_the_account = PROVIDERS.iter().filter(|(_, _, _, (scope, _, _))| *scope >= Account);
    for (who, phases, line, _) in about_the_account {
        for phase in *phases {
            assert!(!verdict(*phase, line).fails_recipients(), "{who} {phase:?}: {line}");
        }
    }
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
fn a_421_is_never_a_recipients_fault_and_never_for_good() {
    for phase in ALL {
        for line in ["421 bye", "421 4.3.2 shutting down", "421 5.7.1 go away"] {
            let verdict = verdict(*phase, line);
            assert!(verdict.is_lane_trouble(), "{phase:?} {line}");
            assert_eq!(verdict.permanence, Temporary, "{phase:?} {line}");
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

/// Every kind of fault with its whole meaning.
#[test]
fn faults_never_fail_recipients() {
    for (fault, meaning) in [
        (Fault::Unreachable, (Network, Temporary, Plain)),
        (Fault::TimedOut, (Network, Temporary, Plain)),
        (Fault::Closed, (Network, Temporary, Plain)),
        (Fault::Tls, (Network, Temporary, Tls)),
        (Fault::Certificate, (Account, Permanent, Tls)),
        (Fault::NotServed, (Account, Permanent, Server)),
        (Fault::Garbage, (Network, Temporary, Server)),
        (Fault::Secret, (Account, Temporary, Secret)),
        (Fault::SignIn, (Account, Permanent, SignIn)),
        (Fault::Internal, (Message, Temporary, Plain)),
    ] {
        let (scope, permanence, cause) = meaning;
        assert_eq!(classify_fault(fault), Verdict::new(scope, permanence, cause), "{fault:?}");
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
