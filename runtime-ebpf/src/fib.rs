//! The parameters of `bpf_fib_lookup`, in the scratch room: on the stack they would take an eighth of what there is.

pub use aya_ebpf::bindings::bpf_fib_lookup as FibParams;
use runtime_common::Addr;

/// `AF_INET` and `AF_INET6` of the kernel's uapi.
pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

/// Room for them, in words.
pub type FibRoom = [u32; 16];
const _: () =
    assert!(size_of::<FibParams>() == size_of::<FibRoom>() && align_of::<FibParams>() == align_of::<FibRoom>());

/// The parameters of a lookup between two addresses; all others are zero.
#[inline(always)]
pub fn params<'r>(room: &'r mut FibRoom, v4: bool, src: &Addr, dst: &Addr) -> &'r mut FibParams {
    for word in room.iter_mut() {
        // SAFETY: an element of the room. Volatile: the compiler for BPF would make a loop over bytes of it.
        unsafe { (&raw mut *word).write_volatile(0) };
    }
    // SAFETY: as large and aligned, as asserted above, and plain integers, for which every value is one.
    let fib = unsafe { &mut *room.as_mut_ptr().cast::<FibParams>() };
    if v4 {
        fib.family = AF_INET;
        fib.__bindgen_anon_3.ipv4_src = src.v4_as_word();
        fib.__bindgen_anon_4.ipv4_dst = dst.v4_as_word();
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_3.ipv6_src = *src.as_words();
        fib.__bindgen_anon_4.ipv6_dst = *dst.as_words();
    }
    fib
}
