//! See `postrider::properties::control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::control(data));
