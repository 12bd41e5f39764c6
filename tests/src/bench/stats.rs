//! Medians, quartiles, and whether a difference is more than noise.

/// The chance of a difference that is none, above which it counts as none.
const CHANCE: f64 = 0.1;

/// First quartile, median and third quartile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
}

impl Spread {
    /// Of at least one value; between two values it interpolates.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Some(Spread { q1: at(0.25), median: at(0.5), q3: at(0.75) })
    }

    /// How far the quartiles of ratios reach from 1, as the logarithm of a factor: 0.5 is as far away as 2.
    fn reach(&self) -> f64 {
        self.q1.ln().abs().max(self.q3.ln().abs())
    }
}

/// What paired ratios show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    pub ratio: Spread,
    pub rounds: usize,
    /// How often a coin would fall as one-sidedly as these ratios lie about 1.
    pub chance: f64,
    /// Whether the difference from 1 is more than noise.
    pub real: bool,
}

impl Judged {
    /// Of ratios, and of the ratios of every pair of equals measured in the same run. The noise hides a difference when the
    /// quartiles of one such pair reach as far, when its own quartiles lie on both sides of 1, or when a sign test says so.
    pub fn of(ratios: &[f64], equals: &[Vec<f64>]) -> Option<Judged> {
        let ratio = Spread::of(ratios)?;
        let noise = equals.iter().filter_map(|e| Some(Spread::of(e)?.reach())).reduce(f64::max);
        let chance = sign_test(ratios);
        let one_sided = ratio.q1 > 1.0 || ratio.q3 < 1.0;
        let real = one_sided && chance <= CHANCE && noise.is_some_and(|n| ratio.median.ln().abs() > n);
        Some(Judged { ratio, rounds: ratios.len(), chance, real })
    }
}

/// The two-sided sign test about 1: the chance that a fair coin falls at least as one-sidedly.
pub fn sign_test(ratios: &[f64]) -> f64 {
    let above = ratios.iter().filter(|r| **r > 1.0).count();
    let below = ratios.iter().filter(|r| **r < 1.0).count();
    let n = above + below;
    let mut tail = 0.0;
    let mut ways = 0.5f64.powi(n as i32);
    for k in 0..=above.min(below) {
        tail += ways;
        ways *= (n - k) as f64 / (k + 1) as f64;
    }
    (2.0 * tail).min(1.0)
}

/// Each round's value over the same round's value of the baseline. Rounds that lack either are left out.
pub fn paired(values: &[Option<f64>], baseline: &[Option<f64>]) -> Vec<f64> {
    let pairs =
        values.iter().zip(baseline).filter_map(|(v, b)| Some(v.filter(|v| *v > 0.0)? / b.filter(|b| *b > 0.0)?));
    pairs.collect()
}

/// The value below which `share` of the values lie; they must be in order.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The values in order.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// 0 to `n` - 1 in an order that `seed` alone decides (SplitMix64, Fisher-Yates).
pub fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (next() % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate_and_ignore_the_order() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { q1: 1.75, median: 2.5, q3: 3.25 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { q1: 7.0, median: 7.0, q3: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let ratios = paired(&[Some(10.0), Some(30.0), None, Some(1.0)], &[Some(5.0), Some(10.0), Some(1.0), Some(0.0)]);
        assert_eq!(ratios, [2.0, 3.0]);
    }

    #[test]
    fn the_sign_test_counts_sides() {
        assert_eq!(sign_test(&[1.1; 5]), 2.0 / 32.0);
        assert_eq!(sign_test(&[0.9, 0.9, 0.9, 0.9, 1.1]), 12.0 / 32.0);
        assert_eq!(sign_test(&[0.9, 1.1]), 1.0);
        assert_eq!(sign_test(&[1.0]), 1.0);
    }

    #[test]
    fn noise_hides_what_is_no_larger() {
        let real = |ratios: &[f64], equals: &[Vec<f64>]| Judged::of(ratios, equals).expect("there are ratios").real;
        let quiet = vec![0.99, 1.0, 1.01, 1.0, 1.0, 0.99, 1.01];
        let loud = vec![0.8, 0.8, 1.0, 1.0, 1.0, 1.3, 1.3];
        assert!(real(&[1.1; 7], std::slice::from_ref(&quiet)));
        assert!(real(&[0.9; 7], std::slice::from_ref(&quiet)));
        assert!(!real(&[1.1; 7], &[quiet.clone(), loud]), "the louder pair of equals decides");
        assert!(!real(&[1.1; 3], std::slice::from_ref(&quiet)), "three rounds tell nothing");
        assert!(!real(&[0.9, 0.9, 0.9, 1.2, 1.2, 1.2, 1.2], std::slice::from_ref(&quiet)), "on both sides of 1");
        assert!(!real(&[1.1; 7], &[]), "nothing is known of the noise");
    }

    #[test]
    fn an_order_comes_from_its_seed() {
        let order = shuffled(7, 3);
        assert_eq!(order, shuffled(7, 3));
        assert_ne!(order, shuffled(7, 4));
        let mut all = order;
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values = sorted(vec![3.0, 1.0, 2.0, 4.0]);
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (3.0, 4.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
