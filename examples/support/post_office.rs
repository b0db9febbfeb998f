//! A profile for a mail server in this process.

use std::error::Error;
use std::path::Path;

use postoffice::{Listener, PostOffice};
use postrider::profile::{Environment, Profile};

/// A profile like one a user writes: the account `ann` of `office`, its folders below `folder`.
pub(crate) fn profile(
    name: &str,
    folder: &Path,
    office: &PostOffice,
) -> Result<Profile, Box<dyn Error>> {
    std::fs::write(folder.join("ca.pem"), office.ca_pem())?;
    let text = format!(
        r#"
        [[transport]]
        name = "office"
        identity = "Ann Example <ann@example.org>"
          [transport.smtp]
          host = "localhost"
          port = {smtp}
          user = "ann"
          password = "secret"
          ca_file = "ca.pem"
          [transport.imap]
          host = "localhost"
          port = {imap}
          ca_file = "ca.pem"
        [store]
        maildir = "{maildir}"
        "#,
        smtp = office.port(Listener::Smtps),
        imap = office.port(Listener::Imaps),
        maildir = folder.join("Mail").display(),
    );
    let file = folder.join(format!("{name}.toml"));
    Ok(Profile::parse(name, &text, &file, &Environment::empty())?)
}
