//! `-bv`: where mail for the recipients would go. Nothing is sent, and no server is asked.

use super::deliver::recipients;
use super::flags::Call;
use super::whereabouts::Found;
use crate::cli::console::Console;
use crate::cli::exit::{Exit, Failure};
use crate::cli::text::one_line;
use crate::mime::address;
use crate::session::address_rules;

/// `-bv`.
///
/// # Errors
/// 67 when an address cannot be one.
pub(super) fn verify(call: &Call, found: &Found, console: &mut Console<'_>) -> Result<(), Failure> {
    let rules = address_rules(&found.profile()?);
    let named = recipients(&call.operands)?;
    if named.is_empty() {
        return Err(Failure::usage("cannot verify: no recipients"));
    }
    let mut wrong = None;
    for recipient in named {
        for target in rules.resolve(&recipient) {
            let shown = one_line(&recipient);
            match address::check("recipient", &target) {
                Ok(()) => console.line(format_args!(
                    "{shown}... deliverable: mailer smtp, user {}",
                    one_line(&target)
                ))?,
                Err(error) => {
                    console.line(format_args!("{shown}... user unknown"))?;
                    wrong.get_or_insert(error);
                }
            }
        }
    }
    match wrong {
        None => Ok(()),
        Some(error) => Err(Failure::new(Exit::NoUser, error.to_string())),
    }
}
