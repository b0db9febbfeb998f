//! From a connection to an SMTP server that is ready for EHLO (RFC 5321, RFC 3207, RFC 8314).

use super::line::{LineStream, for_people};
use super::{Connector, NetError, NetErrorKind, Phase, Stream, TlsMode, TlsReason};

/// Most lines of one reply.
const MOST_LINES: usize = 100;

/// A connection on which EHLO comes next.
#[derive(Debug)]
pub(crate) struct SmtpOpened {
    /// Reading begins with the greeting once more, because SMTP clients wait for one: behind
    /// STARTTLS too, where the server sends none.
    pub(crate) stream: Stream,
    /// The lines of the greeting without code and separator.
    pub(crate) greeting: Vec<String>,
}

struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Reply {
    fn text(&self) -> String {
        for_people(&format!("{} {}", self.code, self.lines.join(" ")))
    }
}

impl Connector {
    /// Connects, reads the greeting and, where the profile says so, does EHLO and STARTTLS.
    /// `helo` names this client. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`NetErrorKind::EarlyPlaintext`] when anything came in clear behind the reply to STARTTLS;
    /// [`NetErrorKind::Unavailable`] for a greeting 4xx, [`NetErrorKind::Rejected`] for 5xx.
    pub(crate) async fn smtp_open(&self, helo: &str) -> Result<SmtpOpened, NetError> {
        let stream = self.open().await?;
        let mut lines = LineStream::new(stream, &self.name);
        let greeting =
            self.deadlines.bound(Phase::Greeting, &self.name, greeting(&mut lines)).await?;
        let replay = replay(&greeting);
        if self.server.tls != TlsMode::StartTls {
            let stream = lines.into_stream(&replay);
            return Ok(SmtpOpened { stream, greeting: greeting.lines });
        }
        let command = format!("EHLO {helo}\r\n");
        let work = ask(&mut lines, &command);
        let ehlo = self.deadlines.bound(Phase::Handshake, &self.name, work).await?;
        let offered =
            ehlo.lines.iter().skip(1).any(|line| line.trim().eq_ignore_ascii_case("STARTTLS"));
        let refusal = match ehlo.code {
            250 if offered => None,
            250 => Some(NetErrorKind::StartTlsNotOffered),
            // It does not know EHLO, so it does not know STARTTLS.
            500..=504 => Some(NetErrorKind::StartTlsNotOffered),
            400..=499 => Some(NetErrorKind::Unavailable),
            505..=599 => Some(NetErrorKind::Rejected),
            _ => Some(NetErrorKind::Protocol),
        };
        if let Some(kind) = refusal {
            let detail = if ehlo.code == 250 { String::new() } else { ehlo.text() };
            return Err(NetError::new(kind, &self.name, detail));
        }
        let work = ask(&mut lines, "STARTTLS\r\n");
        let answer = self.deadlines.bound(Phase::Handshake, &self.name, work).await?;
        let refusal = match answer.code {
            220 => None,
            421 => Some(NetErrorKind::Unavailable),
            // RFC 3207 section 4: not available for a temporary reason.
            400..=499 => Some(NetErrorKind::Tls(TlsReason::Other)),
            _ => Some(NetErrorKind::StartTlsRefused),
        };
        if let Some(kind) = refusal {
            return Err(NetError::new(kind, &self.name, answer.text()));
        }
        let stream = self.upgrade(lines.into_stream(&[])).await?;
        Ok(SmtpOpened { stream: stream.with_ahead(replay.into()), greeting: greeting.lines })
    }
}

async fn greeting(lines: &mut LineStream) -> Result<Reply, NetError> {
    let reply = reply(lines).await?;
    let kind = match reply.code {
        220 => return Ok(reply),
        400..=499 => NetErrorKind::Unavailable,
        500..=599 => NetErrorKind::Rejected,
        _ => NetErrorKind::Protocol,
    };
    Err(NetError::new(kind, lines.server(), reply.text()))
}

/// Sends a command when nothing is waiting to be read: an answer that comes before its question
/// was not made by an honest server.
async fn ask(lines: &mut LineStream, command: &str) -> Result<Reply, NetError> {
    if !lines.is_drained() {
        return Err(lines.protocol("an answer came before its question"));
    }
    lines.send(command.as_bytes()).await?;
    reply(lines).await
}

async fn reply(lines: &mut LineStream) -> Result<Reply, NetError> {
    let mut texts: Vec<String> = Vec::new();
    let mut code = None;
    loop {
        let line = lines.line().await?;
        let wrong = || lines.protocol(for_people(&line));
        let (digits, rest) = line.split_at_checked(3).ok_or_else(wrong)?;
        let number: u16 = Some(digits)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|number| (200..=599).contains(number))
            .ok_or_else(wrong)?;
        if *code.get_or_insert(number) != number || texts.len() >= MOST_LINES {
            return Err(wrong());
        }
        let mut signs = rest.chars();
        let last = match signs.next() {
            None | Some(' ') => true,
            Some('-') => false,
            Some(_) => return Err(wrong()),
        };
        texts.push(signs.as_str().to_owned());
        if last {
            return Ok(Reply { code: number, lines: texts });
        }
    }
}

fn replay(greeting: &Reply) -> Vec<u8> {
    let last = greeting.lines.len().saturating_sub(1);
    let mut bytes = Vec::new();
    for (number, line) in greeting.lines.iter().enumerate() {
        let separator = if number == last { ' ' } else { '-' };
        bytes.extend_from_slice(format!("{}{separator}{line}\r\n", greeting.code).as_bytes());
    }
    bytes
}
