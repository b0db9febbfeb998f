//! See `postrider::properties::sendmail`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider::properties::sendmail(data));
