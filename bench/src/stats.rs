//! Medians, quartiles, and whether a difference is more than noise.

/// The chance of a difference that is none, above which it counts as none; an interval leaves as much outside.
const CHANCE: f64 = 0.05;

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
}

/// Where the median of what was sampled lies, whatever its distribution: 19 in 20 such intervals hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// The narrowest interval between two of the values for which the binomial distribution vouches; `None` for less than
    /// six values.
    pub fn of(values: &[f64]) -> Option<Interval> {
        let values = sorted(values.iter().copied().filter(|v| v.is_finite()).collect());
        let n = values.len();
        let outside = (0..n / 2).take_while(|k| 2.0 * tail(n, *k) <= CHANCE).last()?;
        Some(Interval { low: values[outside], high: values[n - 1 - outside] })
    }

    /// How far an interval of ratios reaches from 1, as the logarithm of a factor: 0.5 is as far away as 2.
    fn reach(&self) -> f64 {
        self.low.ln().abs().max(self.high.ln().abs())
    }
}

/// The chance that of `n` tosses of a fair coin at most `k` fall on one given side.
fn tail(n: usize, k: usize) -> f64 {
    let (mut tail, mut ways) = (0.0, 0.5f64.powi(n as i32));
    for i in 0..=k {
        tail += ways;
        ways *= (n - i) as f64 / (i + 1) as f64;
    }
    tail
}

/// What paired ratios show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    pub ratio: Spread,
    /// Where the median lies; none where there are too few rounds to tell.
    pub interval: Option<Interval>,
    pub rounds: usize,
    /// How often a coin would fall as one-sidedly as these ratios lie about 1.
    pub chance: f64,
    /// Whether the difference from 1 is more than noise.
    pub real: bool,
}

impl Judged {
    /// Of ratios, and of the ratios of every pair of equals measured in the same run. The noise hides a difference when the
    /// interval of its median holds 1, or when that of one such pair reaches as far from 1 as the median does.
    pub fn of(ratios: &[f64], equals: &[Vec<f64>]) -> Option<Judged> {
        let ratio = Spread::of(ratios)?;
        let interval = Interval::of(ratios);
        let noise = equals.iter().map(|e| Interval::of(e).map_or(f64::INFINITY, |i| i.reach())).reduce(f64::max);
        let one_sided = interval.is_some_and(|i| i.low > 1.0 || i.high < 1.0);
        let real = one_sided && noise.is_some_and(|n| ratio.median.ln().abs() > n);
        Some(Judged { ratio, interval, rounds: ratios.len(), chance: sign_test(ratios), real })
    }
}

/// The two-sided sign test about 1: the chance that a fair coin falls at least as one-sidedly.
pub fn sign_test(ratios: &[f64]) -> f64 {
    let above = ratios.iter().filter(|r| **r > 1.0).count();
    let below = ratios.iter().filter(|r| **r < 1.0).count();
    (2.0 * tail(above + below, above.min(below))).min(1.0)
}

/// Each round's value over the same round's value of the baseline. Rounds that lack either are left out.
pub fn paired(values: &[Option<f64>], baseline: &[Option<f64>]) -> Vec<f64> {
    let pairs =
        values.iter().zip(baseline).filter_map(|(v, b)| Some(v.filter(|v| *v > 0.0)? / b.filter(|b| *b > 0.0)?));
    pairs.collect()
}

/// The least value that `share` of the values do not exceed; they must be in order.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
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
    fn an_interval_leaves_one_in_twenty_outside() {
        // Of six tosses, all fall on one side twice in 64 times; of eight, at most one falls on the other 18 times in 256.
        let up_to = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
        assert_eq!(Interval::of(&up_to(5)), None);
        assert_eq!(Interval::of(&up_to(6)), Some(Interval { low: 1.0, high: 6.0 }));
        assert_eq!(Interval::of(&up_to(8)), Some(Interval { low: 1.0, high: 8.0 }));
        assert_eq!(Interval::of(&up_to(9)), Some(Interval { low: 2.0, high: 8.0 }));
        // As tables of the sign test have it.
        assert_eq!(Interval::of(&up_to(60)), Some(Interval { low: 22.0, high: 39.0 }));
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
        let wide =
            [0.5, 0.8, 0.9, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09, 1.1, 1.11, 1.12, 1.13, 1.2, 1.5, 2.0];
        assert!(real(&wide, &[vec![1.0; 18]]), "many rounds tell what few do not");
        assert!(!real(&wide[..9], &[vec![1.0; 9]]));
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
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (2.0, 4.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
