//! See [`safe_replicator_fuzz::epoch`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| safe_replicator_fuzz::epoch::check(data));
