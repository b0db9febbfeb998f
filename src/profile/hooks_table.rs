//! `[hooks]` and `[metrics]`: what is told to programs outside.

use std::net::SocketAddr;

use super::load::{Surroundings, parse_duration};
use super::reader::{Found, TableReader, TextOrTexts};
use super::{HooksProfile, MetricsProfile};

pub(super) fn read_metrics(mut table: TableReader<'_>) -> Found<MetricsProfile> {
    let Some(listen) = table.text("listen")? else {
        return Err(table.missing("listen", "write listen = \"127.0.0.1:9487\""));
    };
    let wrong = "it must be an address and a port, such as \"127.0.0.1:9487\" or \"[::1]:9487\"";
    let listen = listen.read(|text| text.parse::<SocketAddr>().map_err(|_| wrong))?;
    let insecure = table.switch("insecure")?.unwrap_or(false);
    if !listen.value.ip().is_loopback() && !insecure {
        return Err(listen.problem(
            "others than this machine could read how much mail you have; use a loopback address, \
             or write insecure = true to have it so",
        ));
    }
    table.finish()?;
    Ok(MetricsProfile { listen: listen.value })
}

pub(super) fn read_hooks(
    mut table: TableReader<'_>,
    surroundings: &Surroundings<'_>,
) -> Found<HooksProfile> {
    let mut command = |key: &'static str| read_command(&mut table, key, surroundings);
    let mut hooks = HooksProfile {
        on_delivered: command("on_delivered")?,
        on_failed: command("on_failed")?,
        on_delayed: command("on_delayed")?,
        on_new_mail: command("on_new_mail")?,
        on_needs_sign_in: command("on_needs_sign_in")?,
        ..HooksProfile::default()
    };
    if let Some(timeout) = table.text("timeout")? {
        hooks.timeout = timeout.read(parse_duration)?.value;
    }
    table.finish()?;
    Ok(hooks)
}

/// A program, or a list of a program and its arguments. No shell reads it, so that blanks in a
/// single text can only be a mistake.
fn read_command(
    table: &mut TableReader<'_>,
    key: &'static str,
    surroundings: &Surroundings<'_>,
) -> Found<Option<Vec<String>>> {
    let Some(item) = table.text_or_texts(key)? else { return Ok(None) };
    let words = item.read(|value| match value {
        TextOrTexts::Text(text) if text.contains(char::is_whitespace) => {
            Err("no shell reads it; write a list such as [\"notify-send\", \"New mail\"], or \
             [\"sh\", \"-c\", \"..\"]"
                .to_owned())
        }
        TextOrTexts::Text(text) => words(&[text], surroundings),
        TextOrTexts::Texts(texts) => words(&texts, surroundings),
    })?;
    Ok(Some(words.value))
}

fn words(texts: &[&str], surroundings: &Surroundings<'_>) -> Result<Vec<String>, String> {
    let Some((program, arguments)) = texts.split_first().filter(|(first, _)| !first.is_empty())
    else {
        return Err("it must name a program".to_owned());
    };
    let path = surroundings.environment.expand(program)?;
    let program = path.to_str().ok_or("the program's path is not UTF-8")?.to_owned();
    let arguments = arguments.iter().map(|text| (*text).to_owned());
    Ok(std::iter::once(program).chain(arguments).collect())
}
