//! What has to hold whatever an SMTP server says.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::capabilities::Capabilities;
use super::connection::Connection;
use super::deadlines::Deadlines;
use super::reply::{Failure, Permanence, Phase};

const PHASES: [Phase; 11] = [
    Phase::Connect,
    Phase::Tls,
    Phase::Greeting,
    Phase::Ehlo,
    Phase::Auth,
    Phase::Reset,
    Phase::Mail,
    Phase::Rcpt,
    Phase::Data,
    Phase::Body,
    Phase::Dot,
];

/// Nothing but a 5xx to a command of the transaction may end a recipient for good; what is no
/// reply is the connection's fault; what is shown is fit for a terminal.
pub fn reply(bytes: &[u8]) {
    let received = crate::properties::run(async {
        let (ours, mut theirs) = tokio::io::duplex(bytes.len().max(1));
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        let mut connection = Connection::new(
            Box::new(ours),
            "server",
            Capabilities::default(),
            Deadlines::default(),
        );
        let deadline = Duration::from_secs(20);
        let response = connection.reply(Phase::Mail, deadline).await;
        response.map(|response| connection.words(&response))
    });
    let reply = match received {
        Ok(reply) => reply,
        Err(failure) => {
            assert!(!failure.verdict.fails_recipients(), "{failure:?}");
            return;
        }
    };
    assert!(!reply.text.chars().any(char::is_control), "{reply:?}");
    for phase in PHASES {
        let failure = Failure::refused(phase, reply.clone());
        let permanent = failure.verdict.permanence == Permanence::Permanent;
        assert!(!permanent || (500..=599).contains(&reply.code), "{failure:?}");
        if failure.verdict.fails_recipients() {
            let transaction = [Phase::Mail, Phase::Rcpt, Phase::Data, Phase::Body, Phase::Dot];
            assert!(transaction.contains(&phase), "{failure:?}");
        }
        let pause = failure.suggested_pause();
        assert!(pause.is_none_or(|pause| pause <= Duration::from_secs(24 * 60 * 60)));
        assert!(!failure.words().is_empty());
    }
}
