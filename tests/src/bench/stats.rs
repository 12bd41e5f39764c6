//! Medians, quartiles, and whether a difference is more than noise.

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

    /// Whether the noise hides a difference from 1: the quartiles lie on both sides of 1, or those of the same thing measured
    /// against itself (`noise`) are as far away.
    pub fn hidden_by(&self, noise: &Spread) -> bool {
        let noise = (noise.q1 - 1.0).abs().max((noise.q3 - 1.0).abs());
        (self.q1 <= 1.0 && self.q3 >= 1.0) || (self.median - 1.0).abs() <= noise
    }
}

/// Each round's value over the same round's value of the baseline. Rounds that lack either are left out.
pub fn paired(values: &[Option<f64>], baseline: &[Option<f64>]) -> Vec<f64> {
    let pairs = values.iter().zip(baseline).filter_map(|(v, b)| Some((*v)? / b.filter(|b| *b > 0.0)?));
    pairs.collect()
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
    fn noise_hides_what_is_no_larger() {
        let noise = Spread { q1: 0.95, median: 1.0, q3: 1.04 };
        assert!(Spread { q1: 1.02, median: 1.04, q3: 1.06 }.hidden_by(&noise));
        assert!(Spread { q1: 0.9, median: 1.1, q3: 1.3 }.hidden_by(&noise));
        assert!(!Spread { q1: 1.1, median: 1.2, q3: 1.3 }.hidden_by(&noise));
        assert!(!Spread { q1: 0.6, median: 0.7, q3: 0.8 }.hidden_by(&noise));
    }
}
