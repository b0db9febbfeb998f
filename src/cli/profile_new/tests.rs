//! The dialogue with a person and servers that are made up.

mod sign_in;

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::*;
use crate::discovery::{Dns, DnsError, MxRecord, Reach, Reached, SrvRecord, Web, WebError};
use crate::profile::{Dirs, Environment, Profile, ServerUrl};
use crate::session::{CheckReport, Direction};

/// Answers what the script says; asked for more, the answers end.
#[derive(Default)]
struct Script {
    answers: VecDeque<String>,
    heard: String,
}

impl Script {
    fn next(&mut self) -> Result<String, Failure> {
        self.answers.pop_front().ok_or_else(|| Failure::usage("the answers ended"))
    }
}

impl Person for Script {
    fn ask(&mut self, question: &str, suggestion: &str) -> Result<String, Failure> {
        self.heard += &format!("{question} [{suggestion}]\n");
        let answer = self.next()?;
        Ok(if answer.is_empty() { suggestion.to_owned() } else { answer })
    }

    fn ask_secret(&mut self, question: &str) -> Result<Zeroizing<String>, Failure> {
        self.heard += &format!("{question}\n");
        Ok(Zeroizing::new(self.next()?))
    }

    fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.heard += &format!("{line}\n");
        Ok(())
    }

    fn begin(&mut self, words: &str) -> Result<(), Failure> {
        self.heard += words;
        Ok(())
    }
}

/// A world with these SRV records and nothing else.
#[derive(Default)]
struct World(Vec<(&'static str, u16, &'static str)>);

#[async_trait]
impl Dns for World {
    async fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, DnsError> {
        let found = self.0.iter().filter(|(service, ..)| name.starts_with(service));
        Ok(found
            .map(|(_, port, target)| SrvRecord {
                priority: 0,
                weight: 0,
                port: *port,
                target: (*target).to_owned(),
            })
            .collect())
    }

    async fn mx(&self, _: &str) -> Result<Vec<MxRecord>, DnsError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Web for World {
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, WebError> {
        Ok(None)
    }
}

#[async_trait]
impl Reach for World {
    async fn reach(&self, _: &ServerUrl) -> Reached {
        Reached::Nothing
    }
}

/// Takes logins with one user and password, and notes what was tried.
struct Server {
    user: &'static str,
    password: &'static str,
    tried: Mutex<Vec<String>>,
}

impl Server {
    fn new(user: &'static str, password: &'static str) -> Self {
        Server { user, password, tried: Mutex::default() }
    }
}

#[async_trait]
impl Trial for Server {
    async fn check(&self, profile: &Profile) -> Result<Vec<CheckReport>, Failure> {
        let mut reports = Vec::new();
        for transport in &profile.transports {
            let smtp = transport
                .smtp
                .as_ref()
                .map(|smtp| (Direction::Outbound, &smtp.server, smtp.login.as_ref()));
            let imap = transport
                .imap
                .as_ref()
                .map(|imap| (Direction::Inbound, &imap.server, Some(&imap.login)));
            for (direction, server, login) in smtp.into_iter().chain(imap) {
                let ok = match login {
                    None => true,
                    Some(login) => {
                        let secret = login.password.source().secret().await.unwrap();
                        login.user == self.user && secret.expose_secret() == self.password
                    }
                };
                let server = format!("{}:{}", server.host, server.port);
                self.tried.lock().unwrap().push(server.clone());
                let error = (!ok)
                    .then(|| "MAPI_E_LOGON_FAILED: the server refuses user or password".to_owned());
                let transport = transport.name.clone();
                reports.push(CheckReport {
                    transport,
                    direction,
                    server,
                    ok,
                    offers: vec![],
                    error,
                });
            }
        }
        Ok(reports)
    }
}

struct House {
    _temp: tempfile::TempDir,
    catalog: Catalog,
}

impl House {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dirs = Dirs { config: temp.path().join("config"), state: temp.path().join("state") };
        let environment = Environment::empty().with("HOME", "/home/ann");
        House { catalog: Catalog::new(dirs, environment), _temp: temp }
    }

    /// Runs the dialogue; what came of it, what the person heard, what is said at the end.
    async fn run(
        &self,
        world: World,
        server: &Server,
        target: Target,
        arguments: &AccountArguments,
        answers: Option<&[&str]>,
    ) -> (Result<(), Failure>, String, String) {
        let world = Arc::new(world);
        let (dns, web, reach) = (Arc::clone(&world), Arc::clone(&world), Arc::clone(&world));
        let mut script = Script::default();
        script.answers.extend(answers.unwrap_or_default().iter().map(|one| (*one).to_owned()));
        let person: Option<&mut dyn Person> =
            if answers.is_some() { Some(&mut script) } else { None };
        let discoverer = Discoverer::new(Some(dns), web, reach);
        let helpers = Helpers { catalog: &self.catalog, discoverer, trial: server, person };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err, false);
        let done = make(helpers, &mut console, &target, arguments, None).await;
        assert!(script.answers.is_empty() || done.is_err(), "not asked: {:?}", script.answers);
        (done, script.heard, String::from_utf8(err).unwrap())
    }

    fn new_target(&self) -> Target {
        Target::New { profile: "home".parse().unwrap(), default: true }
    }

    fn profile(&self) -> Profile {
        self.catalog.load(&"home".parse().unwrap()).unwrap()
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.catalog.dirs().config)
            .map_or(true, |mut files| files.next().is_none())
    }
}

const OWN: [(&str, u16, &str); 2] =
    [("_submissions._tcp", 465, "smtp.example.org."), ("_imaps._tcp", 993, "imap.example.org.")];

fn nothing() -> AccountArguments {
    AccountArguments::default()
}

#[tokio::test]
async fn a_person_gets_an_account_with_five_answers() {
    let house = House::new();
    let server = Server::new("ann@example.org", "hunter2");
    let answers = ["ann@example.org", "Ann Example", "", "hunter2", ""];
    let world = World(OWN.to_vec());
    let (done, heard, told) =
        house.run(world, &server, house.new_target(), &nothing(), Some(&answers)).await;
    done.unwrap();
    assert!(heard.contains("SRV records") && heard.contains("imap.example.org, port 993, TLS"));
    assert!(heard.contains("Testing: sends with smtp.example.org:465 ... ok\n"), "{heard}");
    let profile = house.profile();
    let transport = &profile.transports[0];
    assert_eq!(
        (transport.name.as_str(), transport.identity.name.as_str()),
        ("home", "Ann Example")
    );
    let file = house.catalog.dirs().config.join("home.password");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hunter2\n");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&profile.file).unwrap();
    assert!(!text.contains("hunter2") && text.contains("file = \"home.password\""), "{text}");
    assert!(told.contains("home.toml") && told.contains("home.password"), "{told}");
    assert!(!heard.contains("hunter2") && !told.contains("hunter2"));
}

#[tokio::test]
async fn a_wrong_password_can_be_mended_before_anything_is_written() {
    let house = House::new();
    let server = Server::new("ann", "hunter2");
    let answers = [
        "Ann <ann@example.org>",
        "",
        "wrong",
        "", // address, servers, password, folder
        "user",
        "ann", // what now, user
        "p",
        "hunter2", // what now, password
    ];
    let world = World(OWN.to_vec());
    let (done, heard, _) =
        house.run(world, &server, house.new_target(), &nothing(), Some(&answers)).await;
    done.unwrap();
    assert_eq!(heard.matches("refuses user or password").count(), 4, "{heard}");
    assert!(heard.contains("[password]"), "the most probable mistake is suggested: {heard}");
    assert_eq!(house.profile().transports[0].imap.as_ref().unwrap().login.user, "ann");
}

#[tokio::test]
async fn it_is_written_untried_only_when_asked_for_and_not_at_all_on_quit() {
    let house = House::new();
    let server = Server::new("ann", "right");
    let start = ["Ann <ann@example.org>", "", "wrong", ""];
    let world = || World(OWN.to_vec());
    let quit = [&start[..], &["quit"]].concat();
    let (done, ..) = house.run(world(), &server, house.new_target(), &nothing(), Some(&quit)).await;
    assert_eq!(done.unwrap_err().exit, Exit::Negative);
    assert!(house.is_empty(), "something was written");
    let write = [&start[..], &["write"]].concat();
    let (done, _, told) =
        house.run(world(), &server, house.new_target(), &nothing(), Some(&write)).await;
    done.unwrap();
    assert!(told.contains("profile check home"), "{told}");
}

#[tokio::test]
async fn hosts_of_others_are_shown_and_confirmed() {
    let house = House::new();
    let server = Server::new("ann", "x");
    let world = || {
        World(vec![
            ("_submissions._tcp", 465, "smtp.example.org."),
            ("_imaps._tcp", 993, "imap.evil.example."),
        ])
    };
    // Not confirmed: the person names servers, and nobody is connected to before.
    let answers = ["Ann <ann@example.org>", "", "-", "-"];
    let (done, heard, _) =
        house.run(world(), &server, house.new_target(), &nothing(), Some(&answers)).await;
    assert_eq!(done.unwrap_err().exit, Exit::Negative);
    assert!(heard.contains("imap.evil.example: outside of example.org"), "{heard}");
    assert!(server.tried.lock().unwrap().is_empty());
    // Without a person: refused, with the words that would confirm it.
    let arguments = AccountArguments {
        address: Some("ann@example.org".into()),
        discover: true,
        source: super::super::args::PasswordArguments {
            password_env: Some("PW".into()),
            ..Default::default()
        },
        ..nothing()
    };
    let (done, ..) = house.run(world(), &server, house.new_target(), &arguments, None).await;
    let failure = done.unwrap_err();
    let line = failure.line().unwrap();
    assert_eq!(failure.exit, Exit::Negative);
    assert!(line.contains("--imap imaps://ann@example.org@imap.evil.example:993"), "{line}");
    assert!(house.is_empty());
}

#[tokio::test]
async fn without_a_terminal_nothing_is_asked() {
    let house = House::new();
    let server = Server::new("ann@example.org", "x");
    let arguments = AccountArguments {
        address: Some("ann@example.org".into()),
        discover: true,
        source: super::super::args::PasswordArguments {
            password_command: Some("echo x".into()),
            ..Default::default()
        },
        check: true,
        ..nothing()
    };
    let (done, ..) =
        house.run(World(OWN.to_vec()), &server, house.new_target(), &arguments, None).await;
    done.unwrap();
    assert_eq!(house.profile().transports[0].smtp.as_ref().unwrap().server.port, 465);
    assert_eq!(server.tried.lock().unwrap().len(), 2);
    let wrong = Server::new("ann", "y");
    let other = Target::New { profile: "other".parse().unwrap(), default: false };
    let (done, _, told) = house.run(World(OWN.to_vec()), &wrong, other, &arguments, None).await;
    assert_eq!(done.unwrap_err().exit, Exit::Negative);
    assert!(told.contains("refuses user or password"), "{told}");
    assert_eq!(house.catalog.names().unwrap().len(), 1);
    let target = Target::New { profile: "third".parse().unwrap(), default: false };
    let (done, ..) = house.run(World::default(), &server, target, &arguments, None).await;
    assert!(done.unwrap_err().line().unwrap().contains("--smtp"));
}

#[tokio::test]
async fn the_options_that_are_missing_are_named() {
    let house = House::new();
    let server = Server::new("ann", "x");
    let given = AccountArguments {
        address: Some("ann@example.org".into()),
        smtp: Some("smtps://ann@smtp.example.org".into()),
        source: super::super::args::PasswordArguments {
            password_env: Some("PW".into()),
            ..Default::default()
        },
        ..nothing()
    };
    for (lacking, named) in [
        (AccountArguments { address: None, ..given.clone() }, "--address"),
        (AccountArguments { smtp: None, ..given.clone() }, "--discover"),
        (AccountArguments { source: Default::default(), ..given.clone() }, "--password-command"),
        (AccountArguments { smtp: Some("imaps://x".into()), ..given.clone() }, "other direction"),
    ] {
        let target = house.new_target();
        let (done, ..) = house.run(World::default(), &server, target, &lacking, None).await;
        let failure = done.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.line().unwrap().contains(named), "{failure:?}");
    }
    let (done, ..) = house.run(World::default(), &server, house.new_target(), &given, None).await;
    done.unwrap();
    assert!(server.tried.lock().unwrap().is_empty(), "untried unless asked for");
}

#[tokio::test]
async fn a_machine_that_only_sends_without_a_login() {
    let house = House::new();
    let server = Server::new("", "");
    let answers = ["root@cron.example.org", "", "relay.lan:25", "-", "-", "/srv/mail"];
    let (done, heard, _) =
        house.run(World::default(), &server, house.new_target(), &nothing(), Some(&answers)).await;
    done.unwrap();
    assert!(heard.contains("None were found"), "{heard}");
    let profile = house.profile();
    let smtp = profile.transports[0].smtp.as_ref().unwrap();
    assert!(smtp.login.is_none() && profile.transports[0].imap.is_none());
}

#[tokio::test]
async fn a_second_account_is_added_to_the_profile() {
    let house = House::new();
    let server = Server::new("ann@example.org", "x");
    let answers = ["Ann <ann@example.org>", "", "x", ""];
    let (done, ..) = house
        .run(World(OWN.to_vec()), &server, house.new_target(), &nothing(), Some(&answers))
        .await;
    done.unwrap();
    let gmail = Server::new("ann@gmail.com", "y");
    let answers = ["Ann <ann@gmail.com>", "", "y"];
    let target = || Target::Added { profile: "home".parse().unwrap() };
    let (done, ..) =
        house.run(World::default(), &gmail, target(), &nothing(), Some(&answers)).await;
    done.unwrap();
    let names: Vec<String> = house.profile().transports.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["home", "gmail"]);
    let folder = &house.catalog.dirs().config;
    assert_eq!(std::fs::read_to_string(folder.join("home-gmail.password")).unwrap(), "y\n");
    let (done, ..) =
        house.run(World::default(), &gmail, target(), &nothing(), Some(&answers)).await;
    done.unwrap();
    let names: Vec<String> = house.profile().transports.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["home", "gmail", "gmail-2"]);
}

#[tokio::test]
async fn answers_that_end_write_nothing() {
    let house = House::new();
    let server = Server::new("ann@example.org", "x");
    let all = ["ann@example.org", "", "", "x"];
    for count in 0..=all.len() {
        let world = World(OWN.to_vec());
        let (done, ..) =
            house.run(world, &server, house.new_target(), &nothing(), Some(&all[..count])).await;
        assert!(done.is_err(), "{count}");
        assert!(house.is_empty(), "{count}");
    }
}
