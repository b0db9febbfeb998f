//! From the text of a profile to what it says.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::hooks_table::{read_hooks, read_metrics};
use super::listen_table::read_listen;
use super::local_table::read_local;
use super::private::{check_above, is_own};
use super::reader::{Found, Problem, TableReader};
use super::store_table::read_store;
use super::transport_table::read_transport;
use super::{
    Dirs, Environment, HooksProfile, InDoubtProfile, ListenProfile, LocalProfile, MetricsProfile,
    Profile, ProfileError, ProfileName, QueueProfile, StoreProfile,
};

/// The largest profile that is read, in bytes.
const LARGEST_PROFILE: u64 = 1024 * 1024;

/// What the reading of a profile needs to know beside its text.
pub(super) struct Surroundings<'a> {
    pub(super) environment: &'a Environment,
    /// Relative paths start here.
    pub(super) folder: &'a Path,
}

impl Profile {
    /// Reads the profile `name`.
    ///
    /// # Errors
    /// File, line and key of what is missing, not known or impossible; also when others can read
    /// a file with a password in it, and when everybody can change or exchange the file, which
    /// names commands that are run.
    pub fn load(
        dirs: &Dirs,
        name: &ProfileName,
        environment: &Environment,
    ) -> Result<Self, ProfileError> {
        let file = dirs.profile_file(name);
        let (text, mode) = read_profile_file(&file)?;
        check_above(&file).map_err(|error| ProfileError::of_file(&file, error.to_string()))?;
        let mut profile = Self::parse(name.as_str(), &text, &file, environment)?;
        profile.state_folder = Some(dirs.state_folder(name));
        if mode & 0o044 != 0 && profile.has_text_password() {
            return Err(ProfileError::of_file(
                &file,
                "there is a password in it and others can read it; chmod 600 mends that, or let \
                 the password come from a command",
            ));
        }
        Ok(profile)
    }

    /// Reads the text of a profile; `file` is only named in errors and gives relative paths
    /// their start.
    ///
    /// # Errors
    /// File, line and key of what is missing, not known or impossible.
    pub fn parse(
        name: &str,
        text: &str,
        file: &Path,
        environment: &Environment,
    ) -> Result<Self, ProfileError> {
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let surroundings = Surroundings { environment, folder };
        read_text(text, &surroundings)
            .map(|read| Profile {
                name: name.to_owned(),
                file: file.to_owned(),
                default: read.default,
                transports: read.transports,
                store: read.store,
                queue: read.queue,
                listen: read.listen,
                local: read.local,
                state_folder: None,
                metrics: read.metrics,
                hooks: read.hooks,
            })
            .map_err(|problem| ProfileError {
                file: file.to_owned(),
                line: problem.at.map(|at| line_of(text, at)),
                key: problem.key,
                why: problem.why,
            })
    }
}

/// The text of a profile, wiped when dropped, and the mode of its file.
pub(super) fn read_profile_file(file: &Path) -> Result<(Zeroizing<String>, u32), ProfileError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ProfileError::of_file(
            file,
            "there is no such profile; `postrider profile list` shows those there are, \
             `postrider profile new` makes one",
        ),
        std::io::ErrorKind::InvalidData => ProfileError::of_file(file, "it is not UTF-8 text"),
        _ => ProfileError::of_file(file, error.to_string()),
    };
    // A pipe in its place must not keep us waiting.
    let opened =
        OpenOptions::new().read(true).custom_flags(no_wait()).open(file).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LARGEST_PROFILE {
        return Err(ProfileError::of_file(file, "it is no file or too large to be a profile"));
    }
    let capacity = usize::try_from(metadata.len()).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(capacity.saturating_add(1)));
    opened.take(LARGEST_PROFILE).read_to_string(&mut text).map_err(failed)?;
    if metadata.mode() & 0o002 != 0 {
        let why =
            "everybody can change it, and it says which commands are run; chmod 600 mends that";
        return Err(ProfileError::of_file(file, why));
    }
    if !is_own(metadata.uid()) && metadata.uid() != 0 {
        return Err(ProfileError::of_file(file, "it belongs to another user"));
    }
    Ok((text, metadata.mode()))
}

/// Opens without waiting for a writer, where a pipe lies in the place of a file.
pub(super) fn no_wait() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

/// Line of a byte, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before.filter(|byte| **byte == b'\n').count().saturating_add(1)
}

struct ReadProfile {
    default: bool,
    transports: Vec<super::TransportProfile>,
    store: StoreProfile,
    queue: QueueProfile,
    listen: Option<ListenProfile>,
    local: LocalProfile,
    metrics: Option<MetricsProfile>,
    hooks: HooksProfile,
}

fn read_text(text: &str, surroundings: &Surroundings<'_>) -> Found<ReadProfile> {
    let table = DeTable::parse(text).map_err(|error| Problem {
        at: error.span().map(|span| span.start),
        key: String::new(),
        // The message alone: the error's full form shows the line, which may hold a password.
        why: format!("this is not TOML: {}", error.message()),
    })?;
    let mut root = TableReader::root(&table);
    let default = root.switch("default")?.unwrap_or(false);
    let transports = read_transports(&mut root, surroundings)?;
    let store = match root.table("store")? {
        Some(store) => {
            let first = transports.first().map(|first| first.identity.address.as_str());
            let has_imap = transports.iter().any(|transport| transport.imap.is_some());
            read_store(store, first.unwrap_or_default(), has_imap, surroundings)?
        }
        None => return Err(root.missing("store", "write [store] and in it maildir = \"~/Mail\"")),
    };
    let queue = root.table("queue")?.map(read_queue).transpose()?.unwrap_or_default();
    let listen = root.table("listen")?.map(|listen| read_listen(listen, surroundings));
    let listen = listen.transpose()?;
    let local = root.table("local")?.map(|local| read_local(local, surroundings.environment));
    let local = local.transpose()?.unwrap_or_default();
    let metrics = root.table("metrics")?.map(read_metrics).transpose()?;
    let hooks = root.table("hooks")?.map(|hooks| read_hooks(hooks, surroundings));
    let hooks = hooks.transpose()?.unwrap_or_default();
    root.finish()?;
    Ok(ReadProfile { default, transports, store, queue, listen, local, metrics, hooks })
}

fn read_transports(
    root: &mut TableReader<'_>,
    surroundings: &Surroundings<'_>,
) -> Found<Vec<super::TransportProfile>> {
    let mut transports: Vec<super::TransportProfile> = Vec::new();
    for table in root.tables("transport")? {
        let (name, transport) = read_transport(table, surroundings)?;
        if transports.iter().any(|other| other.name == transport.name) {
            return Err(name.problem(format!("there are two transports named {}", name.value)));
        }
        transports.push(transport);
    }
    if transports.is_empty() {
        return Err(root.missing("transport", "write at least one [[transport]]"));
    }
    Ok(transports)
}

fn read_queue(mut table: TableReader<'_>) -> Found<QueueProfile> {
    let mut queue = QueueProfile::default();
    if let Some(lifetime) = table.text("lifetime")? {
        queue.lifetime = lifetime.read(parse_duration)?.value;
    }
    if let Some(in_doubt) = table.text("in_doubt")? {
        queue.in_doubt = in_doubt
            .read(|text| match text {
                "resend" => Ok(InDoubtProfile::Resend),
                "hold" => Ok(InDoubtProfile::Hold),
                _ => Err("it must be \"resend\" or \"hold\""),
            })?
            .value;
    }
    if let Some(warning) = table.text("delay_warning")? {
        queue.delay_warning = warning
            .read(|text| match text {
                "never" => Ok(None),
                text => parse_duration(text).map(Some).map_err(
                    |_| "it must be a time such as \"30m\", \"4h\" or \"1d\", or \"never\"",
                ),
            })?
            .value;
    }
    if let Some(retry) = table.table("retry")? {
        read_retry(retry, &mut queue)?;
    }
    table.finish()?;
    Ok(queue)
}

fn read_retry(mut table: TableReader<'_>, queue: &mut QueueProfile) -> Found<()> {
    if let Some(first) = table.text("first")? {
        queue.retry_first = first.read(parse_duration)?.value;
    }
    if let Some(max) = table.text("max")? {
        queue.retry_max = max.read(parse_duration)?.value;
    }
    if let Some(factor) = table.decimal("factor")? {
        let sensible = |factor: &f64| factor.is_finite() && (1.0..=1000.0).contains(factor);
        let wrong = "it must be a number from 1 to 1000";
        queue.retry_factor =
            factor.read(|factor| Some(factor).filter(sensible).ok_or(wrong))?.value;
    }
    if queue.retry_max < queue.retry_first {
        return Err(table.problem("max is shorter than first"));
    }
    table.finish()
}

/// A time such as `30s`, more than nothing and at most ten years.
pub(super) fn parse_duration(text: &str) -> Result<std::time::Duration, &'static str> {
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(10 * 366 * 24 * 60 * 60);
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| !duration.is_zero() && *duration <= LONGEST)
        .ok_or("it must be a time such as \"30s\", \"10m\", \"2h\" or \"5d\"")
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
