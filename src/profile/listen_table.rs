//! `[listen]`: where programs of this machine may hand over mail by SMTP.

use std::net::SocketAddr;

use super::load::Surroundings;
use super::reader::{Found, TableReader};
use super::server_table::read_login_parts;
use super::{ListenProfile, Login};

pub(super) fn read_listen(
    mut table: TableReader<'_>,
    surroundings: &Surroundings<'_>,
) -> Found<ListenProfile> {
    let Some(smtp) = table.text("smtp")? else {
        return Err(table.missing("smtp", "write smtp = \"127.0.0.1:2587\""));
    };
    let smtp = smtp.read(|text| {
        let wrong =
            "it must be an address and a port, such as \"127.0.0.1:2587\" or \"[::1]:2587\"";
        text.parse::<SocketAddr>().map_err(|_| wrong)
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
    if !smtp.value.ip().is_loopback() && !is_guarded {
        return Err(smtp.problem(
            "others than this machine could send mail in your name; use a loopback address, or \
             write user, password and insecure = true to have it so",
        ));
    }
    table.finish()?;
    Ok(ListenProfile { smtp: smtp.value, login })
}
