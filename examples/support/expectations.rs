//! What an example insists on before it exits with 0.

use std::error::Error;

/// An error with these words unless `condition` holds.
pub(crate) fn expect(condition: bool, otherwise: &str) -> Result<(), Box<dyn Error>> {
    if condition { Ok(()) } else { Err(otherwise.into()) }
}
