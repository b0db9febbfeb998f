//! See `postrider::properties::reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::reply(data));
