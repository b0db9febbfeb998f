//! Dovecot and Postfix as a mail provider, for trying things by hand: prints where they are, and ends
//! when its standard input does.
//!
//! `cargo run -p realservers --example provider`

use std::error::Error;
use std::io::Read;

use realservers::{Dovecot, DovecotOptions, Postfix, PostfixOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let options = DovecotOptions::default();
    let users = options.users.clone();
    let dovecot = Dovecot::start(options)?;
    let postfix = Postfix::start(&dovecot, PostfixOptions::default())?;
    println!("imap+starttls://{}", dovecot.imap_address());
    println!("imaps://{}", dovecot.imaps_address());
    println!("smtp+starttls://{}", postfix.submission_address());
    println!("smtps://{}", postfix.submissions_address());
    println!("lmtp {}", dovecot.lmtp_address());
    println!("ca-file {}", dovecot.certificates().authority_file().display());
    for user in users {
        println!("user {} password {:?}", dovecot.address_of(&user.name), user.password);
    }
    // Until whoever started this has seen enough.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
