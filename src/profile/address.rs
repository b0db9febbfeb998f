//! Addresses of the profile and of the command line.

use lettre::message::Mailbox;

use super::IdentityProfile;

/// Reads `Ann Example <ann@example.org>` or `ann@example.org`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_mailbox(text: &str) -> Result<IdentityProfile, String> {
    if text.chars().any(char::is_control) {
        return Err("an address has no control characters or line ends".into());
    }
    let mailbox: Mailbox = text.trim().parse().map_err(|_| wrong(text))?;
    let address = mailbox.email.to_string();
    // The domain may be one label (a machine's own name) but not empty; local part and total
    // length as RFC 5321 section 4.5.3.1.
    if mailbox.email.user().len() > 64 || address.len() > 254 {
        return Err(format!("the address {address} is longer than RFC 5321 allows"));
    }
    Ok(IdentityProfile { name: mailbox.name.unwrap_or_default(), address })
}

/// Reads several of them, separated by commas.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_mailboxes(text: &str) -> Result<Vec<IdentityProfile>, String> {
    split_list(text).into_iter().map(parse_mailbox).collect()
}

/// Splits at commas outside of quotes and angle brackets.
fn split_list(text: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracketed = true,
            '>' if !quoted => bracketed = false,
            ',' if !quoted && !bracketed => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

/// Reads an address without a name.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_address(text: &str) -> Result<String, String> {
    let parsed = parse_mailbox(text)?;
    if !parsed.name.is_empty() || text.contains('<') {
        return Err(format!("{text:?} must be an address alone, such as ann@example.org"));
    }
    Ok(parsed.address)
}

fn wrong(text: &str) -> String {
    format!("{text:?} is not an address such as ann@example.org or \"Ann <ann@example.org>\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        let full = parse_mailbox("Ann Example <ann@example.org>").unwrap();
        assert_eq!((full.name.as_str(), full.address.as_str()), ("Ann Example", "ann@example.org"));
        let bare = parse_mailbox(" ann@example.org ").unwrap();
        assert_eq!((bare.name.as_str(), bare.address.as_str()), ("", "ann@example.org"));
        assert_eq!(parse_mailbox("Ännchen <ann@example.org>").unwrap().name, "Ännchen");
        assert_eq!(
            parse_mailbox("\"Example, Ann\" <ann@example.org>").unwrap().name,
            "Example, Ann"
        );
        assert_eq!(parse_address("ann@example.org").unwrap(), "ann@example.org");
        assert_eq!(parse_address("root@localhost").unwrap(), "root@localhost");
    }

    #[test]
    fn reads_lists() {
        let list = parse_mailboxes("\"Example, \\\"A\" <a@example.org>, b@example.org").unwrap();
        let addresses: Vec<&str> = list.iter().map(|one| one.address.as_str()).collect();
        assert_eq!(addresses, ["a@example.org", "b@example.org"]);
        assert_eq!(list.first().map(|one| one.name.as_str()), Some("Example, \"A"));
        assert!(parse_mailboxes("a@example.org,").is_err());
        assert!(parse_mailboxes("a@example.org, nonsense").is_err());
    }

    #[test]
    fn refuses_what_is_no_address() {
        let long = format!("{}@example.org", "x".repeat(65));
        for text in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@example.org\r\nBcc: x@y.z",
            "a b@example.org",
            "ann@example.org\0",
            "<ann@example.org",
            &long,
        ] {
            assert!(parse_mailbox(text).is_err(), "{text:?}");
        }
        assert!(parse_address("Ann <ann@example.org>").is_err());
    }
}
