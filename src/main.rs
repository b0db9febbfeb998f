//! The program `postrider`; see the library's `cli` module.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    postrider::cli::main()
}
