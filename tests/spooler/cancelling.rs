//! Messages that are cancelled while a transport is at work on them, and calls that are cut short
//! without anybody wanting that.

use super::*;

/// Proves: TN-14, OB-15, OB-7
#[tokio::test]
async fn a_message_in_a_running_call_is_cancelled_by_its_reference() {
    let work = transport(&["SMTP"]);
    work.will([Script::HangUntilCancelled, Script::HangUntilCancelled]);
    let house = house(vec![service("work", &work)]).await;
    let (one, two) = (house.store.submit(1, smtp("ann@work")), smtp("ann@work"));
    let two = house.store.submit(2, two);
    work.wait_for("submit", 2).await;
    house.spooler.cancel(&two).await.unwrap();
    house.store.with(|store| assert_eq!(store.aborted, std::slice::from_ref(&two)));
    assert_eq!(work.count("cancel "), 1);
    assert!(house.state(&one).is_some(), "the other goes on");
    let gone = house.spooler.cancel(&two).await.unwrap_err();
    assert_eq!(gone.code(), MapiCode::NOT_IN_QUEUE);
    house.spooler.cancel(&one).await.unwrap();
    house.store.with(|store| assert!(store.outgoing.is_empty() && store.reports.is_empty()));
}

/// Proves: OB-18, OB-15
#[tokio::test]
async fn spooler_yield_tells_of_a_cancel_and_only_of_that_message() {
    let work = transport(&["SMTP"]);
    work.will([Script::Yield, Script::Yield]);
    let house = house(vec![service("work", &work)]).await;
    let (one, two) = (house.store.submit(1, smtp("ann@work")), smtp("ann@work"));
    let two = house.store.submit(2, two);
    work.wait_for("submit", 2).await;
    house.spooler.cancel(&one).await.unwrap();
    house.store.with(|store| assert_eq!(store.aborted, std::slice::from_ref(&one)));
    let yields = work.count("yield");
    work.wait_for("yield", yields + 3).await;
    assert!(house.state(&two).is_some());
    house.spooler.cancel(&two).await.unwrap();
    house.store.with(|store| assert_eq!(store.aborted, [one, two]));
}

/// SpoolerYield stops long work at the end of the session, and nobody has cancelled anything.
///
/// Proves: OB-18, SP-1
#[tokio::test]
async fn what_the_end_of_the_session_cuts_short_is_kept() {
    let work = transport(&["SMTP"]);
    work.will([Script::Yield]);
    let house = house(vec![service("work", &work)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    work.wait_for("yield", 1).await;
    house.spooler.logoff(GRACE).await.unwrap();
    assert!(house.state(&entry).is_some(), "it is gone");
    house.store.with(|store| assert!(store.aborted.is_empty() && store.locked.is_empty()));
    let again = transport(&["SMTP"]);
    let next = house_over(Arc::clone(&house.store), vec![service("work", &again)]).await;
    next.store.wait_until("it is sent", |store| store.finished == [entry.clone()]).await;
}

/// A transport answers E_CANCEL to what it has at hand when it is logged off.
///
/// Proves: SP-1, LG-9
#[tokio::test]
async fn a_call_cancelled_by_the_logoff_is_no_cancelled_message() {
    let work = transport(&["SMTP"]);
    work.will([Script::HangUntilCancelled]);
    let house = house(vec![service("work", &work)]).await;
    let entry = house.store.submit(1, smtp("ann@work"));
    work.wait_for("submit", 1).await;
    let logoff = house.spooler.logoff(Duration::from_millis(50));
    let cut = async {
        work.wait_for("logoff", 1).await;
        work.cancel_everything();
    };
    let (ended, ()) = tokio::join!(logoff, cut);
    ended.unwrap();
    assert!(house.state(&entry).is_some(), "it is gone");
    house.store.with(|store| assert!(store.aborted.is_empty()));
}

/// Proves: OB-18
#[tokio::test]
async fn a_user_cancel_nobody_asked_for_is_tried_again() {
    let work = transport(&["SMTP"]);
    work.will([Script::Refuse(MapiCode::USER_CANCEL, None)]);
    let house = house(vec![service("work", &work)]).await;
    house.store.submit(1, smtp("ann@work"));
    house.until("it is sent", |store| !store.finished.is_empty()).await;
    assert_eq!(work.count("submit"), 2);
}
