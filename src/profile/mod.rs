//! Profiles: from TOML to checked settings, passwords on demand, and the folders they live in.
//!
//! A [`Profile`] is read whole and checked whole: what is unknown, missing or impossible is an
//! error with file, line and key, before anything is connected or opened.

mod address;
mod catalog;
mod environment;
mod error;
mod listen_table;
mod load;
mod model;
mod paths;
mod private;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod reader;
mod secret;
mod sections;
mod server_table;
mod server_url;
mod store_table;
mod template;
mod transport_table;

pub use address::{parse_address, parse_mailbox, parse_mailboxes};
pub use catalog::{Catalog, CatalogEntry};
pub use environment::Environment;
pub use error::ProfileError;
pub use model::{
    AfterProfile, HandProfile, IdentityProfile, ImapProfile, InDoubtProfile, ListenProfile, Login,
    Profile, QueueProfile, ReceiverProfile, SentProfile, SmtpProfile, StoreProfile,
    TransportProfile,
};
pub use paths::{Dirs, ProfileName};
pub(crate) use private::make_private_folder;
pub use secret::Password;
pub use sections::sections;
pub use server_url::{Protocol, ServerUrl};
pub use template::{NewPassword, NewProfile};
