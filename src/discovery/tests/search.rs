//! In which order the world is asked, and what wins.

use super::fake::{Resolver, World};
use crate::discovery::{Discovery, MailDomain, MxRecord, Origin, Reached, SignIn, SrvRecord};

fn file(host: &str) -> String {
    format!(
        "<clientConfig><emailProvider><incomingServer type=\"imap\"><hostname>imap.{host}</hostname>\
         <port>993</port><socketType>SSL</socketType><username>%EMAILADDRESS%</username>\
         <authentication>password-cleartext</authentication></incomingServer>\
         <outgoingServer type=\"smtp\"><hostname>smtp.{host}</hostname><port>465</port>\
         <socketType>SSL</socketType><username>%EMAILADDRESS%</username>\
         <authentication>password-cleartext</authentication></outgoingServer>\
         </emailProvider></clientConfig>"
    )
}

fn srv(port: u16, target: &str) -> SrvRecord {
    SrvRecord { priority: 0, weight: 1, port, target: target.to_owned() }
}

fn mx(exchange: &str) -> Vec<MxRecord> {
    vec![MxRecord { preference: 10, exchange: exchange.to_owned() }]
}

fn hosts(found: &Discovery) -> (String, String) {
    let proposal = found.proposal.as_ref().unwrap();
    let host = |server: &Option<crate::profile::ServerUrl>| {
        server.as_ref().map_or_else(String::new, |server| server.host.clone())
    };
    (host(&proposal.smtp), host(&proposal.imap))
}

async fn find(world: World, address: &str) -> (Discovery, std::sync::Arc<World>) {
    let (world, discoverer) = world.discoverer();
    (discoverer.find(&MailDomain::of(address).unwrap()).await, world)
}

#[tokio::test]
async fn a_known_domain_asks_nobody() {
    let (found, world) = find(World::default(), "ann@gmail.com").await;
    let proposal = found.proposal.unwrap();
    assert_eq!((proposal.origin, proposal.sign_in[0]), (Origin::Table, SignIn::AppPassword));
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn the_domains_own_file_wins_over_its_records() {
    let mut world = World { mx: mx("aspmx.l.google.com."), ..World::default() };
    let url =
        "https://autoconfig.example.org/mail/config-v1.1.xml?emailaddress=a%2Bb%40example.org";
    world.files.insert(url.to_owned(), file("hoster.example"));
    world.srv.insert("_imaps._tcp.example.org.", srv(993, "srv.example.org."));
    let (found, world) = find(world, "a+b@example.org").await;
    assert_eq!(hosts(&found), ("smtp.hoster.example".into(), "imap.hoster.example".into()));
    let proposal = found.proposal.unwrap();
    assert!(matches!(proposal.origin, Origin::Autoconfig(_)));
    // What the domain says under TLS of its own name needs no second look.
    let domain = MailDomain::of("a+b@example.org").unwrap();
    assert!(proposal.hosts_to_confirm(&domain).is_empty());
    assert!(world.asked().iter().all(|asked| !asked.starts_with("http:")));
}

/// Each server is judged by what named it: records are not signed.
#[tokio::test]
async fn what_records_add_to_the_domains_own_file_has_to_be_confirmed() {
    let mut world = World::default();
    let url = "https://example.org/.well-known/autoconfig/mail/config-v1.1.xml";
    let file = file("hoster.example");
    let (incoming, rest) = file.split_once("<outgoingServer").unwrap();
    let (_, rest) = rest.split_once("</outgoingServer>").unwrap();
    world.files.insert(url.to_owned(), format!("{incoming}{rest}"));
    world.srv.insert("_submissions._tcp.example.org.", srv(465, "smtp.evil.example."));
    let (found, _) = find(world, "ann@example.org").await;
    assert_eq!(hosts(&found), ("smtp.evil.example".into(), "imap.hoster.example".into()));
    let proposal = found.proposal.unwrap();
    assert!(matches!(proposal.origin, Origin::Autoconfig(_)));
    let domain = MailDomain::of("ann@example.org").unwrap();
    assert_eq!(proposal.hosts_to_confirm(&domain), ["smtp.evil.example"]);
}

/// Names that nobody answers for cost nothing of what the domain's own server says.
#[tokio::test(start_paused = true)]
async fn records_that_never_come_leave_the_file_alone() {
    let mut world = World { resolver: Resolver::Silent, ..World::default() };
    let url = "https://example.org/.well-known/autoconfig/mail/config-v1.1.xml";
    world.files.insert(url.to_owned(), file("example.org"));
    let (found, _) = find(world, "ann@example.org").await;
    assert_eq!(hosts(&found), ("smtp.example.org".into(), "imap.example.org".into()));
    assert_eq!(found.troubles.len(), 1, "{:?}", found.troubles);
}

#[tokio::test]
async fn the_second_place_of_the_file_is_tried() {
    let mut world = World::default();
    let url = "https://example.org/.well-known/autoconfig/mail/config-v1.1.xml";
    world.files.insert(url.to_owned(), file("example.org"));
    let (found, _) = find(world, "ann@example.org").await;
    assert_eq!(hosts(&found).0, "smtp.example.org");
}

#[tokio::test]
async fn a_web_page_in_place_of_the_file_is_passed_over() {
    let mut world = World::default();
    let url = "https://example.org/.well-known/autoconfig/mail/config-v1.1.xml";
    world.files.insert(url.to_owned(), "<!doctype html><p>Not here".to_owned());
    world.srv.insert("_submissions._tcp.example.org.", srv(465, "smtp.example.org."));
    world.srv.insert("_imaps._tcp.example.org.", srv(993, "imap.example.org."));
    let (found, _) = find(world, "ann@example.org").await;
    assert_eq!(found.proposal.as_ref().unwrap().origin, Origin::Srv);
    assert!(found.troubles.is_empty());
}

#[tokio::test]
async fn records_win_over_the_exchanger_and_the_exchanger_over_a_guess() {
    let mut world = World { mx: mx("aspmx.l.google.com."), ..World::default() };
    world.srv.insert("_submissions._tcp.example.org.", srv(465, "smtp.example.org."));
    world.srv.insert("_imaps._tcp.example.org.", srv(993, "imap.example.org."));
    world.servers.insert("smtp.example.org:465", Reached::Ready);
    let (found, _) = find(world, "ann@example.org").await;
    assert_eq!(hosts(&found), ("smtp.example.org".into(), "imap.example.org".into()));

    let mut world = World { mx: mx("aspmx.l.google.com."), ..World::default() };
    world.servers.insert("smtp.example.org:465", Reached::Ready);
    let (found, world) = find(world, "ann@example.org").await;
    assert_eq!(hosts(&found), ("smtp.gmail.com".into(), "imap.gmail.com".into()));
    assert!(!world.asked().contains("smtp.example.org:465"), "what is known was guessed");
    let proposal = found.proposal.unwrap();
    assert_eq!(proposal.provider.unwrap().id, "gmail");
    let domain = MailDomain::of("ann@example.org").unwrap();
    assert_eq!(proposal.hosts_to_confirm(&domain), ["smtp.gmail.com", "imap.gmail.com"]);
}

#[tokio::test]
async fn what_one_way_lacks_the_next_one_brings() {
    let mut world = World::default();
    world.srv.insert("_imaps._tcp.example.org.", srv(993, "post.example.org."));
    world.servers.insert("mail.example.org:587", Reached::Ready);
    let (found, _) = find(world, "ann@example.org").await;
    assert_eq!(hosts(&found), ("mail.example.org".into(), "post.example.org".into()));
    assert!(found.proposal.unwrap().remarks[0].contains("mail.example.org comes from"));
}

#[tokio::test]
async fn a_guess_prefers_a_server_that_proves_who_it_is() {
    let mut world = World::default();
    world.servers.insert("smtp.example.org:465", Reached::Untrusted("for another name".into()));
    world.servers.insert("mail.example.org:465", Reached::Ready);
    world.servers.insert("imap.example.org:993", Reached::Untrusted("signed by nobody".into()));
    let (found, _) = find(world, "ann@example.org").await;
    assert_eq!(hosts(&found), ("mail.example.org".into(), "imap.example.org".into()));
    assert_eq!(found.proposal.unwrap().remarks, ["signed by nobody"]);
}

#[tokio::test]
async fn nothing_found_says_what_did_not_work() {
    let world = World { resolver: Resolver::Fails, ..World::default() };
    let (found, world) = find(world, "ann@example.org").await;
    assert_eq!(found.proposal, None);
    assert!(found.troubles[0].why.contains("name servers"), "{found:?}");
    assert!(world.asked().contains("_submissions._tcp.example.org."));
}

#[test]
fn an_international_domain_is_looked_up_in_ascii() {
    let domain = MailDomain::of("ann@bücher.example").unwrap();
    assert_eq!(domain.domain(), "xn--bcher-kva.example");
    assert_eq!(MailDomain::of("ann@Example.ORG").unwrap().domain(), "example.org");
    for address in ["ann", "@example.org", "ann@", "ann@exa mple", "ann@a/b"] {
        assert_eq!(MailDomain::of(address), None, "{address}");
    }
}
