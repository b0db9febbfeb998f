//! Users of this machine.

use std::io::{BufRead, BufReader, Read};

/// The largest part of the table of users that is looked through, in octets.
const MOST_READ: u64 = 16 * 1024 * 1024;

/// The login name of the user of this process; see [`login_name_of`]. What the environment says
/// anybody can set.
pub(crate) fn login_name() -> String {
    login_name_of(rustix::process::getuid().as_raw())
}

/// The login name of a user, or the number of one that the table of users does not know.
pub(crate) fn login_name_of(number: u32) -> String {
    let table = std::fs::File::open("/etc/passwd").ok();
    let named = table.and_then(|file| name_of(BufReader::new(file.take(MOST_READ)), number));
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
