//! Every program against single packets, by the kernel's own test run.

mod packets {
    pub mod kernel;
}

use packets::kernel::Kernel;

#[test]
fn the_verifier_accepts_every_program() {
    let mut kernel = Kernel::load();
    for (name, instructions) in kernel.verified() {
        println!("{name}: {instructions} instructions verified");
        assert!(
            instructions < 200_000,
            "{name}: {instructions} instructions to verify; the kernel's limit is a million"
        );
    }
}
