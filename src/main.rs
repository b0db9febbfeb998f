//! The program `postrider`; see the library's `cli` module.
#![deny(unsafe_code)]

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_small();
    postrider::cli::main()
}
