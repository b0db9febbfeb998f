//! The command line of sendmail(8), without I/O: letters that stand alone or together (`-ti`), with
//! values that are joined (`-fann`) or separate (`-f ann`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `-bm`: take a message from standard input.
    #[default]
    Deliver,
    /// `-bp`, `mailq`: list the queue.
    List,
    /// `-bv`: say where mail for the recipients would go.
    Verify,
    /// `-bs`: speak SMTP on standard input and output.
    Smtp,
    /// `-bi`, `-I`, `newaliases`: there is no database of aliases to make.
    Aliases,
    /// `-q`: try now what waits.
    Flush(Flush),
    /// `-q15m`: a daemon for the queue, which `postrider run` is.
    Interval,
}

/// Which messages `-q` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flush {
    /// All of them.
    #[default]
    All,
    /// `-qI`: whose entry id begins with this.
    Id(String),
    /// `-qR`: with a recipient that has this in its address.
    Recipient(String),
    /// `-qS`: with a sender that has this in its address.
    Sender(String),
}

/// What a line with nothing but a dot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LoneDot {
    /// The end of the message.
    #[default]
    Ends,
    /// `-i`: text.
    IsText,
}

/// Where recipients come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Addressees {
    /// The arguments.
    #[default]
    Arguments,
    /// `-t`: the header, too.
    Header,
}

/// What arguments mean beside `-t`, on which mail systems disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum WithHeader {
    /// They are recipients as well, as Sendmail and Postfix have it.
    #[default]
    ArgumentsAdded,
    /// They are no recipients whatever the header says, as Exim has it:
    /// `-O extract_addresses_remove_arguments=yes`.
    ArgumentsRemoved,
}

/// `-B`: what the caller says of the body. What is sent follows from the body itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyType {
    SevenBit,
    EightBitMime,
}

/// `-N`: RFC 3461 section 4.1; all of them unset is NEVER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notify {
    pub(crate) success: bool,
    pub(crate) failure: bool,
    pub(crate) delay: bool,
}

/// `-R`: RFC 3461 section 4.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    Full,
    Headers,
}

/// A command line that was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) mode: Mode,
    /// Operands, each an address or a list of them.
    pub(crate) operands: Vec<String>,
    pub(crate) addressees: Addressees,
    pub(crate) with_header: WithHeader,
    pub(crate) lone_dot: LoneDot,
    /// `-f`, `-r`; empty for the null sender.
    pub(crate) from: Option<String>,
    /// `-F`.
    pub(crate) full_name: Option<String>,
    pub(crate) body: Option<BodyType>,
    pub(crate) notify: Option<Notify>,
    pub(crate) returned: Option<Return>,
    /// `-V`, decoded.
    pub(crate) envelope_id: Option<String>,
    /// `-v`.
    pub(crate) verbose: bool,
    /// `-L`.
    pub(crate) tag: Option<String>,
    /// `-C`.
    pub(crate) profile: Option<PathBuf>,
    /// `-O requiretls=yes`.
    pub(crate) require_tls: bool,
}

/// What the letters of the command line want behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arity {
    /// Nothing: the next letter of the cluster follows.
    None,
    /// A value, joined or the next argument.
    Value,
    /// A value only when it is joined.
    Joined,
}

/// Every letter there is; those that are not read below are taken and have no effect.
const LETTERS: &[(u8, Arity)] = &[
    (b'A', Arity::Value),
    (b'B', Arity::Value),
    (b'C', Arity::Value),
    (b'F', Arity::Value),
    (b'G', Arity::None),
    (b'I', Arity::None),
    (b'L', Arity::Value),
    (b'N', Arity::Value),
    (b'O', Arity::Value),
    (b'R', Arity::Value),
    (b'U', Arity::None),
    (b'V', Arity::Value),
    (b'X', Arity::Value),
    (b'b', Arity::Value),
    (b'd', Arity::Joined),
    (b'e', Arity::Value),
    (b'f', Arity::Value),
    (b'h', Arity::Value),
    (b'i', Arity::None),
    (b'm', Arity::None),
    (b'n', Arity::None),
    (b'o', Arity::Value),
    (b'p', Arity::Value),
    (b'q', Arity::Joined),
    (b'r', Arity::Value),
    (b't', Arity::None),
    (b'v', Arity::None),
];

/// Said with every usage error.
const USAGE: &str = "usage: sendmail [-t] [-i] [-f SENDER] [-F NAME] [-v] [-bm|-bp|-bs|-bv|-bi] \
                     [-q] [--] [RECIPIENT]...";

/// The longest envelope id, RFC 3461 section 4.4.
const LONGEST_ID: usize = 100;

/// Reads the arguments behind the name of the program.
///
/// # Errors
/// A sentence with the usage: exit 64.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Call, String> {
    let mut reader = Reader { rest: arguments, call: Call::default() };
    reader.run().map_err(|why| format!("{why}; {USAGE}"))?;
    Ok(reader.call)
}

struct Reader<'a> {
    rest: &'a [OsString],
    call: Call,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a OsString> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(argument) = self.next() {
            match argument.as_bytes() {
                b"--" => {
                    while let Some(operand) = self.next() {
                        self.operand(operand)?;
                    }
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    // A program that puts addresses of others here without `--` must not have them
                    // taken for options.
                    if !self.call.operands.is_empty() {
                        return Err(format!("{} behind a recipient", shown(argument)));
                    }
                    self.cluster(argument, letters)?;
                }
                _ => self.operand(argument)?,
            }
        }
        Ok(())
    }

    fn operand(&mut self, operand: &OsString) -> Result<(), String> {
        let text = operand.to_str().ok_or_else(|| format!("{} is not UTF-8", shown(operand)))?;
        self.call.operands.push(text.to_owned());
        Ok(())
    }

    fn cluster(&mut self, argument: &OsString, mut letters: &[u8]) -> Result<(), String> {
        while let Some((letter, joined)) = letters.split_first() {
            let known = LETTERS.iter().find(|(known, _)| known == letter);
            let Some((_, arity)) = known else {
                return Err(format!("{} is no option", shown(argument)));
            };
            match arity {
                Arity::None => {
                    self.flag(*letter);
                    letters = joined;
                    continue;
                }
                Arity::Joined => self.joined(*letter, &lossy(joined))?,
                Arity::Value => {
                    let value = self.value(*letter, joined)?;
                    self.valued(*letter, value)?;
                }
            }
            return Ok(());
        }
        Ok(())
    }

    fn value(&mut self, letter: u8, joined: &[u8]) -> Result<Vec<u8>, String> {
        if !joined.is_empty() {
            return Ok(joined.to_vec());
        }
        let is_sender = matches!(letter, b'f' | b'r');
        // `sendmail -f$from -- rcpt` of a script whose sender is empty.
        if is_sender && self.rest.first().is_some_and(|next| next == "--") {
            return Ok(Vec::new());
        }
        match self.next() {
            Some(next) => Ok(next.as_bytes().to_vec()),
            None => Err(format!("-{} without its value", char::from(letter))),
        }
    }

    fn flag(&mut self, letter: u8) {
        match letter {
            b'I' => self.call.mode = Mode::Aliases,
            b'i' => self.call.lone_dot = LoneDot::IsText,
            b't' => self.call.addressees = Addressees::Header,
            b'v' => self.call.verbose = true,
            _ => {}
        }
    }

    /// `-q` and `-d`.
    fn joined(&mut self, letter: u8, value: &str) -> Result<(), String> {
        if letter != b'q' {
            return Ok(());
        }
        let mut pattern = || match value.get(1..).filter(|pattern| !pattern.is_empty()) {
            Some(pattern) => Ok(pattern.to_owned()),
            None => match self.next() {
                Some(next) => Ok(next.to_string_lossy().into_owned()),
                None => Err(format!("-q{value} without its value")),
            },
        };
        self.call.mode = match value.chars().next() {
            // In the foreground is how it is done anyway.
            None | Some('f') => Mode::Flush(Flush::All),
            Some('I') => Mode::Flush(Flush::Id(pattern()?)),
            Some('R') => Mode::Flush(Flush::Recipient(pattern()?)),
            Some('S') => Mode::Flush(Flush::Sender(pattern()?)),
            // `-q15m`, `-qp15m`.
            Some('0'..='9' | 'p') => Mode::Interval,
            Some(_) => return Err(format!("-q{value} is not known")),
        };
        Ok(())
    }

    fn valued(&mut self, letter: u8, value: Vec<u8>) -> Result<(), String> {
        let call = &mut self.call;
        match letter {
            b'f' | b'r' => {
                let sender = utf8("-f", &value)?;
                call.from = Some(if sender == "<>" { String::new() } else { sender });
            }
            b'F' => call.full_name = Some(lossy(&value)),
            b'L' => call.tag = Some(lossy(&value)),
            b'C' => call.profile = Some(PathBuf::from(OsString::from(utf8("-C", &value)?))),
            b'b' => call.mode = mode(&value)?,
            b'B' => call.body = Some(body_type(&lossy(&value))?),
            b'N' => call.notify = Some(notify(&lossy(&value))?),
            b'R' => call.returned = Some(returned(&lossy(&value))?),
            b'V' => call.envelope_id = Some(envelope_id(&value)?),
            b'o' => old_option(&lossy(&value), call)?,
            b'O' => long_option(&lossy(&value), call)?,
            _ => {}
        }
        Ok(())
    }
}

fn shown(argument: &OsString) -> String {
    argument.to_string_lossy().chars().take(60).collect()
}

fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn utf8(option: &str, value: &[u8]) -> Result<String, String> {
    String::from_utf8(value.to_vec()).map_err(|_| format!("the value of {option} is not UTF-8"))
}

fn mode(value: &[u8]) -> Result<Mode, String> {
    match value {
        b"m" => Ok(Mode::Deliver),
        b"p" => Ok(Mode::List),
        b"s" => Ok(Mode::Smtp),
        b"v" => Ok(Mode::Verify),
        b"i" => Ok(Mode::Aliases),
        b"d" | b"D" => Err(format!(
            "-b{} is not done under this name: the daemon is `postrider run`",
            lossy(value)
        )),
        _ => Err(format!("-b{} is not known", lossy(value))),
    }
}

fn body_type(value: &str) -> Result<BodyType, String> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(BodyType::SevenBit),
        "8BITMIME" => Ok(BodyType::EightBitMime),
        _ => Err(format!("-B {value}: it must be 7BIT or 8BITMIME")),
    }
}

fn notify(value: &str) -> Result<Notify, String> {
    let wrong = || format!("-N {value}: it must be never, or of success, failure and delay");
    if value.eq_ignore_ascii_case("never") {
        return Ok(Notify::default());
    }
    let mut wishes = Notify::default();
    for wish in value.split(',') {
        match wish.trim().to_ascii_lowercase().as_str() {
            "success" => wishes.success = true,
            "failure" => wishes.failure = true,
            "delay" => wishes.delay = true,
            _ => return Err(wrong()),
        }
    }
    Ok(wishes)
}

fn returned(value: &str) -> Result<Return, String> {
    match value.to_ascii_lowercase().as_str() {
        "full" => Ok(Return::Full),
        "hdrs" => Ok(Return::Headers),
        _ => Err(format!("-R {value}: it must be full or hdrs")),
    }
}

/// The text behind an envelope id in xtext (RFC 3461 section 4).
fn envelope_id(value: &[u8]) -> Result<String, String> {
    let wrong = || format!("-V {}: it must be xtext of RFC 3461, 1 to 100 octets", lossy(value));
    let mut id = String::new();
    let mut rest = value;
    while let Some((octet, behind)) = rest.split_first() {
        rest = behind;
        let octet = match octet {
            b'+' => {
                let (digits, behind) = behind.split_at_checked(2).ok_or_else(wrong)?;
                rest = behind;
                let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            octet => *octet,
        };
        if !matches!(octet, b' '..=b'~') {
            return Err(wrong());
        }
        id.push(char::from(octet));
    }
    if id.is_empty() || value.len() > LONGEST_ID {
        return Err(wrong());
    }
    Ok(id)
}

/// `-o`: options of one letter with their value.
fn old_option(value: &str, call: &mut Call) -> Result<(), String> {
    let mut letters = value.chars();
    match (letters.next(), letters.as_str()) {
        (Some('i'), given) => call.lone_dot = lone_dot(given),
        (Some('d'), "" | "b" | "i" | "q" | "d") => {}
        (Some('d'), other) => return Err(format!("-od{other} is not known")),
        (Some('e'), "" | "e" | "m" | "p" | "q" | "w") => {}
        (Some('e'), other) => return Err(format!("-oe{other} is not known")),
        // Many letters of old have no meaning here, and nobody misses it.
        _ => {}
    }
    Ok(())
}

/// `-O`: options by name.
fn long_option(option: &str, call: &mut Call) -> Result<(), String> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match name.trim().to_ascii_lowercase().as_str() {
        "ignoredots" => call.lone_dot = lone_dot(value),
        "requiretls" => call.require_tls = is_yes(value),
        "extract_addresses_remove_arguments" if is_yes(value) => {
            call.with_header = WithHeader::ArgumentsRemoved;
        }
        _ => {}
    }
    Ok(())
}

fn lone_dot(value: &str) -> LoneDot {
    match value {
        "" => LoneDot::IsText,
        value if is_yes(value) => LoneDot::IsText,
        _ => LoneDot::Ends,
    }
}

fn is_yes(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "yes" | "true" | "y" | "t" | "1" | "on")
}

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
