//! A profile that signs in, and tokens as if somebody had.

use std::fmt::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postoffice::{AuthorizationServer, Listener, PostOffice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::{Account, Server, profile_text};
use crate::program::Program;

/// An authorization server whose tokens the office takes: the last one of each user.
pub(crate) async fn rig() -> (Arc<PostOffice>, AuthorizationServer) {
    let office = Arc::new(PostOffice::builder().user("ann", "unused").start().await.unwrap());
    let server = AuthorizationServer::start().await.unwrap();
    let told = Arc::downgrade(&office);
    server.on_token(move |user, token| {
        if let Some(office) = told.upgrade() {
            office.set_token(user, Some(token));
        }
    });
    (office, server)
}

/// The lines of `[transport.oauth2]`.
pub(crate) fn oauth2_table(server: &AuthorizationServer) -> String {
    let mut text = String::from("[transport.oauth2]\nclient_id = \"postrider\"\n");
    for (key, endpoint) in [
        ("auth_url", "authorize"),
        ("token_url", "token"),
        ("device_url", "device"),
        ("revoke_url", "revoke"),
    ] {
        writeln!(text, "{key} = {:?}", server.url(endpoint)).unwrap();
    }
    text.push_str("scopes = [\"mail\"]\n");
    text
}

/// A profile of one account that signs in as ann.
pub(crate) fn signing_profile(
    account: Account,
    server: &AuthorizationServer,
    maildir: &Path,
) -> String {
    let text = profile_text(&[account], maildir);
    text.replacen("[store]", &format!("{}[store]", oauth2_table(server)), 1)
}

/// Has the program sign in at the office, with these lines for both servers.
pub(crate) fn write_profile(
    program: &Program,
    office: &PostOffice,
    server: &AuthorizationServer,
    line: &str,
) {
    let ca = program.path("config/ca.pem");
    let at = |listener| {
        let server = Server::implicit(office.address(listener).unwrap(), &ca);
        server.with("user = \"ann\"").with(line)
    };
    let account = Account::new("work", "Ann <ann@example.org>")
        .smtp(at(Listener::Smtps))
        .imap(at(Listener::Imaps).with("poll_interval = \"1s\""));
    program.write_profile(&signing_profile(account, server, &program.maildir()));
}

/// Writes tokens that were got so many seconds ago, as the program keeps them.
pub(crate) fn keep_tokens(state_folder: &Path, tokens: &(String, String), age: u64) {
    let folder = state_folder.join("tokens");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
    let obtained = SystemTime::now() - Duration::from_secs(age);
    let obtained = obtained.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let (access, refresh) = tokens;
    let text = format!(
        r#"{{"version":1,"access_token":"{access}","expires_at":{},"obtained_at":{obtained},"refresh_token":"{refresh}"}}"#,
        obtained + 3_600_000
    );
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = options.open(folder.join("work.json")).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

/// What a browser does with an address: the answer.
pub(crate) async fn visit(url: &str) -> String {
    let rest = url.strip_prefix("http://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Opens an address and goes where the server sends the browser.
pub(crate) async fn walk(url: &str) -> String {
    let answer = visit(url).await;
    let to = answer.lines().find_map(|line| line.strip_prefix("Location: "));
    visit(to.unwrap_or_else(|| panic!("{answer}"))).await
}
