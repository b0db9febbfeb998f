//! See `postrider::properties::addresses`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::addresses(data));
