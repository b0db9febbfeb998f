//! See `postrider::properties::spool_rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::spool_rows(data));
