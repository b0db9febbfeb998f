#![allow(clippy::unwrap_used)]
use super::*;

fn call(line: &[&str]) -> Result<Call, String> {
    let arguments: Vec<OsString> = line.iter().map(OsString::from).collect();
    parse(&arguments)
}

/// What is understood of a line, one row for each.
#[test]
fn every_row_of_the_table_of_flags() {
    let to = |operands: &[&str]| operands.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let bob = || Call { operands: to(&["bob"]), ..Call::default() };
    let from = |from: &str| Call { from: Some(from.to_owned()), ..bob() };
    let header = || Call { addressees: Addressees::Header, ..Call::default() };
    let mode = |mode| Call { mode, ..Call::default() };
    let dots = || Call { lone_dot: LoneDot::IsText, ..bob() };
    let flush = |flush| mode(Mode::Flush(flush));
    let notify = |success, failure, delay| Call {
        notify: Some(Notify { success, failure, delay }),
        ..bob()
    };
    let rows: &[(&[&str], Call)] = &[
        (&[], Call::default()),
        (&["bob"], bob()),
        (&["a,b", "c@d"], Call { operands: to(&["a,b", "c@d"]), ..Call::default() }),
        // -t
        (&["-t"], header()),
        (&["-t", "bob"], Call { operands: to(&["bob"]), ..header() }),
        (
            &["-O", "extract_addresses_remove_arguments=yes", "-t", "bob"],
            Call { operands: to(&["bob"]), with_header: WithHeader::ArgumentsRemoved, ..header() },
        ),
        (&["-t", "-Oextract_addresses_remove_arguments=no"], header()),
        // -f, -r
        (&["-f", "ann@x", "bob"], from("ann@x")),
        (&["-fann@x", "bob"], from("ann@x")),
        (&["-r", "ann@x", "bob"], from("ann@x")),
        (&["-rann@x", "bob"], from("ann@x")),
        (&["-f", "", "bob"], from("")),
        (&["-f", "<>", "bob"], from("")),
        (&["-f<>", "bob"], from("")),
        (&["-f", "--", "bob"], from("")),
        // -F
        (&["-FCronDaemon", "bob"], Call { full_name: Some("CronDaemon".into()), ..bob() }),
        (&["-F", "Änn E", "bob"], Call { full_name: Some("Änn E".into()), ..bob() }),
        // -i
        (&["-i", "bob"], dots()),
        (&["-oi", "bob"], dots()),
        (&["-oitrue", "bob"], dots()),
        (&["-o", "i", "bob"], dots()),
        (&["-O", "IgnoreDots=True", "bob"], dots()),
        (&["-oifalse", "bob"], bob()),
        (&["-ti"], Call { lone_dot: LoneDot::IsText, ..header() }),
        (&["-it"], Call { lone_dot: LoneDot::IsText, ..header() }),
        // -b, -I
        (&["-bm", "bob"], bob()),
        (&["-b", "m", "bob"], bob()),
        (&["-bp"], mode(Mode::List)),
        (&["-bs"], mode(Mode::Smtp)),
        (&["-bv", "bob"], Call { mode: Mode::Verify, ..bob() }),
        (&["-bi"], mode(Mode::Aliases)),
        (&["-I"], mode(Mode::Aliases)),
        // -q
        (&["-q"], flush(Flush::All)),
        (&["-qf"], flush(Flush::All)),
        (&["-q15m"], mode(Mode::Interval)),
        (&["-qp30s"], mode(Mode::Interval)),
        (&["-qI", "01J"], flush(Flush::Id("01J".into()))),
        (&["-qI01J"], flush(Flush::Id("01J".into()))),
        (&["-qR", "example.org"], flush(Flush::Recipient("example.org".into()))),
        (&["-qRexample.org"], flush(Flush::Recipient("example.org".into()))),
        (&["-qSann"], flush(Flush::Sender("ann".into()))),
        // -od, -oe, -e
        (&["-odi", "-odb", "-odq", "-odd", "bob"], bob()),
        (&["-oem", "-oep", "-oee", "-oeq", "-oew", "-em", "bob"], bob()),
        // taken, without effect
        (&["-oA/etc/aliases", "-om", "-o7", "-os", "bob"], bob()),
        (&["-O", "DeliveryMode=b", "-OLogLevel=9", "-O", "smtputf8=yes", "bob"], bob()),
        (&["-m", "-n", "-U", "-G", "-mnUG", "bob"], bob()),
        (&["-h", "3", "-h3", "-X", "/tmp/x", "-X/tmp/x", "bob"], bob()),
        (&["-Ac", "-Am", "-A", "c", "-psmtp:host", "-p", "smtp", "bob"], bob()),
        (&["-d", "-d0.1", "-d-0.1", "bob"], bob()),
        // those with an effect
        (&["-v", "bob"], Call { verbose: true, ..bob() }),
        (&["-iv", "bob"], Call { verbose: true, ..dots() }),
        (&["-Lcron", "bob"], Call { tag: Some("cron".into()), ..bob() }),
        (&["-L", "cron", "bob"], Call { tag: Some("cron".into()), ..bob() }),
        (&["-C/etc/x.toml", "bob"], Call { profile: Some("/etc/x.toml".into()), ..bob() }),
        (&["-C", "/etc/x.toml", "bob"], Call { profile: Some("/etc/x.toml".into()), ..bob() }),
        (&["-O", "requiretls=yes", "bob"], Call { require_tls: true, ..bob() }),
        (&["-O", "RequireTLS=no", "bob"], bob()),
        // -B, -N, -R, -V
        (&["-B8BITMIME", "bob"], Call { body: Some(BodyType::EightBitMime), ..bob() }),
        (&["-B", "7bit", "bob"], Call { body: Some(BodyType::SevenBit), ..bob() }),
        (&["-N", "success,failure,delay", "bob"], notify(true, true, true)),
        (&["-NFAILURE", "bob"], notify(false, true, false)),
        (&["-N", "never", "bob"], notify(false, false, false)),
        (&["-R", "full", "bob"], Call { returned: Some(Return::Full), ..bob() }),
        (&["-Rhdrs", "bob"], Call { returned: Some(Return::Headers), ..bob() }),
        (&["-V", "id+2B1", "bob"], Call { envelope_id: Some("id+1".into()), ..bob() }),
        // --
        (&["--", "bob"], bob()),
        (&["-i", "--", "-bob"], Call { operands: to(&["-bob"]), ..dots() }),
        (&["--", "--"], Call { operands: to(&["--"]), ..Call::default() }),
    ];
    for (line, wanted) in rows {
        assert_eq!(call(line).as_ref(), Ok(wanted), "{line:?}");
    }
}

/// The calls of programs in the field.
#[test]
fn the_calls_of_programs_are_understood() {
    for line in [
        &["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"][..],
        &["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t"],
        &["-FCronDaemon", "-odi", "-oem", "-oi", "-t", "-f", "root"],
        &["-f", "ann@example.org", "-i", "bob@example.org", "carl@example.org"],
        &["-oem", "-oi", "-f", "a@b", "-B8BITMIME", "-N", "never", "-R", "hdrs", "--", "bob@c"],
        &["-t"],
        &["-t", "-i", "-fuser@example.org"],
        &["-i", "-fann@example.org", "--", "bob@example.org"],
        &["-i", "-m", "-v", "-r", "ann@example.org", "bob"],
    ] {
        assert!(call(line).is_ok(), "{line:?}: {:?}", call(line));
    }
}

#[test]
fn what_cannot_be_is_one_line_of_usage() {
    let rows: &[(&[&str], &str)] = &[
        (&["-z"], "-z is no option"),
        (&["-tz"], "-tz is no option"),
        (&["--help"], "--help is no option"),
        (&["-bd"], "postrider run"),
        (&["-bD"], "postrider run"),
        (&["-bz"], "-bz is not known"),
        (&["-bsv"], "-bsv is not known"),
        (&["-b"], "-b without its value"),
        (&["-f"], "-f without its value"),
        (&["-qI"], "-qI without its value"),
        (&["-q!Ix"], "-q!Ix is not known"),
        (&["-odx", "bob"], "-odx is not known"),
        (&["-oex", "bob"], "-oex is not known"),
        (&["-B", "9BIT"], "7BIT or 8BITMIME"),
        (&["-N", "never,success"], "-N never,success"),
        (&["-N", ""], "-N :"),
        (&["-R", "some"], "full or hdrs"),
        (&["-V", ""], "xtext"),
        (&["-V", "a+zz"], "xtext"),
        (&["-V", "a\tb"], "xtext"),
        (&["bob", "-t"], "-t behind a recipient"),
    ];
    for (line, named) in rows {
        let why = call(line).unwrap_err();
        assert!(why.contains(named), "{line:?}: {why}");
        assert!(why.contains("usage: sendmail") && !why.contains('\n'), "{why}");
    }
}
