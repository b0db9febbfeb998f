//! `completions` and `man`: made from the definitions of the command line.

use std::path::Path;

use clap::CommandFactory;

use super::args::Arguments;
use super::console::Console;
use super::exit::Failure;

/// `completions`.
pub(crate) fn completions(
    console: &mut Console<'_>,
    shell: clap_complete::Shell,
) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "postrider", &mut script);
    console.bytes(&script)
}

/// `man`: `postrider.1` and a page for each command.
pub(crate) fn manual(folder: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::io(format_args!("write into {}", folder.display()), &error)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Arguments::command(), folder).map_err(failed)
}
