//! What the verifier has to go through.

use packet_lab::world::*;

#[test]
fn the_verifier_is_far_from_its_limit() {
    let mut w = World::new();
    for (name, instructions) in w.kernel.verified() {
        println!("{name}: {instructions} instructions verified");
        // Compilers and kernels differ. More than this is to be noticed, long before a kernel refuses it.
        assert!(instructions < 100_000, "{name}: {instructions} instructions; the kernel takes a million");
    }
}
