//! See `postrider::properties::message_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::message_bytes(data));
