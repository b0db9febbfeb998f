//! Asking a person.

use zeroize::Zeroizing;

use crate::cli::exit::Failure;

/// A person who answers questions.
pub(crate) trait Person {
    /// The answer to `question`; an empty one stands for `suggestion`.
    ///
    /// # Errors
    /// When nobody can answer.
    fn ask(&mut self, question: &str, suggestion: &str) -> Result<String, Failure>;

    /// The answer to `question`, which nobody else sees.
    ///
    /// # Errors
    /// When nobody can answer.
    fn ask_secret(&mut self, question: &str) -> Result<Zeroizing<String>, Failure>;

    /// Says a line.
    ///
    /// # Errors
    /// When nobody can hear it.
    fn say(&mut self, line: &str) -> Result<(), Failure>;

    /// Says a line that is only the beginning: more is said behind it.
    ///
    /// # Errors
    /// When nobody can hear it.
    fn begin(&mut self, words: &str) -> Result<(), Failure>;
}

/// One of several answers, each of which may be shortened; asks until it is one of them.
pub(super) fn choose(
    person: &mut dyn Person,
    question: &str,
    choices: &[&'static str],
    suggestion: &str,
) -> Result<&'static str, Failure> {
    let question = format!("{question} ({})", choices.join("/"));
    loop {
        let answer = person.ask(&question, suggestion)?.to_lowercase();
        let mut fitting = choices.iter().filter(|choice| choice.starts_with(&answer));
        match (fitting.next(), fitting.next()) {
            (Some(choice), None) if !answer.is_empty() => return Ok(*choice),
            (Some(choice), Some(_)) if *choice == answer => return Ok(*choice),
            _ => person.say(&format!("  Please answer with one of {}.", choices.join(", ")))?,
        }
    }
}

/// Yes or no.
pub(super) fn agrees(
    person: &mut dyn Person,
    question: &str,
    suggestion: &str,
) -> Result<bool, Failure> {
    Ok(choose(person, question, &["yes", "no"], suggestion)? == "yes")
}
