//! Build, set-up and test tasks.

fn main() {}
