//! Requests for delivery reports on their way to a server (RFC 3461), and who answers them.

use postoffice::{Accepted, Ret, SmtpExtension};
use postrider::mapi::tags;
use postrider::session::{Logon, QueueRowState, Service};

use crate::house::GRACE;
use crate::letters::letter;
use crate::maildir::{await_messages, messages, one_with};
use crate::post::{Post, ended};

/// NOTIFY of a recipient, in words.
fn notify(accepted: &Accepted, at: usize) -> Vec<&'static str> {
    let Some(notify) = accepted.envelope.recipients[at].notify else { return Vec::new() };
    let words = [
        (notify.never, "NEVER"),
        (notify.success, "SUCCESS"),
        (notify.failure, "FAILURE"),
        (notify.delay, "DELAY"),
    ];
    words.into_iter().filter_map(|(set, word)| set.then_some(word)).collect()
}

/// Proves: OB-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_dsn_is_told_which_reports_are_wanted_and_makes_them() {
    let post = Post::start().await;
    let session = post.open(Logon::Full).await;
    for (delivery, failure, ret, words) in [
        (None, None, None, vec![]),
        (Some(true), None, Some(Ret::Headers), vec!["SUCCESS", "FAILURE", "DELAY"]),
        (None, Some(false), None, vec!["NEVER"]),
        (Some(true), Some(false), Some(Ret::Headers), vec!["SUCCESS"]),
    ] {
        let mut submission = letter("wishes", &["b+b=b@example.org"]);
        let props = &mut submission.message.props;
        if let Some(wish) = delivery {
            props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, wish);
        }
        if let Some(wish) = failure {
            props.set(tags::ORIGINATOR_NON_DELIVERY_REPORT_REQUESTED, wish);
        }
        let entry = session.submit(submission).await.unwrap();
        assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
        let accepted = post.office.take_accepted().remove(0);
        let parameters = &accepted.envelope.parameters;
        assert_eq!(parameters.envid, Some(entry.to_string()), "always, so that reports find back");
        assert_eq!(parameters.ret, ret);
        assert_eq!(notify(&accepted, 0), words, "{delivery:?} {failure:?}");
        let orcpt = accepted.envelope.recipients[0].orcpt.clone();
        // The post office has read its type, rfc822, and its xtext.
        let expected = (!words.is_empty()).then(|| "b+b=b@example.org".to_owned());
        assert_eq!(orcpt, expected);
    }
    session.shutdown(GRACE).await.unwrap();
    assert!(post.office.violations().is_empty(), "{:?}", post.office.violations());
    // The server has taken the request over, so the report is its duty.
    assert!(messages(&post.maildir(), "INBOX").is_empty());
}

/// Proves: OB-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dsn_the_report_says_that_the_message_was_relayed() {
    let post = Post::start().await;
    post.office.withhold(SmtpExtension::Dsn);
    let session = post.open(Logon::Full).await;
    let mut submission = letter("followed", &["bob@example.org"]);
    submission.message.props.set(tags::ORIGINATOR_DELIVERY_REPORT_REQUESTED, true);
    let entry = session.submit(submission).await.unwrap();
    assert_eq!(ended(&session, &entry).await, QueueRowState::Finished);
    let accepted = post.office.take_accepted().remove(0);
    assert_eq!(accepted.envelope.parameters.envid, None);
    assert!(notify(&accepted, 0).is_empty());
    let reports = await_messages(&post.maildir(), "INBOX", 1).await;
    let report =
        String::from_utf8_lossy(one_with(&reports, "Subject: Relayed: followed")).into_owned();
    assert!(report.contains("Action: relayed\r\n"), "{report}");
    session.shutdown(GRACE).await.unwrap();
    assert!(post.office.violations().is_empty(), "{:?}", post.office.violations());
}
