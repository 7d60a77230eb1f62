//! Changes of images that leave their labels as they are.

use std::fmt;
use std::str::FromStr;

use secateur_engine::random::Random;
use secateur_engine::run::nearest;
use serde::{Deserialize, Serialize};

use super::photo::MAX_SIDE;

use super::DataError;

/// How images are changed at random. What an image becomes follows from the seed, the epoch and its number alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Augment {
    /// Half of them are mirrored, left for right.
    pub flip: bool,
    /// They are moved by up to so many pixels along each axis; what comes in is 0.
    pub crop: usize,
    /// They are turned about their centre by up to so many degrees either way; what comes in is 0.
    pub rotate: f32,
    /// Brightness, contrast and, of colour, saturation are multiplied by 1 − this to 1 + this.
    pub color: f32,
}

const KNOWN: &[&str] = &["flip", "crop", "rotate", "color"];

impl FromStr for Augment {
    type Err = DataError;

    /// Some of `flip`, `crop:PIXELS`, `rotate:DEGREES` and `color:SHARE`, with commas between them.
    fn from_str(text: &str) -> Result<Augment, DataError> {
        let mut all = Augment::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let wrong = |what: &str| DataError::choice(format!("augmentation {part:?}: expected {what}"));
            let (name, value) = part.split_once(':').unwrap_or((part, ""));
            let within = |most: f32| value.parse().ok().filter(|x| (0.0..=most).contains(x));
            match name {
                "flip" if value.is_empty() => all.flip = true,
                "flip" => return Err(wrong("nothing after it")),
                "crop" => {
                    let pixels = value.parse().ok().filter(|&n: &usize| n <= MAX_SIDE);
                    all.crop = pixels.ok_or_else(|| wrong("a number of pixels"))?;
                }
                "rotate" => all.rotate = within(180.0).ok_or_else(|| wrong("degrees from 0 to 180"))?,
                "color" => all.color = within(1.0).ok_or_else(|| wrong("a share from 0 to 1"))?,
                _ => {
                    let known: Vec<String> = KNOWN.iter().map(|k| k.to_string()).collect();
                    return Err(wrong(&format!("one of {known:?}{}", nearest(name, &known))));
                }
            }
        }
        Ok(all)
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let given = [
            self.flip.then(|| "flip".to_owned()),
            (self.crop > 0).then(|| format!("crop:{}", self.crop)),
            (self.rotate > 0.0).then(|| format!("rotate:{}", self.rotate)),
            (self.color > 0.0).then(|| format!("color:{}", self.color)),
        ];
        f.write_str(&given.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

/// What happens to one image.
struct Change {
    flip: bool,
    down: i64,
    right: i64,
    degrees: f64,
    brightness: f32,
    contrast: f32,
    saturation: f32,
}

impl Augment {
    /// Whether images stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Augment::default()
    }

    /// All is drawn whatever is asked for, so that what is asked for besides does not change the rest.
    fn draw(&self, random: &mut Random) -> Change {
        let mut either = |reach: f64| reach * (2.0 * random.uniform() - 1.0);
        let flip = either(1.0) < 0.0;
        let mut moved = || ((self.crop as f64 + 0.5) * either(1.0)).round() as i64;
        let crop = self.crop as i64;
        let (down, right) = (moved().clamp(-crop, crop), moved().clamp(-crop, crop));
        let degrees = either(self.rotate.into());
        let mut factor = || 1.0 + either(self.color.into()) as f32;
        Change {
            flip: flip && self.flip,
            down,
            right,
            degrees,
            brightness: factor(),
            contrast: factor(),
            saturation: factor(),
        }
    }

    /// Changes an image of the size `[channels, height, width]` by numbers from `random`; `scratch` may hold anything.
    pub(super) fn apply(
        &self,
        image: &mut [f32],
        dims: [usize; 3],
        random: &mut Random,
        scratch: &mut Vec<f32>,
    ) {
        let change = self.draw(random);
        if self.flip || self.crop > 0 || self.rotate > 0.0 {
            scratch.clear();
            scratch.extend_from_slice(image);
            let [_, height, width] = dims;
            let planes = scratch
                .chunks_exact(height * width)
                .zip(image.chunks_exact_mut(height * width));
            for (from, to) in planes {
                match self.rotate > 0.0 {
                    true => change.turn(from, to, width),
                    false => change.shift(from, to, width),
                }
            }
        }
        if self.color > 0.0 {
            change.color(image, dims);
        }
    }
}

impl Change {
    /// Moves and mirrors a plane.
    fn shift(&self, from: &[f32], to: &mut [f32], width: usize) {
        let height = (from.len() / width) as i64;
        for (y, row) in to.chunks_exact_mut(width).enumerate() {
            let y = y as i64 - self.down;
            if !(0..height).contains(&y) {
                row.fill(0.0);
                continue;
            }
            let from = &from[y as usize * width..][..width];
            for (x, pixel) in row.iter_mut().enumerate() {
                let x = if self.flip { width - 1 - x } else { x } as i64 - self.right;
                *pixel = if (0..width as i64).contains(&x) {
                    from[x as usize]
                } else {
                    0.0
                };
            }
        }
    }

    /// Turns a plane about its centre as well, between four pixels each.
    fn turn(&self, from: &[f32], to: &mut [f32], width: usize) {
        let height = from.len() / width;
        let (sin, cos) = self.degrees.to_radians().sin_cos();
        let (cx, cy) = ((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
        let mirror = if self.flip { -1.0 } else { 1.0 };
        for (y, row) in to.chunks_exact_mut(width).enumerate() {
            let v = y as f64 - cy;
            for (x, pixel) in row.iter_mut().enumerate() {
                let u = x as f64 - cx;
                let (right, down) = (mirror * (u * cos + v * sin), v * cos - u * sin);
                let (x, y) = (right + cx - self.right as f64, down + cy - self.down as f64);
                *pixel = between(from, (height, width), x, y);
            }
        }
    }

    fn color(&self, image: &mut [f32], [channels, height, width]: [usize; 3]) {
        let n = height * width;
        let opaque = &mut image[..n * channels.min(3)];
        opaque
            .iter_mut()
            .for_each(|x| *x = (*x * self.brightness).min(1.0));
        let sum: f64 = (0..n).map(|i| f64::from(grey(opaque, n, i))).sum();
        let mean = (sum / n as f64) as f32;
        let spread = |x: f32, centre: f32, by: f32| (centre + (x - centre) * by).clamp(0.0, 1.0);
        opaque
            .iter_mut()
            .for_each(|x| *x = spread(*x, mean, self.contrast));
        if opaque.len() == 3 * n {
            for i in 0..n {
                let grey = grey(opaque, n, i);
                (0..3).for_each(|c| opaque[c * n + i] = spread(opaque[c * n + i], grey, self.saturation));
            }
        }
    }
}

/// Pixel `i` of an image with `n` pixels as grey (ITU-R BT.601).
fn grey(image: &[f32], n: usize, i: usize) -> f32 {
    match image.len() / n {
        3 => 0.299 * image[i] + 0.587 * image[n + i] + 0.114 * image[2 * n + i],
        _ => image[i],
    }
}

/// The plane at a place between pixels, 0 outside.
fn between(plane: &[f32], (height, width): (usize, usize), x: f64, y: f64) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let (right, down) = ((x - left) as f32, (y - top) as f32);
    let at = |x: f64, y: f64| {
        let inside = x >= 0.0 && y >= 0.0 && x < width as f64 && y < height as f64;
        if inside {
            plane[y as usize * width + x as usize]
        } else {
            0.0
        }
    };
    let row = |y: f64| at(left, y) * (1.0 - right) + at(left + 1.0, y) * right;
    row(top) * (1.0 - down) + row(top + 1.0) * down
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::stream::{Purpose, stream};

    fn changed(text: &str, image: &[f32], dims: [usize; 3], seed: u64) -> Vec<f32> {
        let mut out = image.to_vec();
        let mut random = stream(seed, Purpose::Augment, 0, 0);
        text.parse::<Augment>()
            .unwrap()
            .apply(&mut out, dims, &mut random, &mut vec![]);
        out
    }

    fn many(text: &str, image: &[f32], dims: [usize; 3]) -> Vec<Vec<f32>> {
        (0..200).map(|seed| changed(text, image, dims, seed)).collect()
    }

    #[test]
    fn texts_are_read_and_written() {
        let all: Augment = " flip,crop:4, rotate:10,color:0.2".parse().unwrap();
        assert_eq!(
            all,
            Augment {
                flip: true,
                crop: 4,
                rotate: 10.0,
                color: 0.2
            }
        );
        assert_eq!(all.to_string().parse(), Ok(all));
        assert!("".parse::<Augment>().unwrap().is_none());
        for bad in [
            "flop",
            "flip:1",
            "crop",
            "crop:-1",
            "rotate:181",
            "color:nan",
            "color:2",
        ] {
            assert!(bad.parse::<Augment>().is_err(), "{bad}");
        }
        assert!(
            "flop"
                .parse::<Augment>()
                .unwrap_err()
                .to_string()
                .contains("did you mean \"flip\"")
        );
    }

    #[test]
    fn half_are_mirrored() {
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let found = many("flip", &image, [1, 2, 3]);
        let mirrored = found
            .iter()
            .filter(|f| f[..] == [3.0, 2.0, 1.0, 6.0, 5.0, 4.0])
            .count();
        let same = found.iter().filter(|f| f[..] == image).count();
        assert!(
            mirrored + same == 200 && (70..130).contains(&mirrored),
            "{mirrored}"
        );
    }

    #[test]
    fn crops_move_everything_alike() {
        let mut image = vec![0.0; 2 * 49];
        (image[24], image[49 + 24]) = (1.0, 2.0);
        let mut seen = std::collections::BTreeSet::new();
        for f in many("crop:2", &image, [2, 7, 7]) {
            let at = f.iter().position(|&x| x == 1.0).unwrap();
            assert_eq!((f[49 + at], f.iter().sum::<f32>()), (2.0, 3.0));
            seen.insert(at);
        }
        assert_eq!((seen.len(), seen.first(), seen.last()), (25, Some(&8), Some(&40)));
    }

    #[test]
    fn turns_keep_the_centre_and_do_not_fall_back_on_moves() {
        let image: Vec<f32> = (0..25).map(|i| i as f32 / 25.0).collect();
        for f in many("rotate:30", &image, [1, 5, 5]) {
            assert!((f[12] - image[12]).abs() < 1e-6);
            assert!(f != image);
        }
        let quarter = Change {
            flip: false,
            down: 0,
            right: 0,
            degrees: 90.0,
            brightness: 1.0,
            contrast: 1.0,
            saturation: 1.0,
        };
        let mut out = vec![0.0; 4];
        quarter.turn(&[1.0, 2.0, 3.0, 4.0], &mut out, 2);
        let near = |a: &[f32], b: [f32; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&out, [3.0, 1.0, 4.0, 2.0]), "{out:?}");
        let still = Change {
            degrees: 0.0,
            flip: true,
            right: 1,
            ..quarter
        };
        let (mut a, mut b) = (vec![0.0; 25], vec![0.0; 25]);
        still.turn(&image, &mut a, 5);
        still.shift(&image, &mut b, 5);
        assert_eq!(a, b);
    }

    #[test]
    fn colours_stay_within_bounds_and_grey_stays_grey() {
        let image: Vec<f32> = (0..12).map(|i| i as f32 / 11.0).collect();
        let found = many("color:0.5", &image, [3, 2, 2]);
        assert!(found.iter().flatten().all(|x| (0.0..=1.0).contains(x)));
        assert!(found.iter().all(|f| *f != image));
        let grey: Vec<f32> = [0.2, 0.4, 0.6, 0.8].repeat(3);
        for f in many("color:0.5", &grey, [3, 2, 2]) {
            assert!((0..4).all(|i| (f[i] - f[4 + i]).abs() < 1e-6 && (f[i] - f[8 + i]).abs() < 1e-6));
        }
    }

    #[test]
    fn one_change_does_not_alter_another() {
        let image: Vec<f32> = (0..75).map(|i| i as f32 / 75.0).collect();
        let dims = [3, 5, 5];
        let flipped = |seed| changed("flip", &image, dims, seed) != image;
        for seed in 0..20 {
            let both = changed("flip,color:0.3", &image, dims, seed);
            let alone = changed("color:0.3", &image, dims, seed);
            assert_eq!(both != alone, flipped(seed));
        }
    }
}
