//! `[listen]`: where programs of this machine may hand over mail by SMTP.

use super::load::Surroundings;
use super::reader::{Found, TableReader};
use super::server_table::read_login_parts;
use super::store_table::absolute;
use super::{ListenPlace, ListenProfile, Login};

/// `sun_path` of Linux with its end; other systems have a little less, and say so themselves.
const LONGEST_SOCKET: usize = 108;

pub(super) fn read_listen(
    mut table: TableReader<'_>,
    surroundings: &Surroundings<'_>,
) -> Found<ListenProfile> {
    let Some(smtp) = table.text("smtp")? else {
        return Err(table.missing("smtp", "write smtp = \"127.0.0.1:2587\""));
    };
    let smtp = smtp.read(|text| {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = absolute(path, surroundings.environment)?;
            // A socket's name has to fit into an address of the system (unix(7)).
            return match path.as_os_str().len() < LONGEST_SOCKET {
                true => Ok(ListenPlace::Unix(path)),
                false => Err(format!("the path must have less than {LONGEST_SOCKET} bytes")),
            };
        }
        let wrong = "it must be an address and a port, such as \"127.0.0.1:2587\" or \
                     \"[::1]:2587\", or \"unix:\" and a path";
        text.parse().map(ListenPlace::Tcp).map_err(|_| wrong.to_owned())
    })?;
    let parts = read_login_parts(&mut table, surroundings)?;
    let login = match (parts.user, parts.password) {
        (Some(user), Some(password)) => Some(Login { user: user.value, password: password.value }),
        (None, None) => None,
        (Some(user), None) => return Err(user.problem("a password must go with it")),
        (None, Some(password)) => return Err(password.problem("a user must go with it")),
    };
    let insecure = table.switch("insecure")?.unwrap_or(false);
    let is_guarded = insecure && login.is_some();
    let is_local = match &smtp.value {
        ListenPlace::Tcp(address) => address.ip().is_loopback(),
        ListenPlace::Unix(_) => true,
    };
    if !is_local && !is_guarded {
        return Err(smtp.problem(
            "others than this machine could send mail in your name; use a loopback address, or \
             write user, password and insecure = true to have it so",
        ));
    }
    table.finish()?;
    Ok(ListenProfile { smtp: smtp.value, login })
}
