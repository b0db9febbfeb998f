//! The program `postrider`; see the library's `cli` module.
#![forbid(unsafe_code)]

use std::process::ExitCode;

// A daemon of many threads that lives for months: the C library's arenas keep what each thread
// once needed, this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    postrider::cli::main()
}
