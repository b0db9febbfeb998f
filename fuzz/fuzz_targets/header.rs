//! See `postrider::properties::header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::header(data));
