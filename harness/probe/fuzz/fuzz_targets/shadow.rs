#![no_main]

#[path = "../bodies/shadow.rs"]
mod shadow;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shadow::check(bytes));
