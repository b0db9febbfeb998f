//! `profile new`: from options, and from questions when on a terminal.

use std::io::{BufRead, Write};

use super::args::NewArguments;
use super::exit::Failure;
use crate::mapi::{MapiCode, MapiError};
use crate::profile::{NewPassword, NewProfile, Protocol, ServerUrl, parse_mailbox};

/// Where mail is kept when nothing else is said.
const MAILDIR: &str = "~/Mail";

/// Asks a person.
pub(crate) trait Questions {
    /// The answer to `question`; an empty one stands for `suggestion`.
    ///
    /// # Errors
    /// When nobody can answer.
    fn ask(&mut self, question: &str, suggestion: &str) -> Result<String, Failure>;
}

/// A person at the terminal: questions to standard error, answers from standard input.
pub(crate) struct Person<R, W> {
    pub(crate) answers: R,
    pub(crate) questions: W,
}

impl<R: BufRead, W: Write> Questions for Person<R, W> {
    fn ask(&mut self, question: &str, suggestion: &str) -> Result<String, Failure> {
        let failed = |error: std::io::Error| Failure::io("ask", &error);
        let shown = if suggestion.is_empty() { String::new() } else { format!(" [{suggestion}]") };
        write!(self.questions, "{question}{shown}: ").map_err(failed)?;
        self.questions.flush().map_err(failed)?;
        let mut line = String::new();
        if self.answers.read_line(&mut line).map_err(failed)? == 0 {
            return Err(Failure::usage("the answers ended before the questions; nothing was made"));
        }
        let answer = line.trim();
        Ok(if answer.is_empty() { suggestion.to_owned() } else { answer.to_owned() })
    }
}

/// The profile that the options and the answers describe; without `questions` the options have
/// to say everything.
pub(crate) fn new_profile(
    arguments: &NewArguments,
    default: bool,
    mut questions: Option<&mut dyn Questions>,
) -> Result<NewProfile, Failure> {
    let asks = questions.is_some();
    let identity = match (&arguments.address, &mut questions) {
        (Some(text), _) => address(text)?,
        (None, Some(questions)) => address(&questions.ask("Your address", "")?)?,
        (None, None) => return Err(Failure::usage("name your address with --address")),
    };
    let smtp = server(arguments.smtp.as_deref(), Protocol::Smtp, None)?;
    let imap = server(arguments.imap.as_deref(), Protocol::Imap, None)?;
    let (smtp, imap) = match (smtp, imap, &mut questions) {
        (None, None, Some(questions)) => ask_servers(&identity.address, *questions)?,
        (None, None, None) => {
            return Err(Failure::usage("name a server with --smtp, --imap or both"));
        }
        (smtp, imap, _) => (smtp, imap),
    };
    let mut password = password(arguments);
    let wants_login = imap.is_some() || smtp.as_ref().is_some_and(|smtp| smtp.user.is_some());
    if password.is_none() && (wants_login || asks) {
        password = match &mut questions {
            Some(questions) => ask_password(wants_login, *questions)?,
            None => {
                return Err(Failure::usage(
                    "say where the password comes from with --password-command, --password-env or \
                     --password-file",
                ));
            }
        };
    }
    let maildir = match (&arguments.maildir, &mut questions) {
        (Some(folder), _) => folder.clone(),
        (None, Some(questions)) => questions.ask("Folder for mail", MAILDIR)?,
        (None, None) => MAILDIR.to_owned(),
    };
    let transport = arguments.name.clone();
    Ok(NewProfile { transport, identity, smtp, imap, password, maildir, default })
}

fn address(text: &str) -> Result<crate::profile::IdentityProfile, Failure> {
    parse_mailbox(text).map_err(|why| {
        Failure::contract("make the profile", &MapiError::new(MapiCode::INVALID_PARAMETER, why))
    })
}

fn password(arguments: &NewArguments) -> Option<NewPassword> {
    let command = arguments.password_command.clone().map(NewPassword::Command);
    let variable = || arguments.password_env.clone().map(NewPassword::Env);
    let file = || arguments.password_file.clone().map(NewPassword::File);
    command.or_else(variable).or_else(file)
}

fn server(
    text: Option<&str>,
    protocol: Protocol,
    user: Option<&str>,
) -> Result<Option<ServerUrl>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let option = match protocol {
        Protocol::Smtp => "--smtp",
        Protocol::Imap => "--imap",
    };
    let wrong = |why: String| Failure::usage(format!("{option} {text}: {why}"));
    let mut url: ServerUrl = text.parse().map_err(wrong)?;
    if url.protocol != protocol {
        return Err(wrong("that is the other direction's server".to_owned()));
    }
    if url.user.is_none() {
        url.user = user.map(str::to_owned);
    }
    Ok(Some(url))
}

/// Asks for the servers, guessed by the domain; `-` stands for none.
fn ask_servers(
    address: &str,
    questions: &mut dyn Questions,
) -> Result<(Option<ServerUrl>, Option<ServerUrl>), Failure> {
    let domain = address.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let none = |answer: String| Some(answer).filter(|answer| answer != "-");
    let guess = format!("smtps://smtp.{domain}");
    let smtp = none(questions.ask("Server to send with (- for none)", &guess)?);
    let guess = format!("imaps://imap.{domain}");
    let imap = none(questions.ask("Server to receive from (- for none)", &guess)?);
    if smtp.is_none() && imap.is_none() {
        return Err(Failure::usage("a profile needs a server in at least one direction"));
    }
    let user = questions.ask("User name (- for no login)", address)?;
    let user = Some(user.as_str()).filter(|user| *user != "-");
    Ok((
        server(smtp.as_deref(), Protocol::Smtp, user)?,
        server(imap.as_deref(), Protocol::Imap, user)?,
    ))
}

fn ask_password(
    wanted: bool,
    questions: &mut dyn Questions,
) -> Result<Option<NewPassword>, Failure> {
    if !wanted {
        return Ok(None);
    }
    loop {
        let kind = "Password from a command, an environment variable or a file (command/env/file)";
        let kind = questions.ask(kind, "command")?;
        let (question, make): (_, fn(String) -> NewPassword) = match kind.as_str() {
            "command" => ("Command that prints the password", NewPassword::Command),
            "env" => ("Name of the variable", NewPassword::Env),
            "file" => ("File whose first line is the password", NewPassword::File),
            _ => continue,
        };
        let answer = questions.ask(question, "")?;
        if !answer.is_empty() {
            return Ok(Some(make(answer)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    fn arguments() -> NewArguments {
        NewArguments { name: "work".into(), ..NewArguments::default() }
    }

    fn asked(arguments: &NewArguments, answers: &str) -> (Result<NewProfile, Failure>, String) {
        let mut person = Person { answers: answers.as_bytes(), questions: Vec::new() };
        let new = new_profile(arguments, true, Some(&mut person));
        (new, String::from_utf8(person.questions).unwrap())
    }

    #[test]
    fn a_person_can_take_every_suggestion() {
        let answers = "Ann <ann@example.org>\n\n\n\n\npass show mail\n\n";
        let (new, questions) = asked(&arguments(), answers);
        let new = new.unwrap();
        assert_eq!(new.smtp.unwrap().host, "smtp.example.org");
        let imap = new.imap.unwrap();
        assert_eq!(
            (imap.host.as_str(), imap.user.as_deref()),
            ("imap.example.org", Some("ann@example.org"))
        );
        assert_eq!(new.password, Some(NewPassword::Command("pass show mail".into())));
        assert_eq!(new.maildir, "~/Mail");
        assert!(questions.contains("[smtps://smtp.example.org]"), "{questions}");
    }

    #[test]
    fn a_person_can_say_otherwise() {
        let answers = "ann@example.org\nsmtp://localhost:2525\n-\n-\n/srv/mail\n";
        let (new, _) = asked(&arguments(), answers);
        let new = new.unwrap();
        assert!(new.imap.is_none() && new.password.is_none());
        assert_eq!(new.smtp.unwrap().port, Some(2525));
        assert_eq!(new.maildir, "/srv/mail");
        let answers = "ann@example.org\n\n-\nann\nnonsense\nenv\nPW\n~/m\n";
        let (new, questions) = asked(&arguments(), answers);
        assert_eq!(new.unwrap().password, Some(NewPassword::Env("PW".into())));
        assert_eq!(questions.matches("(command/env/file)").count(), 2);
    }

    #[test]
    fn answers_that_end_make_nothing() {
        for answers in ["", "ann@example.org\n", "ann@example.org\n-\n-\n"] {
            assert_eq!(asked(&arguments(), answers).0.unwrap_err().exit, Exit::Usage);
        }
        assert_eq!(asked(&arguments(), "nonsense\n").0.unwrap_err().exit, Exit::Data);
    }

    #[test]
    fn without_a_terminal_the_options_say_everything() {
        let given = NewArguments {
            address: Some("ann@example.org".into()),
            smtp: Some("smtps://ann@smtp.example.org".into()),
            password_env: Some("PW".into()),
            ..arguments()
        };
        let new = new_profile(&given, false, None).unwrap();
        assert_eq!(new.password, Some(NewPassword::Env("PW".into())));
        assert!(!new.default);
        for (lacking, named) in [
            (NewArguments { address: None, ..given.clone() }, "--address"),
            (NewArguments { smtp: None, ..given.clone() }, "--smtp"),
            (NewArguments { password_env: None, ..given.clone() }, "--password-command"),
            (NewArguments { smtp: Some("imaps://x".into()), ..given.clone() }, "other direction"),
        ] {
            let failure = new_profile(&lacking, false, None).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.line().unwrap().contains(named), "{failure:?}");
        }
    }
}
