//! `[local]`: where mail for names of this machine goes.

use super::address::parse_address;
use super::reader::{Found, TableReader};
use super::store_table::absolute;
use super::{Environment, LocalProfile};

pub(super) fn read_local(
    mut table: TableReader<'_>,
    environment: &Environment,
) -> Found<LocalProfile> {
    let default = table.text("default")?.map(|default| default.read(parse_address)).transpose()?;
    let socket = table.text("socket")?;
    let socket =
        socket.map(|socket| socket.read(|text| absolute(text, environment))).transpose()?;
    let mut local = LocalProfile {
        default: default.map(|default| default.value),
        socket: socket.map(|socket| socket.value),
        ..LocalProfile::default()
    };
    let aliases = table.table("aliases")?.map(TableReader::entries).transpose()?;
    for (name, targets) in aliases.unwrap_or_default() {
        let targets = targets.into_iter().map(|target| Ok(target.read(target_of)?.value));
        local.aliases.insert(name.to_ascii_lowercase(), targets.collect::<Found<Vec<_>>>()?);
    }
    table.finish()?;
    Ok(local)
}

/// An address, or another name of this machine.
fn target_of(text: &str) -> Result<String, String> {
    if text.contains('@') {
        return parse_address(text);
    }
    let is_name = |c: char| c.is_alphanumeric() || "-_.+".contains(c);
    match !text.is_empty() && text.chars().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is neither an address nor a name of this machine")),
    }
}
