//! From values to places, by round numbers.

/// Where values are drawn: a straight scale that begins and ends at round numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::cmd) struct Scale {
    low: f64,
    high: f64,
    step: f64,
    places: [f64; 2],
}

/// The least of 1, 2, 2.5, 5 and 10 times a power of ten that is at least `x`, which is above 0.
fn round_up(x: f64) -> f64 {
    let power = 10f64.powf(x.log10().floor());
    // Powers of ten are not exact in binary.
    let enough = |f: &f64| f * power >= x * (1.0 - 1e-9);
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(enough);
    power * factor.unwrap_or(10.0)
}

impl Scale {
    /// A scale for all `values` that are numbers, the least of which is drawn at or near the first of two places, in about so
    /// many steps.
    pub(in crate::cmd) fn new(
        values: impl IntoIterator<Item = f64>,
        places: [f64; 2],
        steps: usize,
    ) -> Scale {
        let finite = values.into_iter().filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
            (a.min(v), b.max(v))
        });
        let (low, high) = apart(low, high);
        let step = round_up((high - low) / steps.max(1) as f64);
        Scale {
            low: (low / step + 1e-9).floor() * step,
            high: (high / step - 1e-9).ceil() * step,
            step,
            places,
        }
    }

    /// The place of `value`; what lies beyond the ends is drawn there.
    pub(in crate::cmd) fn at(&self, value: f64) -> f64 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        let [from, to] = self.places;
        from + (to - from) * if share.is_nan() { 0.0 } else { share }
    }

    /// Whether `value` lies within.
    pub(in crate::cmd) fn holds(&self, value: f64) -> bool {
        let room = 1e-9 * (self.high - self.low);
        (self.low - room..=self.high + room).contains(&value)
    }

    /// The round numbers with their places.
    pub(in crate::cmd) fn ticks(&self) -> Vec<(f64, String)> {
        let count = ((self.high - self.low) / self.step).round() as usize;
        let value = |i: usize| self.low + i as f64 * self.step;
        (0..=count)
            .map(|i| (self.at(value(i)), self.label(value(i))))
            .collect()
    }

    fn label(&self, value: f64) -> String {
        let most = self.high.abs().max(self.low.abs());
        let (unit, sign) = match most {
            1e9.. => (1e9, "G"),
            1e6.. => (1e6, "M"),
            1e4.. => (1e3, "k"),
            _ => (1.0, ""),
        };
        let digits = (2.0 - (self.step / unit).log10().floor()).clamp(0.0, 12.0) as usize;
        // Not "-0".
        let number = format!("{:.digits$}", value / unit + 0.0);
        let number = match digits {
            0 => &number,
            _ => number.trim_end_matches('0').trim_end_matches('.'),
        };
        match number {
            "0" | "-0" => "0".into(),
            number => format!("{number}{sign}").replace('-', "−"),
        }
    }
}

/// Ends that lie far enough apart to draw something between.
fn apart(low: f64, high: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    match high - low {
        // What cannot be divided or multiplied by ten any more is drawn at the edge.
        _ if !(1e-300..1e300).contains(&size) => (0.0, 1.0),
        width if width.is_finite() && width > 1e-9 * size => (low, high),
        _ => (high - 0.1 * size, high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], steps: usize) -> Vec<String> {
        let scale = Scale::new(values.iter().copied(), [0.0, 100.0], steps);
        scale.ticks().into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn numbers_are_round() {
        let steps = [0.7, 1.0, 1.1, 2.2, 34.0, 600.0, 1000.0].map(round_up);
        assert_eq!(steps, [1.0, 1.0, 2.0, 2.5, 50.0, 1000.0, 1000.0]);
        assert!((round_up(0.03) - 0.05).abs() < 1e-12);
    }

    #[test]
    fn ends_are_round_too() {
        assert_eq!(labels(&[0.3, 1.9], 4), ["0", "0.5", "1", "1.5", "2"]);
        assert_eq!(labels(&[97.2, 98.6], 3), ["97", "97.5", "98", "98.5", "99"]);
        assert_eq!(labels(&[-0.2, 0.2], 2), ["−0.2", "0", "0.2"]);
        assert_eq!(labels(&[0.0, 235_200.0], 3), ["0", "100k", "200k", "300k"]);
        assert_eq!(labels(&[0.0, 0.05], 2), ["0", "0.025", "0.05"]);
        assert_eq!(labels(&[0.0, 20e6], 2), ["0", "10M", "20M"]);
    }

    #[test]
    fn places_follow_and_stay_within() {
        let scale = Scale::new([0.0, 2.0], [100.0, 0.0], 2);
        assert_eq!([0.0, 1.0, 2.0].map(|v| scale.at(v)), [100.0, 50.0, 0.0]);
        assert_eq!(
            [-5.0, 9.0, f64::NAN, f64::INFINITY].map(|v| scale.at(v)),
            [100.0, 0.0, 100.0, 0.0]
        );
        assert!(scale.holds(2.0) && !scale.holds(2.1) && !scale.holds(f64::NAN));
    }

    #[test]
    fn every_set_of_values_has_a_scale() {
        let sets: [&[f64]; 9] = [
            &[],
            &[f64::NAN],
            &[0.0],
            &[5.0],
            &[-5.0, -5.0],
            &[1e9, 1e9 + 1e-6],
            &[f64::MIN, f64::MAX],
            &[1e-320],
            &[f64::NEG_INFINITY, 3.0, f64::INFINITY],
        ];
        for set in sets {
            let scale = Scale::new(set.iter().copied(), [0.0, 1.0], 4);
            let ticks = scale.ticks();
            assert!((2..=12).contains(&ticks.len()), "{set:?}: {ticks:?}");
            assert!(ticks.iter().all(|t| t.0.is_finite()), "{set:?}: {ticks:?}");
        }
    }
}
