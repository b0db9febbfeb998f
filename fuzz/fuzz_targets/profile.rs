//! See `postrider::properties::profile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::profile(data));
