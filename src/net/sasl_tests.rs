//! Which login is chosen, and what each says.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn claim<'a>(user: &'a str, secret: &'a SecretString) -> Claim<'a> {
    Claim { user, secret, host: "mail.example.org", port: 587, binding: Binding::None }
}

#[test]
fn chooses_what_both_sides_know_and_the_best_first() {
    use Channel::{ClearAllowed, Encrypted, Loopback};
    use SecretKind::{Password, Token};
    let choose = Mechanism::candidates::<&str>;
    let all = ["LOGIN", "plain", "SCRAM-SHA-256", "SCRAM-SHA-1", "XOAUTH2", "OAUTHBEARER"];
    assert_eq!(
        choose(&all, None, Encrypted, Password),
        Ok(vec![Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login])
    );
    assert_eq!(
        choose(&all, None, Encrypted, Token),
        Ok(vec![Mechanism::OauthBearer, Mechanism::XOauth2])
    );
    let offered = ["LOGIN", "XOAUTH2"];
    assert_eq!(choose(&offered, None, Loopback, Password), Ok(vec![Mechanism::Login]));
    assert_eq!(choose(&offered, None, Loopback, Token), Ok(vec![Mechanism::XOauth2]));
    // What the profile asks for is what is used, whatever else is offered.
    for (wanted, mechanism) in [
        ("login", Mechanism::Login),
        ("scram-sha-256", Mechanism::ScramSha256),
        ("xoauth2", Mechanism::XOauth2),
    ] {
        let found = choose(&all, Some(wanted), ClearAllowed, Password);
        assert_eq!(found, Ok(vec![mechanism]));
    }
    assert_eq!(
        choose(&["XOAUTH2", "GSSAPI"], None, Encrypted, Password),
        Err(SaslError::NotOffered("XOAUTH2 GSSAPI".into()))
    );
    assert_eq!(
        choose(&["PLAIN"], None, Encrypted, Token),
        Err(SaslError::NoTokenLogin("PLAIN".into()))
    );
    for wanted in ["plain", "scram-sha-256"] {
        let found = choose(&["LOGIN"], Some(wanted), Encrypted, Password);
        assert!(matches!(found, Err(SaslError::NotOffered(_))), "{wanted}");
    }
    let unknown = choose(&["PLAIN"], Some("kerberos"), Encrypted, Password);
    assert!(matches!(unknown, Err(SaslError::Unknown(_))));
}

#[test]
fn a_bound_login_comes_first_where_the_connection_can_be_named() {
    use Channel::{Bound, ClearAllowed, Encrypted, Loopback};
    use SecretKind::Password;
    let choose = Mechanism::candidates::<&str>;
    let all = ["CRAM-MD5", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
    let (plus, scram) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
    let (plain, cram) = (Mechanism::Plain, Mechanism::CramMd5);
    assert_eq!(choose(&all, None, Bound, Password), Ok(vec![plus, scram, plain, cram]));
    assert_eq!(choose(&all, None, Encrypted, Password), Ok(vec![scram, plain, cram]));
    // Without TLS what does not show the password comes first.
    for channel in [Loopback, ClearAllowed] {
        assert_eq!(choose(&all, None, channel, Password), Ok(vec![scram, cram, plain]));
    }
    let wanted = Some("scram-sha-256-plus");
    assert_eq!(choose(&all, wanted, Bound, Password), Ok(vec![plus]));
    for channel in [Encrypted, Loopback] {
        assert_eq!(choose(&all, wanted, channel, Password), Err(SaslError::Unbound));
    }
    assert!(matches!(
        choose(&["SCRAM-SHA-256"], wanted, Bound, Password),
        Err(SaslError::NotOffered(_))
    ));
}

#[test]
fn what_a_scram_login_says_of_binding_follows_from_the_offer() {
    let secret = SecretString::from("pencil");
    let binding = ChannelBinding { kind: "tls-exporter", data: vec![1; 32] };
    let (plus, scram) = (Mechanism::ScramSha256Plus, Mechanism::ScramSha256);
    let offers = ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
    for (binding, offered, mechanism, header) in [
        (Some(&binding), &offers[..], plus, "p=tls-exporter,,"),
        (Some(&binding), &offers[..], scram, "n,,"),
        (Some(&binding), &offers[..1], scram, "y,,"),
        (None, &offers[..], scram, "n,,"),
    ] {
        let binding = Binding::of(binding, offered);
        let claim = Claim { binding, ..claim("user", &secret) };
        let first = Exchange::new(mechanism, claim).unwrap().initial();
        let first = String::from_utf8(STANDARD.decode(&*first).unwrap()).unwrap();
        assert!(first.starts_with(&format!("{header}n=user,r=")), "{first}");
    }
    assert!(Exchange::new(plus, claim("user", &secret)).is_err());
}

#[test]
fn who_shows_a_certificate_says_nothing_or_whom_to_act_for() {
    let nothing = SecretString::from("");
    for (user, wanted) in [("", "="), ("ann", "YW5u")] {
        let mut exchange = Exchange::new(Mechanism::External, claim(user, &nothing)).unwrap();
        assert_eq!(*exchange.initial_argument(), wanted);
    }
    // Asked for it, nothing is an empty line.
    let mut exchange = Exchange::new(Mechanism::External, claim("", &nothing)).unwrap();
    assert_eq!(*exchange.answer("").unwrap(), "");
    let choose = Mechanism::candidates::<&str>;
    let offered = ["PLAIN", "EXTERNAL"];
    let found = choose(&offered, None, Channel::Bound, SecretKind::Certificate);
    assert_eq!(found, Ok(vec![Mechanism::External]));
    assert_eq!(conceal("no such user", claim("", &nothing)), "no such user");
}

#[test]
fn cram_md5_answers_as_in_the_rfc() {
    let secret = SecretString::from("tanstaaftanstaaf");
    let mut exchange = Exchange::new(Mechanism::CramMd5, claim("tim", &secret)).unwrap();
    let challenge = STANDARD.encode("<1896.697170952@postoffice.reston.mci.net>");
    let answer = exchange.answer(&challenge).unwrap();
    let answer = String::from_utf8(STANDARD.decode(&*answer).unwrap()).unwrap();
    assert_eq!(answer, "tim b913a602c7eda7a495b4e6e7334d3890");
    assert!(exchange.answer(&challenge).is_err(), "there is one challenge");
    let mut exchange = Exchange::new(Mechanism::CramMd5, claim("tim", &secret)).unwrap();
    assert!(exchange.answer("!").is_err());
}

#[test]
fn a_repeated_secret_is_concealed_and_the_rest_is_not() {
    let secret = SecretString::from("hunter2");
    let plain = STANDARD.encode("\0ann\0hunter2");
    let bearer = "n,a=ann,\x01host=mail.example.org\x01port=587\x01auth=Bearer hunter2\x01\x01";
    for (words, shown) in [
        ("5.7.8 ann: wrong password", "5.7.8 ann: wrong password"),
        ("5.7.8 \"hunter2\" is wrong", "5.7.8 \"***\" is wrong"),
        (&format!("bad response {plain}"), "bad response ***"),
        (&format!("bad {}", STANDARD.encode("hunter2")), "bad ***"),
        (&format!("bad {}", STANDARD.encode("hunter2").trim_end_matches('=')), "bad ***"),
        (&format!("bad {}", STANDARD.encode(bearer)), "bad ***"),
        (&format!("who is {}?", STANDARD.encode("ann")), "who is YW5u?"),
    ] {
        assert_eq!(conceal(words, claim("ann", &secret)), shown);
    }
    // What stands for the user stays, also where both are the same.
    let same = conceal("hunter2 hunter2", claim("hunter2", &secret));
    assert!(!same.contains("hunter2"));
}

#[test]
fn nothing_is_chosen_in_clear() {
    for kind in [SecretKind::Password, SecretKind::Token] {
        let offered = ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"];
        let error = Mechanism::candidates(&offered, None, Channel::Clear, kind).unwrap_err();
        assert_eq!(error, SaslError::Cleartext);
    }
}

#[test]
fn responses_are_those_of_the_rfcs() {
    let secret = SecretString::from("tanstaaftanstaaf");
    let tim = claim("tim", &secret);
    // The example of RFC 4616 section 4.
    assert_eq!(*Mechanism::Plain.response(0, tim), b"\0tim\0tanstaaftanstaaf");
    assert_eq!(*Mechanism::Login.response(0, tim), b"tim");
    assert_eq!(*Mechanism::Login.response(1, tim), b"tanstaaftanstaaf");
    let token = SecretString::from("ya29.vF9dft4");
    let mut exchange =
        Exchange::new(Mechanism::XOauth2, claim("someuser@example.com", &token)).unwrap();
    assert_eq!(
        *exchange.initial(),
        STANDARD.encode("user=someuser@example.com\x01auth=Bearer ya29.vF9dft4\x01\x01")
    );
    assert_eq!(
        *Mechanism::OauthBearer.response(0, claim("a=b,c", &token)),
        b"n,a=a=3Db=2Cc,\x01host=mail.example.org\x01port=587\x01auth=Bearer ya29.vF9dft4\x01\x01"
    );
}

#[test]
fn a_refused_token_is_acknowledged_and_the_reason_kept() {
    let token = SecretString::from("t0ken");
    let challenge =
        STANDARD.encode(r#"{"status":"invalid_token","scope":"mail","schemes":"bearer"}"#);
    for (mechanism, answer) in
        [(Mechanism::XOauth2, String::new()), (Mechanism::OauthBearer, STANDARD.encode("\x01"))]
    {
        let mut exchange = Exchange::new(mechanism, claim("ann", &token)).unwrap();
        // Asked with an empty challenge, as by a server without initial responses.
        assert!(!exchange.answer("").unwrap().is_empty());
        assert_eq!(*exchange.answer(&challenge).unwrap(), answer);
        assert_eq!(exchange.complaint(), Some("status invalid_token, scope mail"));
    }
}

#[test]
fn consent_without_proof_is_no_consent() {
    let secret = SecretString::from("pencil");
    let mut exchange = Exchange::new(Mechanism::ScramSha256, claim("user", &secret)).unwrap();
    assert!(exchange.accepted().is_err());
    exchange.initial();
    assert!(exchange.answer("!").is_err());
    let exchange = Exchange::new(Mechanism::Plain, claim("user", &secret)).unwrap();
    assert!(exchange.accepted().is_ok());
}
