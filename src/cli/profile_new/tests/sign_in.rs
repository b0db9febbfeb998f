//! How an account logs in, as it is asked or given: passwords from elsewhere, app passwords, OAuth 2.0.

use super::*;
use crate::cli::args::OAuth2Arguments;

#[tokio::test]
async fn a_provider_that_wants_oauth2_is_explained() {
    let house = House::new();
    let server = Server::new("ann@outlook.com", "x");
    let answers = ["Ann <ann@outlook.com>", "", "", "no"];
    let (done, heard, _) =
        house.run(World::default(), &server, house.new_target(), &nothing(), Some(&answers)).await;
    let line = done.unwrap_err().line().unwrap();
    assert!(
        line.contains("postrider auth login") && line.contains("nothing was written"),
        "{line}"
    );
    assert!(heard.contains("Outlook.com:") && heard.contains("OAuth2"), "{heard}");
    assert!(heard.contains("docs/oauth2.md"), "{heard}");
}

#[tokio::test]
async fn a_password_may_be_taken_from_the_keyring() {
    let house = House::new();
    let server = Server::new("ann@example.org", "x");
    let answers = ["Ann <ann@example.org>", "", "", "keyring", "ann at home", "~/Mail"];
    let untried = AccountArguments { no_check: true, ..nothing() };
    let (done, ..) =
        house.run(World(OWN.to_vec()), &server, house.new_target(), &untried, Some(&answers)).await;
    done.unwrap();
    let profile = house.profile();
    let imap = profile.transports[0].imap.as_ref().unwrap();
    assert_eq!(imap.login.password.to_string(), "keyring entry ann at home");
}

#[tokio::test]
async fn a_client_id_makes_an_account_that_signs_in() {
    let house = House::new();
    let server = Server::new("ann@outlook.com", "x");
    let answers = ["Ann <ann@outlook.com>", "", "0123-abcd", "s3cret", "/srv/mail"];
    let (done, heard, said) =
        house.run(World::default(), &server, house.new_target(), &nothing(), Some(&answers)).await;
    done.unwrap();
    assert!(!heard.contains("Password of"), "{heard}");
    assert!(said.contains("postrider auth login`"), "{said}");
    assert!(server.tried.lock().unwrap().is_empty(), "nobody is signed in yet");
    let profile = house.profile();
    let transport = &profile.transports[0];
    let oauth2 = transport.oauth2.as_ref().unwrap();
    assert_eq!(oauth2.client_id, "0123-abcd");
    assert!(matches!(oauth2.provider, Some(crate::profile::Provider::Microsoft)));
    let source = oauth2.client_secret.as_ref().unwrap().to_string();
    let file = source.strip_prefix("file ").unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap().trim_end(), "s3cret");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(transport.imap.as_ref().unwrap().login.user, "ann@outlook.com");
}

#[tokio::test]
async fn options_make_an_account_that_signs_in_with_anybody() {
    let house = House::new();
    let server = Server::new("ann", "x");
    let given = AccountArguments {
        address: Some("ann@example.org".into()),
        smtp: Some("smtps://smtp.example.org".into()),
        oauth2: OAuth2Arguments {
            client_id: Some("postrider".into()),
            auth_url: Some("https://login.example.org/authorize".into()),
            token_url: Some("https://login.example.org/token".into()),
            client_secret_command: Some("pass client".into()),
            scopes: vec!["mail".into()],
            ..Default::default()
        },
        ..nothing()
    };
    let (done, _, said) =
        house.run(World::default(), &server, house.new_target(), &given, None).await;
    done.unwrap();
    assert!(said.contains("auth login"), "{said}");
    let profile = house.profile();
    let oauth2 = profile.transports[0].oauth2.as_ref().unwrap();
    assert_eq!((oauth2.client_id.as_str(), oauth2.scopes.len()), ("postrider", 1));
    let lacking = AccountArguments {
        oauth2: OAuth2Arguments { client_id: Some("postrider".into()), ..Default::default() },
        ..given
    };
    let target = Target::Added { profile: "home".parse().unwrap() };
    let (done, ..) = house.run(World::default(), &server, target, &lacking, None).await;
    let failure = done.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.line().unwrap().contains("--token-url"), "{failure:?}");
}

#[tokio::test]
async fn a_provider_with_app_passwords_says_where_they_are_made() {
    let house = House::new();
    let server = Server::new("ann@gmail.com", "abcd efgh");
    let answers = ["Ann <ann@gmail.com>", "", "abcd efgh", ""];
    let (done, heard, _) =
        house.run(World::default(), &server, house.new_target(), &nothing(), Some(&answers)).await;
    done.unwrap();
    assert!(heard.contains("https://myaccount.google.com/apppasswords"), "{heard}");
    let profile = house.profile();
    assert_eq!(profile.transports[0].imap.as_ref().unwrap().connections, Some(5));
    let text = std::fs::read_to_string(&profile.file).unwrap();
    // As many as are sent at once anyway.
    assert!(!text.contains("recipients_per_message"), "{text}");
}
