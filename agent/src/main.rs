//! The daemon of safed.

fn main() {}
