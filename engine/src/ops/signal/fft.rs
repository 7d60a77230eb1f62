//! Fast Fourier transforms of any length.

/// A complex number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Complex(pub(super) f64, pub(super) f64);

impl Complex {
    const ZERO: Complex = Complex(0.0, 0.0);

    /// `e^(2πi part / whole)`
    fn unit(part: usize, whole: usize) -> Complex {
        let angle = std::f64::consts::TAU * part as f64 / whole as f64;
        Complex(angle.cos(), angle.sin())
    }

    pub(super) fn conjugate(self) -> Complex {
        Complex(self.0, -self.1)
    }

    fn times(self, b: Complex) -> Complex {
        Complex(self.0 * b.0 - self.1 * b.1, self.0 * b.1 + self.1 * b.0)
    }
}

/// The transform of `v`, with the other sign of the exponent where `inverse`; not scaled.
pub(super) fn transform(v: &mut [Complex], inverse: bool) {
    // The forward one, between two conjugations.
    if inverse {
        v.iter_mut().for_each(|c| *c = c.conjugate());
    }
    match v.len() {
        0 | 1 => {}
        n if n.is_power_of_two() => powers_of_two(v),
        _ => chirp(v),
    }
    if inverse {
        v.iter_mut().for_each(|c| *c = c.conjugate());
    }
}

/// Cooley and Tukey's algorithm, in place.
fn powers_of_two(v: &mut [Complex]) {
    let n = v.len();
    let shift = usize::BITS - n.trailing_zeros();
    for i in 0..n {
        let j = i.reverse_bits() >> shift;
        if i < j {
            v.swap(i, j);
        }
    }
    let units: Vec<_> = (0..n / 2).map(|k| Complex::unit(k, n).conjugate()).collect();
    let mut half = 1;
    while half < n {
        let step = n / (2 * half);
        for block in v.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let t = units[k * step].times(*b);
                (*a, *b) = (Complex(a.0 + t.0, a.1 + t.1), Complex(a.0 - t.0, a.1 - t.1));
            }
        }
        half *= 2;
    }
}

/// Bluestein's algorithm: with `jk = (j² + k² - (k - j)²) / 2` the transform is a convolution, made by transforms of a
/// power of two.
fn chirp(v: &mut [Complex]) {
    let n = v.len();
    let len = (2 * n - 1).next_power_of_two();
    // e^(-πi k² / n), whose exponent counts modulo 2n.
    let square = |k: usize| (k as u128 * k as u128 % (2 * n as u128)) as usize;
    let chirps: Vec<_> = (0..n)
        .map(|k| Complex::unit(square(k), 2 * n).conjugate())
        .collect();
    let mut a = vec![Complex::ZERO; len];
    let mut b = vec![Complex::ZERO; len];
    for (k, (x, c)) in v.iter().zip(&chirps).enumerate() {
        a[k] = x.times(*c);
        b[k] = c.conjugate();
        b[(len - k) % len] = c.conjugate();
    }
    powers_of_two(&mut a);
    powers_of_two(&mut b);
    a.iter_mut()
        .zip(&b)
        .for_each(|(a, b)| *a = a.times(*b).conjugate());
    powers_of_two(&mut a);
    let scale = 1.0 / len as f64;
    for ((x, a), c) in v.iter_mut().zip(&a).zip(&chirps) {
        let y = a.conjugate().times(*c);
        *x = Complex(y.0 * scale, y.1 * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_agrees_with_the_definition() {
        for n in (1..40).chain([64, 97, 100, 128]) {
            let x: Vec<_> = (0..n)
                .map(|i| Complex((i * 7 % 11) as f64, (i * 5 % 3) as f64))
                .collect();
            for inverse in [false, true] {
                let mut y = x.clone();
                transform(&mut y, inverse);
                for (k, y) in y.iter().enumerate() {
                    let sum = x.iter().enumerate().fold(Complex::ZERO, |sum, (j, x)| {
                        let unit = Complex::unit(j * k % n, n);
                        let t = x.times(if inverse { unit } else { unit.conjugate() });
                        Complex(sum.0 + t.0, sum.1 + t.1)
                    });
                    assert!(
                        (y.0 - sum.0).abs() + (y.1 - sum.1).abs() < 1e-9,
                        "length {n}, bin {k}"
                    );
                }
            }
        }
    }
}
