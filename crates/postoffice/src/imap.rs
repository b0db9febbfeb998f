//! The IMAP server (RFC 3501).

use crate::connection::{Connection, Flow};

pub(crate) async fn serve(mut connection: Connection, implicit_tls: bool) -> Flow {
    connection.open(implicit_tls).await
}
