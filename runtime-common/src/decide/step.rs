//! What one stage tells the next.

use super::{Decision, Tables};
use crate::Verdict;

/// What is to be done with a packet after a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Next {
    /// What the verdict says: nothing more is to be decided.
    Finish = 0,
    /// Translate and deliver by the flow in the scratch room ([`super::NewFlow::forward`]).
    Forward = 1,
    /// It belongs to no flow: admit it or not.
    Admit = 2,
    /// Begin the flow that is prepared in the scratch room.
    Published = 3,
    /// Begin a flow that goes out under an address of the host's.
    Masqueraded = 4,
    /// Begin a flow that goes through the host's stack unchanged.
    Untranslated = 5,
    /// A segment of no known connection to a published port: begin the flow that is prepared in the scratch room, as conntrack
    /// picks up connections, unless a socket of the host has it.
    Resume = 6,
}

/// A [`Next`] and a verdict in one integer: that is what a function that the kernel verifies by itself may return.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(u32);

impl Step {
    /// It belongs to no flow.
    pub const ADMIT: Step = Step::new(Next::Admit, Verdict::Host);

    /// A step.
    #[inline(always)]
    pub const fn new(next: Next, verdict: Verdict) -> Self {
        Step((next as u32) << 8 | verdict as u32)
    }

    /// Nothing more is to be decided.
    #[inline(always)]
    pub const fn finish(verdict: Verdict) -> Self {
        Step::new(Next::Finish, verdict)
    }

    /// The decision of a stage. The flow that a packet is sent by is copied into the scratch room, unless it is there.
    #[inline(always)]
    pub fn of<T: Tables>(decision: Decision, t: &T) -> Self {
        let Some(flow) = decision.flow() else {
            return Step::finish(decision.verdict());
        };
        let Some(new_flow) = t.scratch() else {
            return Step::finish(Verdict::FlowTableFull);
        };
        // SAFETY: the scratch room belongs to this run of the program alone, and entries stay valid while it runs.
        unsafe { (*new_flow.as_ptr()).forward = *flow.as_ptr() };
        Step::new(Next::Forward, decision.verdict())
    }

    /// The decision of a step that is [`Next::Finish`] or [`Next::Forward`].
    #[inline(always)]
    pub fn decision<T: Tables>(self, t: &T) -> Decision {
        match t.scratch() {
            // SAFETY: a field of the scratch room, which belongs to this run of the program alone.
            Some(new_flow) if self.is(Next::Forward) => Decision::forward(self.verdict(), unsafe {
                core::ptr::NonNull::new_unchecked(&raw mut (*new_flow.as_ptr()).forward)
            }),
            _ => Decision::pass(self.verdict()),
        }
    }

    /// Whether that is next.
    #[inline(always)]
    pub const fn is(self, next: Next) -> bool {
        self.0 >> 8 == next as u32
    }

    /// The verdict.
    #[inline(always)]
    pub fn verdict(self) -> Verdict {
        // SAFETY: `new` has put a verdict's number there, and `from_bits` asks for one.
        unsafe { core::mem::transmute::<u32, Verdict>(self.0 & 0xff) }
    }

    /// As an integer.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Of [`Step::bits`].
    ///
    /// # Safety
    /// The number must be of a step.
    #[inline(always)]
    pub const unsafe fn from_bits(bits: u32) -> Self {
        Step(bits)
    }
}
