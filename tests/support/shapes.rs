//! Messages of every shape a user's programs make: as message objects and, in `shapes_raw`, as
//! bytes.

use postrider::mapi::{Attachment, MessageData, PropList, PropTag, Recipient, RecipientType, tags};
use postrider::session::RawEnvelope;

use crate::shapes_raw;

/// How many ordinary users there are beside ann and bob, for messages to many.
pub(crate) const CROWD: usize = 20;

/// What is handed to the session.
#[derive(Clone, Debug)]
pub(crate) enum Letter {
    Object(MessageData),
    Raw(RawEnvelope, Vec<u8>),
}

/// How the bytes that arrive differ from those that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fidelity {
    /// In nothing.
    Exact,
    /// No server takes them as they are: the encoding differs, what it encodes does not.
    Reencoded,
}

/// A message and what becomes of it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) letter: Letter,
    /// The bytes in the queue, where they can be told without composing a message.
    pub(crate) stored: Option<Vec<u8>>,
    pub(crate) fidelity: Fidelity,
    /// How many copies go to ann and bob together.
    pub(crate) copies: usize,
    /// Addresses that no reader may find anywhere.
    pub(crate) hidden: Vec<String>,
}

/// All shapes, in turn from ann to bob and from bob to ann.
pub(crate) fn all(domain: &str) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (number, letter) in objects().into_iter().enumerate() {
        shapes.push(letter.address(domain, number));
    }
    for (number, raw) in shapes_raw::raws().into_iter().enumerate() {
        let (from, to) = pair(domain, number);
        shapes.push(raw.address(domain, from, to));
    }
    shapes
}

fn pair(domain: &str, number: usize) -> (String, String) {
    let (ann, bob) = (format!("ann@{domain}"), format!("bob@{domain}"));
    if number.is_multiple_of(2) { (ann, bob) } else { (bob, ann) }
}

/// A message object before it is addressed.
struct Draft {
    name: &'static str,
    message: MessageData,
    also: Also,
}

/// Who gets it beside the one it is for.
enum Also {
    Nobody,
    Cc,
    Bcc,
    Crowd(RecipientType),
}

impl Draft {
    fn address(mut self, domain: &str, number: usize) -> Shape {
        let (from, to) = pair(domain, number);
        let mut recipients = vec![Recipient::smtp(0, RecipientType::To, to.as_str())];
        let (mut hidden, mut copies) = (Vec::new(), 1);
        match self.also {
            Also::Nobody => {}
            Also::Cc => {
                recipients.push(Recipient::smtp(1, RecipientType::Cc, from.as_str()));
                copies = 2;
            }
            Also::Bcc => {
                let blind = format!("user0@{domain}");
                recipients.push(Recipient::smtp(1, RecipientType::Bcc, blind.as_str()));
                hidden.push(blind);
            }
            Also::Crowd(kind) => {
                for (row, address) in (1..).zip(crowd(domain)) {
                    if kind == RecipientType::Bcc {
                        hidden.push(address.clone());
                    }
                    recipients.push(Recipient::smtp(row, kind, address));
                }
            }
        }
        self.message.props.set(tags::SENDER_EMAIL_ADDRESS, from);
        // Names given to the draft's own rows stay.
        for (row, named) in recipients.iter_mut().zip(&self.message.recipients) {
            row.display_name.clone_from(&named.display_name);
        }
        self.message.recipients = recipients;
        let letter = Letter::Object(self.message);
        let fidelity = Fidelity::Exact;
        Shape { name: self.name, letter, stored: None, fidelity, copies, hidden }
    }
}

/// Addresses of the ordinary users.
pub(crate) fn crowd(domain: &str) -> Vec<String> {
    (0..CROWD).map(|number| format!("user{number}@{domain}")).collect()
}

fn draft(name: &'static str, subject: &str, body: &str) -> Draft {
    let props = PropList::new().with(tags::SUBJECT, subject).with(tags::BODY, body);
    Draft { name, message: MessageData { props, ..MessageData::default() }, also: Also::Nobody }
}

impl Draft {
    fn with(mut self, tag: PropTag, text: &str) -> Self {
        self.message.props.set(tag, text);
        self
    }

    fn attach(mut self, filename: &str, mime_tag: &str, data: impl Into<Vec<u8>>) -> Self {
        self.message.attachments.push(Attachment {
            filename: filename.to_owned(),
            mime_tag: mime_tag.to_owned(),
            content_id: String::new(),
            data: data.into(),
        });
        self
    }

    fn inline(mut self, content_id: &str, data: &[u8]) -> Self {
        self.message.attachments.push(Attachment {
            filename: "dot.png".to_owned(),
            mime_tag: "image/png".to_owned(),
            content_id: content_id.to_owned(),
            data: data.to_vec(),
        });
        self
    }

    fn to_named(mut self, name: &str) -> Self {
        self.message.recipients.push(Recipient::smtp(0, RecipientType::To, "").named(name));
        self
    }

    fn also(mut self, also: Also) -> Self {
        self.also = also;
        self
    }
}

/// A picture of one pixel.
const PIXEL: &[u8] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\
    \x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\rIDATx\x9cc\x00\x01\x00\x00\x05\x00\x01\r\n-\xb4\
    \x00\x00\x00\x00IEND\xaeB`\x82";

fn octets(count: usize) -> Vec<u8> {
    (0..=255_u8).cycle().take(count).collect()
}

fn objects() -> Vec<Draft> {
    let mut drafts = texts();
    drafts.extend(headers());
    drafts.extend(attachments());
    drafts.push(draft("copy", "Cc", "to both\n").also(Also::Cc));
    drafts.push(draft("blind copy", "Bcc", "and to one unseen\n").also(Also::Bcc));
    drafts.push(draft("to many", "crowd", "to all\n").also(Also::Crowd(RecipientType::To)));
    drafts.push(draft("copies to many", "crowd", "to all\n").also(Also::Crowd(RecipientType::Cc)));
    drafts.push(draft("blind copies", "crowd", "hush\n").also(Also::Crowd(RecipientType::Bcc)));
    drafts
}

fn texts() -> Vec<Draft> {
    let long = |length: usize| "0123456789".chars().cycle().take(length).collect::<String>();
    vec![
        draft("plain", "Plain", "Hello Bob,\n\nthis is plain.\n"),
        draft("empty body", "Nothing below", ""),
        draft("only line ends", "Blank", "\n\n\n"),
        draft("no final line end", "Cut off", "the last line"),
        draft("line of 998", "Just fits", &format!("{}\n", long(998))),
        draft("line of 999", "Just too long", &format!("{}\n", long(999))),
        draft("line of 20000", "Long", &format!("{}\nshort\n", long(20_000))),
        draft("dots", "Dots", ".\n..\n...\n. x\n.x\n\n.\n"),
        draft("from lines", "From", "From here on\n>From there\n"),
        draft("blanks at line ends", "Blanks", "one \ntwo\t\n \n\t\n"),
        draft("looks encoded", "=?utf-8?q?not_really?=", "a=3Db =\nc\n"),
        draft("umlauts", "Text", "Füße, Größe, naïve façade\n"),
        draft("far away", "Text", "日本語のテキスト 🚂🚃🚃 שלום مرحبا\n"),
        draft("1 MB of text", "Big", &"All work and no play.\n".repeat(48_000)),
    ]
}

fn headers() -> Vec<Draft> {
    vec![
        draft("no subject", "", "The subject is empty.\n"),
        draft("subject beyond ASCII", "Grüße aus Zürich — 東京 🚂", "x\n"),
        draft("long subject", &"words and more words ".repeat(60), "x\n"),
        draft("long subject beyond ASCII", &"übermäßig lang ".repeat(60), "x\n"),
        draft("subject without blanks", &"x".repeat(900), "x\n"),
        draft("sender's name", "Name", "x\n").with(tags::SENDER_NAME, "Änne \"A.\" Example, Ph.D."),
        draft("recipient's name", "Name", "x\n").to_named("Ex, Ample (\"Böb\") @home"),
        draft("an answer", "Re: Plain", "yes\n")
            .with(tags::IN_REPLY_TO_ID, "<one@example.test>")
            .with(tags::INTERNET_REFERENCES, "<zero@example.test> <one@example.test>"),
    ]
}

fn attachments() -> Vec<Draft> {
    let html = "<p>Grüße <img src=\"cid:dot@example.test\"></p>\r\n";
    vec![
        draft("attachment", "File", "see below\n").attach(
            "data.bin",
            "application/octet-stream",
            octets(1000),
        ),
        draft("file name beyond ASCII", "File", "x\n").attach(
            "übersicht – 表.pdf",
            "application/pdf",
            octets(300),
        ),
        draft("long file name", "File", "x\n").attach(
            &format!("{} \"final; (2)\".txt", "lång".repeat(40)),
            "text/plain",
            "text\n",
        ),
        draft("empty attachment", "File", "x\n").attach("empty.txt", "text/plain", ""),
        draft("text with dots attached", "File", "x\n").attach(
            "dots.txt",
            "text/plain",
            ".\n..\r\n.\r.\n",
        ),
        draft("three attachments", "Files", "x\n")
            .attach("same name", "image/png", PIXEL)
            .attach("same name", "image/png", PIXEL)
            .attach("", "", octets(10)),
        draft("1 MB attached", "File", "x\n").attach("big", "application/zip", octets(1 << 20)),
        draft("message attached", "Fwd", "x\n").attach(
            "one.eml",
            "message/rfc822",
            "Subject: inside\r\nFrom: a@example.test\r\n\r\ninside\r\n",
        ),
        draft("HTML", "HTML", "").with(tags::HTML, html),
        draft("HTML and text", "HTML", "Greetings\n").with(tags::HTML, html),
        draft("HTML, text, picture", "HTML", "Greetings\n")
            .with(tags::HTML, html)
            .inline("dot@example.test", PIXEL),
        draft("everything", "Ünder all", "Greetings\n")
            .with(tags::HTML, html)
            .inline("dot@example.test", PIXEL)
            .attach("notes ü.txt", "text/plain", "naïve\n.\n"),
    ]
}
