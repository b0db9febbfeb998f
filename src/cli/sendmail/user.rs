//! Who called.

use std::io::{BufRead, BufReader};

/// The largest part of the table of users that is looked through, in octets.
const MOST_READ: u64 = 16 * 1024 * 1024;

/// The login name of the user of this process, or the number of one that the table of users does
/// not know. What the environment says anybody can set.
pub(super) fn login_name() -> String {
    let number = rustix::process::getuid().as_raw();
    let named = std::fs::File::open("/etc/passwd").ok().and_then(|file| {
        name_of(BufReader::new(std::io::Read::take(file, MOST_READ)), number)
    });
    named.unwrap_or_else(|| number.to_string())
}

fn name_of(table: impl BufRead, number: u32) -> Option<String> {
    table.lines().map_while(Result::ok).find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, found) = (fields.next()?, fields.next()?, fields.next()?);
        (found.parse() == Ok(number) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let table = "root:x:0:0::/root:/bin/sh\n\nbroken\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n";
        assert_eq!(name_of(table.as_bytes(), 1000).as_deref(), Some("ann"));
        assert_eq!(name_of(table.as_bytes(), 0).as_deref(), Some("root"));
        assert_eq!(name_of(table.as_bytes(), 7), None);
        assert!(!login_name().is_empty());
    }
}
