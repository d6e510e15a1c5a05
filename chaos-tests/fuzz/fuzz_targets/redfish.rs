//! What it checks is said in `chaos_tests::fuzzing`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    chaos_tests::fuzzing::run("redfish", data);
});
