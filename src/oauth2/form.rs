//! Forms (`application/x-www-form-urlencoded`) that may hold secrets: wiped when dropped.

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// A form that is being filled in.
pub(super) struct Form(Zeroizing<String>);

impl Form {
    /// An empty one; `room` bytes can be added before the text has to move.
    pub(super) fn with_room(room: usize) -> Self {
        Form(Zeroizing::new(String::with_capacity(room)))
    }

    /// One more field.
    #[must_use]
    pub(super) fn field(mut self, name: &str, value: &str) -> Self {
        let longest = self.0.len() + name.len() + 3 * value.len() + 2;
        if longest > self.0.capacity() {
            // A string that grows by itself leaves its old text behind.
            let mut larger = Zeroizing::new(String::with_capacity(longest * 2));
            larger.push_str(&self.0);
            self.0 = larger;
        }
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for part in form_urlencoded::byte_serialize(value.as_bytes()) {
            self.0.push_str(part);
        }
        self
    }

    /// One more field with a secret.
    #[must_use]
    pub(super) fn secret(self, name: &str, value: &SecretString) -> Self {
        self.field(name, value.expose_secret())
    }

    /// The text.
    pub(super) fn finish(self) -> Zeroizing<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded() {
        let form = Form::with_room(0)
            .field("grant_type", "refresh_token")
            .secret("refresh_token", &SecretString::from("1//a b&c=d\u{e9}"))
            .field("empty", "");
        let expected = "grant_type=refresh_token&refresh_token=1%2F%2Fa+b%26c%3Dd%C3%A9&empty=";
        assert_eq!(*form.finish(), expected);
    }
}
