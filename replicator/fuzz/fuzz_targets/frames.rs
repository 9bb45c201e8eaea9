//! See [`safe_replicator_fuzz::frames`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| safe_replicator_fuzz::frames::check(data));
