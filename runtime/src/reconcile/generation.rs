//! Generations: numbers that follow from what a rule is, so that the same rule has the same one after a restart of the
//! daemon, and a rule made anew has another.

use std::fmt::{Display, Write};

/// Hashes the parts of a rule's identity (FNV-1a, 64 bits; stable over versions). Never 0, which means no rule.
pub fn generation(parts: &[&str]) -> u64 {
    parts.iter().fold(Identity::default(), |identity, part| identity.with(part)).generation()
}

/// The beginning of an identity: the same for thousands of publications of a container.
#[derive(Clone, Copy)]
pub struct Identity(u64);

impl Default for Identity {
    fn default() -> Self {
        Identity(0xcbf2_9ce4_8422_2325)
    }
}

impl Identity {
    /// With one more part, as it is written.
    pub fn with(mut self, part: impl Display) -> Self {
        // Hashing cannot fail.
        let _ = write!(self, "{part}");
        // A separator that no part holds: "ab","c" is not "a","bc".
        self.add(0);
        self
    }

    /// The number that stands for it.
    pub fn generation(self) -> u64 {
        self.0.max(1)
    }

    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

impl Write for Identity {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.bytes().for_each(|byte| self.add(byte));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Identity, generation};

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(generation(&["ab", "c"]), generation(&["a", "bc"]));
        assert_eq!(generation(&["a", "b"]), generation(&["a", "b"]));
    }

    #[test]
    fn numbers_are_parts_as_they_are_written() {
        let begun = Identity::default().with("publication");
        assert_eq!(begun.with(8080u16).with("x").generation(), generation(&["publication", "8080", "x"]));
    }

    #[test]
    fn the_number_is_stable() {
        // FNV-1a of "a\0", computed by hand from the published constants: a daemon of another version must agree.
        let by_hand = ((0xcbf2_9ce4_8422_2325u64 ^ 0x61).wrapping_mul(0x100_0000_01b3)).wrapping_mul(0x100_0000_01b3);
        assert_eq!(generation(&["a"]), by_hand);
    }
}
