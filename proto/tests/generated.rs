//! The committed code is that of the `.proto` files.

#[allow(dead_code, reason = "its main is not called here")]
#[path = "../examples/gen.rs"]
mod example;

#[test]
fn generated_code_is_that_of_the_proto_files() {
    let same = example::run(true).unwrap();
    assert!(same, "run `cargo run -p safe-proto --example gen` and commit the result");
}
