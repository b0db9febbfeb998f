//! Finds a secret in a text, in every form in which it is likely to leak.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// A secret and how it looks in disguise.
pub(crate) struct Detector {
    forms: Vec<(String, String)>,
}

impl Detector {
    /// For the secret of a user.
    pub(crate) fn new(user: &str, secret: &str) -> Self {
        let mut forms = vec![
            ("as it is".to_owned(), secret.to_owned()),
            ("as Debug shows a text".to_owned(), inner(&format!("{secret:?}"))),
            ("as Debug shows its bytes".to_owned(), inner(&format!("{:?}", secret.as_bytes()))),
            ("escaped as bytes".to_owned(), secret.as_bytes().escape_ascii().to_string()),
            ("in hex".to_owned(), hex(secret, "")),
            ("in capital hex".to_owned(), hex(secret, "").to_uppercase()),
            ("in hex with spaces".to_owned(), hex(secret, " ")),
            ("in an URL".to_owned(), percent(secret)),
        ];
        let payloads = [
            secret.to_owned(),
            format!("\0{user}\0{secret}"),
            format!("{user}\0{user}\0{secret}"),
            format!("auth=Bearer {secret}\x01\x01"),
        ];
        for (number, payload) in payloads.iter().enumerate() {
            for alignment in 0..3 {
                for (name, engine) in [("", &STANDARD), ("URL-safe ", &URL_SAFE)] {
                    let what = format!("in {name}base64, payload {number}, alignment {alignment}");
                    forms.push((what, base64_core(engine, alignment, payload.as_bytes())));
                }
            }
        }
        Detector { forms }
    }

    /// The forms in which the secret is in the text.
    pub(crate) fn found(&self, text: &str) -> Vec<&str> {
        let found = self.forms.iter().filter(|(_, form)| text.contains(form));
        found.map(|(what, _)| what.as_str()).collect()
    }

    /// Every form with its name.
    pub(crate) fn forms(&self) -> &[(String, String)] {
        &self.forms
    }
}

/// Without the quotes or brackets.
fn inner(shown: &str) -> String {
    shown[1..shown.len() - 1].to_owned()
}

fn hex(secret: &str, between: &str) -> String {
    let bytes: Vec<String> = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(between)
}

fn percent(secret: &str) -> String {
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    secret.bytes().map(escape).collect()
}

/// The characters that depend on nothing but the payload, when `before` other bytes are encoded
/// in front of it and any number behind.
fn base64_core(engine: &impl Engine, before: usize, payload: &[u8]) -> String {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(payload);
    let text = engine.encode(&bytes);
    let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    text[first..last].to_owned()
}

#[test]
fn every_alignment_is_found() {
    let detector = Detector::new("ann", "tr0ub4dor");
    for before in 0..7 {
        for behind in 0..7 {
            let bytes = [&vec![b'x'; before][..], b"tr0ub4dor", &vec![b'y'; behind]].concat();
            let text = format!("AUTH {} ok", STANDARD.encode(bytes));
            assert!(!detector.found(&text).is_empty(), "{before} {behind}");
        }
    }
    assert!(detector.found("nothing of the kind: YW5u ann 746f").is_empty());
}
