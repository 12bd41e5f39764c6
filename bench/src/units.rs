//! Figures for people.

/// A value of a unit: `1.23 GB/s`, `45.6 µs`, `12.3 k/s`.
pub fn value(value: f64, unit: &str) -> String {
    if unit == "s" {
        let (shown, unit) = match value {
            v if v < 1e-9 => (v * 1e12, "ps"),
            v if v < 1e-6 => (v * 1e9, "ns"),
            v if v < 1e-3 => (v * 1e6, "µs"),
            v if v < 1.0 => (v * 1e3, "ms"),
            v => (v, "s"),
        };
        return format!("{} {unit}", digits(shown));
    }
    let (shown, prefix) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    format!("{} {prefix}{}", digits(shown), unit.replace("bytes", "B"))
}

/// Three digits that count.
fn digits(value: f64) -> String {
    let places = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn figures_are_short() {
        assert_eq!(value(4_321_000_000.0, "bytes/s"), "4.32 GB/s");
        assert_eq!(value(0.000_045_6, "s"), "45.6 µs");
        assert_eq!(value(2.5e-10, "s"), "250 ps");
        assert_eq!(value(12.0, "s"), "12.0 s");
        assert_eq!(value(12_345.0, "/s"), "12.3 k/s");
        assert_eq!(value(850.0, "/s"), "850 /s");
    }
}
