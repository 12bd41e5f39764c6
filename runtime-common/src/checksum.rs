//! Incremental Internet checksums (RFC 1624).

/// Folds a sum of 16-bit words to one's complement 16 bits.
#[inline(always)]
pub const fn fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// One's complement difference between two runs of words, to be given to [`update`].
///
/// The words are as they stand in memory, so the result fits a checksum that was read from memory too.
#[inline(always)]
pub fn difference<const N: usize>(old: &[u32; N], new: &[u32; N]) -> u32 {
    let mut sum = 0u32;
    let mut i = 0;
    while i < N {
        sum += (!old[i] & 0xffff) + (!old[i] >> 16);
        sum += (new[i] & 0xffff) + (new[i] >> 16);
        i += 1;
    }
    sum
}

/// Sum of the 16-bit words, as they stand in memory, to be added to others and given to [`finish`]: of at most some
/// thousand words.
#[inline(always)]
pub const fn sum<const N: usize>(words: &[u32; N]) -> u32 {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += (words[i] & 0xffff) + (words[i] >> 16);
        i += 1;
    }
    sum
}

/// The checksum of what sums up to this, as it is to stand in memory.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// A checksum, as read from memory, after a change of `difference` (RFC 1624, eqn. 3).
#[inline(always)]
pub const fn update(checksum: u16, difference: u32) -> u16 {
    !fold(!checksum as u32 + (difference & 0xffff) + (difference >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]) as u32;
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn updating_gives_what_summing_anew_gives() {
        // A header with its checksum at offset 10, whose address at offset 12 changes to many others.
        let mut header = [0x45, 0, 0, 0x3c, 0x1c, 0x46, 0x40, 0, 0x40, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7];
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        for a in [[0u8, 0, 0, 0], [255, 255, 255, 255], [10, 0, 0, 1], [192, 0, 2, 1], [127, 255, 0, 128]] {
            let old = u32::from_ne_bytes(header[12..16].try_into().unwrap());
            let before = u16::from_ne_bytes([header[10], header[11]]);
            let after = update(before, difference(&[old], &[u32::from_ne_bytes(a)]));
            header[12..16].copy_from_slice(&a);
            header[10..12].copy_from_slice(&[0, 0]);
            let fresh = checksum(&header);
            header[10..12].copy_from_slice(&after.to_ne_bytes());
            assert_eq!(u16::from_be_bytes([header[10], header[11]]), fresh, "{a:?}");
        }
    }
}
