//! Room for the parameters of `bpf_fib_lookup`.

use core::mem::MaybeUninit;

pub use aya_ebpf::bindings::bpf_fib_lookup as FibParams;

/// `AF_INET` and `AF_INET6` of the kernel's uapi.
pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

const WORDS: usize = size_of::<FibParams>() / 4;
const _: () = assert!(size_of::<FibParams>() == 4 * WORDS && align_of::<FibParams>() == 4);

/// Parameters on the stack.
pub struct FibRoom(MaybeUninit<FibParams>);

impl FibRoom {
    /// All zero, written word by word: the compiler would call a function that does it byte by byte.
    #[inline(always)]
    pub fn zeroed() -> Self {
        let mut room = MaybeUninit::<FibParams>::uninit();
        let words = room.as_mut_ptr().cast::<u32>();
        for i in 0..WORDS {
            // SAFETY: as many words as it has.
            unsafe { words.add(i).write_volatile(0) };
        }
        FibRoom(room)
    }

    /// The parameters.
    #[inline(always)]
    pub fn params(&mut self) -> &mut FibParams {
        // SAFETY: plain integers, for which zero is a value; `zeroed` has written all of them.
        unsafe { self.0.assume_init_mut() }
    }
}
