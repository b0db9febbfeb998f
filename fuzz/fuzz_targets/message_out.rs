//! See `postrider::properties::message_out`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::message_out(data));
