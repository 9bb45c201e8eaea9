//! See [`safe_replicator_fuzz::journal`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| safe_replicator_fuzz::journal::check(data));
