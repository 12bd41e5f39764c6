//! What the packet tests have: the kernel side in a small world, and packets for it.

#[path = "../../tests/packets/kernel.rs"]
pub mod kernel;
#[path = "../../tests/packets/world.rs"]
pub mod world;
