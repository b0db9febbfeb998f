//! Which transports of a profile are logged on (LG-8), and what their rows say of their rank.

use async_trait::async_trait;
use postrider::mapi::{MapiResult, ResourceFlags};
use postrider::spi::{AddressTypes, ProfileSection, SectionValue, ServiceEntry};

use super::*;

fn failing(code: MapiCode) -> Arc<ScriptedTransport> {
    let mut transport = ScriptedTransport::new(&["SMTP"]);
    transport.logon_error = Some(MapiError::new(code, "as told"));
    Arc::new(transport)
}

/// Proves: LG-8, LG-9
#[tokio::test]
async fn a_service_falls_with_one_of_its_transports() {
    let codes = [MapiCode::UNCONFIGURED, MapiCode::LOGON_FAILED, MapiCode::USER_CANCEL];
    for code in codes {
        let (first, last) = (transport(&["SMTP"]), transport(&["FAX"]));
        let (broken, other) = (failing(code), transport(&["SMTP"]));
        let house = house(vec![
            service("first", &first).service("office"),
            service("other", &other),
            service("broken", &broken).service("office"),
            service("last", &last).service("office"),
        ])
        .await;
        let calls = ["init", "logon", "address_types", "logoff", "release"];
        assert_eq!(first.calls(), calls, "{code}: it had begun nothing");
        assert!(last.calls().is_empty(), "{code}: {:?}", last.calls());
        for name in ["first", "broken", "last"] {
            let row = house.row(name);
            assert_eq!(row.status_code, StatusCode::FAILURE, "{code}: {row:?}");
            assert!(row.status_string.contains(&code.to_string()), "{code}: {row:?}");
        }
        assert!(house.row("first").status_string.contains("office"));
        // The other service is not concerned.
        house.store.submit(1, smtp("ann@other"));
        house.store.wait_until("it is sent", |store| store.finished.len() == 1).await;
        // What is meant for one of the fallen waits (SP-1).
        let kept = house.store.submit(2, smtp("ann@first"));
        house.spooler.flush(None, FlushFlags::UPLOAD).await.unwrap();
        assert!(house.state(&kept).is_some());
        house.spooler.logoff(GRACE).await.unwrap();
        assert_eq!(first.count("logoff"), 1, "not a second time");
    }
}

/// Proves: LG-8
#[tokio::test]
async fn fail_one_provider_leaves_the_rest_of_its_service_alive() {
    let (first, last) = (transport(&["SMTP"]), transport(&["SMTP"]));
    let broken = failing(MapiCode::FAILONEPROVIDER);
    let house = house(vec![
        service("first", &first).service("office"),
        service("broken", &broken).service("office"),
        service("last", &last).service("office"),
    ])
    .await;
    for (number, name) in [(1, "ann@first"), (2, "ann@last")] {
        house.store.submit(number, smtp(name));
    }
    house.store.wait_until("both are sent", |store| store.finished.len() == 2).await;
    assert_eq!((first.count("submit"), last.count("submit")), (1, 1));
    let row = house.row("broken");
    assert_eq!(row.status_code, StatusCode::FAILURE);
    assert!(row.status_string.contains("MAPI_E_FAILONEPROVIDER"), "{row:?}");
}

/// A configuration entry that knows the missing key, or whose user gives up.
struct Entry(MapiResult<&'static str>, std::sync::Mutex<Vec<String>>);

#[async_trait]
impl ServiceEntry for Entry {
    async fn configure(
        &self,
        name: &str,
        section: ProfileSection,
        error: &MapiError,
    ) -> MapiResult<ProfileSection> {
        self.1.lock().unwrap().push(format!("{name} {}", error.detail()));
        self.0.clone().map(|value| section.with("key", SectionValue::Text(value.to_owned())))
    }
}

fn entry(answer: MapiResult<&'static str>) -> Arc<Entry> {
    Arc::new(Entry(answer, Default::default()))
}

/// Proves: LG-8, LG-3
#[tokio::test]
async fn a_configuration_entry_is_called_once_for_what_is_missing() {
    let lacks = MapiError::new(MapiCode::UNCONFIGURED, "the profile lacks the key key");
    // Once it is supplied; the second time nobody asks again.
    for (errors, works) in [(1, true), (2, false)] {
        let work = transport(&["SMTP"]);
        work.logon_errors.lock().unwrap().extend(vec![lacks.clone(); errors]);
        let configuration = entry(Ok("value"));
        let asked = Arc::clone(&configuration);
        let section = ProfileSection::new().with("other", SectionValue::Switch(true));
        let house =
            house(vec![service("work", &work).section(section).configuration(configuration)]).await;
        assert_eq!(*asked.1.lock().unwrap(), ["work the profile lacks the key key"]);
        assert_eq!(work.count("logon"), 2);
        let failed = house.row("work").status_code.contains(StatusCode::FAILURE);
        assert_eq!(!failed, works);
        if works {
            let section = work.support().profile_section();
            assert_eq!(section.text("key").unwrap(), Some("value"));
            assert_eq!(section.switch("other").unwrap(), Some(true));
        }
    }
}

/// Proves: LG-8
#[tokio::test]
async fn only_what_is_missing_is_asked_for_and_the_user_may_give_up() {
    let work = failing(MapiCode::LOGON_FAILED);
    let configuration = entry(Ok("value"));
    let asked = Arc::clone(&configuration);
    let _house = house(vec![service("work", &work).configuration(configuration)]).await;
    assert!(asked.1.lock().unwrap().is_empty());

    let work = failing(MapiCode::UNCONFIGURED);
    let gave_up = entry(Err(MapiCode::USER_CANCEL.into()));
    let house = house(vec![service("work", &work).configuration(gave_up)]).await;
    assert_eq!(work.count("logon"), 1);
    let row = house.row("work");
    assert!(row.status_string.contains("MAPI_E_USER_CANCEL"), "{row:?}");
}

/// Proves: ST-1, AT-4
#[tokio::test]
async fn the_rows_say_who_sends_what_nobody_else_claims() {
    let broken = failing(MapiCode::FAILONEPROVIDER);
    let silent = transport(&[""]);
    let mut any = ScriptedTransport::new(&[]);
    any.types = AddressTypes::Any;
    let (first, second, any) = (transport(&["SMTP"]), transport(&["SMTP"]), Arc::new(any));
    let house = house(vec![
        service("broken", &broken),
        service("silent", &silent),
        service("first", &first),
        service("second", &second),
        service("any", &any),
    ])
    .await;
    let default = |name: &str| house.row(name).resource_flags & ResourceFlags::DEFAULT_OUTBOUND;
    for name in ["broken", "silent", "second", "any"] {
        assert!(default(name).is_empty(), "{name}");
    }
    assert!(!default("first").is_empty());
    let last = |name: &str| house.row(name).resource_flags & ResourceFlags::XP_PREFER_LAST;
    assert!(!last("any").is_empty() && last("first").is_empty());
    // None of them has shown an identity.
    let none = ResourceFlags::NO_PRIMARY_IDENTITY;
    assert!(house.row("first").resource_flags.contains(none));
}

/// Proves: ST-6, FL-7
#[tokio::test]
async fn the_spoolers_object_flushes_all_or_one_by_its_entry_id() {
    let (work, home) = (transport(&["SMTP"]), transport(&["SMTP"]));
    let house = house(vec![service("work", &work), service("home", &home)]).await;
    let own = house.row("spooler").entry_id;
    let object = house.spooler.open_status_entry(&own).await.unwrap();
    assert_eq!(object.resource_methods(), house.row("spooler").resource_methods);
    let flushed = || (work.count("flush_queues"), home.count("flush_queues"));
    object.flush_queues(None, FlushFlags::UPLOAD).await.unwrap();
    assert_eq!(flushed(), (1, 1));
    let target = house.row("home").entry_id;
    object.flush_queues(Some(&target), FlushFlags::UPLOAD).await.unwrap();
    assert_eq!(flushed(), (1, 2));
    let nobody = EntryId::from_bytes(&[7]).unwrap();
    for target in [&own, &nobody] {
        let refused = object.flush_queues(Some(target), FlushFlags::UPLOAD).await.unwrap_err();
        assert_eq!(refused.code(), MapiCode::NOT_FOUND);
    }
    let unknown = FlushFlags::from_bits_retain(0x40);
    let refused = object.flush_queues(None, unknown).await.unwrap_err();
    assert_eq!(refused.code(), MapiCode::UNKNOWN_FLAGS);
    assert_eq!(flushed(), (1, 2));
    for unsupported in [
        object.validate_state(Default::default()).await,
        object.settings_dialog().await,
        object.change_password().await,
    ] {
        assert_eq!(unsupported.unwrap_err().code(), MapiCode::NO_SUPPORT);
    }
    let unknown = house.spooler.open_status_entry(&nobody).await.err().unwrap();
    assert_eq!(unknown.code(), MapiCode::NOT_FOUND);
    house.spooler.logoff(GRACE).await.unwrap();
}

/// Proves: ST-7, AT-1
#[tokio::test]
async fn other_settings_are_passed_on_as_a_change_of_configuration() {
    let work = transport(&["SMTP"]);
    let house = house(vec![service("work", &work)]).await;
    let section = ProfileSection::new().with("key", SectionValue::Number(7));
    house.spooler.reconfigure("work", section).await.unwrap();
    assert_eq!(work.count("validate 100000"), 1);
    assert_eq!(work.support().profile_section().number("key").unwrap(), Some(7));
    let nobody = house.spooler.reconfigure("nobody", ProfileSection::new()).await.unwrap_err();
    assert_eq!(nobody.code(), MapiCode::NOT_FOUND);
}

/// Proves: LG-7, IB-9
#[tokio::test]
async fn a_transport_that_asked_for_it_is_given_time_when_nothing_else_is_done() {
    let mut idler = ScriptedTransport::new(&["SMTP"]);
    idler.out_flags = LogonOutFlags::SP_IDLE;
    let (idler, other) = (Arc::new(idler), transport(&["SMTP"]));
    let house = house(vec![service("work", &idler), service("other", &other)]).await;
    house.until("it idles", |_| idler.count("idle") > 1).await;
    assert_eq!(other.count("idle"), 0);
    idler.signal(SpoolerNotify::CRITSEC);
    let before = idler.count("idle");
    for _ in 0..10 {
        house.clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(idler.count("idle"), before, "not in a critical section");
    idler.signal(SpoolerNotify::NONCRIT);
    house.until("it idles again", |_| idler.count("idle") > before).await;
}
