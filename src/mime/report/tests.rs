#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use mail_parser::{MessageParser, MimeHeaders};

fn fields(action: ReportAction) -> ReportFields {
    ReportFields {
        action,
        host: "box.example.org".into(),
        from: Mailbox::new("Mail Delivery System", "mailer-daemon@box.example.org"),
        to: Mailbox::new("Ann", "ann@example.org"),
        date: SysTime::from_millis(1_700_000_000_000),
        message_id: "<r1@box.example.org>".into(),
        subject: "Grüße\r\nBcc: x@y".into(),
        original_id: "<1@example.org>".into(),
        envelope_id: "env+1".into(),
        submitted: SysTime::from_millis(1_600_000_000_000),
        will_retry_until: None,
        recipients: vec![
            ReportedRecipient {
                mailbox: Mailbox::new("Bob", "bob@example.net"),
                status: "5.1.1".into(),
                diagnostic: "550 5.1.1 No such user\r\n550 here, grün".into(),
                remote_mta: "mx.example.net".into(),
                time: SysTime::from_millis(1_700_000_000_000),
            },
            ReportedRecipient {
                mailbox: Mailbox::new("", "jü@example.net"),
                status: "nonsense".into(),
                diagnostic: String::new(),
                remote_mta: String::new(),
                time: SysTime::from_millis(1_700_000_000_000),
            },
        ],
    }
}

const ORIGINAL: &[u8] = b"Subject: gr\xc3\xbcn\r\nTo: bob@example.net\r\n\r\nbody \xff\r\n";

fn unfold(text: &str) -> String {
    text.replace("\r\n ", " ")
}

/// Proves: SP-4
#[test]
fn has_the_three_parts_of_a_report() {
    let bytes = report(&fields(ReportAction::Failed), Original::Whole(ORIGINAL));
    assert_eq!(report(&fields(ReportAction::Failed), Original::Whole(ORIGINAL)), bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.starts_with("Return-Path: <>\r\n"), "{text}");
    assert!(text.contains("Auto-Submitted: auto-replied\r\n"));
    assert!(text.contains("In-Reply-To: <1@example.org>\r\n"));
    assert!(!text.contains("\r\nBcc:"), "{text}");
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(parsed.subject(), Some("Undelivered: Grüße Bcc: x@y"));
    let kind = parsed.content_type().unwrap();
    assert_eq!((kind.ctype(), kind.subtype()), ("multipart", Some("report")));
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    let human = parsed.body_text(0).unwrap();
    for wanted in ["Bob <bob@example.net>", "mx.example.net said: 550 5.1.1 No such", "jü@example"]
    {
        assert!(human.contains(wanted), "{human}");
    }
    assert!(human.contains("no such mailbox") && human.contains("not be tried again"), "{human}");
    let status = parsed
        .parts
        .iter()
        .find(|part| part.is_content_type("message", "delivery-status"))
        .unwrap();
    let status = unfold(std::str::from_utf8(status.contents()).unwrap());
    let groups: Vec<&str> = status.trim_end().split("\r\n\r\n").collect();
    assert_eq!(groups.len(), 3, "{status}");
    assert!(groups[0].contains("Reporting-MTA: dns; box.example.org\r\n"));
    assert!(groups[0].contains("Original-Envelope-Id: env+1\r\n"));
    for wanted in [
        "Original-Recipient: rfc822; bob@example.net\r\n",
        "Final-Recipient: rfc822; bob@example.net\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Remote-MTA: dns; mx.example.net\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 No such user 550 here, gr?n\r\n",
    ] {
        assert!(groups[1].contains(wanted), "{wanted}: {status}");
    }
    assert!(groups[2].contains("Final-Recipient: utf-8; j\\x{FC}@example.net\r\n"), "{status}");
    assert!(groups[2].contains("Status: 5.0.0"), "{status}");
    let at = bytes.windows(ORIGINAL.len()).position(|octets| octets == ORIGINAL);
    assert!(at.is_some(), "the original is attached byte for byte");
    // Its header needs RFC 6532; only a body with such octets does not.
    assert!(text.contains("Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n"));
    let plain = b"Subject: x\r\n\r\nbody \xff\r\n";
    let bytes = report(&fields(ReportAction::Failed), Original::Whole(plain));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"));
}

/// Proves: SP-4
#[test]
fn of_large_originals_only_the_header_is_returned() {
    let mut large = ORIGINAL.to_vec();
    large.resize(MAX_RETURNED + 1, b'x');
    for original in [Original::Whole(&large), Original::Beginning(ORIGINAL)] {
        let bytes = report(&fields(ReportAction::Delivered), original);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("message/global-headers"), "{text}");
        assert!(text.contains("To: bob@example.net\r\n") && !text.contains("body"), "{text}");
        assert!(text.contains("Status: 2.0.0") && text.contains("Action: delivered"));
        assert!(bytes.len() < 4_000);
    }
    let plain = b"Subject: x\r\n\r\nbody\r\n";
    let bytes = report(&fields(ReportAction::Failed), Original::Beginning(plain));
    assert!(String::from_utf8_lossy(&bytes).contains("Content-Type: text/rfc822-headers\r\n"));
    let bytes = report(&fields(ReportAction::Failed), Original::Missing);
    assert!(String::from_utf8_lossy(&bytes).contains("no longer available"));
}

#[test]
fn hostile_words_stay_in_their_place() {
    let mut fields = fields(ReportAction::Failed);
    fields.recipients[0].diagnostic =
        format!("x\r\n\r\nFinal-Recipient: rfc822; evil@x\0{}", "y".repeat(100_000));
    fields.recipients[0].remote_mta = "mx\r\nAction: delivered".into();
    let bytes = report(&fields, Original::Missing);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(!text.contains("\nFinal-Recipient: rfc822; evil@x") && !text.contains('\0'));
    assert!(!text.contains("\nAction: delivered"));
    let longest = text.lines().map(str::len).max().unwrap();
    assert!(longest <= 998, "{longest}");
}

/// Proves: SP-4
#[test]
fn a_report_says_what_happened_in_types_that_are_true() {
    let mut fields = fields(ReportAction::Failed);
    fields.recipients[0].diagnostic = "4.4.7 could not be sent within 5days".into();
    fields.recipients[0].mailbox = Mailbox::new("Bob\r\nX: y", "jü+news@example.net");
    let text = String::from_utf8(report(&fields, Original::Missing)).unwrap();
    // What no server said is not called the word of one (RFC 3464 section 2.3.6).
    assert!(text.contains("Diagnostic-Code: x-postrider; 4.4.7 could not"), "{text}");
    // RFC 6533 section 3: a plus sign stands for itself in ASCII addresses only.
    assert!(text.contains("Final-Recipient: utf-8; j\\x{FC}\\x{2B}news@example.net\r\n"), "{text}");
    assert!(!text.contains("\nX: y"), "{text}");
    assert!(text.contains("send the\r\nmessage again"), "{text}");
    let bytes = report(&self::fields(ReportAction::Delivered), Original::Missing);
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    let words = parsed.body_text(0).unwrap();
    assert!(words.contains("On Tue, 14 Nov 2023 22:13:20 +0000."), "{words}");
}
