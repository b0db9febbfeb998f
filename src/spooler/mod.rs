//! The MAPI host.
mod routing;
mod status_table;
