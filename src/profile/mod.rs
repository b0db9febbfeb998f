//! Profiles: from TOML to checked settings, passwords on demand, and the folders they live in.
//!
//! A [`Profile`] is read whole and checked whole: what is unknown, missing or impossible is an
//! error with file, line and key, before anything is connected or opened.

mod address;
mod catalog;
mod environment;
mod error;
mod hooks_table;
pub mod import;
mod keyring;
mod listen_table;
mod load;
mod local_table;
mod model;
mod oauth2_table;
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

pub use crate::oauth2::Provider;
pub use address::{parse_address, parse_mailbox, parse_mailboxes};
pub use catalog::{Catalog, CatalogEntry, KeptSecret};
pub use environment::Environment;
pub use error::ProfileError;
pub use model::{
    AfterProfile, HandProfile, HooksProfile, IdentityProfile, ImapProfile, InDoubtProfile,
    ListenPlace, ListenProfile, LocalProfile, Login, MetricsProfile, OAuth2Profile, Profile,
    QueueProfile, ReceiverProfile, RewriteProfile, SentProfile, SmtpProfile, StoreProfile,
    TransportProfile,
};
pub use paths::{Dirs, ProfileName};
pub(crate) use private::make_private_folder;
pub use secret::Password;
pub use sections::sections;
pub(crate) use sections::{sections_in, sign_in_command, token_store};
pub(crate) use server_table::{host_name, is_loopback};
pub use server_url::{Protocol, ServerUrl};
pub use template::{NewOAuth2, NewPassword, NewProfile, NewReceiving, NewServer, NewTransport};
