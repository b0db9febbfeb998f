#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic)]
use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

use super::*;
use crate::mapi::SysTime;
use crate::mime::Mailbox;
use crate::mime::report::{Original, ReportAction, ReportFields, ReportedRecipient, report};

/// As Postfix writes it.
const BOUNCE: &str = "\
Return-Path: <>\r\n\
Date: Sun, 22 Nov 2026 10:00:00 +0000 (UTC)\r\n\
From: MAILER-DAEMON@mail.example.org (Mail Delivery System)\r\n\
To: ann@example.org\r\n\
Auto-Submitted: auto-replied\r\n\
In-Reply-To: <first@example.org>\r\n\
References: <oldest@example.org>\r\n <first@example.org>\r\n\
MIME-Version: 1.0\r\n\
Content-Type: multipart/report; report-type=delivery-status;\r\n\
\tboundary=\"4B6F.1/mail.example.org\"\r\n\
\r\n\
This is a MIME-encapsulated message.\r\n\
\r\n\
--4B6F.1/mail.example.org\r\n\
Content-Description: Notification\r\n\
Content-Type: text/plain; charset=us-ascii\r\n\
\r\n\
I'm sorry to have to inform you\r\n\
Final-Recipient: rfc822; not@this.one\r\n\
\r\n\
--4B6F.1/mail.example.org\r\n\
Content-Description: Delivery report\r\n\
Content-Type: message/delivery-status\r\n\
\r\n\
Reporting-MTA: dns; mail.example.org\r\n\
Original-Envelope-Id: 01HQZZZZZZZZZZZZZZZZZZZZZZ\r\n\
X-Postfix-Queue-ID: 4B6F\r\n\
Arrival-Date: Sun, 22 Nov 2026 09:59:59 +0000 (UTC)\r\n\
\r\n\
Final-Recipient: rfc822; bob@next.example.net\r\n\
Original-Recipient: rfc822;bob@example.net\r\n\
Action: failed\r\n\
Status: 5.1.1 (bad mailbox)\r\n\
Remote-MTA: dns; next.example.net\r\n\
Diagnostic-Code: smtp; 550 5.1.1 <bob@next.example.net>:\r\n    Recipient address rejected\r\n\
\r\n\
\r\n\
Final-Recipient: rfc822; eve@example.net\r\n\
Action: delayed\r\n\
Status: 4.4.1\r\n\
\r\n\
--4B6F.1/mail.example.org\r\n\
Content-Description: Undelivered Message\r\n\
Content-Type: message/rfc822\r\n\
\r\n\
From: ann@example.org\r\n\
Message-ID: <sent@example.org>\r\n\
Content-Type: multipart/mixed; boundary=x\r\n\
\r\n\
--x\r\n\
Content-Type: message/delivery-status\r\n\
\r\n\
Final-Recipient: rfc822; not@that.one\r\n\
Action: failed\r\n\
--x--\r\n\
\r\n\
--4B6F.1/mail.example.org--\r\n";

fn read(message: &[u8]) -> Option<StatusReport> {
    let mut reader = StatusReportReader::for_header(message)?;
    reader.push(message);
    reader.finish()
}

fn in_pieces(message: &[u8], size: usize) -> Option<StatusReport> {
    let mut reader = StatusReportReader::for_header(message)?;
    message.chunks(size).for_each(|piece| reader.push(piece));
    reader.finish()
}

/// Proves: IB-8
#[test]
fn a_bounce_is_read() {
    let report = read(BOUNCE.as_bytes()).unwrap();
    assert_eq!(report.envelope_id, "01HQZZZZZZZZZZZZZZZZZZZZZZ");
    assert_eq!(report.reporting_mta, "dns; mail.example.org");
    assert_eq!(report.original_message_id, "<sent@example.org>");
    assert_eq!(report.references, ["<first@example.org>", "<oldest@example.org>"]);
    let [bob, eve] = report.recipients.as_slice() else { panic!("{report:?}") };
    assert_eq!(
        (bob.original.as_str(), bob.final_recipient.as_str()),
        ("bob@example.net", "bob@next.example.net")
    );
    assert_eq!((bob.action, bob.status.as_str()), (StatusAction::Failed, "5.1.1"));
    assert_eq!(bob.remote_mta, "dns; next.example.net");
    assert_eq!(
        bob.diagnostic,
        "smtp; 550 5.1.1 <bob@next.example.net>: Recipient address rejected"
    );
    assert_eq!((eve.action, eve.original.as_str()), (StatusAction::Delayed, ""));
    assert_eq!(report.message_class(), "REPORT.IPM.Note.NDR");
    for size in [1, 2, 3, 7, 100, 1000] {
        assert_eq!(in_pieces(BOUNCE.as_bytes(), size), Some(report.clone()), "{size}");
    }
}

/// Proves: IB-8
#[test]
fn the_class_follows_the_actions() {
    let class = |actions: &[&str]| {
        let groups: String = actions
            .iter()
            .map(|action| {
                format!("\nFinal-Recipient: rfc822; a@b\nAction: {action}\nStatus: 2.0.0\n")
            })
            .collect();
        let message = format!(
            "Content-Type: multipart/report; REPORT-TYPE=\"Delivery-Status\"; boundary=b\n\n--b\n\n\
             words\n--b\nContent-Type: MESSAGE/delivery-status\n\nReporting-MTA: dns; x\n{groups}\n--b--\n"
        );
        read(message.as_bytes()).map(|report| report.message_class())
    };
    let named = |name: &str| Some(format!("REPORT.IPM.Note.{name}"));
    assert_eq!(class(&["delivered"]), named("DR"));
    assert_eq!(class(&["relayed"]), named("DR"));
    assert_eq!(class(&["expanded", "delayed"]), named("DR"));
    assert_eq!(class(&["delayed"]), named("Delayed"));
    assert_eq!(class(&["delivered", "Failed"]), named("NDR"));
    assert_eq!(class(&["whatever"]), None);
    assert_eq!(class(&[]), None);
}

#[test]
fn what_is_no_notification_is_not_looked_at() {
    let silent = [
        "Subject: x\r\n\r\n".to_owned(),
        "Subject: x\r\n\r\nContent-Type: multipart/report; report-type=delivery-status\r\n\r\n"
            .to_owned(),
        "Content-Type: text/plain; x=\"multipart/report\"\r\n\r\n".to_owned(),
        "Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n"
            .to_owned(),
        "Content-Type: multipart/reports; boundary=b\r\n\r\n".to_owned(),
        format!("X: {}\r\n\r\n", "y".repeat(100_000)),
    ];
    for message in silent {
        assert!(StatusReportReader::for_header(message.as_bytes()).is_none(), "{message:.200}");
    }
    // It announces one and has none.
    let empty = "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nx\n--b--\n";
    assert_eq!(read(empty.as_bytes()), None);
    let boundless = "Content-Type: multipart/report; report-type=delivery-status\n\nx\n";
    assert_eq!(read(boundless.as_bytes()), None);
}

#[test]
fn parts_may_be_encoded_and_international() {
    let fields = "Reporting-MTA: dns; x\r\n\r\nOriginal-Recipient: utf-8; j\\x{FC}+1@ex\u{e4}mple.org\r\n\
                  Final-Recipient: utf-8; \\x{zz}\\x{110000}j\\x{7}\r\nAction: failed\r\nStatus: 5.1.1\r\n";
    let base64 = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(fields)
    };
    let quoted =
        fields.replace('=', "=3D").replace("dns; x", "dns;=20=\r\nx").replace('\u{e4}', "=C3=A4");
    for (encoding, body) in
        [("base64", base64), ("quoted-printable", quoted), ("8bit", fields.to_owned())]
    {
        let message = format!(
            "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\n\
             --b\r\nContent-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n\
             {body}\r\n--b\r\nContent-Type: message/global-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
             Message-ID:=20<a=3Db@x>\r\n\r\n--b--\r\n"
        );
        let report = read(message.as_bytes()).unwrap();
        let recipient = &report.recipients[0];
        assert_eq!(recipient.original, "j\u{fc}+1@ex\u{e4}mple.org", "{encoding}");
        assert_eq!(recipient.final_recipient, "\\x{zz}\\x{110000}j\\x{7}");
        assert_eq!(report.original_message_id, "<a=b@x>");
        assert_eq!(report.reporting_mta, "dns; x");
    }
}

/// Proves: IB-8
#[test]
fn hostile_notifications_are_bounded() {
    let head = "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\
                Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n";
    let group = "Final-Recipient: rfc822; a@b\r\nAction: failed\r\nX: y\r\n\r\n";
    let many = format!("{head}{}", group.repeat(40_000));
    let report = in_pieces(many.as_bytes(), 8_000).unwrap();
    assert_eq!(report.recipients.len(), MAX_RECIPIENTS);
    assert!(report.more > 0 && report.more < 2_000, "{}", report.more);
    let long =
        format!("{head}Final-Recipient: rfc822; {}\r\nAction: failed\r\n", "x".repeat(2_000_000));
    assert!(read(long.as_bytes()).is_none(), "the rest of the group lies behind what is kept");
    let wide = format!(
        "{head}Final-Recipient: rfc822; a@b\r\nAction: failed\r\nDiagnostic-Code: smtp; {}\r\n",
        "\u{e9}\t".repeat(2_000)
    );
    assert!(read(wide.as_bytes()).unwrap().recipients[0].diagnostic.chars().count() <= 500);
    // Nesting without end, references without end.
    let mut nested = format!("References: {}\r\n", "<a@b> ".repeat(50_000));
    for level in 0..500 {
        nested += &format!(
            "Content-Type: multipart/report; report-type=delivery-status; boundary=b{level}\r\n\r\n--b{level}\r\n"
        );
    }
    assert_eq!(read(nested.as_bytes()), None);
    let mut messages = String::from(head);
    messages += group;
    messages += "--b\r\n";
    messages += &"Content-Type: message/rfc822\r\n\r\n".repeat(5_000);
    let report = read(messages.as_bytes()).unwrap();
    assert_eq!(report.original_message_id, "");
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.+=!#$%&'*/?^_`{|}~-]{1,20}@[a-z]{1,10}\\.org",
        "[a-zäöü+=\\\\]{1,10}@[a-zé]{1,10}\\.org",
        Just("\"a; b\"@example.org".to_owned()),
    ]
}

fn reported() -> impl Strategy<Value = ReportedRecipient> {
    (address(), "\\PC{0,30}", "[245]\\.[0-9]\\.[0-9]{1,2}", "[ -~]{0,120}", "[a-z.]{0,20}")
        .prop_map(|(address, name, status, diagnostic, remote_mta)| ReportedRecipient {
            mailbox: Mailbox::new(name, address),
            status,
            diagnostic,
            remote_mta,
            time: SysTime::from_millis(1_700_000_000_000),
        })
}

fn original() -> impl Strategy<Value = (String, Vec<u8>)> {
    ("[a-zA-Z0-9.=+-]{1,30}@[a-z]{1,10}", "\\PC{0,40}", "[ -~\\r\\n-]{0,300}").prop_map(
        |(id, subject, body)| {
            let text = format!("Subject: {subject}\r\nMessage-ID: <{id}>\r\n\r\n{body}\r\n");
            (format!("<{id}>"), text.into_bytes())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// Proves: SP-4, IB-8
    #[test]
    fn our_own_reports_are_read_as_they_were_meant(
        recipients in proptest::collection::vec(reported(), 1..4),
        (id, original) in original(),
        delivered: bool,
        whole: bool,
        size in 1_usize..200,
    ) {
        let action = if delivered { ReportAction::Delivered } else { ReportAction::Failed };
        let fields = ReportFields {
            action,
            host: "box.example.org".into(),
            from: Mailbox::new("Mail Delivery System", "mailer-daemon@box.example.org"),
            to: Mailbox::new("Ann", "ann@example.org"),
            date: SysTime::from_millis(1_700_000_000_000),
            message_id: "<r1@box.example.org>".into(),
            subject: "hello".into(),
            original_id: id.clone(),
            envelope_id: "01HQZZZZZZZZZZZZZZZZZZZZZZ".into(),
            submitted: SysTime::from_millis(1_600_000_000_000),
            will_retry_until: None,
            recipients: recipients.clone(),
        };
        let returned = if whole { Original::Whole(&original) } else { Original::Beginning(&original) };
        let bytes = report(&fields, returned);
        let read = in_pieces(&bytes, size).unwrap();
        prop_assert_eq!(&read.envelope_id, "01HQZZZZZZZZZZZZZZZZZZZZZZ");
        prop_assert_eq!(&read.reporting_mta, "dns; box.example.org");
        prop_assert_eq!(&read.original_message_id, &id);
        prop_assert_eq!(&read.references, &[id]);
        prop_assert_eq!(read.recipients.len(), recipients.len());
        for (read, meant) in read.recipients.iter().zip(&recipients) {
            prop_assert_eq!(&read.final_recipient, &meant.mailbox.address);
            prop_assert_eq!(&read.original, &meant.mailbox.address);
            let action = if delivered { StatusAction::Delivered } else { StatusAction::Failed };
            prop_assert_eq!(read.action, action);
            let words: Vec<&str> = meant.diagnostic.split_whitespace().collect();
            if !words.is_empty() {
                let (kind, text) = read.diagnostic.split_once("; ").unwrap();
                prop_assert!(["smtp", "x-postrider"].contains(&kind), "{}", kind);
                prop_assert_eq!(text, words.join(" "));
            }
        }
        let class = if delivered { "REPORT.IPM.Note.DR" } else { "REPORT.IPM.Note.NDR" };
        prop_assert_eq!(read.message_class(), class);
        // And another reader sees the three parts.
        let parsed = MessageParser::default().parse(&bytes).unwrap();
        let kind = parsed.content_type().unwrap();
        prop_assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
        let has = |kinds: &[(&str, &str)]| parsed.parts.iter().any(|part| {
            kinds.iter().any(|(main, sub)| part.is_content_type(main, sub))
        });
        prop_assert!(has(&[("text", "plain")]) && has(&[("message", "delivery-status")]));
        prop_assert!(has(&[
            ("message", "rfc822"),
            ("message", "global"),
            ("text", "rfc822-headers"),
            ("message", "global-headers"),
        ]));
    }

    #[test]
    fn anything_at_all_is_read_without_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
        lines in proptest::collection::vec(
            prop_oneof![
                Just("--b\r\n"), Just("--b--\r\n"), Just("\r\n"), Just("Action: failed\r\n"),
                Just("Content-Type: message/delivery-status\r\n"), Just(" folded\r\n"),
                Just("Content-Type: message/rfc822\r\n"), Just("Final-Recipient: ;<\r\n"),
                Just("Content-Transfer-Encoding: base64\r\n"), Just("=\r\n"), Just("QUJD=\r\n"),
                Just("Content-Type: multipart/report; boundary=b\r\n"), Just("Message-ID: <\r\n"),
            ],
            0..60,
        ),
        size in 1_usize..50,
    ) {
        let head = b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n";
        let wild = [head.as_slice(), &bytes].concat();
        let tame = [head.as_slice(), lines.concat().as_bytes()].concat();
        for message in [wild, tame] {
            prop_assert_eq!(read(&message), in_pieces(&message, size));
        }
    }
}
