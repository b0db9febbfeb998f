//! See `postrider::properties::imap_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::imap_reply(data));
