//! `sendmail`, `mailq` and `newaliases`: what programs of a Unix machine hand their mail to. The
//! program is them when it is called by their name, and as subcommands.
//!
//! A message is read to its end first and handed over then: a job of cron may take hours between
//! two lines. Exit 0 means that it is durable (SP-1), with a daemon and without one.

mod deliver;
mod flags;
mod input;
mod list;
#[cfg(any(test, fuzzing))]
pub(super) mod properties;
mod queue_run;
mod smtp;
mod verify;
mod whereabouts;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use self::flags::{Call, Mode};
use self::input::Input;
use self::whereabouts::{Found, find};
use super::args::{Arguments, Globals, LogFormat};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::logging::{self, Talkativeness};
use super::{dispatch, harden};
use crate::profile::Environment;

/// The names this program answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Sendmail,
    Mailq,
    Newaliases,
}

impl Name {
    fn of(text: &OsStr) -> Option<Self> {
        match text.to_str()? {
            "sendmail" => Some(Name::Sendmail),
            "mailq" => Some(Name::Mailq),
            "newaliases" => Some(Name::Newaliases),
            _ => None,
        }
    }
}

/// A command line that is for this module.
#[derive(Debug)]
pub(crate) struct Called {
    name: Name,
    /// What stands before the subcommand.
    head: Vec<OsString>,
    rest: Vec<OsString>,
}

/// Whether the arguments of the process are for one of the three. Their flags are not those of the
/// other commands: `-v` and `-f` mean something else here.
pub(crate) fn called(arguments: &[OsString]) -> Option<Called> {
    let (program, rest) = arguments.split_first()?;
    if let Some(name) = Path::new(program).file_name().and_then(Name::of) {
        return Some(Called { name, head: Vec::new(), rest: rest.to_vec() });
    }
    let mut place = 0;
    while let Some(argument) = rest.get(place) {
        let text = argument.to_str()?;
        place += match text {
            "--profile" | "--config" | "--state" => 2,
            _ if text.starts_with('-') => 1,
            _ => break,
        };
    }
    let name = Name::of(rest.get(place)?)?;
    let (head, rest) = rest.split_at_checked(place)?;
    let mut head = head.to_vec();
    head.insert(0, program.clone());
    Some(Called { name, head, rest: rest.get(1..)?.to_vec() })
}

/// Does what was called and answers with an exit code of sysexits.h.
pub(crate) fn main(called: &Called) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let (call, globals) = match read(called) {
        Ok(read) => read,
        Err(failure) => {
            Console::new(&mut out, &mut err, false).complain(&failure);
            return failure.exit.into();
        }
    };
    let mut console = Console::new(&mut out, &mut err, globals.json);
    if let Some(tag) = &call.tag {
        console.call_itself(tag);
    }
    let answer = run(&call, &globals, &mut console).and_then(|()| match call.mode {
        // It is queued, whatever becomes of the words about it.
        Mode::Deliver => Ok(()),
        _ => console.flush(),
    });
    match answer {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            console.complain(&failure);
            failure.exit.into()
        }
    }
}

/// The call and what stands around it.
fn read(called: &Called) -> Result<(Call, Globals), Failure> {
    let globals = match called.head.as_slice() {
        [] => Globals::of_environment(&Environment::of_process()),
        head => {
            // The options before the subcommand are those of every command.
            let head = head.iter().cloned().chain([OsString::from("mailq")]);
            let read = Arguments::try_parse_from(head);
            read.map_err(|error| dispatch::unparsed(&error))?.globals
        }
    };
    let mut call = flags::parse(&called.rest).map_err(Failure::usage)?;
    match called.name {
        Name::Sendmail => {}
        Name::Mailq => call.mode = Mode::List,
        Name::Newaliases => call.mode = Mode::Aliases,
    }
    Ok((call, globals))
}

fn run(call: &Call, globals: &Globals, console: &mut Console<'_>) -> Result<(), Failure> {
    harden::keep_files_private();
    harden::keep_memory_private();
    logging::start(Talkativeness::Command, globals.verbose, LogFormat::Text);
    let environment = Environment::of_process();
    let find = || find(call.profile.as_deref(), globals, &environment);
    match &call.mode {
        // Profiles say where mail for local names goes; no database is made of that.
        Mode::Aliases => Ok(()),
        Mode::Interval => Ok(()),
        Mode::Deliver => {
            // What is wrong with the call is said before anybody has to type a message.
            let envelope = deliver::envelope(call)?;
            let found = find()?;
            let input = Input::of_process(call.lone_dot)?;
            on_runtime(deliver::deliver(call, &found, console, envelope, &input))
                .map_err(|failure| created(failure, &found))
        }
        Mode::List => {
            let found = find()?;
            found.must_be_own("show the queue")?;
            on_runtime(list::list(&found, console))
        }
        Mode::Verify => {
            let found = find()?;
            found.must_be_own("verify")?;
            verify::verify(call, &found, console)
        }
        Mode::Smtp => on_runtime(smtp::serve(&find()?, console)),
        Mode::Flush(what) => {
            let found = find()?;
            found.must_be_own("flush the queue")?;
            on_runtime(queue_run::flush(what, &found, console))
        }
    }
}

/// A spool that could not even be made has an exit code of its own.
fn created(failure: Failure, found: &Found) -> Failure {
    let is_storage = matches!(failure.exit, Exit::Io | Exit::NotPermitted);
    match is_storage && !found.has_state_folder() {
        true => failure.with_exit(Exit::CannotCreate),
        false => failure,
    }
}

/// One thread is enough, and quicker to have.
fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::System, format!("cannot start: {error}")))?;
    let answer = runtime.block_on(work);
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_background();
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(line: &str) -> Option<(Name, usize, Vec<String>)> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let called = called(&arguments)?;
        let rest = called.rest.iter().map(|one| one.to_str().unwrap().to_owned()).collect();
        Some((called.name, called.head.len(), rest))
    }

    #[test]
    fn the_name_of_the_program_or_a_subcommand_decides() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, name, head, rest) in [
            ("/usr/sbin/sendmail -t -v", Name::Sendmail, 0, words("-t -v")),
            ("mailq -v", Name::Mailq, 0, words("-v")),
            ("./newaliases --profile", Name::Newaliases, 0, words("--profile")),
            ("sendmail sendmail", Name::Sendmail, 0, words("sendmail")),
            ("postrider sendmail -v -f x", Name::Sendmail, 1, words("-v -f x")),
            ("postrider --profile a -v mailq -x", Name::Mailq, 4, words("-x")),
            ("postrider --state=/x sendmail -t", Name::Sendmail, 2, words("-t")),
        ] {
            assert_eq!(of(line), Some((name, head, rest)), "{line}");
        }
        for line in ["postrider", "postrider send -t x", "postrider --profile sendmail queue"] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
