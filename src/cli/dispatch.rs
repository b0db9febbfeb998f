//! From the arguments of the process to a command and its exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::access::{LOCK_WAIT, Place};
use super::args::{Arguments, Command, Foreign, Globals, LogFormat, ProfileCommand};
use super::console::Console;
use super::exit::{Exit, Failure};
use super::logging::{self, Talkativeness};
use super::queue::Verb;
use super::session_glue::SpoolOpener;
use super::{
    auth, flush, fsck, harden, notify, papers, profile_commands, profile_import, profile_new,
    queue, run, runtime, send, sendmail, status, top, trace,
};
use crate::observe::Observer;
use crate::profile::{Catalog, Dirs, Environment, Profile, ProfileName};

/// The program `postrider`: reads the arguments of the process, does what they say and answers
/// with an exit code of sysexits.h.
pub fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    if let Some(called) = sendmail::called(&given) {
        return sendmail::main(&called);
    }
    let environment = Environment::of_process();
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let arguments = match parse(given) {
        Ok(arguments) => arguments,
        Err(Unparsed::Help(text)) => {
            let mut console = Console::new(&mut out, &mut err, false);
            return end(console.bytes(text.as_bytes()), &mut console);
        }
        Err(Unparsed::Wrong(failure)) => {
            return end(Err(failure), &mut Console::new(&mut out, &mut err, false));
        }
    };
    let (talkativeness, format) = match &arguments.command {
        Command::Run(run) => (Talkativeness::Daemon, run.log_format),
        _ => (Talkativeness::Command, LogFormat::Text),
    };
    if !matches!(arguments.command, Command::Man(_)) {
        harden::keep_files_private();
    }
    harden::keep_memory_private();
    logging::start(talkativeness, arguments.globals.verbose, format);
    let mut console = Console::new(&mut out, &mut err, arguments.globals.json);
    console.look_at_streams(&environment);
    console.log_format = format;
    let runtime = match runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => return end(Err(Failure::io("start", &error)), &mut console),
    };
    let answer = runtime.block_on(dispatch(arguments, &environment, &mut console));
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_background();
    end(answer, &mut console)
}

fn end(answer: Result<(), Failure>, console: &mut Console<'_>) -> ExitCode {
    match answer.and_then(|()| console.flush()) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            console.complain(&failure);
            failure.exit.into()
        }
    }
}

/// Arguments that name no command.
enum Unparsed {
    /// Help or version was asked for.
    Help(String),
    Wrong(Failure),
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, Unparsed> {
    Arguments::try_parse_from(arguments).map_err(|error| match error.use_stderr() {
        false => Unparsed::Help(error.render().to_string()),
        true => Unparsed::Wrong(unparsed(&error)),
    })
}

/// What is wrong with arguments, in one line.
pub(crate) fn unparsed(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    // The explanation ends where the usage begins.
    let told = text.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.strip_prefix("error: ").unwrap_or(told);
    // The usage begins with the command that was meant.
    let usage = text.split("Usage: ").nth(1).unwrap_or_default();
    let is_word = |word: &&str| word.starts_with(|c: char| c.is_ascii_alphabetic());
    let command: Vec<&str> = usage.split_whitespace().take_while(is_word).collect();
    let command = if command.is_empty() { "postrider".to_owned() } else { command.join(" ") };
    Failure::usage(format!("{}; see `{command} --help`", told.trim_end()))
}

/// What every command needs to know.
struct Context {
    globals: Globals,
    catalog: Catalog,
    observer: Observer,
}

impl Context {
    fn profile_name(&self, named: Option<&str>) -> Result<ProfileName, Failure> {
        let asked = named.or(self.globals.profile.as_deref()).filter(|name| !name.is_empty());
        match asked {
            Some(text) => profile_commands::name(text),
            None => Ok(self.catalog.default_name()?),
        }
    }

    fn profile(&self, named: Option<&str>) -> Result<Profile, Failure> {
        Ok(self.catalog.load(&self.profile_name(named)?)?)
    }

    /// Where the session of a profile is to be found. A profile that cannot be used matters only
    /// once the spool has to be opened: a daemon that runs can be asked all the same.
    fn place_of(&self, name: &ProfileName) -> Result<Place, Failure> {
        let (profile, dirs) = (self.catalog.load(name), self.catalog.dirs());
        let state_folder = match &profile {
            Ok(_) => dirs.make_state_folder(name)?,
            Err(_) => dirs.state_folder(name),
        };
        let listen = profile.as_ref().ok().and_then(|profile| profile.listen.clone());
        let submissions = profile.as_ref().ok().and_then(|profile| profile.local.socket.clone());
        let metrics = profile.as_ref().ok().and_then(|profile| profile.metrics.clone());
        let observer = self.observer.clone();
        Ok(Place {
            socket: dirs.socket(name),
            listen,
            submissions,
            metrics,
            opener: Box::new(SpoolOpener { profile, state_folder, observer }),
            lock_wait: LOCK_WAIT,
        })
    }

    fn place(&self) -> Result<Place, Failure> {
        self.place_of(&self.profile_name(None)?)
    }
}

async fn dispatch(
    arguments: Arguments,
    environment: &Environment,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let Arguments { globals, command } = arguments;
    let current =
        std::env::current_dir().map_err(|error| Failure::io("find this folder", &error))?;
    let (config, state) = (globals.config.as_deref(), globals.state.as_deref());
    let dirs = Dirs::resolve(config, state, environment, &current);
    let dirs = dirs.map_err(|why| Failure::new(Exit::Config, why))?;
    let catalog = Catalog::new(dirs, environment.clone());
    let context = Context { globals, catalog, observer: Observer::default() };
    match command {
        Command::Profile(command) => profile(&context, console, command).await,
        Command::Auth(command) => {
            let name = context.profile_name(None)?;
            let profile = context.catalog.load(&name)?;
            let state_folder = context.catalog.dirs().make_state_folder(&name)?;
            let place = context.place_of(&name)?;
            let accounts =
                auth::Accounts { profile: &profile, state_folder: &state_folder, place: &place };
            auth::auth(&accounts, console, &command).await
        }
        Command::Send(arguments) => send::send(&context.place()?, console, &arguments).await,
        Command::Run(_) => {
            let name = context.profile_name(None)?;
            let reread = || {
                context.catalog.load(&name)?;
                context.place_of(&name)
            };
            run::run(reread()?, console, name.as_str(), &reread).await
        }
        Command::Fetch => flush::fetch(&context.place()?, console).await,
        Command::Flush(arguments) => flush::flush(&context.place()?, console, &arguments).await,
        Command::Status(arguments) => status::status(&context.place()?, console, &arguments).await,
        Command::Top => top::top(&context.place()?, console).await,
        Command::Queue(arguments) => {
            queue::queue(&context.place()?, console, arguments.command.as_ref()).await
        }
        Command::Cancel(ids) => {
            queue::each(&context.place()?, console, Verb::Cancel, &ids.ids).await
        }
        Command::Hold(ids) => queue::each(&context.place()?, console, Verb::Hold, &ids.ids).await,
        Command::Release(ids) => {
            queue::each(&context.place()?, console, Verb::Release, &ids.ids).await
        }
        Command::Retry(arguments) => queue::retry(&context.place()?, console, &arguments).await,
        Command::Trace(arguments) => trace::trace(&context.place()?, console, &arguments.id).await,
        Command::Export(id) => queue::export(&context.place()?, console, &id.id).await,
        Command::Fsck(arguments) => fsck::fsck(&context.place()?, console, &arguments).await,
        Command::Notify(arguments) => notify::notify(&context.place()?, console, &arguments).await,
        // Their arguments are read before those of the others, see `main`.
        Command::Sendmail(Foreign { arguments })
        | Command::Mailq(Foreign { arguments })
        | Command::Newaliases(Foreign { arguments }) => {
            Err(Failure::usage(format!("{} arguments were not understood", arguments.len())))
        }
        Command::Completions(arguments) => papers::completions(console, arguments.shell),
        Command::Man(arguments) => papers::manual(&arguments.folder),
    }
}

async fn profile(
    context: &Context,
    console: &mut Console<'_>,
    command: ProfileCommand,
) -> Result<(), Failure> {
    let catalog = &context.catalog;
    match command {
        ProfileCommand::New(arguments) => profile_new::new(catalog, console, &arguments).await,
        ProfileCommand::Add(arguments) => profile_new::add(catalog, console, &arguments).await,
        ProfileCommand::Import(arguments) => {
            profile_import::import(catalog, console, &arguments).await
        }
        ProfileCommand::List => profile_commands::list(catalog, console),
        ProfileCommand::Show(named) => {
            profile_commands::show(&context.profile(named.name.as_deref())?, console)
        }
        ProfileCommand::Check(named) => {
            let profile = context.profile(named.name.as_deref())?;
            let reports = crate::session::check_profile(&profile).await;
            let reports =
                reports.map_err(|error| Failure::contract("check the profile", &error))?;
            profile_commands::print_checks(&reports, console)
        }
        ProfileCommand::Default(named) => profile_commands::set_default(catalog, &named.name),
        ProfileCommand::Remove(arguments) => {
            let place = |name: &ProfileName| context.place_of(name);
            profile_commands::remove(catalog, console, &arguments, place).await
        }
    }
}
