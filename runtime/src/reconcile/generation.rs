//! Generations: numbers that follow from what a rule is, so that the same rule has the same one after a restart of the
//! daemon, and a rule made anew has another.

/// Hashes the parts of a rule's identity (FNV-1a, 64 bits; stable over versions). Never 0, which means no rule.
pub fn generation(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        // A separator that no part holds: "ab","c" is not "a","bc".
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::generation;

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(generation(&["ab", "c"]), generation(&["a", "bc"]));
        assert_eq!(generation(&["a", "b"]), generation(&["a", "b"]));
    }

    #[test]
    fn the_number_is_stable() {
        // FNV-1a of "a\0", computed by hand from the published constants: a daemon of another version must agree.
        let by_hand = ((0xcbf2_9ce4_8422_2325u64 ^ 0x61).wrapping_mul(0x100_0000_01b3)).wrapping_mul(0x100_0000_01b3);
        assert_eq!(generation(&["a"]), by_hand);
    }
}
