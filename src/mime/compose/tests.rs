#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::mapi::{Attachment, PropList, SysTime};
use crate::mime::{Facts, Scanner};
use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

fn defaults() -> Defaults {
    Defaults {
        from: Some(Mailbox::new("Ann Example", "ann@example.org")),
        date: SysTime::from_millis(1_700_000_000_000),
        message_id: "<id@example.org>".to_owned(),
    }
}

fn message(props: PropList) -> MessageData {
    MessageData {
        props,
        recipients: vec![
            Recipient::smtp(0, RecipientType::To, "bob@example.org").named("Bob, the \"Builder\""),
            Recipient::smtp(1, RecipientType::Cc, "carl@example.org"),
            Recipient::smtp(2, RecipientType::Bcc, "secret@example.org"),
        ],
        attachments: Vec::new(),
    }
}

fn facts(bytes: &[u8]) -> Facts {
    let mut scanner = Scanner::new();
    scanner.push(bytes).unwrap();
    let facts = scanner.finish();
    assert!(!facts.needs_short_lines() && !facts.bare_lf && !facts.open_end);
    facts
}

#[test]
fn a_plain_message_is_as_simple_as_can_be() {
    let props = PropList::new().with(tags::SUBJECT, "Hello").with(tags::BODY, "Hi Bob,\nbye\n");
    let bytes = compose(&message(props), &defaults()).unwrap();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nFrom: Ann Example <ann@example.org>\r\n\
         To: \"Bob, the \\\"Builder\\\"\" <bob@example.org>\r\nCc: carl@example.org\r\n\
         Subject: Hello\r\nMessage-ID: <id@example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         Hi Bob,\r\nbye\r\n"
    );
}

/// Proves: OB-6
#[test]
fn properties_come_before_defaults_and_internal_ones_stay() {
    let props = PropList::new()
        .with(tags::SENT_REPRESENTING_EMAIL_ADDRESS, "boss@example.org")
        .with(tags::SENT_REPRESENTING_NAME, "The Böss")
        .with(tags::SENDER_EMAIL_ADDRESS, "sec@example.org")
        .with(tags::INTERNET_MESSAGE_ID, "<mine@x>")
        .with(tags::CLIENT_SUBMIT_TIME, SysTime::from_millis(0))
        .with(tags::IMPORTANCE, 2)
        .with(tags::PRIORITY, -1)
        .with(tags::SOURCE_MAILBOX, "hidden-box")
        .with(tags::ENVELOPE_SENDER, "hidden-env@example.org")
        .with(tags::DISPLAY_BCC, "hidden-bcc");
    let mut data = message(props);
    data.recipients.push(Recipient {
        p1: true,
        ..Recipient::smtp(3, RecipientType::To, "hidden-p1@example.org")
    });
    let text = String::from_utf8(compose(&data, &defaults()).unwrap()).unwrap();
    for wanted in [
        "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n",
        "<boss@example.org>\r\n",
        "Sender: sec@example.org\r\n",
        "Message-ID: <mine@x>\r\n",
        "Importance: high\r\nX-Priority: 1\r\n",
        "Priority: non-urgent\r\n",
    ] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    assert!(!text.contains("hidden") && !text.contains("secret"), "{text}");
}

#[test]
fn alternatives_related_and_attachments_nest() {
    let props = PropList::new().with(tags::BODY, "text ü").with(tags::HTML, "<img src=cid:pic>");
    let mut data = message(props);
    let inner = "Subject: inner\r\n\r\ngrün\r\n";
    data.attachments = vec![
        Attachment {
            filename: "pic.png".into(),
            mime_tag: "image/png".into(),
            content_id: "pic".into(),
            data: vec![0, 255, 13, 10],
        },
        Attachment {
            filename: "C:\\tmp\\Übersicht \"2024\".pdf".into(),
            mime_tag: "application/pdf".into(),
            content_id: String::new(),
            data: (0..=255).collect(),
        },
        Attachment {
            filename: "old.eml".into(),
            mime_tag: "message/rfc822".into(),
            content_id: String::new(),
            data: inner.into(),
        },
        Attachment { mime_tag: "multipart/evil".into(), ..Attachment::default() },
    ];
    let bytes = compose(&data, &defaults()).unwrap();
    assert_eq!(compose(&data, &defaults()).unwrap(), bytes);
    assert!(bytes.is_ascii());
    facts(&bytes);
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(parsed.body_text(0).unwrap(), "text ü");
    assert_eq!(parsed.body_html(0).unwrap(), "<img src=cid:pic>");
    let attached: Vec<_> = parsed.attachments().collect();
    assert_eq!(attached.len(), 4);
    assert_eq!(attached[0].content_id(), Some("pic"));
    assert_eq!(attached[0].contents(), [0, 255, 13, 10]);
    assert_eq!(attached[1].attachment_name(), Some("Übersicht \"2024\".pdf"));
    assert_eq!(attached[1].contents(), (0..=255).collect::<Vec<u8>>());
    let within = attached[2].message().unwrap();
    assert_eq!(within.subject(), Some("inner"));
    assert_eq!(attached[3].content_type().unwrap().ctype(), "application");
    let kinds: Vec<String> = parsed
        .parts
        .iter()
        .filter(|part| part.is_multipart())
        .map(|part| part.content_type().unwrap().subtype().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["mixed", "alternative", "related"]);
}

#[test]
fn injections_are_refused_by_name() {
    for text in ["a\r\nBcc: x@y", "a\nb", "a\rb", "a\0b"] {
        for (tag, name) in HEADER_TEXTS {
            let error = check_message(&message(PropList::new().with(tag, text))).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let mut data = message(PropList::new());
        data.recipients[1].display_name = text.to_owned();
        assert!(compose(&data, &defaults()).is_err());
        let mut data = message(PropList::new());
        data.recipients[2].address = format!("{text}@example.org");
        assert!(compose(&data, &defaults()).is_err());
        for part in [
            Attachment { filename: text.to_owned(), ..Attachment::default() },
            Attachment { mime_tag: text.to_owned(), ..Attachment::default() },
            Attachment { content_id: text.to_owned(), ..Attachment::default() },
        ] {
            let mut data = message(PropList::new());
            data.attachments.push(part);
            assert!(compose(&data, &defaults()).is_err());
        }
    }
    let id = PropList::new().with(tags::INTERNET_MESSAGE_ID, "no brackets");
    assert!(compose(&message(id), &defaults()).is_err());
    let nobody = Defaults { from: None, ..defaults() };
    assert_eq!(compose(&message(PropList::new()), &nobody), Err(MimeError::NoSender));
}

#[test]
fn endless_values_are_folded() {
    let ids: Vec<String> =
        (0..500).map(|n| format!("<{n}.{}@example.org>", "r".repeat(40))).collect();
    let props = PropList::new()
        .with(tags::INTERNET_REFERENCES, ids.join(" ").as_str())
        .with(tags::IN_REPLY_TO_ID, format!("<{}>", "i".repeat(2_000)).as_str())
        .with(tags::SUBJECT, "s".repeat(5_000).as_str());
    let mut data = message(props);
    data.recipients = (0..500)
        .map(|n| {
            Recipient::smtp(n, RecipientType::To, format!("r{n}@example.org"))
                .named("n".repeat(300))
        })
        .collect();
    let bytes = compose(&data, &defaults()).unwrap();
    let found = facts(&bytes);
    assert!(found.longest_line <= 100, "{}", found.longest_line);
    assert_eq!(found.header.to.len(), 500);
    assert_eq!(found.header.to[499].name, "n".repeat(300));
    assert_eq!(found.header.subject, "s".repeat(5_000));
    let parsed = MessageParser::default().parse(&bytes).unwrap();
    assert_eq!(parsed.references().as_text_list().unwrap().len(), 500);
    assert!(!String::from_utf8(bytes).unwrap().contains("In-Reply-To"));
}

/// Proves: OB-5
#[test]
fn blind_copies_only_leave_no_trace() {
    let mut data = message(PropList::new());
    data.recipients.retain(|row| row.kind == RecipientType::Bcc);
    let text = String::from_utf8(compose(&data, &defaults()).unwrap()).unwrap();
    assert!(text.contains("To: undisclosed-recipients:;\r\n") && !text.contains("secret"));
    assert!(text.ends_with("\r\n\r\n\r\n"), "an empty body is one empty line: {text:?}");
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        subject in "[ -~äöü€漢]{0,200}",
        body in "([ -~äöü€漢\t]{0,30}(\n|\r\n|))*",
        name in "[ -~äöü€漢]{0,60}",
        file in "[ -~äöü€漢]{1,80}",
        data in prop::collection::vec(any::<u8>(), 0..300),
        html in any::<bool>(),
        attach in any::<bool>(),
        inline in any::<bool>(),
    ) {
        let mut props = PropList::new()
            .with(tags::SUBJECT, subject.as_str())
            .with(tags::BODY, body.as_str())
            .with(tags::SENDER_EMAIL_ADDRESS, "x@example.org")
            .with(tags::SENDER_NAME, name.as_str());
        if html {
            props.set(tags::HTML, "<p>ü</p>");
        }
        let mut message = message(props);
        if attach {
            message.attachments.push(Attachment {
                filename: file.clone(),
                mime_tag: "application/x-y".into(),
                content_id: if inline { "c".into() } else { String::new() },
                data: data.clone(),
            });
        }
        let bytes = compose(&message, &defaults()).unwrap();
        prop_assert!(bytes.is_ascii());
        let found = facts(&bytes);
        prop_assert!(found.longest_line <= 998);
        prop_assert_eq!(found.header.subject.trim(), subject.trim());
        let squeeze = |text: &str| text.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        prop_assert_eq!(squeeze(&found.header.from[0].name), squeeze(&name));
        prop_assert_eq!(&found.header.from[0].address, "x@example.org");
        let addresses: Vec<_> = found.header.recipients().into_iter().map(|m| m.address).collect();
        prop_assert_eq!(addresses, ["bob@example.org", "carl@example.org"]);
        let parsed = MessageParser::default().parse(&bytes).unwrap();
        prop_assert_eq!(parsed.subject().unwrap_or_default().trim(), subject.trim());
        let read = parsed.text_bodies().next().unwrap().text_contents().unwrap().replace("\r\n", "\n");
        let wanted = body.replace("\r\n", "\n");
        prop_assert_eq!(read.trim_end_matches('\n'), wanted.trim_end_matches('\n'));
        if attach {
            let part = parsed.attachments().next().unwrap();
            prop_assert_eq!(part.contents(), data);
            let base = file.rsplit(['/', '\\']).next().unwrap();
            let wanted = if base.is_empty() { &file } else { base };
            prop_assert_eq!(part.attachment_name().unwrap().trim(), wanted.trim());
        }
    }
}
